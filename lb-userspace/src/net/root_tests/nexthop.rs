//! Next hops: how targets resolve, and what happens to them when the network changes.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use rtnetlink::{
    MulticastGroup,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::RouteType,
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};
use tokio::{sync::watch, time::timeout};

use super::neighbours::managed;
use crate::net::{
    announce::{frames::arp_announcement, socket::PacketSocket},
    netlink::EventSocket,
    nexthop::{NextHop, Resolution, Resolver, Snapshot},
    testing::{DEADLINE, TestNet, in_namespace, mtu, of_type, through, via},
};

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn targets<'a>(addresses: impl IntoIterator<Item = &'a str>) -> BTreeSet<IpAddr> {
    addresses.into_iter().map(ip).collect()
}

/// A resolver under test and its notifications.
pub(super) struct Followed {
    pub(super) resolver: Resolver,
    changes: watch::Receiver<Arc<Snapshot>>,
}

impl Followed {
    pub(super) async fn start<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Self {
        Self::of(Resolver::start().await.unwrap(), addresses)
    }

    pub(super) fn of<'a>(
        (resolver, changes): (Resolver, watch::Receiver<Arc<Snapshot>>),
        addresses: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        resolver.set_targets(targets(addresses));
        Self { resolver, changes }
    }

    /// Waits for a notification after which the condition on a target holds.
    pub(super) async fn wait(&mut self, address: &str, what: &str, condition: impl Fn(&Resolution) -> bool) {
        let target = ip(address);
        let seen = self.changes.wait_for(|snapshot| snapshot.entries.get(&target).is_some_and(&condition));
        if timeout(DEADLINE, seen).await.is_err() {
            panic!("{address} never {what}; last: {:?}", self.resolver.get(target));
        }
    }

    /// Waits until a target is resolved and returns its next hop.
    pub(super) async fn next_hop(&mut self, address: &str) -> NextHop {
        self.wait(address, "resolved", |resolution| resolution.next_hop().is_some()).await;
        *self.resolver.get(ip(address)).unwrap().next_hop().unwrap()
    }

    /// Waits until a target is unresolved with exactly this reason.
    pub(super) async fn unresolved(&mut self, address: &str, expected: &str) {
        let expected = Resolution::Unresolved { reason: expected.to_owned() };
        self.wait(address, &format!("became {expected:?}"), |resolution| *resolution == expected).await;
    }
}

#[test]
fn root_targets_on_the_link_resolve_in_both_families() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let mut followed = Followed::start(["198.51.100.11", "2001:db8::11"]).await;
        let (ours, theirs) = (net.ours.link("lb0").await, net.peer.link("srv0").await);
        for (target, source) in [("198.51.100.11", "198.51.100.1"), ("2001:db8::11", "2001:db8::1")] {
            let expected = NextHop {
                ifindex: ours.index,
                gateway: ip(target),
                dmac: theirs.mac.unwrap(),
                smac: ours.mac.unwrap(),
                source: ip(source),
                mtu: 1500,
            };
            assert_eq!(followed.next_hop(target).await, expected);
        }
        let snapshot = followed.resolver.settled(DEADLINE).await;
        assert_eq!((snapshot.pending, snapshot.answers, snapshot.entries.len()), (0, 1, 2));
        assert_eq!(followed.resolver.get(ip("192.0.2.1")), None, "not a target");
    });
}

#[test]
fn root_targets_behind_routers_resolve_to_the_router() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let limited = |message: &mut _| {
            via("198.51.100.11")(message);
            mtu(message, 1400);
        };
        net.ours.route("203.0.113.0/24", limited).await;
        net.ours.route("192.0.2.0/24", via("2001:db8::11")).await;
        net.ours.route("2001:db8:1::/48", via("2001:db8::11")).await;
        let cases = [
            ("203.0.113.7", "198.51.100.11", "198.51.100.1", 1400),
            ("192.0.2.7", "2001:db8::11", "198.51.100.1", 1500),
            ("2001:db8:1::7", "2001:db8::11", "2001:db8::1", 1500),
        ];
        let mut followed = Followed::start(cases.map(|case| case.0)).await;
        let router = net.peer.link("srv0").await.mac.unwrap();
        for (target, gateway, source, mtu) in cases {
            let next_hop = followed.next_hop(target).await;
            assert_eq!(next_hop.gateway, ip(gateway), "{target}");
            assert_eq!(next_hop.dmac, router, "{target}");
            assert_eq!((next_hop.source, next_hop.mtu), (ip(source), mtu), "{target}");
        }
    });
}

