//! What a drain knows of the connections that are left, against the sockets on the backends themselves.

use lb_tests::{
    lb_config::{LbConfig, Ports},
    load::Conversations,
    process::output_of,
    site::{LIMIT, Site},
    topology::World,
};
use lb_userspace::config::Forward;

const LINES: u16 = 9000;
const CLIENTS: u16 = 600;

/// Established connections to the line protocol, as the kernel of a backend counts them.
fn sockets(site: &Site, number: usize) -> u64 {
    let mut command = site.world.backend(number).unwrap().ns.command("ss");
    command.args(["-Htn", "state", "established", "sport", "=", &format!(":{LINES}")]);
    output_of(command, LIMIT).unwrap().lines().count() as u64
}

/// Waits until what the balancer says of a backend is what its kernel says, within one in a hundred.
fn agree(site: &Site, number: usize) -> u64 {
    let mut there = 0;
    site.wait(&format!("the flows of b{number} to be its sockets"), |view| {
        there = sockets(site, number);
        let flows = view.backend(&format!("web/b{number}"))["flows"].as_u64().unwrap();
        flows.abs_diff(there) * 100 <= there
    })
    .unwrap();
    there
}

#[test]
fn a_drain_knows_what_is_left_and_ends_at_zero() {
    let world = World::one_arm().backends(4).prepared().build().unwrap();
    let mut config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    config.services[0].ports = Ports::Numbers(vec![80, LINES]);
    let site = Site::start(world, config).unwrap();
    let client = site.world.client.ns.entry();
    let sources = World::sources_for(site.world.vip4.into(), CLIENTS);
    let (some, others) = sources.split_at(sources.len() / 2);
    let leaving = Conversations::start(&client, some, site.vip4(LINES)).unwrap();
    let staying = Conversations::start(&client, others, site.vip4(LINES)).unwrap();

    // Two at once.
    site.lb.cli(&["backend", "drain", "web/b2"]).unwrap();
    let refused = site.lb.try_cli(&["backend", "drain", "web/b3", "--wait", "2s", "--quiet", "3s"]).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("flows are left after 2s"), "{refused:?}");
    let before = [agree(&site, 2), agree(&site, 3)];
    assert!(before.iter().all(|there| *there > 100), "{before:?}");

    for talk in leaving.finish().unwrap() {
        assert_eq!(talk.failure, None, "{talk:?}");
    }
    let after = [agree(&site, 2), agree(&site, 3)];
    assert!(after.iter().zip(before).all(|(after, before)| *after > 0 && *after < before), "{after:?}");

    for talk in staying.finish().unwrap() {
        assert_eq!(talk.failure, None, "{talk:?}");
    }
    for name in ["web/b2", "web/b3"] {
        let text = site.lb.cli(&["backend", "drain", name, "--wait", "1m", "--quiet", "3s"]).unwrap();
        assert!(text.contains(&format!("{name}: 0 flows")) && text.contains("no flow is left"), "{text}");
    }
    assert_eq!([sockets(&site, 2), sockets(&site, 3)], [0, 0]);
}
