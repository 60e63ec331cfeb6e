//! The network as the balancer sees it: interfaces, next hops, announcements, who holds the XDP hook.
//!
//! Everything here talks to the kernel of the network namespace of the calling thread, over rtnetlink and packet
//! sockets, and knows nothing of services or BPF maps. The daemon feeds addresses in and gets answers and change
//! notifications out:
//! [`links`] (interfaces and local addresses, followed live), [`nexthop`] (backend address → interface and MAC
//! addresses, followed live), [`announce`] (gratuitous ARP and neighbour advertisements for VIPs), [`xdp_state`]
//! (programs attached now), [`host`] (what the agent changes on a backend host).

pub mod announce;
mod error;
pub mod forwarding;
pub mod host;
pub mod links;
mod netlink;
pub mod nexthop;
#[cfg(test)]
mod root_tests;
mod route;
#[cfg(test)]
pub(crate) mod testing;
pub mod xdp_state;

pub use error::NetError;
pub use netlink::Netlink;

/// An Ethernet address, in the order of the wire.
pub type Mac = [u8; 6];

/// A background task that ends with its owner.
#[derive(Debug)]
struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