#[test]
fn root_changes_of_either_mac_address_and_of_the_mtu_are_followed() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let mut followed = Followed::start(["198.51.100.11"]).await;
        followed.next_hop("198.51.100.11").await;
        let hop = |wanted: fn(&NextHop) -> bool| {
            move |resolution: &Resolution| resolution.next_hop().is_some_and(wanted)
        };
        // Down and up would flush the neighbour; a veth takes a new MAC address while it is up.
        net.peer.mac("srv0", [2, 0, 0, 0, 0, 0x22]).await;
        // The kernel finds out with its next probe; an announcement of the new owner is faster.
        let index = net.peer.link("srv0").await.index;
        let wire = net.in_peer(|| PacketSocket::open(index, 0).unwrap());
        let address = Ipv4Addr::new(198, 51, 100, 11);
        assert!(wire.send(&arp_announcement([2, 0, 0, 0, 0, 0x22], address)).await.unwrap());
        let seen = hop(|hop| hop.dmac == [2, 0, 0, 0, 0, 0x22]);
        followed.wait("198.51.100.11", "moved to the new MAC address", seen).await;
        net.ours.mac("lb0", [2, 0, 0, 0, 0, 0x11]).await;
        let seen = hop(|hop| hop.smac == [2, 0, 0, 0, 0, 0x11]);
        followed.wait("198.51.100.11", "sent from the new MAC address", seen).await;
        net.ours.set(rtnetlink::LinkUnspec::new_with_name("lb0").mtu(1300).build()).await;
        followed.wait("198.51.100.11", "got the new MTU", hop(|hop| hop.mtu == 1300)).await;
    });
}

#[test]
fn root_route_changes_are_followed() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        net.peer.address("srv0", "198.51.100.12/24").await;
        let mut followed = Followed::start(["203.0.113.7", "2001:db8:1::7"]).await;
        followed.unresolved("203.0.113.7", "203.0.113.7: no route").await;
        followed.unresolved("2001:db8:1::7", "2001:db8:1::7: no route").await;
        let wide = net.ours.route("203.0.113.0/24", via("198.51.100.11")).await;
        assert_eq!(followed.next_hop("203.0.113.7").await.gateway, ip("198.51.100.11"));
        let through = |gateway: &'static str| {
            move |resolution: &Resolution| resolution.next_hop().is_some_and(|hop| hop.gateway == ip(gateway))
        };
        let narrow = net.ours.route("203.0.113.0/28", via("198.51.100.12")).await;
        followed.wait("203.0.113.7", "went through the narrower route", through("198.51.100.12")).await;
        net.ours.remove_route(narrow).await;
        followed.wait("203.0.113.7", "went back to the wider route", through("198.51.100.11")).await;
        net.ours.remove_route(wide).await;
        followed.unresolved("203.0.113.7", "203.0.113.7: no route").await;
        net.ours.route("0.0.0.0/0", via("198.51.100.12")).await;
        followed.wait("203.0.113.7", "went through the default route", through("198.51.100.12")).await;
        net.ours.route("::/0", via("2001:db8::11")).await;
        followed.wait("2001:db8:1::7", "went through the default route", through("2001:db8::11")).await;
    });
}

#[test]
fn root_a_routing_rule_is_followed() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let mut followed = Followed::start(["198.51.100.11"]).await;
        followed.next_hop("198.51.100.11").await;
        let mut rule = RuleMessage::default();
        rule.header.family = AddressFamily::Inet;
        rule.header.dst_len = 32;
        rule.header.action = RuleAction::Prohibit;
        rule.attributes = vec![RuleAttribute::Destination(ip("198.51.100.11")), RuleAttribute::Priority(100)];
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let request = RouteNetlinkMessage::NewRule(rule);
        net.ours.netlink.request("add a rule", request, flags).await.unwrap();
        followed.unresolved("198.51.100.11", "198.51.100.11: the route is of type prohibit").await;
    });
}

