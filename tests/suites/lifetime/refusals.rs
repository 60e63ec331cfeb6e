//! A start that is refused changes nothing and says what to do.

use lb_common::abi::ABI_VERSION;
use lb_tests::{
    check,
    lb_config::LbConfig,
    lb_process::{LbProcess, has_xdp},
    process::output_of,
    site::{LIMIT, SEED, Site},
    topology::{World, world::Host},
    xdp_pass::PassProgram,
};
use lb_userspace::config::{Forward, XdpMode};

use crate::pinned::pin_something;

fn world() -> World {
    World::one_arm().backends(1).prepared().build().unwrap()
}

fn config(world: &World) -> LbConfig {
    let mut config = LbConfig::web(world, world.vip4.into(), Forward::L2, false);
    config.daemon.hash_seed = Some(SEED.into());
    config
}

/// Refused with these words, and nothing is left behind.
fn is_refused(host: &Host, text: &str, arguments: &[&str], words: &[&str]) {
    let refused = LbProcess::refused(host, text, arguments).unwrap();
    let said = &refused.output.stderr;
    assert_eq!(refused.output.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "it does not say {word:?}: {said}");
    }
    assert!(refused.left.is_empty(), "it has left {:?}: {said}", refused.left);
}

fn ip(host: &Host, arguments: &[&str]) {
    let mut command = host.ns.command("ip");
    command.args(arguments);
    output_of(command, LIMIT).unwrap();
}

#[test]
fn an_interface_with_somebody_elses_program() {
    let world = world();
    let _foreign = world.lb.ns.run(|| PassProgram::load()?.attach("eth0")).unwrap();
    let text = config(&world).to_toml().unwrap();
    is_refused(&world.lb, &text, &["--interface", "eth0"], &["eth0", "lb_test_pass", "not ours", "xdp off"]);
    assert!(has_xdp(&world.lb.ns.entry(), "eth0").unwrap(), "it is still there");
}

#[test]
fn an_interface_of_another_instance() {
    let world = World::one_arm().prepared().build().unwrap();
    let config = config(&world);
    let text = config.to_toml().unwrap();
    let site = Site::start(world, config).unwrap();
    is_refused(&site.world.lb, &text, &["--interface", "eth0"], &["eth0", "balancer"]);
    let report = site.spread(90, 90, site.vip4(80)).unwrap();
    check::balanced(&report, 90, &["b1", "b2", "b3"]).unwrap();
}

#[test]
fn an_interface_that_is_not_there() {
    let world = world();
    let text = config(&world).to_toml().unwrap();
    is_refused(&world.lb, &text, &["--interface", "eth7"], &["eth7", "eth0"]);
    // One that is there beside it does not help.
    let both = ["--interface", "eth0", "--interface", "eth7"];
    is_refused(&world.lb, &text, &both, &["eth7"]);
    assert!(!has_xdp(&world.lb.ns.entry(), "eth0").unwrap());
}

#[test]
fn no_interface_at_all() {
    let world = world();
    let text = config(&world).to_toml().unwrap();
    is_refused(&world.lb, &text, &[], &["interface", "--interface"]);
}

#[test]
fn a_loopback_interface() {
    let world = world();
    let text = config(&world).to_toml().unwrap();
    is_refused(&world.lb, &text, &["--interface", "lo"], &["lo"]);
}

#[test]
fn a_vip_that_is_the_balancers_own() {
    let world = world();
    let mut config = config(&world);
    for vip in [world.lb.v4.into(), world.lb.v6.into()] {
        config.services[0].addresses = vec![vip];
        config.services[0].forward = Forward::Ipip;
        let text = config.to_toml().unwrap();
        let words = [&vip.to_string(), "eth0", "local", "ip address del"];
        is_refused(&world.lb, &text, &["--interface", "eth0"], &words);
    }
    ip(&world.lb, &["address", "add", "192.0.2.10/32", "dev", "lo"]);
    config.services[0].addresses = vec![world.vip4.into()];
    let text = config.to_toml().unwrap();
    is_refused(&world.lb, &text, &["--interface", "eth0"], &["192.0.2.10", "lo", "local"]);
    assert!(!has_xdp(&world.lb.ns.entry(), "eth0").unwrap());
}

