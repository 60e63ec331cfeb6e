//! Kinds of services: protocols, ports, affinities, several addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_tests::{
    check,
    lb_config::{LbConfig, Ports},
    process::output_of,
    site::{LIMIT, Site},
    topology::World,
    traffic::{LongLived, http_get},
};
use lb_userspace::config::{Affinity, Forward, Protocol};

const CLIENTS: u16 = 300;
const NAMES: [&str; 3] = ["b1", "b2", "b3"];

fn world() -> World {
    World::one_arm().prepared().build().unwrap()
}

fn web(world: &World) -> LbConfig {
    LbConfig::web(world, world.vip4.into(), Forward::L2, false)
}

fn counts(owners: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    owners.into_iter().fold(BTreeMap::new(), |mut counts, owner| {
        *counts.entry(owner).or_default() += 1;
        counts
    })
}

fn equal() -> Vec<(&'static str, u16)> {
    NAMES.iter().map(|name| (*name, 1)).collect()
}

#[test]
fn udp() {
    let world = world();
    let mut config = web(&world);
    config.services[0].protocol = Protocol::Udp;
    config.services[0].ports = Ports::Numbers(vec![7]);
    let site = Site::start(world, config).unwrap();
    let first = site.owners_by_udp(CLIENTS, site.vip4(7)).unwrap();
    check::by_weight(&counts(first.values().cloned()), &equal()).unwrap();
    assert_eq!(
        site.owners_by_udp(CLIENTS, site.vip4(7)).unwrap(),
        first,
        "every client address keeps its backend"
    );
    assert_eq!(site.view().unwrap().dropped(), [].into());
}

#[test]
fn a_list_of_ports_and_nothing_else() {
    let world = world();
    let mut config = web(&world);
    config.services[0].ports = Ports::Numbers(vec![80, 8080]);
    let site = Site::start(world, config).unwrap();
    let by_port = [80, 8080].map(|port| {
        let report = site.spread(600, CLIENTS, site.vip4(port)).unwrap();
        check::balanced(&report, 600, &NAMES).unwrap();
        report.owners()
    });
    assert_eq!(by_port[0], by_port[1], "the port is not a part of the affinity");
    // The line protocol's port is not the service's: the balancer's own stack has it, and nobody listens there.
    let source = (World::source_v4(0), 0).into();
    let short = std::time::Duration::from_secs(1);
    LongLived::open(&site.world.client.ns.entry(), source, site.vip4(9000), short).unwrap_err();
}

#[test]
fn a_range_of_ports() {
    let world = world();
    let mut config = web(&world);
    config.services[0].ports = Ports::Word("8000-9000".into());
    let site = Site::start(world, config).unwrap();
    let report = site.spread(300, CLIENTS, site.vip4(8080)).unwrap();
    check::balanced(&report, 300, &NAMES).unwrap();
    let source = (World::source_v4(0), 0).into();
    let mut lines = LongLived::open(&site.world.client.ns.entry(), source, site.vip4(9000), LIMIT).unwrap();
    assert_eq!(lines.ask("the last of the range").unwrap(), report.owners()[&World::source_v4(0)]);
}

#[test]
fn any_port_of_both_protocols_and_the_exact_port_wins() {
    let world = world();
    let mut config = web(&world);
    let mut exact = config.services[0].clone();
    exact.name = "exact".into();
    exact.ports = Ports::Numbers(vec![8080]);
    exact.backends.truncate(1);
    config.services[0].ports = Ports::Word("any".into());
    config.services[0].protocol = Protocol::Both;
    config.services.push(exact);
    let site = Site::start(world, config).unwrap();
    let report = site.spread(300, CLIENTS, site.vip4(80)).unwrap();
    check::balanced(&report, 300, &NAMES).unwrap();
    let owners = report.owners();
    assert_eq!(site.owners_by_udp(CLIENTS, site.vip4(7)).unwrap(), owners, "protocol and port do not matter");
    let report = site.spread(60, 60, site.vip4(8080)).unwrap();
    assert_eq!(report.per_backend(), [("b1".to_owned(), 60)].into());
}