#[test]
fn root_a_link_that_goes_down_and_comes_back_is_followed() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let mut followed = Followed::start(["198.51.100.11", "2001:db8::11"]).await;
        followed.next_hop("198.51.100.11").await;
        followed.next_hop("2001:db8::11").await;
        net.peer.down("srv0").await;
        followed.unresolved("198.51.100.11", "198.51.100.11: lb0 has no carrier").await;
        let mut changes = EventSocket::open(&[MulticastGroup::Neigh], 1 << 20).unwrap();
        net.peer.up("srv0").await;
        followed.next_hop("198.51.100.11").await;
        // The kernel flushed the neighbour with the carrier: it must be managed again, whoever asks it meanwhile.
        let managed_again = async {
            while !net.ours.entry("198.51.100.11").await.is_some_and(|entry| managed(&entry)) {
                changes.recv().await.unwrap();
            }
        };
        timeout(DEADLINE, managed_again).await.expect("asked again after the link flushed it");
        net.ours.down("lb0").await;
        followed.unresolved("198.51.100.11", "198.51.100.11: no route, and lb0 is down").await;
        followed.unresolved("2001:db8::11", "2001:db8::11: no route, and lb0 is down").await;
        net.ours.up("lb0").await;
        followed.next_hop("198.51.100.11").await;
        // The kernel forgets IPv6 addresses of a link that goes down.
        net.ours.address("lb0", "2001:db8::1/64").await;
        net.peer.address("srv0", "2001:db8::11/64").await;
        followed.next_hop("2001:db8::11").await;
        net.ours.netlink.handle().link().del(net.ours.link("lb0").await.index).execute().await.unwrap();
        followed.unresolved("198.51.100.11", "198.51.100.11: no route").await;
    });
}

#[test]
fn root_routes_that_lead_nowhere_are_told_apart() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        net.ours.up("lo").await;
        let lo = net.ours.link("lo").await.index;
        for (destination, kind) in [
            ("203.0.113.1/32", RouteType::BlackHole),
            ("203.0.113.2/32", RouteType::Unreachable),
            ("203.0.113.3/32", RouteType::Prohibit),
            ("2001:db8:1::1/128", RouteType::BlackHole),
            ("2001:db8:1::2/128", RouteType::Unreachable),
            ("2001:db8:1::3/128", RouteType::Prohibit),
        ] {
            net.ours.route(destination, of_type(kind)).await;
        }
        net.ours.route("203.0.113.4/32", through(lo)).await;
        let cases = [
            ("203.0.113.1", "203.0.113.1: the route is of type blackhole"),
            ("203.0.113.2", "203.0.113.2: the route is of type unreachable"),
            ("203.0.113.3", "203.0.113.3: the route is of type prohibit"),
            ("203.0.113.4", "203.0.113.4: its route leads to lo, the loopback interface"),
            ("203.0.113.5", "203.0.113.5: no route"),
            ("2001:db8:1::1", "2001:db8:1::1: the route is of type blackhole"),
            ("2001:db8:1::2", "2001:db8:1::2: the route is of type unreachable"),
            ("2001:db8:1::3", "2001:db8:1::3: the route is of type prohibit"),
            ("2001:db8:1::5", "2001:db8:1::5: no route"),
            ("198.51.100.1", "198.51.100.1 is an address of this host, on lb0"),
            ("2001:db8::1", "2001:db8::1 is an address of this host, on lb0"),
            ("127.0.0.9", "127.0.0.9 is an address of this host, on lo"),
            ("198.51.100.255", "198.51.100.255: a broadcast address here"),
            ("224.0.0.9", "224.0.0.9: a multicast address"),
            ("fe80::1", "fe80::1: a link-local address, which does not say the interface"),
        ];
        let mut followed = Followed::start(cases.map(|case| case.0)).await;
        for (target, reason) in cases {
            followed.unresolved(target, reason).await;
        }
    });
}

#[test]
fn root_thousands_of_targets_share_one_neighbour() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        net.ours.route("198.18.0.0/15", via("198.51.100.11")).await;
        let many: BTreeSet<IpAddr> = (0..2000u32).map(|n| IpAddr::V4((0xc612_0000 + n).into())).collect();
        let (resolver, _changes) = Resolver::start().await.unwrap();
        resolver.set_targets(many.clone());
        let snapshot = resolver.settled(DEADLINE).await;
        assert_eq!(snapshot.entries.len(), many.len());
        let resolved = snapshot.entries.values().filter(|resolution| resolution.next_hop().is_some()).count();
        assert_eq!((resolved, snapshot.pending), (many.len(), 0));
        resolver.set_targets(targets(["198.51.100.11"]));
        let snapshot = resolver.settled(DEADLINE).await;
        assert_eq!(snapshot.entries.keys().copied().collect::<BTreeSet<_>>(), targets(["198.51.100.11"]));
        assert_eq!(resolver.release().await.unwrap(), 1, "one neighbour was in use all along");
    });
}
