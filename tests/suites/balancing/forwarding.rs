//! Every way of forwarding in every kind of world.

use std::net::IpAddr;

use lb_tests::{
    check,
    lb_config::LbConfig,
    site::{LIMIT, Site},
    topology::World,
    traffic::http_put,
};
use lb_userspace::config::{Forward, XdpMode};

const CLIENTS: u16 = 300;
const REQUESTS: usize = 600;
const NAMES: [&str; 3] = ["b1", "b2", "b3"];

/// Family of the clients and the VIP, and of the backends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    V4,
    V6,
}
use Family::{V4, V6};

fn vip(world: &World, family: Family) -> IpAddr {
    if family == V4 { world.vip4.into() } else { world.vip6.into() }
}

/// A site with one service, spread over.
fn balances(world: World, vip_family: Family, forward: Forward, backends: Family, mode: XdpMode) -> Site {
    let vip = vip(&world, vip_family);
    let mut config = LbConfig::web(&world, vip, forward, backends == V6);
    config.daemon.xdp_mode = mode;
    let site = Site::start(world, config).unwrap();
    let report = site.spread(REQUESTS, CLIENTS, (vip, 80).into()).unwrap();
    check::balanced(&report, REQUESTS, &NAMES).unwrap();
    let view = site.view().unwrap();
    assert_eq!(view.dropped(), [].into());
    // Each request takes at least four packets from the client, and each of them was counted.
    let packets = view.service("web")["packets"].as_u64().unwrap();
    assert!(packets >= REQUESTS as u64 * 4, "{packets} packets");
    site
}

fn prepared() -> World {
    World::one_arm().prepared().build().unwrap()
}

fn plain() -> World {
    World::one_arm().build().unwrap()
}

#[test]
fn l2() {
    let site = balances(prepared(), V4, Forward::L2, V4, XdpMode::Auto);
    assert_eq!(site.view().unwrap().0["interfaces"][0]["mode"], "native");
}

#[test]
fn l2_ipv6() {
    balances(prepared(), V6, Forward::L2, V6, XdpMode::Auto);
}

#[test]
fn ipv4_in_ipv4() {
    balances(plain(), V4, Forward::Ipip, V4, XdpMode::Native);
}

#[test]
fn ipv6_in_ipv6() {
    balances(plain(), V6, Forward::Ipip, V6, XdpMode::Native);
}

#[test]
fn ipv6_in_ipv4() {
    balances(plain(), V6, Forward::Ipip, V4, XdpMode::Native);
}

#[test]
fn ipv4_in_ipv6() {
    balances(plain(), V4, Forward::Ipip, V6, XdpMode::Native);
}

#[test]
fn gue_ipv4_in_ipv4() {
    balances(plain(), V4, Forward::Gue, V4, XdpMode::Native);
}

#[test]
fn gue_ipv6_in_ipv6() {
    balances(plain(), V6, Forward::Gue, V6, XdpMode::Native);
}

#[test]
fn gue_ipv6_in_ipv4() {
    balances(plain(), V6, Forward::Gue, V4, XdpMode::Native);
}

#[test]
fn gue_ipv4_in_ipv6() {
    balances(plain(), V4, Forward::Gue, V6, XdpMode::Native);
}

#[test]
fn generic_mode_gue() {
    balances(plain(), V4, Forward::Gue, V4, XdpMode::Generic);
}

#[test]
fn two_arms_gue() {
    balances(World::two_arm().build().unwrap(), V4, Forward::Gue, V6, XdpMode::Native);
}

#[test]
fn generic_mode_l2() {
    let site = balances(prepared(), V4, Forward::L2, V4, XdpMode::Generic);
    assert_eq!(site.view().unwrap().0["interfaces"][0]["mode"], "generic");
}

#[test]
fn generic_mode_ipip() {
    balances(plain(), V6, Forward::Ipip, V4, XdpMode::Generic);
}

#[test]
fn two_arms_l2() {
    balances(World::two_arm().prepared().build().unwrap(), V4, Forward::L2, V4, XdpMode::Native);
}

#[test]
fn two_arms_l2_ipv6() {
    balances(World::two_arm().prepared().build().unwrap(), V6, Forward::L2, V6, XdpMode::Native);
}

#[test]
fn two_arms_ipip() {
    balances(World::two_arm().build().unwrap(), V4, Forward::Ipip, V4, XdpMode::Native);
}

#[test]
fn two_arms_mixed_families() {
    balances(World::two_arm().build().unwrap(), V4, Forward::Ipip, V6, XdpMode::Native);
}

#[test]
fn large_bodies_pass_in_both_directions() {
    for (world, forward) in [(prepared(), Forward::L2), (plain(), Forward::Ipip), (plain(), Forward::Gue)] {
        let target = (world.vip4, 80).into();
        let config = LbConfig::web(&world, world.vip4.into(), forward, false);
        let site = Site::start(world, config).unwrap();
        let client = site.world.client.ns.entry();
        for source in World::sources_for(site.world.vip4.into(), 6) {
            let body: Vec<u8> = (0..300_000).map(lb_tests::server::pattern).collect();
            let answer = http_put(&client, source, target, body, LIMIT).unwrap();
            let report: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(report["bytes"], 300_000);
            let answer =
                lb_tests::traffic::http_get(&client, source, target, "/bytes/300000", LIMIT).unwrap();
            assert!(answer.body.iter().enumerate().all(|(i, b)| *b == lb_tests::server::pattern(i as u64)));
            assert_eq!(answer.body.len(), 300_000);
        }
        assert_eq!(site.view().unwrap().dropped(), [].into());
    }
}
