//! Path MTU discovery behind the VIP: a hop that takes 1,280 bytes tells the VIP, and the backend must hear of it.

use lb_tests::{
    lb_config::LbConfig,
    process::{output_of, run},
    server::pattern,
    site::{LIMIT, Site},
    topology::{World, world::Host},
    traffic::http_get,
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
