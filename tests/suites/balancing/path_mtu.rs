//! Path MTU discovery, both ways: a hop on the way to the client tells the VIP, and the backend must hear of it; the way to
//! the backend takes less than the client believes, and the balancer must tell.

use lb_tests::{
    lb_config::LbConfig,
    process::{output_of, run},
    server::pattern,
    site::{LIMIT, Site},
    topology::{World, world::Host},
    traffic::{http_get, http_put},
};
use lb_userspace::config::Forward;

/// Errors that a host's kernel took in: "destination unreachable" and "packet too big".
fn errors_heard(host: &Host) -> u64 {
    let read = |file: &str| {
        let mut command = host.ns.entry().command("cat");
        command.arg(file);
        run(command, LIMIT).unwrap().stdout
    };
    // Two lines of IPv4: names, then numbers.
    let snmp = read("/proc/net/snmp");
    let mut icmp = snmp.lines().filter(|line| line.starts_with("Icmp:")).map(str::split_whitespace);
    let (names, numbers) = (icmp.next().unwrap(), icmp.next().unwrap());
    let v4 = names.zip(numbers).find(|(name, _)| *name == "InDestUnreachs").unwrap().1;
    let snmp6 = read("/proc/net/snmp6");
    let v6 = snmp6.lines().find_map(|line| line.strip_prefix("Icmp6InPktTooBigs")).unwrap();
    v4.parse::<u64>().unwrap() + v6.trim().parse::<u64>().unwrap()
}

/// Long answers arrive although the way to the client takes less than both ends believe.
fn long_answers_arrive(six: bool, forward: Forward) {
    let world = if forward == Forward::L2 { World::one_arm().prepared() } else { World::one_arm() };
    let world = world.build().unwrap();
    let mut narrow = world.router.as_ref().unwrap().ns.entry().command("ip");
    narrow.args(["link", "set", "to-client", "mtu", "1280"]);
    output_of(narrow, LIMIT).unwrap();
    let vip = if six { world.vip6.into() } else { world.vip4.into() };
    let config = LbConfig::web(&world, vip, forward, six);
    let site = Site::start(world, config).unwrap();
    let client = site.world.client.ns.entry();
    let errors = || site.world.backends.iter().map(errors_heard).sum::<u64>();
    let before = errors();
    for source in World::sources_for(vip, 12) {
        let answer = http_get(&client, source, (vip, 80).into(), "/bytes/300000", LIMIT).unwrap();
        assert_eq!(answer.body.len(), 300_000);
        assert!(answer.body.iter().enumerate().all(|(i, byte)| *byte == pattern(i as u64)));
    }
    // Each source is told at least once: backends remember by address.
    let heard = errors() - before;
    assert!(heard >= 12, "{heard} errors reached the backends: was the way narrow?");
    assert_eq!(site.view().unwrap().dropped(), [].into());
}

/// Long requests arrive although the way from the balancer to its backends takes 1,400 bytes with all headers.
fn long_requests_arrive(six: bool, forward: Forward) {
    let world = if forward == Forward::L2 { World::one_arm().prepared() } else { World::one_arm() };
    let world = world.build().unwrap();
    for route in [
        "route replace 198.51.100.0/24 dev eth0 proto kernel scope link mtu 1400",
        "-6 route replace 2001:db8:1::/64 dev eth0 proto kernel metric 256 mtu 1400",
    ] {
        let mut narrow = world.lb.ns.entry().command("ip");
        narrow.args(route.split(' '));
        output_of(narrow, LIMIT).unwrap();
    }
    let vip = if six { world.vip6.into() } else { world.vip4.into() };
    let config = LbConfig::web(&world, vip, forward, six);
    let site = Site::start(world, config).unwrap();
    let client = site.world.client.ns.entry();
    for source in World::sources_for(vip, 12) {
        let body: Vec<u8> = (0..300_000).map(pattern).collect();
        let answer = http_put(&client, source, (vip, 80).into(), body, LIMIT).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(report["bytes"], 300_000);
    }
    let view = site.view().unwrap();
    let told = view.0["reasons"]["too_big_told"].as_u64().unwrap();
    assert!(told > 0, "nobody was told: was the way narrow?");
    assert_eq!(view.dropped(), [].into());
}

#[test]
fn requests_l2_ipv4() {
    long_requests_arrive(false, Forward::L2);
}

#[test]
fn requests_l2_ipv6() {
    long_requests_arrive(true, Forward::L2);
}

#[test]
fn requests_ipip_ipv4() {
    long_requests_arrive(false, Forward::Ipip);
}

#[test]
fn requests_gue_ipv6() {
    long_requests_arrive(true, Forward::Gue);
}

#[test]
fn l2_ipv4() {
    long_answers_arrive(false, Forward::L2);
}

#[test]
fn l2_ipv6() {
    long_answers_arrive(true, Forward::L2);
}

#[test]
fn ipip_ipv4() {
    long_answers_arrive(false, Forward::Ipip);
}

#[test]
fn ipip_ipv6() {
    long_answers_arrive(true, Forward::Ipip);
}

#[test]
fn gue_ipv4() {
    long_answers_arrive(false, Forward::Gue);
}

#[test]
fn gue_ipv6() {
    long_answers_arrive(true, Forward::Gue);
}
