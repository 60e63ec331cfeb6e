//! `--prepare` and `--unprepare` on a host.

use std::{collections::BTreeMap, fs, net::IpAddr};

use ipnet::IpNet;
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourState};
use tokio::{net::UdpSocket, time::timeout};

use super::{Options, Prepare, Source, TestPlaces, options, served, with_agent};
use crate::{
    agent::prepare,
    net::{
        host,
        links::{Inventory, InventoryWatch},
        testing::{DEADLINE, Side, TestNet, in_namespace, via},
    },
};

/// Everything that `--prepare` may touch, and what stands beside it.
async fn snapshot(side: &Side) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for place in fs::read_dir("/proc/sys/net/ipv4/conf").unwrap() {
        for file in fs::read_dir(place.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            // Some can only be written.
            let value = fs::read_to_string(&path).unwrap_or_default();
            all.insert(path.display().to_string(), value);
        }
    }
    let inventory = Inventory::read(&side.netlink).await.unwrap();
    for link in inventory.iter() {
        all.insert(link.name.clone(), format!("{link:?}"));
    }
    for ipv6 in [false, true] {
        for route in host::routes(&side.netlink, &inventory, ipv6).await.unwrap() {
            all.insert(route.words, format!("{:?} {:?}", route.mtu, route.advmss));
        }
    }
    all
}

/// What differs, as "name: before -> after".
fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let word = |all: &BTreeMap<String, String>, name: &str| all.get(name).map(|v| v.trim().to_owned());
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| format!("{name}: {:?} -> {:?}", word(before, name), word(after, name)))
        .collect()
}

fn sysctl(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/{name}")).unwrap().trim().to_owned()
}

fn set(name: &str, value: &str) {
    fs::write(format!("/proc/sys/{name}"), value).unwrap();
}

async fn advmss(side: &Side, words: &str) -> Option<u32> {
    let inventory = Inventory::read(&side.netlink).await.unwrap();
    let mut routes = host::routes(&side.netlink, &inventory, false).await.unwrap();
    routes.extend(host::routes(&side.netlink, &inventory, true).await.unwrap());
    let names: Vec<_> = routes.iter().map(|route| route.words.clone()).collect();
    routes.iter().find(|r| r.words == words).unwrap_or_else(|| panic!("{words} in {names:?}")).advmss
}

/// A joined pair with default routes of both families.
async fn backend() -> TestNet {
    let net = TestNet::joined().await;
    // The first time it is up, the kernel gives it 127.0.0.1 for good.
    net.ours.up("lo").await;
    net.ours.down("lo").await;
    // The kernel adds this one by itself, some time after the carrier came.
    let link_local = |inventory: &Inventory| {
        let is = |net: &IpNet| matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local());
        inventory.by_name("lb0").is_ok_and(|link| link.addresses.iter().any(is))
    };
    let watch = InventoryWatch::start().await.unwrap();
    let mut inventory = watch.subscribe();
    drop(
        timeout(DEADLINE, inventory.wait_for(|all| link_local(all)))
            .await
            .expect("no link-local address")
            .unwrap(),
    );
    net.ours.route("0.0.0.0/0", via("198.51.100.11")).await;
    net.ours.route("::/0", via("2001:db8::11")).await;
    net
}

#[test]
fn root_unprepare_is_the_exact_inverse_of_prepare() {
    in_namespace(|| async {
        let net = backend().await;
        let test = TestPlaces::new();
        set("net/ipv4/conf/all/rp_filter", "1");
        let before = snapshot(&net.ours).await;
        let report = prepare::prepare(&net.ours.netlink, &test.places.record, &served()).await.unwrap();
        assert_eq!(report.remarks, [""; 0]);
        for place in ["all", "lo", "lb0"] {
            assert_eq!(sysctl(&format!("net/ipv4/conf/{place}/arp_ignore")), "1", "{place}");
            assert_eq!(sysctl(&format!("net/ipv4/conf/{place}/arp_announce")), "2", "{place}");
        }
        assert_eq!(sysctl("net/ipv4/conf/lb0/rp_filter"), "2", "loose, which wins over 1 in all");
        assert_eq!(sysctl("net/ipv4/conf/all/rp_filter"), "1", "other interfaces keep theirs");
        let lo = net.ours.link("lo").await;
        assert!(lo.up);
        for vip in ["192.0.2.10/32", "2001:db8:f::10/128"] {
            assert!(lo.addresses.contains(&vip.parse().unwrap()), "{vip} in {:?}", lo.addresses);
        }
        // 1500 less 104 of GUE with candidates in IPv6, less 40 and 60 of IP and TCP.
        assert_eq!(advmss(&net.ours, "default via 198.51.100.11 dev lb0 (IPv4)").await, Some(1356));
        assert_eq!(advmss(&net.ours, "198.51.100.0/24 dev lb0").await, Some(1356));
        assert_eq!(
            advmss(&net.ours, "default via 2001:db8::11 dev lb0 metric 1024 (IPv6)").await,
            Some(1336)
        );
        let prepared = snapshot(&net.ours).await;
        let again = prepare::prepare(&net.ours.netlink, &test.places.record, &served()).await.unwrap();
        assert_eq!((again.changed.len(), again.kept.len()), (0, report.changed.len()));
        assert_eq!(differences(&prepared, &snapshot(&net.ours).await), [""; 0]);

        let undone = prepare::unprepare(&net.ours.netlink, &test.places.record).await.unwrap();
        assert_eq!((undone.undone.len(), undone.remarks.len()), (report.changed.len(), 0), "{undone:?}");
        assert_eq!(differences(&before, &snapshot(&net.ours).await), [""; 0]);
        assert!(!test.places.record.exists());
    });
}

