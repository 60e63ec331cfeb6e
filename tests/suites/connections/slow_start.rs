//! A backend that recovers takes its slots step by step, and nobody's connection notices.

use std::time::{Duration, Instant};

use lb_tests::{
    lb_config::{Health, LbConfig, Ports},
    load::Conversations,
    site::Site,
    topology::World,
    view::View,
};
use lb_userspace::config::Forward;

const LINES: u16 = 9000;
const CLIENTS: u16 = 60;
const SLOW_START: Duration = Duration::from_secs(8);

#[test]
fn a_backend_that_recovers_starts_slowly() {
    let world = World::one_arm().prepared().build().unwrap();
    let mut config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    let service = &mut config.services[0];
    service.ports = Ports::Numbers(vec![80, LINES]);
    service.slow_start = Some(format!("{}s", SLOW_START.as_secs()));
    service.health = Health { interval: "500ms".into(), timeout: "500ms".into(), ..Health::default() };
    let site = Site::start(world, config).unwrap();
    let (settled, ready) = (site.view().unwrap(), Instant::now());
    let full = settled.slots("web/b1");
    assert!(full > 1000, "together with the others it started at once: {full} slots");
    let client = site.world.client.ns.entry();
    let sources = World::sources_for(site.world.vip4.into(), CLIENTS);
    let talks = Conversations::start(&client, &sources, site.vip4(LINES)).unwrap();

    site.servers[0].set_ready(false).unwrap();
    site.wait("b1 to be not ready", |view| view.slots("web/b1") == 0).unwrap();
    site.wait("the others to be warm", |_| ready.elapsed() > SLOW_START).unwrap();
    site.servers[0].set_ready(true).unwrap();
    let mut steps: Vec<(u64, u64)> = Vec::new();
    site.wait("b1 to have all of its slots", |view| {
        let percent = view.backend("web/b1")["slow_start"].as_u64();
        let slots = view.slots("web/b1");
        if let Some(percent) = percent
            && steps.last().is_none_or(|(last, _)| *last != percent)
        {
            steps.push((percent, slots));
        }
        slots == full && percent.is_none()
    })
    .unwrap();
    assert!(steps.len() > 2 && steps.is_sorted(), "percent and slots: {steps:?}");
    for (percent, slots) in &steps {
        let expected = full * percent / 100;
        assert!(slots.abs_diff(expected) * 10 < full, "{slots} of {full} slots at {percent} %");
    }
    let after = site.view().unwrap();
    assert!(after.is_settled(), "{:#}", after.0);
    let digest = |view: &View| view.service("web")["installed_digest"].clone();
    assert_eq!(digest(&after), digest(&settled), "as if it had never been gone");
    for talk in talks.finish().unwrap() {
        assert_eq!(talk.failure, None, "{talk:?}");
    }
}
