//! Next hops: neighbours, the managed mark, and giving everything back.

use std::{fs::File, net::IpAddr};

use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_route::{
    neighbour::{NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState},
    route::RouteProtocol,
};

use super::nexthop::{Followed, ip};
use crate::net::{
    Netlink,
    nexthop::{Resolver, release_leftovers, start_for_tests},
    testing::{TestNet, in_namespace},
};

const OTHER: crate::net::Mac = [2, 0, 0, 0, 0, 0x33];

pub(super) fn managed(entry: &NeighbourMessage) -> bool {
    entry.attributes.contains(&NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed))
}

fn protocol(entry: &NeighbourMessage) -> Option<RouteProtocol> {
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Protocol(protocol) => Some(*protocol),
        _ => None,
    })
}

#[test]
fn root_a_silent_neighbour_is_unresolved_until_it_answers() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let mut followed = Followed::start(["198.51.100.77", "2001:db8::77"]).await;
        followed.unresolved("198.51.100.77", "198.51.100.77: no ARP answer on lb0").await;
        let reason = "2001:db8::77: no neighbour discovery answer on lb0";
        followed.unresolved("2001:db8::77", reason).await;
        assert_eq!(followed.resolver.snapshot().pending, 0, "a failed neighbour is not waited for");
        // Nobody asks the kernel again: it goes on asking by itself, because the neighbour is managed.
        net.peer.address("srv0", "198.51.100.77/24").await;
        net.peer.address("srv0", "2001:db8::77/64").await;
        let answer = net.peer.link("srv0").await.mac.unwrap();
        assert_eq!(followed.next_hop("198.51.100.77").await.dmac, answer);
        assert_eq!(followed.next_hop("2001:db8::77").await.dmac, answer);
        // And notices when the neighbour falls silent.
        net.peer.remove_address("srv0", "198.51.100.77/24").await;
        let entry = net.ours.entry("198.51.100.77").await.unwrap();
        net.ours.forget(entry).await;
        followed.unresolved("198.51.100.77", "198.51.100.77: no ARP answer on lb0").await;
    });
}

#[test]
fn root_neighbours_in_use_are_managed_and_come_back_when_deleted() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let mut followed = Followed::start(["198.51.100.11", "2001:db8::11"]).await;
        for target in ["198.51.100.11", "2001:db8::11"] {
            followed.next_hop(target).await;
            let entry = net.ours.entry(target).await.unwrap();
            assert!(managed(&entry), "{entry:?}");
            net.ours.forget(entry).await;
            followed.wait(target, "lost", |resolution| resolution.next_hop().is_none()).await;
            followed.next_hop(target).await;
            assert!(managed(&net.ours.entry(target).await.unwrap()));
        }
        assert_eq!(followed.resolver.release().await.unwrap(), 2);
        for target in ["198.51.100.11", "2001:db8::11"] {
            assert_eq!(net.ours.entry(target).await, None, "made by us, deleted by us");
        }
    });
}

#[test]
fn root_a_target_that_is_taken_out_is_released() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let mut followed = Followed::start(["198.51.100.11", "2001:db8::11"]).await;
        followed.next_hop("198.51.100.11").await;
        followed.next_hop("2001:db8::11").await;
        followed.resolver.set_targets([ip("2001:db8::11")].into());
        followed.resolver.settled(crate::net::testing::DEADLINE).await;
        assert_eq!(net.ours.entry("198.51.100.11").await, None);
        assert!(managed(&net.ours.entry("2001:db8::11").await.unwrap()));
        assert_eq!(followed.resolver.get(ip("198.51.100.11")), None);
    });
}

#[test]
fn root_an_entry_of_the_kernel_is_marked_and_goes_back_to_what_it_was() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let peer = net.peer.link("srv0").await.mac.unwrap();
        net.ours.neighbour("lb0", "198.51.100.11", peer, NeighbourState::Reachable).await;
        let mut followed = Followed::start(["198.51.100.11"]).await;
        assert_eq!(followed.next_hop("198.51.100.11").await.dmac, peer);
        assert!(managed(&net.ours.entry("198.51.100.11").await.unwrap()));
        assert_eq!(followed.resolver.release().await.unwrap(), 1);
        let entry = net.ours.entry("198.51.100.11").await.expect("not ours to delete");
        assert!(!managed(&entry), "{entry:?}");
        let mac = NeighbourAttribute::LinkLayerAddress(peer.to_vec());
        assert!(entry.attributes.contains(&mac), "still resolved: {entry:?}");
        assert_eq!(release_leftovers().await.unwrap(), 0, "released once is released");
    });
}

