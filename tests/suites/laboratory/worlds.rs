//! The standard worlds connect as their tables say, for both families and from many addresses.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_tests::{
    backend::Backend,
    cleanup::Folder,
    lb_process::has_xdp,
    process::output_of,
    topology::{World, world::Host},
    traffic::{Datagrams, LongLived, Spread, http_get, http_put, spread},
};

const LIMIT: Duration = Duration::from_secs(20);

fn addresses(host: &Host) -> [IpAddr; 2] {
    [host.v4.into(), host.v6.into()]
}

/// Servers on all backends of a world, with a folder for their logs.
fn servers(world: &World) -> (Vec<Backend>, Folder) {
    let folder = Folder::new("logs").unwrap();
    (world.backends.iter().map(|host| Backend::start(host, folder.path()).unwrap()).collect(), folder)
}

/// The client asks every backend by its own addresses, and from addresses of all its blocks.
fn client_reaches_backends(world: &World) {
    let client = world.client.ns.entry();
    for host in &world.backends {
        for address in addresses(host) {
            let target = SocketAddr::new(address, 80);
            for source in World::sources_for(address, 300).into_iter().step_by(99) {
                let answer = http_get(&client, source, target, "/peer", LIMIT).unwrap();
                assert_eq!((answer.status, answer.text()), (200, source.to_string()), "{target}");
            }
            let source = World::sources_for(address, 300)[299];
            let mut lines =
                LongLived::open(&client, (source, 0).into(), (address, 9000).into(), LIMIT).unwrap();
            assert_eq!(lines.ask("one").unwrap(), host.name);
            assert_eq!(lines.ask("two").unwrap(), host.name);
            let datagrams = Datagrams::open(&client, (source, 0).into(), (address, 7).into(), LIMIT).unwrap();
            assert_eq!(datagrams.ask(b"hello").unwrap(), host.name);
        }
    }
}

#[test]
fn one_arm_client_and_backends_talk_through_the_router() {
    let world = World::one_arm().build().unwrap();
    let _servers = servers(&world);
    client_reaches_backends(&world);
}

#[test]
fn two_arm_client_and_backends_talk_through_the_balancer() {
    let world = World::two_arm().build().unwrap();
    let _servers = servers(&world);
    client_reaches_backends(&world);
}

#[test]
fn bulk_data_passes_intact_in_both_directions() {
    for world in
        [World::one_arm().backends(1).build().unwrap(), World::two_arm().backends(1).build().unwrap()]
    {
        let _servers = servers(&world);
        let client = world.client.ns.entry();
        for address in addresses(world.backend(1).unwrap()) {
            let (source, target) = (World::sources_for(address, 1)[0], SocketAddr::new(address, 80));
            let down = http_get(&client, source, target, "/bytes/3000001", LIMIT).unwrap();
            assert_eq!(down.body.len(), 3_000_001);
            assert!(down.body.iter().enumerate().all(|(i, b)| *b == lb_tests::server::pattern(i as u64)));
            let up = http_put(&client, source, target, down.body, LIMIT).unwrap();
            let report: serde_json::Value = serde_json::from_slice(&up.body).unwrap();
            assert_eq!(report["bytes"], 3_000_001);
            assert_eq!(report["name"], "b1");
        }
    }
}

#[test]
fn a_spread_asks_from_every_source_in_turn() {
    let world = World::one_arm().backends(1).build().unwrap();
    let _servers = servers(&world);
    for address in addresses(world.backend(1).unwrap()) {
        let sources = World::sources_for(address, 300);
        let plan = Spread::new(900, &sources, (address, 80).into());
        let report = spread(&world.client.ns.entry(), &plan).unwrap();
        assert_eq!((report.failed, report.failures.clone()), (0, vec![]));
        assert_eq!(report.answers.len(), 300);
        assert!(report.answers.values().all(|backends| backends.get("b1") == Some(&3)));
        assert!(report.wanderers().is_empty());
    }
}

#[test]
fn a_prepared_backend_answers_for_the_vips_that_come_to_it() {
    // Instead of the balancer, the router itself sends the VIPs to b2.
    let world = World::one_arm().backends(2).prepared().build().unwrap();
    let _servers = servers(&world);
    let (router, b2) = (world.router.as_ref().unwrap(), world.backend(2).unwrap());
    for (vip, via) in
        [(world.vip4.to_string(), b2.v4.to_string()), (world.vip6.to_string(), b2.v6.to_string())]
    {
        let mut command = router.ns.command("ip");
        command.args(["route", "replace", &vip, "via", &via]);
        output_of(command, LIMIT).unwrap();
    }
    let client = world.client.ns.entry();
    for vip in [IpAddr::from(world.vip4), world.vip6.into()] {
        let source = World::sources_for(vip, 8)[7];
        let answer = http_get(&client, source, (vip, 80).into(), "/", LIMIT).unwrap();
        assert_eq!(answer.text(), "b2");
        // The answer must come from the VIP, or the connected socket does not take it.
        let datagrams = Datagrams::open(&client, (source, 0).into(), (vip, 7).into(), LIMIT).unwrap();
        assert_eq!(datagrams.ask(b"hello").unwrap(), "b2");
    }
}

