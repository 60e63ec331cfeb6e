//! Announcements on a wire, and what the other end makes of them.

use std::{fs, net::IpAddr, time::Duration};

use rtnetlink::{
    MulticastGroup,
    packet_route::neighbour::{NeighbourAttribute, NeighbourState},
};
use tokio::time::timeout;

use crate::net::{
    Mac,
    announce::{REPETITIONS, frames, send_every, socket::PacketSocket, subscribe, unsubscribe},
    netlink::EventSocket,
    testing::{DEADLINE, TestNet, in_namespace, stay_on_one_cpu},
};

const ALL_PROTOCOLS: u16 = 0x0003;

fn vips() -> [IpAddr; 2] {
    ["192.0.2.10".parse().unwrap(), "2001:db8:1::10".parse().unwrap()]
}

fn frame(mac: Mac, vip: IpAddr) -> Vec<u8> {
    match vip {
        IpAddr::V4(vip) => frames::arp_announcement(mac, vip).to_vec(),
        IpAddr::V6(vip) => frames::neighbour_advertisement(mac, vip).to_vec(),
    }
}

#[test]
fn root_every_vip_is_announced_three_times_and_then_no_more() {
    in_namespace(|| async {
        stay_on_one_cpu();
        let net = TestNet::joined().await;
        let wire = {
            let index = net.peer.link("srv0").await.index;
            net.in_peer(|| PacketSocket::open(index, ALL_PROTOCOLS).unwrap())
        };
        let ours = net.ours.link("lb0").await;
        let sent = send_every(Duration::from_millis(1), &ours, &vips()).await.unwrap();
        assert_eq!(sent, 2 * REPETITIONS);
        // A last frame of another kind marks the end.
        let mut end = vec![0xff; 6];
        end.extend(ours.mac.unwrap());
        end.extend([0x88, 0xb5]);
        end.resize(60, 0xee);
        assert!(PacketSocket::open(ours.index, 0).unwrap().send(&end).await.unwrap());
        let wanted = vips().map(|vip| frame(ours.mac.unwrap(), vip));
        let mut seen = Vec::new();
        loop {
            let frame = timeout(DEADLINE, wire.recv()).await.expect("the last frame").unwrap();
            if frame == end {
                break;
            }
            seen.extend(wanted.iter().position(|wanted| *wanted == frame));
        }
        assert_eq!(seen, [0, 1, 0, 1, 0, 1]);
    });
}

#[test]
fn root_hosts_that_knew_the_vip_elsewhere_move_it() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        for vip in ["192.0.2.10", "2001:db8:1::10"] {
            net.peer.neighbour("srv0", vip, [2, 0, 0, 0, 0, 0x99], NeighbourState::Stale).await;
        }
        let mut changes = net.in_peer(|| EventSocket::open(&[MulticastGroup::Neigh], 1 << 20).unwrap());
        let ours = net.ours.link("lb0").await;
        send_every(Duration::from_millis(1), &ours, &vips()).await.unwrap();
        let moved = NeighbourAttribute::LinkLayerAddress(ours.mac.unwrap().to_vec());
        for vip in ["192.0.2.10", "2001:db8:1::10"] {
            let moved = async {
                while !net.peer.entry(vip).await.expect("known before").attributes.contains(&moved) {
                    changes.recv().await.unwrap();
                }
            };
            assert!(timeout(DEADLINE, moved).await.is_ok(), "{vip} is still known at the old MAC address");
        }
    });
}

#[test]
fn root_an_interface_that_cannot_announce_says_why() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let lo = net.ours.link("lo").await;
        let error = send_every(Duration::from_millis(1), &lo, &vips()).await.unwrap_err().to_string();
        assert_eq!(error, "interface lo (loopback) has no Ethernet address; use an Ethernet interface");
        net.ours.down("lb0").await;
        let link = net.ours.link("lb0").await;
        let error = send_every(Duration::from_millis(1), &link, &vips()).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot announce 192.0.2.10 on lb0: Network is down"), "{error}");
    });
}

/// Whether the interface's filter has the group, and how many users: the columns of /proc/net/dev_mcast.
fn users(name: &str, group: Mac) -> Option<(u32, u32)> {
    let table = fs::read_to_string("/proc/thread-self/net/dev_mcast").unwrap();
    table.lines().find_map(|line| {
        let [_, interface, users, by_hand, address] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        (interface == name && address == hex::encode(group))
            .then(|| (users.parse().unwrap(), by_hand.parse().unwrap()))
    })
}

#[test]
fn root_solicitations_for_vips_pass_the_filter_until_unsubscribed() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let link = net.ours.link("lb0").await;
        let group = frames::solicited_node_mac("2001:db8:1::10".parse().unwrap());
        assert_eq!(users("lb0", group), None);
        // No socket of ours is open any more after each call: the subscription does not depend on one.
        subscribe(&link, &vips()).unwrap();
        assert_eq!(users("lb0", group), Some((1, 1)));
        subscribe(&link, &vips()).unwrap();
        assert_eq!(users("lb0", group), Some((1, 1)), "twice is once");
        let twin: IpAddr = "2001:db8:2::10".parse().unwrap();
        unsubscribe(&link, &vips(), &[twin]).unwrap();
        assert_eq!(users("lb0", group), Some((1, 1)), "a VIP that stays has the same group");
        unsubscribe(&link, &vips(), &[]).unwrap();
        assert_eq!(users("lb0", group), None);
        unsubscribe(&link, &vips(), &[]).unwrap();
    });
}

#[test]
fn root_unsubscribing_leaves_the_hosts_own_groups() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let link = net.ours.link("lb0").await;
        let group = frames::solicited_node_mac("2001:db8:1::10".parse().unwrap());
        // The kernel subscribes its own addresses, some time before it announces them as ready.
        let mut changes = EventSocket::open(&[MulticastGroup::Ipv6Ifaddr], 1 << 20).unwrap();
        net.ours.address("lb0", "2001:db8::10/64").await;
        let subscribed = async {
            loop {
                if let Some(users) = users("lb0", group) {
                    return users;
                }
                changes.recv().await.unwrap();
            }
        };
        let before = timeout(DEADLINE, subscribed).await.expect("the kernel's own subscription");
        subscribe(&link, &vips()).unwrap();
        assert_eq!(users("lb0", group), Some((before.0 + 1, 1)));
        unsubscribe(&link, &vips(), &[]).unwrap();
        assert_eq!(users("lb0", group), Some(before));
    });
}
