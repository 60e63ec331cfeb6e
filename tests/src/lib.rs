//! The laboratory (namespaces, veth topologies, real servers and clients) and the packet cases.
//!
//! The suites in `suites/` and the `lab` binary are thin users of this library. Everything that touches the machine
//! goes through [`cleanup`], which removes it on every way out.

pub mod backend;
pub mod bench;
pub mod binaries;
pub mod cases;
pub mod check;
pub mod cleanup;
pub mod flood;
pub mod lab;
pub mod lb_config;
pub mod lb_process;
pub mod load;
pub mod netdev;
pub mod netns;
pub mod packet;
pub mod packet_frame;
pub mod process;
pub mod random;
pub mod server;
pub mod site;
pub mod soak;
pub mod tap;
pub mod topology;
pub mod traffic;
pub mod view;
pub mod vm;
pub mod wait;
pub mod xdp_pass;