/// A second VIP of the same family, on the backends' `lo` and routed to the balancer.
fn second_vip(world: &World) -> IpAddr {
    let vip: IpAddr = "192.0.2.11".parse().unwrap();
    let route = format!("ip route add {vip} via {}", world.lb.v4);
    let address = format!("ip address add {vip}/32 dev lo");
    let router = world.router.iter().map(|host| (host, route.as_str()));
    for (host, words) in router.chain(world.backends.iter().map(|host| (host, address.as_str()))) {
        let mut words = words.split(' ');
        let mut command = host.ns.command(words.next().unwrap());
        command.args(words);
        output_of(command, LIMIT).unwrap();
    }
    vip
}

/// Owners of the client addresses by way of each of two VIPs.
fn owners_by_vip(affinity: Affinity) -> [BTreeMap<IpAddr, String>; 2] {
    let world = world();
    let vips = [world.vip4.into(), second_vip(&world)];
    let mut config = web(&world);
    config.services[0].addresses = vips.to_vec();
    config.services[0].affinity = affinity;
    let site = Site::start(world, config).unwrap();
    vips.map(|vip| {
        let report = site.spread(600, CLIENTS, (vip, 80).into()).unwrap();
        check::balanced(&report, 600, &NAMES).unwrap();
        report.owners()
    })
}

#[test]
fn affinity_source_is_the_same_backend_through_every_vip() {
    let [first, second] = owners_by_vip(Affinity::Source);
    assert_eq!(first, second);
}

#[test]
fn affinity_addresses_looks_at_the_vip_too() {
    let [first, second] = owners_by_vip(Affinity::Addresses);
    let same = first.iter().filter(|(source, owner)| second[*source] == **owner).count();
    // A third of 300 by chance; five standard deviations are 41.
    assert!((59..=141).contains(&same), "{same} of 300 have the same backend through both VIPs");
}

#[test]
fn affinity_flow_spreads_the_connections_of_one_client() {
    let world = world();
    let mut config = web(&world);
    config.services[0].affinity = Affinity::Flow;
    config.services[0].ports = Ports::Numbers(vec![80, 9000]);
    let site = Site::start(world, config).unwrap();
    let client = site.world.client.ns.entry();
    let source = World::source_v4(7);
    // Given ports: those that the kernel chooses are not the same every time.
    let mut lines: Vec<_> = (0..60)
        .map(|i| LongLived::open(&client, (source, 20_000 + i).into(), site.vip4(9000), LIMIT).unwrap())
        .collect();
    let names: Vec<_> = lines.iter_mut().map(|line| line.ask("one").unwrap()).collect();
    check::by_weight(&counts(names.iter().cloned()), &equal()).unwrap();
    for (line, name) in lines.iter_mut().zip(&names) {
        assert_eq!(line.ask("two").unwrap(), *name);
    }
    let answered: BTreeSet<_> =
        (0..30).map(|_| http_get(&client, source, site.vip4(80), "/", LIMIT).unwrap().text()).collect();
    assert_eq!(answered.len(), 3, "{answered:?}");
}

#[test]
fn one_service_of_both_families_and_another_beside_it() {
    let world = world();
    let mut config = web(&world);
    let mut six = LbConfig::web(&world, world.vip6.into(), Forward::L2, true).services.remove(0);
    six.name = "six".into();
    six.backends.truncate(2);
    config.services.push(six);
    let site = Site::start(world, config).unwrap();
    for (target, names) in [(site.vip4(80), &NAMES[..]), (site.vip6(80), &NAMES[..2])] {
        let report = site.spread(600, CLIENTS, target).unwrap();
        check::balanced(&report, 600, names).unwrap();
    }
}

#[test]
fn tunnels_carry_both_families_of_one_service() {
    let world = World::one_arm().build().unwrap();
    let mut config = LbConfig::web(&world, world.vip4.into(), Forward::Ipip, false);
    config.services[0].addresses.push(world.vip6.into());
    let site = Site::start(world, config).unwrap();
    for target in [site.vip4(80), site.vip6(80)] {
        let report = site.spread(600, CLIENTS, target).unwrap();
        check::balanced(&report, 600, &NAMES).unwrap();
    }
}