#[test]
fn root_only_what_was_changed_is_undone() {
    in_namespace(|| async {
        let net = backend().await;
        let test = TestPlaces::new();
        net.ours.up("lo").await;
        // Here before, or as strict as needed: not ours.
        net.ours.address("lo", "192.0.2.10/32").await;
        set("net/ipv4/conf/all/arp_ignore", "2");
        set("net/ipv4/conf/lo/arp_announce", "2");
        let before = snapshot(&net.ours).await;
        prepare::prepare(&net.ours.netlink, &test.places.record, &served()).await.unwrap();
        assert_eq!(sysctl("net/ipv4/conf/all/arp_ignore"), "2");
        // Changed by somebody else since: not ours any more.
        set("net/ipv4/conf/lb0/arp_ignore", "8");
        net.ours.remove_address("lo", "2001:db8:f::10/128").await;
        let undone = prepare::unprepare(&net.ours.netlink, &test.places.record).await.unwrap();
        assert_eq!(undone.remarks.len(), 1, "{undone:?}");
        assert!(undone.remarks[0].starts_with("net/ipv4/conf/lb0/arp_ignore is 8 now, lb had set it to 1"));
        let expected = ["/proc/sys/net/ipv4/conf/lb0/arp_ignore: Some(\"0\") -> Some(\"8\")"];
        assert_eq!(differences(&before, &snapshot(&net.ours).await), expected);
    });
}

#[test]
fn root_an_agent_prepares_follows_its_vips_and_its_status_tells() {
    in_namespace(|| async {
        let net = backend().await;
        let test = TestPlaces::new();
        let before = snapshot(&net.ours).await;
        let bare = options(&test.places, Source::Flags(served()));
        with_agent(&test.places, bare.clone(), async |outside| {
            outside.event("ready").await;
            let warnings = test.status().await.warnings.join("\n");
            assert!(warnings.contains("192.0.2.10 and 1 more is not on lo"), "{warnings}");
            assert!(warnings.contains("this host answers ARP requests for its VIPs"), "{warnings}");
        })
        .await
        .unwrap();
        let prepare = Options { prepare: Prepare::Prepare, ..bare.clone() };
        with_agent(&test.places, prepare, async |outside| {
            let prepared = outside.event("prepared").await;
            assert!(prepared["changed"].as_array().unwrap().len() >= 8, "{prepared}");
            outside.event("ready").await;
            let status = test.status().await;
            assert_eq!(status.warnings, [""; 0]);
            assert!(status.prepared.iter().all(|p| p.present.as_ref() == Some(&p.set)), "{status:?}");
            set("net/ipv4/conf/lo/arp_ignore", "0");
            let warnings = test.status().await.warnings.join("\n");
            assert!(
                warnings.contains("net/ipv4/conf/lo/arp_ignore is 0, but was prepared as 1"),
                "{warnings}"
            );
            set("net/ipv4/conf/lo/arp_ignore", "1");
        })
        .await
        .unwrap();
        let unprepare = Options { prepare: Prepare::Unprepare, source: None, ..bare };
        with_agent(&test.places, unprepare, async |outside| {
            outside.event("unprepared").await;
        })
        .await
        .unwrap();
        // The link of the program is the one thing that stays.
        let left = differences(&before, &snapshot(&net.ours).await);
        assert_eq!(left, [""; 0]);
    });
}

#[test]
fn root_a_vip_that_is_no_longer_served_leaves_lo() {
    in_namespace(|| async {
        let net = backend().await;
        let test = TestPlaces::new();
        let file = &test.places.record;
        prepare::prepare(&net.ours.netlink, file, &served()).await.unwrap();
        let mut other = served();
        other.vips[0] = "192.0.2.11".parse().unwrap();
        let report = prepare::prepare(&net.ours.netlink, file, &other).await.unwrap();
        assert_eq!((report.changed.len(), report.undone.len()), (1, 1), "{report:?}");
        let lo = net.ours.link("lo").await;
        assert!(lo.addresses.contains(&"192.0.2.11/32".parse().unwrap()));
        assert!(!lo.addresses.contains(&"192.0.2.10/32".parse().unwrap()));
    });
}

