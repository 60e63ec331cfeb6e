//! Interfaces and local addresses.

use std::net::IpAddr;

use rtnetlink::{LinkUnspec, packet_route::route::RouteType};
use tokio::time::timeout;

use crate::net::{
    links::{Inventory, InventoryWatch},
    testing::{DEADLINE, TestNet, in_namespace, of_type, through},
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn root_interfaces_are_read_with_everything() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        net.ours.mac("lb0", [2, 0, 0, 0, 0, 7]).await;
        let inventory = Inventory::read(&net.ours.netlink).await.unwrap();
        let link = inventory.by_name("lb0").unwrap();
        assert_eq!(link.mac, Some([2, 0, 0, 0, 0, 7]));
        assert_eq!((link.mtu, link.up, link.carrier, link.loopback), (1500, true, true, false));
        assert_eq!(link.kind.as_deref(), Some("veth"));
        for address in ["198.51.100.1/24", "2001:db8::1/64"] {
            assert!(link.addresses.contains(&address.parse().unwrap()), "{address} in {:?}", link.addresses);
        }
        assert_eq!(inventory.by_index(link.index), Some(link));
        let lo = inventory.by_name("lo").unwrap();
        assert!(lo.loopback && lo.mac.is_none() && !lo.up);
        let missing = inventory.by_name("eth0").unwrap_err().to_string();
        assert_eq!(missing, "interface eth0 does not exist; interfaces here: lo, lb0");
    });
}

#[test]
fn root_a_vip_that_is_local_is_found_by_address_and_by_route() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        net.ours.up("lo").await;
        let lo = net.ours.link("lo").await.index;
        net.ours
            .route("203.0.113.0/24", |route| {
                of_type(RouteType::Local)(route);
                through(lo)(route);
                route.header.scope = rtnetlink::packet_route::route::RouteScope::Host;
            })
            .await;
        let inventory = Inventory::read(&net.ours.netlink).await.unwrap();
        let why = async |address| inventory.why_local(&net.ours.netlink, ip(address)).await.unwrap();
        let expected = Some("198.51.100.1 is an address of this host, on lb0".to_owned());
        assert_eq!(why("198.51.100.1").await, expected);
        let expected = Some("203.0.113.9 is local to this host by a route of type local".to_owned());
        assert_eq!(why("203.0.113.9").await, expected);
        assert_eq!(why("198.51.100.11").await, None, "a neighbour's address");
        assert_eq!(why("192.0.2.10").await, None, "an address without a route");
        assert_eq!(why("2001:db8:ffff::1").await, None);
    });
}

#[test]
fn root_changes_of_links_and_addresses_are_followed() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let watch = InventoryWatch::start().await.unwrap();
        let mut changes = watch.subscribe();
        let index = net.ours.link("lb0").await.index;
        let mut wait = async |what: &str, condition: &dyn Fn(&Inventory) -> bool| {
            let changed = timeout(DEADLINE, changes.wait_for(|inventory| condition(inventory))).await;
            changed.unwrap_or_else(|_| panic!("never seen: {what}")).unwrap();
        };
        net.ours.address("lb0", "192.0.2.1/24").await;
        wait("a new address", &|all| all.owner(ip("192.0.2.1")).is_some()).await;
        net.ours.remove_address("lb0", "192.0.2.1/24").await;
        wait("the address gone", &|all| all.owner(ip("192.0.2.1")).is_none()).await;
        net.ours.set(LinkUnspec::new_with_index(index).mtu(1400).build()).await;
        wait("another MTU", &|all| all.by_index(index).is_some_and(|link| link.mtu == 1400)).await;
        net.peer.down("srv0").await;
        wait("no carrier", &|all| all.by_index(index).is_some_and(|link| link.up && !link.carrier)).await;
        net.ours.down("lb0").await;
        wait("down", &|all| all.by_index(index).is_some_and(|link| !link.up)).await;
        net.ours.set(LinkUnspec::new_with_index(index).name("lb9").build()).await;
        wait("another name", &|all| all.by_name("lb9").is_ok()).await;
        net.ours.netlink.handle().link().del(index).execute().await.unwrap();
        wait("gone", &|all| all.by_index(index).is_none()).await;
    });
}