#[test]
fn native_mode_where_the_driver_has_none() {
    let world = world();
    let mut config = config(&world);
    config.daemon.xdp_mode = XdpMode::Native;
    ip(&world.lb, &["link", "add", "br7", "type", "bridge"]);
    ip(&world.lb, &["link", "set", "br7", "up"]);
    let text = config.to_toml().unwrap();
    is_refused(&world.lb, &text, &["--interface", "br7"], &["br7", "native", "xdp_mode"]);
    // One of two: the other one is let go as well.
    let both = ["--interface", "eth0", "--interface", "br7"];
    is_refused(&world.lb, &text, &both, &["br7", "native"]);
    assert!(!has_xdp(&world.lb.ns.entry(), "eth0").unwrap());
}

#[test]
fn an_address_for_metrics_that_is_taken() {
    let world = world();
    let _taken = world.lb.ns.run(|| Ok(std::net::TcpListener::bind(("127.0.0.1", 9870))?)).unwrap();
    let text = config(&world).to_toml().unwrap();
    let text = text.replace("[daemon]", "[daemon]\nlisten = \"127.0.0.1:9870\"");
    is_refused(&world.lb, &text, &["--interface", "eth0"], &["127.0.0.1:9870"]);
    assert!(!has_xdp(&world.lb.ns.entry(), "eth0").unwrap());
}

#[test]
fn a_file_with_mistakes() {
    let world = world();
    let text = config(&world).to_toml().unwrap();
    let interface = ["--interface", "eth0"];
    for (from, to, words) in [
        ("forward = \"l2\"", "forwards = \"l2\"", &["forwards", "lb.toml:"][..]),
        ("weight = 100", "weight = 0", &["weight", "lb.toml:"]),
        ("192.0.2.10", "192.0.2.300", &["192.0.2.300", "lb.toml:"]),
        ("[daemon]", "[daemon", &["lb.toml:"]),
    ] {
        assert!(text.contains(from), "{from} is not in\n{text}");
        is_refused(&world.lb, &text.replace(from, to), &interface, words);
    }
    let service = text.split_once("[[service]]").unwrap().1;
    let twice = format!("{text}\n[[service]]{service}");
    is_refused(&world.lb, &twice, &interface, &["web", "lb.toml:"]);
    assert!(!has_xdp(&world.lb.ns.entry(), "eth0").unwrap());
}

#[test]
fn maps_of_another_version() {
    let world = world();
    let text = config(&world).to_toml().unwrap();
    let name = lb_tests::cleanup::unique_name("other-abi");
    let pins = std::path::Path::new(lb_tests::cleanup::PIN_DIR).join(&name);
    let ours = format!("v{ABI_VERSION}");
    pin_something(&pins.join("v0/CONTROL"));
    let refused = LbProcess::refused_as(&name, &world.lb, &text, &["--interface", "eth0"]).unwrap();
    let said = &refused.output.stderr;
    for words in ["v0", &ours, "v1 on", "lb detach", "start again", "lost", &name] {
        assert!(said.contains(words), "{words} is not in: {said}");
    }
    assert_eq!(refused.output.status.code(), Some(1));
    assert!(pins.join("v0/CONTROL").exists(), "it is left alone");
    assert!(!pins.join(&ours).exists());
    assert!(!has_xdp(&world.lb.ns.entry(), "eth0").unwrap());

    // What it says helps.
    let mut command = world.lb.ns.entry().command(lb_tests::binaries::lb().unwrap());
    command.args(["detach", "--name", &name]);
    output_of(command, LIMIT).unwrap();
    assert!(!pins.exists());
}