#[test]
fn root_a_vip_on_another_interface_and_a_host_without_ipv6_are_told() {
    in_namespace(|| async {
        let net = backend().await;
        let test = TestPlaces::new();
        net.ours.address("lb0", "192.0.2.10/32").await;
        let report = prepare::prepare(&net.ours.netlink, &test.places.record, &served()).await.unwrap();
        assert!(report.remarks[0].starts_with("192.0.2.10 is an address of lb0"), "{report:?}");
        prepare::unprepare(&net.ours.netlink, &test.places.record).await.unwrap();
        set("net/ipv6/conf/lo/disable_ipv6", "1");
        let error = prepare::prepare(&net.ours.netlink, &test.places.record, &served()).await.unwrap_err();
        assert!(error.to_string().starts_with("IPv6 is switched off on lo"), "{error}");
        assert!(!test.places.record.exists());
    });
}

/// Whether the other host finds a neighbour behind `vip` on our common link.
async fn answers_for(net: &TestNet, vip: &str) -> bool {
    let index = net.peer.link("srv0").await.index;
    let route = net
        .peer
        .route(&IpNet::from(vip.parse::<IpAddr>().unwrap()).to_string(), crate::net::testing::through(index))
        .await;
    let any = if vip.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = net.in_peer(|| std::net::UdpSocket::bind(any)).unwrap();
    socket.send_to(b"?", (vip.parse::<IpAddr>().unwrap(), 9)).unwrap();
    let found = timeout(DEADLINE, async {
        loop {
            let entry = net.peer.entry(vip).await;
            match entry.as_ref().map(|entry| entry.header.state) {
                Some(NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay) => {
                    return true;
                }
                Some(NeighbourState::Failed) => return false,
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .expect("neither an answer nor a failure");
    let entry = net.peer.entry(vip).await.unwrap();
    assert!(!found || entry.attributes.iter().any(|a| matches!(a, NeighbourAttribute::LinkLayerAddress(_))));
    net.peer.remove_route(route).await;
    net.peer.forget(entry).await;
    found
}

#[test]
fn root_neighbours_hear_nothing_of_a_prepared_vip() {
    in_namespace(|| async {
        let net = backend().await;
        let test = TestPlaces::new();
        net.ours.up("lo").await;
        for vip in ["192.0.2.10/32", "2001:db8:f::10/128"] {
            net.ours.address("lo", vip).await;
        }
        assert!(
            answers_for(&net, "192.0.2.10").await,
            "without settings IPv4 answers for every address it has"
        );
        assert!(!answers_for(&net, "2001:db8:f::10").await, "IPv6 answers for those of the interface alone");
        prepare::prepare(&net.ours.netlink, &test.places.record, &served()).await.unwrap();
        assert!(!answers_for(&net, "192.0.2.10").await);
        assert!(!answers_for(&net, "2001:db8:f::10").await);

        // A packet from the VIP makes this host ask for its neighbour: not in the VIP's name.
        for (vip, neighbour) in [("192.0.2.10", "198.51.100.11"), ("2001:db8:f::10", "2001:db8::11")] {
            let socket = UdpSocket::bind((vip.parse::<IpAddr>().unwrap(), 0)).await.unwrap();
            let target: IpAddr = neighbour.parse().unwrap();
            let server = net.in_peer(|| std::net::UdpSocket::bind((target, 0))).unwrap();
            server.set_nonblocking(true).unwrap();
            socket.send_to(b"!", (target, server.local_addr().unwrap().port())).await.unwrap();
            let server = UdpSocket::from_std(server).unwrap();
            let mut buffer = [0; 8];
            let (_, from) =
                timeout(DEADLINE, server.recv_from(&mut buffer)).await.expect("no packet").unwrap();
            assert_eq!(from.ip(), vip.parse::<IpAddr>().unwrap());
            assert!(net.peer.entry(vip).await.is_none(), "{vip} was named in a question");
        }
    });
}

/// Bytes of the largest segment that the other host sends in a connection to `vip`.
async fn segment_to(net: &TestNet, vip: IpAddr) -> u32 {
    let listener = tokio::net::TcpListener::bind((vip, 0)).await.unwrap();
    let to = listener.local_addr().unwrap();
    let (client, _) = tokio::join!(
        async {
            let socket = net.in_peer(|| std::net::TcpStream::connect(to)).unwrap();
            nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::TcpMaxSeg).unwrap()
        },
        async { listener.accept().await.unwrap() }
    );
    client
}

#[test]
fn root_clients_send_segments_that_fit_a_tunnel() {
    in_namespace(|| async {
        let net = backend().await;
        let test = TestPlaces::new();
        prepare::prepare(&net.ours.netlink, &test.places.record, &served()).await.unwrap();
        for (vip, gateway, fits) in [
            ("192.0.2.10", "198.51.100.1", 1500 - 104 - 40),
            ("2001:db8:f::10", "2001:db8::1", 1500 - 104 - 60),
        ] {
            let vip: IpAddr = vip.parse().unwrap();
            net.peer.route(&IpNet::from(vip).to_string(), via(gateway)).await;
            let segment = segment_to(&net, vip).await;
            assert!(segment <= fits && segment + 40 > fits, "{vip}: {segment}, {fits} fits");
        }
    });
}
