//! From resolved routes to the hops of the datapath: which source the outer header gets.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    control::model::Hop,
    net::{links::Inventory, nexthop::NextHop},
};

/// The hop for a resolved route.
pub(super) fn hop(next: &NextHop, tunnel_sources: &[IpNet], links: &Inventory) -> Hop {
    let prefix = tunnel_sources.iter().find(|p| p.addr().is_ipv4() == next.source.is_ipv4());
    Hop {
        ifindex: next.ifindex,
        dmac: next.dmac,
        smac: next.smac,
        source: prefix.map_or(next.source, |prefix| source_in(prefix, next.source, links)),
        mtu: next.mtu,
    }
}

/// An address of the prefix: what the route prefers or the balancer has, if it lies there, else the first host.
fn source_in(prefix: &IpNet, preferred: IpAddr, links: &Inventory) -> IpAddr {
    if prefix.contains(&preferred) {
        return preferred;
    }
    let own = links.local_addresses().map(|(address, _)| address).find(|a| prefix.contains(a));
    own.or_else(|| prefix.hosts().next()).unwrap_or_else(|| prefix.addr())
}
