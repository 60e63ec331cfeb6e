//! The ways of failing, what the balancer calls them, and whose clients move.

use std::time::Duration;

use lb_common::abi::Reason;
use lb_tests::{
    backend::Backend,
    check,
    lb_config::{Health, Ports},
    process::output_of,
    site::{LIMIT, Site},
    topology::World,
    traffic::{LongLived, http_get},
    view::View,
};
use lb_userspace::config::Forward;

use crate::scene::{clients_of, config, only_the_share_moved, owners, site};

/// Waits until b1 is in `state` and its slots are handed on, and shows that only they moved; `recover` undoes it.
fn fails_and_recovers(
    mut site: Site,
    state: &str,
    fail: impl FnOnce(&mut Site),
    recover: impl FnOnce(&mut Site),
) {
    let before = owners(&site);
    let settled = site.view().unwrap();
    fail(&mut site);
    site.wait(&format!("b1 to be {state}"), |view| view.state("web/b1") == state).unwrap();
    let view = site.view().unwrap();
    assert_eq!(view.slots("web/b1"), 0);
    assert!(!view.backend("web/b1")["reason"].as_str().unwrap().is_empty());
    let service = view.service("web");
    assert_ne!(service["desired_digest"], service["installed_digest"]);
    assert_eq!(service["desired_digest"], settled.service("web")["desired_digest"]);
    only_the_share_moved(&before, &owners(&site), "b1", &["b2", "b3"]);

    recover(&mut site);
    site.wait("b1 to be back", View::is_settled).unwrap();
    assert_eq!(owners(&site), before, "exactly the old owners");
    let slots = |view: &View| ["web/b1", "web/b2", "web/b3"].map(|name| view.slots(name));
    assert_eq!(slots(&site.view().unwrap()), slots(&settled));
}

fn restart_b1(site: &mut Site) {
    site.servers[0] = Backend::start(&site.world.backends[0], site.folder.path()).unwrap();
}

#[test]
fn refused_connections_are_a_failure() {
    fails_and_recovers(site(), "failed", |site| site.servers[0].kill().unwrap(), restart_b1);
}

#[test]
fn an_answer_that_never_comes_is_not_ready() {
    let thaw = |site: &mut Site| site.servers[0].thaw().unwrap();
    fails_and_recovers(site(), "not_ready", |site| site.servers[0].freeze().unwrap(), thaw);
}

#[test]
fn a_wrong_answer_is_not_ready() {
    let ready = |ready: bool| move |site: &mut Site| site.servers[0].set_ready(ready).unwrap();
    fails_and_recovers(site(), "not_ready", ready(false), ready(true));
}

#[test]
fn a_cable_that_is_pulled_is_a_failure() {
    let cable = |state: &'static str| {
        move |site: &mut Site| {
            let mut command = site.world.router.as_ref().unwrap().ns.command("ip");
            command.args(["link", "set", "p-b1", state]);
            output_of(command, LIMIT).unwrap();
        }
    };
    fails_and_recovers(site(), "failed", cable("down"), cable("up"));
}

#[test]
fn a_tcp_check_sees_a_closed_port() {
    let world = World::one_arm().prepared().build().unwrap();
    let mut config = config(&world, Forward::L2);
    config.services[0].health = Health { interval: "500ms".into(), timeout: "500ms".into(), ..Health::tcp() };
    let site = Site::start(world, config).unwrap();
    fails_and_recovers(site, "failed", |site| site.servers[0].kill().unwrap(), restart_b1);
}

#[test]
fn every_service_has_its_own_checks() {
    let world = World::one_arm().prepared().build().unwrap();
    let mut config = config(&world, Forward::L2);
    config.services[0].ports = Ports::Numbers(vec![80]);
    let mut lines = config.services[0].clone();
    lines.name = "lines".into();
    lines.ports = Ports::Numbers(vec![9000]);
    lines.health = Health { port: 9000, ..Health::tcp() };
    config.services.push(lines);
    let site = Site::start(world, config).unwrap();
    let of_b1 = clients_of(&owners(&site), "b1");
    site.servers[0].set_ready(false).unwrap();
    site.wait("b1 to be out of web", |view| view.state("web/b1") == "not_ready").unwrap();
    assert_eq!(site.view().unwrap().state("lines/b1"), "ready");
    assert!(clients_of(&owners(&site), "b1").is_empty());
    let client = site.world.client.ns.entry();
    let mut line = LongLived::open(&client, (of_b1[0], 0).into(), site.vip4(9000), LIMIT).unwrap();
    assert_eq!(line.ask("still there?").unwrap(), "b1");
}

#[test]
fn with_nobody_left_there_is_silence_and_the_status_says_so() {
    let mut site = site();
    let before = owners(&site);
    for server in &mut site.servers {
        server.kill().unwrap();
    }
    site.wait("all to have failed", |view| view.backends().all(|backend| backend["state"] == "failed"))
        .unwrap();
    let dropped = site.view().unwrap().reason(Reason::NoBackend);
    let client = site.world.client.ns.entry();
    for source in World::sources_for(site.world.vip4.into(), 5) {
        let short = Duration::from_millis(300);
        let error = http_get(&client, source, site.vip4(80), "/", short).unwrap_err();
        assert!(format!("{error:#}").contains("no answer within"), "no refusal, no ICMP: {error:#}");
    }
    let view = site.view().unwrap();
    assert!(view.reason(Reason::NoBackend) >= dropped + 5);
    let warnings = view.0["warnings"].to_string();
    assert!(warnings.contains("web") && warnings.contains("no backend"), "{warnings}");

    // One that comes back takes everybody; all of them, and everybody is where they were.
    site.servers[1] = Backend::start(&site.world.backends[1], site.folder.path()).unwrap();
    site.wait("b2 to be back", |view| view.state("web/b2") == "ready").unwrap();
    assert!(owners(&site).values().all(|owner| owner == "b2"));
    for i in [0, 2] {
        site.servers[i] = Backend::start(&site.world.backends[i], site.folder.path()).unwrap();
    }
    site.wait("all to be back", View::is_settled).unwrap();
    assert_eq!(owners(&site), before);
    assert_eq!(site.view().unwrap().0["warnings"], serde_json::json!([]));
    check::steady(&site.spread(30, 30, site.vip4(80)).unwrap(), 30).unwrap();
}
