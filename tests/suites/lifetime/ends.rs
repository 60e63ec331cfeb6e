//! The ways in which a balancer goes, and what it takes along.

use lb_tests::{
    check,
    lb_config::LbConfig,
    lb_process::{LbProcess, has_xdp},
    netdev::{Offload, set_offload},
    process::{Output, output_of, run},
    site::{LIMIT, SEED, Site},
    topology::{World, world::Host},
    view::View,
    xdp_pass::{Attached, PassProgram},
};
use lb_userspace::config::Forward;
use nix::sys::signal::Signal;

fn config(world: &World) -> LbConfig {
    let mut config = LbConfig::web(world, world.vip4.into(), Forward::L2, false);
    config.daemon.hash_seed = Some(SEED.into());
    config
}

fn site(arguments: &[&str]) -> Site {
    let world = World::one_arm().prepared().build().unwrap();
    let config = config(&world);
    Site::start_with(world, config, &[&["--interface", "eth0"], arguments].concat()).unwrap()
}

fn balances(site: &Site) {
    let report = site.spread(90, 90, site.vip4(80)).unwrap();
    check::balanced(&report, 90, &["b1", "b2", "b3"]).unwrap();
}

fn is_attached(site: &Site) -> bool {
    has_xdp(&site.world.lb.ns.entry(), "eth0").unwrap()
}

fn detach(site: &Site, arguments: &[&str]) -> Output {
    let mut command = site.world.lb.ns.entry().command(site.lb.binary());
    command.args(["detach", "--name", site.lb.name()]).args(arguments);
    run(command, LIMIT).unwrap()
}

#[test]
fn detach_takes_everything_along() {
    let mut site = site(&[]);
    // Not under the feet of a daemon.
    let refused = detach(&site, &[]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("stop it first"), "{}", refused.stderr);
    balances(&site);

    site.lb.stop().unwrap();
    assert!(is_attached(&site) && site.lb.pins().exists());
    balances(&site);
    let done = detach(&site, &[]);
    assert!(done.status.success(), "{}", done.stderr);
    assert!(done.stdout.contains("eth0"), "{}", done.stdout);
    assert!(!is_attached(&site) && !site.lb.pins().exists());

    let again = detach(&site, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&again.stdout).unwrap();
    assert!(again.status.success() && json["changed"] == false, "{json}");
    // And it can begin anew.
    site.lb.start_again().unwrap();
    site.wait_settled().unwrap();
    balances(&site);
}

#[test]
fn detach_on_exit_leaves_nothing() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut site = site(&["--detach-on-exit"]);
        balances(&site);
        let process = site.lb.process();
        process.signal(signal).unwrap();
        assert!(process.wait(LIMIT).unwrap().success());
        assert!(!is_attached(&site) && !site.lb.pins().exists() && !site.lb.socket().exists(), "{signal}");
    }
}

#[test]
fn a_stopped_daemon_leaves_no_socket_and_a_datapath() {
    let mut site = site(&[]);
    let process = site.lb.process();
    process.signal(Signal::SIGINT).unwrap();
    assert!(process.wait(LIMIT).unwrap().success());
    assert!(is_attached(&site) && site.lb.pins().exists() && !site.lb.socket().exists());
    balances(&site);
}

#[test]
fn a_second_daemon_of_the_same_name_is_refused() {
    let site = site(&[]);
    let text = config(&site.world).to_toml().unwrap();
    // On the same host, and on another one that shares this machine's BPF file system.
    let other = World::one_arm().backends(1).build().unwrap();
    for host in [&site.world.lb, &other.lb] {
        let refused = LbProcess::refused_as(site.lb.name(), host, &text, &["--interface", "eth0"]).unwrap();
        assert_eq!(refused.output.status.code(), Some(1), "{}", refused.output.stderr);
        for words in [site.lb.name(), "--name"] {
            assert!(refused.output.stderr.contains(words), "{}", refused.output.stderr);
        }
        site.wait_settled().unwrap();
        balances(&site);
    }
    assert!(!has_xdp(&other.lb.ns.entry(), "eth0").unwrap());
}

fn ip(host: &Host, words: &str) {
    let mut command = host.ns.command("ip");
    command.args(words.split(' '));
    output_of(command, LIMIT).unwrap();
}

/// Makes the balancer's interface anew, as a hypervisor does or a driver that is loaded again.
fn make_again(site: &Site) -> Attached {
    let (lb, router) = (&site.world.lb, site.world.router.as_ref().unwrap());
    ip(lb, &format!("link add eth0 type veth peer name p-lb netns {}", router.ns.name()));
    ip(router, "link set p-lb master lan up");
    for words in [
        "link set eth0 up",
        &format!("address add {}/24 dev eth0", lb.v4),
        "route add default via 198.51.100.1",
    ] {
        ip(lb, words);
    }
    let pass = router.ns.run(|| {
        set_offload("p-lb", Offload::TxChecksum, false)?;
        PassProgram::load()?.attach("p-lb")
    });
    pass.unwrap()
}

#[test]
fn an_interface_that_was_replaced_while_no_daemon_ran_is_attached_afresh() {
    let mut site = site(&[]);
    site.lb.stop().unwrap();
    ip(&site.world.lb, "link del eth0");
    let _pass = make_again(&site);
    assert!(!is_attached(&site), "its program went with it");
    site.lb.start_again().unwrap();
    site.wait_settled().unwrap();
    assert!(is_attached(&site));
    balances(&site);
}

#[test]
fn an_interface_that_vanished_and_came_back_is_attached_again() {
    let mut site = site(&[]);
    let started = site.view().unwrap().0["started"].clone();
    let interfaces = |view: &View| view.0["interfaces"].as_array().unwrap().len();
    let warns = |view: &View| view.0["warnings"].to_string().contains("interface eth0 is gone");
    for how in ["gone for a while", "replaced at once"] {
        ip(&site.world.lb, "link del eth0");
        if how == "gone for a while" {
            site.wait("eth0 to be missed", |view| warns(view) && interfaces(view) == 0).unwrap();
        }
        let _pass = make_again(&site);
        site.wait("eth0 to be attached again", |view| {
            !warns(view) && interfaces(view) == 1 && is_attached(&site)
        })
        .unwrap();
        site.wait_settled().unwrap();
        balances(&site);
    }
    assert_eq!(site.view().unwrap().0["started"], started, "by the same daemon");
    // The link that is pinned is the living one.
    site.lb.stop().unwrap();
    let done = detach(&site, &[]);
    assert!(done.stdout.contains("eth0") && !is_attached(&site), "{}", done.stdout);
}
