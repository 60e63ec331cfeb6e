//! Against the real kernel, in network namespaces made for the test. All names start with `root_`.

mod announce;
mod links;
mod neighbours;
mod nexthop;
mod xdp;
