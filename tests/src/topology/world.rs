//! The standard worlds: where everybody is and how they are addressed.
//!
//! | | IPv4 | IPv6 |
//! |---|---|---|
//! | client's link | 198.18.0.0/24 (client .2) | 2001:db8:c::/64 (client ::2) |
//! | client's many addresses | 198.19.0.0/16 | 2001:db8:c0::/48, one per /64 |
//! | balancer's LAN (one-arm) | 198.51.100.0/24: router .1, balancer .2, a second one .3, backends from .11 | 2001:db8:1::/64, likewise |
//! | backends' links (two-arm) | 203.0.113.0/24 in /30 | 2001:db8:2:N::/64 |
//! | VIP, routed | 192.0.2.10 | 2001:db8::10 |
//! | VIP, on the LAN | 198.51.100.10 | 2001:db8:1::10 |

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Result, anyhow};

use super::{Node, OneArm, Topology, TwoArm};
use crate::{netns::Namespace, process::output_of};

/// A namespace of the world with its own addresses.
#[derive(Debug)]
pub struct Host {
    /// Role: `client`, `lb`, `b1`…
    pub name: String,
    /// The namespace.
    pub ns: Namespace,
    /// Device that carries the addresses: for the balancer the one that clients' packets arrive on, where XDP belongs.
    pub interface: String,
    /// Own IPv4 address.
    pub v4: Ipv4Addr,
    /// Own IPv6 address.
    pub v6: Ipv6Addr,
}

/// A client, a balancer and backends, connected; nothing of ours runs in it yet.
#[derive(Debug)]
pub struct World {
    /// Owns 65,536 addresses of each family: [`World::source_v4`], [`World::source_v6`].
    pub client: Host,
    /// Between client and LAN; absent in the two-arm world, where the balancer routes.
    pub router: Option<Host>,
    /// The balancer.
    pub lb: Host,
    /// The second balancer, where the world has one: the router spreads flows over both.
    pub lb2: Option<Host>,
    /// `b1`, `b2`…
    pub backends: Vec<Host>,
    /// The IPv4 address that clients ask.
    pub vip4: Ipv4Addr,
    /// The IPv6 address that clients ask.
    pub vip6: Ipv6Addr,
    /// What holds the rest of it in place.
    pub(super) _topology: Topology,
}

/// Addresses and device of a host to be.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) interface: String,
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
}

/// The client's block of IPv4 addresses.
pub(super) const SOURCES_V4: &str = "198.19.0.0/16";
/// The client's block of IPv6 addresses.
pub(super) const SOURCES_V6: &str = "2001:db8:c0::/48";
/// The client's link ends here on the other side.
pub(super) const CLIENT_GATEWAY_V4: &str = "198.18.0.1";
/// The same for IPv6.
pub(super) const CLIENT_GATEWAY_V6: &str = "2001:db8:c::1";
/// For one change of a route.
const ROUTE_LIMIT: Duration = Duration::from_secs(10);
/// MTU of the client's link, in bytes: what most of the internet has.
pub(super) const CLIENT_MTU: u32 = 1500;

impl World {
    /// The balancer with one leg on a LAN behind a router; answers of the backends pass it by.
    #[must_use]
    pub fn one_arm() -> OneArm {
        OneArm::default()
    }

    /// The balancer as the router between the client and backends on links of their own.
    #[must_use]
    pub fn two_arm() -> TwoArm {
        TwoArm::default()
    }

    /// The client's address number `i`.
    #[must_use]
    pub fn source_v4(i: u16) -> IpAddr {
        let [high, low] = i.to_be_bytes();
        Ipv4Addr::new(198, 19, high, low).into()
    }

    /// The client's address number `i`, each in a /64 of its own (a rate limit counts a /64 as one source).
    #[must_use]
    pub fn source_v6(i: u16) -> IpAddr {
        Ipv6Addr::new(0x2001, 0xdb8, 0xc0, i, 0, 0, 0, 1).into()
    }

    /// The first `n` addresses of the client in the family of `destination`.
    #[must_use]
    pub fn sources_for(destination: IpAddr, n: u16) -> Vec<IpAddr> {
        let source = if destination.is_ipv4() { Self::source_v4 } else { Self::source_v6 };
        (0..n).map(source).collect()
    }

