//! Every frame, bit by bit, as the stack behind the balancer sees it.

use lb_tests::{
    lb_config::LbConfig,
    process::output_of,
    site::{LIMIT, Site},
    tap::Tap,
    topology::World,
};
use lb_userspace::config::{Announce, Forward, XdpMode};

use crate::frames::{Cast, PORT, SENDER, all};

/// A service of both families on one port of the VIPs, and a balancer that announces them.
fn site(mode: XdpMode) -> Site {
    let world = World::two_arm().backends(1).prepared().build().unwrap();
    let mut config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    let mut six = LbConfig::web(&world, world.vip6.into(), Forward::L2, true).services.remove(0);
    six.name = "six".into();
    config.services.push(six);
    config.daemon.announce = Announce::Arp;
    config.daemon.xdp_mode = mode;
    Site::start(world, config).unwrap()
}

fn mac(site: &Site) -> [u8; 6] {
    let mut command = site.world.lb.ns.command("ip");
    command.args(["-json", "link", "show", "dev", "to-client"]);
    let links: serde_json::Value = serde_json::from_str(&output_of(command, LIMIT).unwrap()).unwrap();
    let text = links[0]["address"].as_str().unwrap().replace(':', "");
    hex::decode(text).unwrap().try_into().unwrap()
}

fn passes_everything(mode: XdpMode) {
    let site = site(mode);
    let World { client, lb, vip4, vip6, .. } = &site.world;
    let cast = Cast {
        client4: client.v4,
        client6: client.v6,
        host4: lb.v4,
        host6: lb.v6,
        vip4: *vip4,
        vip6: *vip6,
        host_mac: mac(&site),
    };
    let sender = Tap::open(&client.ns.entry(), "eth0").unwrap();
    let stack = Tap::open(&lb.ns.entry(), "to-client").unwrap();
    let frames = all(&cast);
    assert!(frames.len() > 250, "{} frames", frames.len());
    for (name, frame) in &frames {
        sender.send(frame).unwrap();
        let seen = stack.receive(LIMIT, |bytes| bytes.get(6..12) == Some(&SENDER[..]));
        let seen = seen.unwrap_or_else(|error| panic!("{name}: the stack never saw it: {error:#}"));
        assert_eq!(hex::encode(seen), hex::encode(frame), "{name}");
    }
    let view = site.view().unwrap();
    assert_eq!(view.dropped(), [].into());
    // All the while it balances.
    let report = site.spread(20, 20, site.vip4(PORT)).unwrap();
    lb_tests::check::steady(&report, 20).unwrap();
}

#[test]
fn in_native_mode() {
    passes_everything(XdpMode::Native);
}

#[test]
fn in_generic_mode() {
    passes_everything(XdpMode::Generic);
}
