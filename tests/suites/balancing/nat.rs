//! `forward = "nat"`: backends that know nothing of the balancer but that their way to the clients leads through it.

use std::net::IpAddr;

use lb_common::abi::Reason;
use lb_tests::{
    check,
    lb_config::{LbConfig, Ports},
    server::pattern,
    site::{LIMIT, Site},
    topology::World,
    traffic::{http_get, http_put},
};
use lb_userspace::config::{Forward, Protocol, XdpMode};

const CLIENTS: u16 = 300;
const REQUESTS: usize = 600;
const NAMES: [&str; 3] = ["b1", "b2", "b3"];
/// What clients ask.
const PORT: u16 = 8080;
/// The two-arm world's interfaces of the balancer: answers come in by those to the backends.
const TWO_ARMS: [&str; 8] =
    ["--interface", "to-client", "--interface", "to-b1", "--interface", "to-b2", "--interface", "to-b3"];

/// TCP to the servers' port 80, UDP to their port 7.
fn config(world: &World, vip: IpAddr) -> LbConfig {
    let mut config = LbConfig::web(world, vip, Forward::Nat, vip.is_ipv6());
    let mut echo = config.services[0].clone();
    echo.name = "echo".into();
    echo.protocol = Protocol::Udp;
    for (service, port) in [(&mut config.services[0], 80), (&mut echo, 7)] {
        service.ports = Ports::Numbers(vec![PORT]);
        service.backends.iter_mut().for_each(|backend| backend.port = Some(port));
    }
    config.services.push(echo);
    config
}

/// Everybody is answered from port 8080 of the VIP, long transfers included, and the answers were sent by XDP.
fn translates(site: &Site, vip: IpAddr) {
    let target = (vip, PORT).into();
    let report = site.spread(REQUESTS, CLIENTS, target).unwrap();
    check::balanced(&report, REQUESTS, &NAMES).unwrap();
    let owners = site.owners_by_udp(30, target).unwrap();
    assert_eq!(owners.len(), 30);
    assert_eq!(site.owners_by_udp(30, target).unwrap(), owners, "a client keeps its backend");
    let client = site.world.client.ns.entry();
    for source in World::sources_for(vip, 3) {
        let body: Vec<u8> = (0..300_000).map(pattern).collect();
        let answer = http_put(&client, source, target, body, LIMIT).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(report["bytes"], 300_000);
        let answer = http_get(&client, source, target, "/bytes/300000", LIMIT).unwrap();
        assert!(answer.body.iter().enumerate().all(|(i, b)| *b == pattern(i as u64)));
        assert_eq!(answer.body.len(), 300_000);
    }
    assert_eq!(site.view().unwrap().dropped(), [].into());
    // Three at least of each connection, if nobody gathers acknowledgements: nearly all go by XDP.
    let answers = site.view().unwrap().reason(Reason::Reply);
    assert!(answers >= REQUESTS as u64 * 3, "{answers} answers");
}

fn one_arm(six: bool, mode: XdpMode) {
    let world = World::one_arm().behind_balancer().build().unwrap();
    let vip: IpAddr = if six { world.vip6.into() } else { world.vip4.into() };
    let mut config = config(&world, vip);
    config.daemon.xdp_mode = mode;
    let site = Site::start(world, config).unwrap();
    translates(&site, vip);
}

fn two_arm(six: bool) {
    let world = World::two_arm().build().unwrap();
    let vip: IpAddr = if six { world.vip6.into() } else { world.vip4.into() };
    let config = config(&world, vip);
    let site = Site::start_with(world, config, &TWO_ARMS).unwrap();
    translates(&site, vip);
}

#[test]
fn one_arm_ipv4() {
    one_arm(false, XdpMode::Native);
}

#[test]
fn one_arm_ipv6() {
    one_arm(true, XdpMode::Native);
}

#[test]
fn one_arm_generic() {
    one_arm(false, XdpMode::Generic);
}

#[test]
fn two_arm_ipv4() {
    two_arm(false);
}

#[test]
fn two_arm_ipv6() {
    two_arm(true);
}
