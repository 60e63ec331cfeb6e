//! Two balancers on one host, each with its name, interface, pins and socket.

use lb_tests::{
    check,
    lb_config::LbConfig,
    lb_process::{LbProcess, has_xdp},
    netdev::{Offload, set_offload},
    process::output_of,
    site::{LIMIT, SEED, Site},
    topology::World,
    traffic::{Spread, spread},
};
use lb_userspace::config::Forward;

#[test]
fn two_instances_do_not_know_of_each_other() {
    let world = World::two_arm().prepared().build().unwrap();
    // The second instance serves what b1 asks, from its own VIP, by b2 and b3.
    let vip = "192.0.2.20";
    for host in &world.backends[1..] {
        let mut command = host.ns.command("ip");
        command.args(["address", "add", &format!("{vip}/32"), "dev", "lo"]);
        output_of(command, LIMIT).unwrap();
    }
    world.backends[0].ns.run(|| set_offload("eth0", Offload::TxChecksum, false)).unwrap();
    let mut second = LbConfig::web(&world, vip.parse().unwrap(), Forward::L2, false);
    second.daemon.hash_seed = Some(SEED.into());
    second.services[0].backends.remove(0);

    let config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    let site = Site::start(world, config).unwrap();
    let text = second.to_toml().unwrap();
    let mut other = LbProcess::start_with(&site.world.lb, &text, &["--interface", "to-b1"]).unwrap();
    lb_tests::wait::wait_for("the second instance", LIMIT, || other.view().is_ok_and(|v| v.is_settled()))
        .unwrap();

    let both = |requests: usize| {
        let report = site.spread(requests, 300, site.vip4(80)).unwrap();
        check::balanced(&report, requests, &["b1", "b2", "b3"]).unwrap();
        let b1 = &site.world.backends[0];
        let sources = [b1.v4.into()];
        let plan = Spread::new(40, &sources, format!("{vip}:80").parse().unwrap());
        let report = spread(&b1.ns.entry(), &plan).unwrap();
        check::steady(&report, 40).unwrap();
    };
    both(300);
    let packets = |lb: &LbProcess| lb.view().unwrap().service("web")["packets"].as_u64().unwrap();
    assert!(packets(&other) >= 160 && packets(&site.lb) >= 1200);
    assert_ne!(other.socket(), site.lb.socket());

    // One ends and takes what is its own; the other goes on.
    other.stop().unwrap();
    output_of(
        {
            let mut command = site.world.lb.ns.command(other.binary().to_str().unwrap());
            command.args(["detach", "--name", other.name()]);
            command
        },
        LIMIT,
    )
    .unwrap();
    let lb = site.world.lb.ns.entry();
    assert!(!has_xdp(&lb, "to-b1").unwrap() && has_xdp(&lb, "to-client").unwrap());
    let report = site.spread(300, 300, site.vip4(80)).unwrap();
    check::balanced(&report, 300, &["b1", "b2", "b3"]).unwrap();
}