#[test]
fn root_entries_of_others_are_used_and_left_alone() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        net.ours.neighbour("lb0", "198.51.100.50", OTHER, NeighbourState::Permanent).await;
        let mut followed = Followed::start(["198.51.100.50"]).await;
        assert_eq!(followed.next_hop("198.51.100.50").await.dmac, OTHER);
        let check = async |when: &str| {
            let entry = net.ours.entry("198.51.100.50").await.unwrap();
            assert_eq!(entry.header.state, NeighbourState::Permanent, "{when}");
            assert!(!managed(&entry) && protocol(&entry).is_none(), "{when}: {entry:?}");
        };
        check("in use").await;
        assert_eq!(followed.resolver.release().await.unwrap(), 0);
        check("released").await;
    });
}

#[test]
fn root_an_operator_may_take_a_neighbour_over() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let mut followed = Followed::start(["198.51.100.11"]).await;
        followed.next_hop("198.51.100.11").await;
        net.ours.neighbour("lb0", "198.51.100.11", OTHER, NeighbourState::Permanent).await;
        let taken = |resolution: &crate::net::nexthop::Resolution| {
            resolution.next_hop().is_some_and(|hop| hop.dmac == OTHER)
        };
        followed.wait("198.51.100.11", "moved to the operator's MAC address", taken).await;
        // Another target makes the resolver go over all its neighbours once more.
        followed.resolver.set_targets([ip("198.51.100.11"), ip("2001:db8::11")].into());
        followed.next_hop("2001:db8::11").await;
        let entry = net.ours.entry("198.51.100.11").await.unwrap();
        assert_eq!(entry.header.state, NeighbourState::Permanent);
        followed.resolver.release().await.unwrap();
        let entry = net.ours.entry("198.51.100.11").await.expect("the operator's entry stays");
        assert_eq!(entry.header.state, NeighbourState::Permanent);
    });
}

#[test]
fn root_what_a_killed_daemon_left_is_adopted_or_released() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let mut followed = Followed::start(["198.51.100.11"]).await;
        followed.next_hop("198.51.100.11").await;
        drop(followed);
        assert!(managed(&net.ours.entry("198.51.100.11").await.unwrap()), "stays for the datapath");
        let mut followed = Followed::start(["198.51.100.11"]).await;
        followed.next_hop("198.51.100.11").await;
        drop(followed);
        assert_eq!(release_leftovers().await.unwrap(), 1);
        assert_eq!(net.ours.entry("198.51.100.11").await, None);
        assert_eq!(release_leftovers().await.unwrap(), 0);
    });
}

#[test]
fn root_without_managed_neighbours_the_timer_does_it() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let mut followed = Followed::of(start_for_tests(1 << 20, false).await.unwrap(), ["198.51.100.11"]);
        followed.next_hop("198.51.100.11").await;
        let entry = net.ours.entry("198.51.100.11").await.unwrap();
        assert!(!managed(&entry), "{entry:?}");
        followed.resolver.set_targets([ip("198.51.100.77")].into());
        followed.unresolved("198.51.100.77", "198.51.100.77: no ARP answer on lb0").await;
        net.peer.address("srv0", "198.51.100.77/24").await;
        followed.next_hop("198.51.100.77").await;
        assert_eq!(followed.resolver.release().await.unwrap(), 1);
        assert_eq!(net.ours.entry("198.51.100.77").await, None);
    });
}

#[test]
fn root_lost_notifications_are_made_up_for_by_reading_everything() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let resolver: (Resolver, _) = start_for_tests(1, true).await.unwrap();
        let mut followed = Followed::of(resolver, ["198.51.100.11", "198.51.100.50"]);
        followed.next_hop("198.51.100.11").await;
        let namespace = File::open("/proc/thread-self/ns/net").unwrap();
        let index = net.ours.link("lb0").await.index;
        // This thread waits without running the resolver, so nobody reads its socket while another floods it.
        let flood = std::thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(flood(index));
        });
        flood.join().unwrap();
        assert_eq!(followed.next_hop("198.51.100.50").await.dmac, OTHER);
    });
}

/// Floods with changes, the last of which is the one that matters.
async fn flood(index: u32) {
    let handle = Netlink::connect().unwrap().handle();
    let set = async |ip: IpAddr, mac: crate::net::Mac| {
        let request = handle.neighbours().add(index, ip).link_layer_address(&mac);
        request.replace().execute().await.unwrap();
    };
    for n in 0..200u8 {
        set(ip("198.51.100.51"), [2, 0, 0, 0, 1, n]).await;
    }
    set(ip("198.51.100.50"), OTHER).await;
}