#[test]
fn nobody_answers_for_a_vip_on_the_lan_unless_a_balancer_does() {
    let world = World::one_arm().vip_on_lan().prepared().build().unwrap();
    let router = world.router.as_ref().unwrap();
    let probe = |vip: IpAddr| {
        let mut command = router.ns.command("ip");
        // What the router would do with a packet to it.
        command.args(["-json", "route", "get", &vip.to_string()]);
        serde_json::from_str::<serde_json::Value>(&output_of(command, LIMIT).unwrap()).unwrap()
    };
    for vip in [IpAddr::from(world.vip4), world.vip6.into()] {
        let route = probe(vip);
        assert_eq!(route[0]["dev"], "lan", "{route}");
        assert!(route[0].get("gateway").is_none(), "{route}");
        // ARP and neighbour discovery give up after three tries, which the client is told by ICMP.
        let target = SocketAddr::new(vip, 80);
        let error = http_get(&world.client.ns.entry(), World::sources_for(vip, 1)[0], target, "/", LIMIT)
            .unwrap_err();
        assert!(format!("{error:#}").contains("No route to host"), "{error:#}");
    }
}

#[test]
fn peers_of_the_balancer_have_a_program_and_the_balancer_has_none() {
    let one = World::one_arm().backends(1).build().unwrap();
    let router = one.router.as_ref().unwrap().ns.entry();
    assert!(has_xdp(&router, "p-lb").unwrap());
    assert!(has_xdp(&router, "p-b1").unwrap());
    assert!(!has_xdp(&one.lb.ns.entry(), &one.lb.interface).unwrap());
    assert!(!has_xdp(&one.backend(1).unwrap().ns.entry(), "eth0").unwrap());

    let two = World::two_arm().backends(1).build().unwrap();
    assert!(has_xdp(&two.client.ns.entry(), "eth0").unwrap());
    assert!(!has_xdp(&two.lb.ns.entry(), &two.lb.interface).unwrap());
    assert!(!has_xdp(&two.backend(1).unwrap().ns.entry(), "eth0").unwrap());
}

/// What `ethtool -k` would say of a feature, asked by a process that is not ours.
fn feature(host: &Host, device: &str, name: &str) -> Option<String> {
    let mut command = host.ns.command("ethtool");
    command.args(["-k", device]);
    let text = output_of(command, LIMIT).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned));
    line.map(|value| value.split(' ').next().unwrap_or_default().to_owned())
}

#[test]
fn checksums_are_made_where_xdp_would_lose_them() {
    let one = World::one_arm().backends(1).build().unwrap();
    let router = one.router.as_ref().unwrap();
    assert_eq!(feature(router, "p-lb", "tx-checksumming").as_deref(), Some("off"));
    assert_eq!(feature(router, "to-client", "tx-checksumming").as_deref(), Some("on"));
    let two = World::two_arm().backends(1).build().unwrap();
    assert_eq!(feature(&two.client, "eth0", "tx-checksumming").as_deref(), Some("off"));
    assert_eq!(feature(two.backend(1).unwrap(), "eth0", "generic-receive-offload").as_deref(), Some("on"));
}

#[test]
fn the_lan_has_the_mtu_that_was_asked_for() {
    let world = World::one_arm().backends(1).mtu(4000).build().unwrap();
    let mtu = |host: &Host, device: &str| -> u64 {
        let mut command = host.ns.command("ip");
        command.args(["-json", "link", "show", "dev", device]);
        let links: serde_json::Value = serde_json::from_str(&output_of(command, LIMIT).unwrap()).unwrap();
        links[0]["mtu"].as_u64().unwrap()
    };
    let router = world.router.as_ref().unwrap();
    for (host, device) in
        [(router, "lan"), (router, "p-lb"), (&world.lb, "eth0"), (&world.backends[0], "eth0")]
    {
        assert_eq!(mtu(host, device), 4000, "{} {device}", host.name);
    }
    assert_eq!(mtu(&world.client, "eth0"), 1500);
}

#[test]
fn a_plan_with_a_mistake_names_the_line_and_leaves_nothing() {
    let mut plan = lb_tests::topology::Plan::default();
    plan.node("lonely").address("eth0", "198.18.0.1/24");
    let error = format!("{:#}", plan.build().unwrap_err());
    assert!(error.contains("node lonely") && error.contains("address add 198.18.0.1/24"), "{error}");
    let left = lb_tests::cleanup::namespaces_of(std::process::id());
    assert!(!left.iter().any(|name| name.ends_with("-lonely")), "{left:?}");
}

#[test]
fn worlds_live_side_by_side() {
    let worlds: Vec<_> = (0..3).map(|_| World::one_arm().backends(1).build().unwrap()).collect();
    let folders: Vec<_> = worlds.iter().map(servers).collect();
    for (world, (servers, _)) in worlds.iter().zip(&folders) {
        let backend = world.backend(1).unwrap();
        servers[0].set_ready(false).unwrap();
        let target = SocketAddr::new(backend.v4.into(), 80);
        let answer =
            http_get(&world.client.ns.entry(), World::source_v4(0), target, "/ready", LIMIT).unwrap();
        assert_eq!(answer.status, 503);
        servers[0].set_ready(true).unwrap();
    }
}

#[test]
fn a_world_takes_its_namespaces_along() {
    let world = World::one_arm().build().unwrap();
    let names: Vec<_> = world.hosts().map(|host| host.ns.name().to_owned()).collect();
    assert_eq!(names.len(), 6);
    drop(world);
    let left = lb_tests::cleanup::namespaces_of(std::process::id());
    assert!(!names.iter().any(|name| left.contains(name)), "{left:?}");
}
