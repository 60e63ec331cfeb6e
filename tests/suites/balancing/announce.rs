//! `announce = "arp"`: a plain LAN works with nothing else.

use lb_common::abi::Reason;
use lb_tests::{
    check,
    lb_config::LbConfig,
    process::output_of,
    site::{LIMIT, Site},
    topology::{World, world::Host},
    traffic::http_get,
    wait::wait_for,
};
use lb_userspace::config::{Announce, Forward};

const NAMES: [&str; 3] = ["b1", "b2", "b3"];

/// VIPs from the LAN's own subnets, and no route to them.
fn world() -> World {
    World::one_arm().vip_on_lan().prepared().build().unwrap()
}

/// A service for the VIP of each family.
fn site(world: World, announce: Announce) -> Site {
    let mut config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    let mut six = LbConfig::web(&world, world.vip6.into(), Forward::L2, true).services.remove(0);
    six.name = "six".into();
    config.services.push(six);
    config.daemon.announce = announce;
    Site::start(world, config).unwrap()
}

fn ip(host: &Host, arguments: &[&str]) -> String {
    let mut command = host.ns.command("ip");
    command.args(arguments);
    output_of(command, LIMIT).unwrap()
}

#[test]
fn vips_of_the_lan_are_found_without_any_route() {
    let site = site(world(), Announce::Arp);
    for target in [site.vip4(80), site.vip6(80)] {
        let report = site.spread(600, 300, target).unwrap();
        check::balanced(&report, 600, &NAMES).unwrap();
    }
    let view = site.view().unwrap();
    assert!(view.reason(Reason::ArpReply) >= 1 && view.reason(Reason::NeighbourReply) >= 1, "{:#}", view.0);
}

#[test]
fn an_unasked_announcement_corrects_what_a_neighbour_believes() {
    let world = world();
    let vips = [world.vip4.to_string(), world.vip6.to_string()];
    // Somebody else had the VIPs before.
    for vip in &vips {
        let router = world.router.as_ref().unwrap();
        ip(router, &["neigh", "add", vip, "lladdr", "02:00:00:00:00:99", "dev", "lan", "nud", "stale"]);
    }
    let site = site(world, Announce::Arp);
    let links: serde_json::Value =
        serde_json::from_str(&ip(&site.world.lb, &["-json", "link", "show", "dev", "eth0"])).unwrap();
    let mac = links[0]["address"].as_str().unwrap();
    let router = site.world.router.as_ref().unwrap();
    for vip in &vips {
        let what = format!("the router to believe that {vip} is at {mac}");
        wait_for(&what, LIMIT, || ip(router, &["neigh", "show", vip, "dev", "lan"]).contains(mac)).unwrap();
    }
}

#[test]
fn without_it_nobody_answers_for_a_vip() {
    let site = site(world(), Announce::None);
    let client = site.world.client.ns.entry();
    let error = http_get(&client, World::source_v4(0), site.vip4(80), "/", LIMIT).unwrap_err();
    assert!(format!("{error:#}").contains("No route to host"), "{error:#}");
    assert_eq!(site.view().unwrap().reason(Reason::ArpReply), 0);
}