    /// Backend `b<number>`, counted from 1.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn backend(&self, number: usize) -> Result<&Host> {
        let found = number.checked_sub(1).and_then(|i| self.backends.get(i));
        found.ok_or_else(|| anyhow!("no backend b{number}: the world has b1 to b{}", self.backends.len()))
    }

    /// Where tunnels to the backends come from: the balancer's address on the LAN, or on the backends' links.
    #[must_use]
    pub fn tunnel_sources(&self) -> Vec<String> {
        if self.router.is_some() {
            let own = |lb: &Host| [format!("{}/32", lb.v4), format!("{}/128", lb.v6)];
            [&self.lb].into_iter().chain(&self.lb2).flat_map(own).collect()
        } else {
            vec!["203.0.113.0/24".into(), "2001:db8:2::/48".into()]
        }
    }

    /// All hosts, client first.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        [&self.client]
            .into_iter()
            .chain(&self.router)
            .chain([&self.lb])
            .chain(&self.lb2)
            .chain(&self.backends)
    }

    /// Makes the router spread the flows for the VIPs over these balancers. Which flow goes to which follows from
    /// their number and order.
    ///
    /// # Errors
    /// Without a router, or when it refuses.
    pub fn spread_over(&self, balancers: &[&Host]) -> Result<()> {
        let router = self.router.as_ref().ok_or_else(|| anyhow!("this world has no router"))?;
        let hops4: Vec<IpAddr> = balancers.iter().map(|lb| lb.v4.into()).collect();
        let hops6: Vec<IpAddr> = balancers.iter().map(|lb| lb.v6.into()).collect();
        for route in [spread_route(self.vip4.into(), &hops4), spread_route(self.vip6.into(), &hops6)] {
            let mut command = router.ns.command("ip");
            command.args(["route", "replace"]).args(route.split(' '));
            output_of(command, ROUTE_LIMIT)?;
        }
        Ok(())
    }
}

/// The words behind `ip route add` that spread flows over these hops.
pub(super) fn spread_route(vip: IpAddr, hops: &[IpAddr]) -> String {
    let hops: Vec<_> = hops.iter().map(|hop| format!("nexthop via {hop}")).collect();
    format!("{vip} {}", hops.join(" "))
}

impl Place {
    pub(super) fn host(self, topology: &mut Topology) -> Result<Host> {
        let Self { name, interface, v4, v6 } = self;
        Ok(Host { ns: topology.take(&name)?, name, interface, v4, v6 })
    }
}

/// The client: `eth0` to its gateway, and its blocks of addresses. They are local as whole prefixes: 600 separate
/// addresses would take longer to make and could not be 60,000.
pub(super) fn client() -> Place {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 2);
    Place { name: "client".into(), interface: "eth0".into(), v4: Ipv4Addr::new(198, 18, 0, 2), v6 }
}

/// Writes the client's side of its link into its node.
pub(super) fn plan_client(node: &mut Node) {
    node.address("eth0", "198.18.0.2/24")
        .address("eth0", "2001:db8:c::2/64")
        .route(&format!("local {SOURCES_V4} dev lo"))
        .route(&format!("local {SOURCES_V6} dev lo"))
        .route(&format!("default via {CLIENT_GATEWAY_V4}"))
        .route(&format!("default via {CLIENT_GATEWAY_V6}"))
        // IPv6 lets a socket bind only to an address of an interface otherwise; a local prefix is none.
        .sysctl("net/ipv6/ip_nonlocal_bind", "1");
}

/// Writes the other side of the client's link into the node of its gateway.
pub(super) fn plan_client_gateway(node: &mut Node, device: &str) {
    node.address(device, &format!("{CLIENT_GATEWAY_V4}/24"))
        .address(device, &format!("{CLIENT_GATEWAY_V6}/64"))
        .route(&format!("{SOURCES_V4} via 198.18.0.2"))
        .route(&format!("{SOURCES_V6} via 2001:db8:c::2"))
        .forwarding();
}

/// What a backend needs to answer for the VIPs (`lb agent --prepare` does the same): the addresses, and no ARP for
/// them, or it would take the VIP away from the balancer.
pub(super) fn plan_vips(node: &mut Node, vip4: Ipv4Addr, vip6: Ipv6Addr) {
    node.address("lo", &format!("{vip4}/32"))
        .address("lo", &format!("{vip6}/128"))
        .sysctl("net/ipv4/conf/all/arp_ignore", "1")
        .sysctl("net/ipv4/conf/all/arp_announce", "2");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn sources_are_distinct_and_inside_their_blocks() {
        let v4: BTreeSet<_> = World::sources_for(Ipv4Addr::LOCALHOST.into(), u16::MAX).into_iter().collect();
        let v6: BTreeSet<_> = World::sources_for(Ipv6Addr::LOCALHOST.into(), u16::MAX).into_iter().collect();
        assert_eq!((v4.len(), v6.len()), (65_535, 65_535));
        let block4: ipnet::IpNet = SOURCES_V4.parse().unwrap();
        let block6: ipnet::IpNet = SOURCES_V6.parse().unwrap();
        assert!(v4.iter().all(|a| block4.contains(a)) && v6.iter().all(|a| block6.contains(a)));
    }
}
