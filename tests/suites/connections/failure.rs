//! A backend that fails takes its connections along, and `on_failure = "reset"` tells their clients at once.

use std::{io, net::IpAddr};

use lb_common::abi::Reason;
use lb_tests::{
    lb_config::{Health, LbConfig, Ports},
    process::output_of,
    site::{LIMIT, Site},
    topology::World,
    traffic::LongLived,
};
use lb_userspace::config::{Forward, OnFailure};

const LINES: u16 = 9000;
const CLIENTS: u16 = 60;

/// What the kernel told the client of a connection, if it told anything.
fn told(error: &anyhow::Error) -> Option<io::ErrorKind> {
    error.downcast_ref::<io::Error>().map(io::Error::kind)
}

fn connections_of_a_failed_backend_are_reset(vip: impl Fn(&World) -> IpAddr) {
    let world = World::one_arm().prepared().build().unwrap();
    let vip = vip(&world);
    let mut config = LbConfig::web(&world, vip, Forward::L2, vip.is_ipv6());
    let service = &mut config.services[0];
    service.ports = Ports::Numbers(vec![80, LINES]);
    service.on_failure = OnFailure::Reset;
    service.health = Health { interval: "500ms".into(), timeout: "500ms".into(), ..Health::default() };
    let site = Site::start(world, config).unwrap();
    let client = site.world.client.ns.entry();
    let target = (vip, LINES).into();
    let open = |source: IpAddr| LongLived::open(&client, (source, 0).into(), target, LIMIT).unwrap();
    let mut held: Vec<(IpAddr, LongLived, String)> = World::sources_for(vip, CLIENTS)
        .into_iter()
        .map(|source| {
            let mut connection = open(source);
            let backend = connection.ask("hello").unwrap();
            (source, connection, backend)
        })
        .collect();

    // Pulled out, so that nobody else tells the client.
    let mut cable = site.world.router.as_ref().unwrap().ns.command("ip");
    cable.args(["link", "set", "p-b1", "down"]);
    output_of(cable, LIMIT).unwrap();
    site.wait("b1 to have failed", |view| view.state("web/b1") == "failed").unwrap();
    let before = site.view().unwrap().reason(Reason::ConnectionReset);
    let mut lost = 0;
    for (source, connection, backend) in &mut held {
        let answer = connection.ask("still there?");
        if backend != "b1" {
            assert_eq!(answer.unwrap(), *backend, "{source} has nothing to do with b1");
            continue;
        }
        lost += 1;
        let error = answer.expect_err("its backend is gone");
        assert_eq!(told(&error), Some(io::ErrorKind::ConnectionReset), "{source}: {error:#}");
        let anew = open(*source).ask("anew").unwrap();
        assert!(anew == "b2" || anew == "b3", "{source} is on {anew} now");
    }
    assert!(lost > 5, "{lost} connections were on b1");
    let resets = site.view().unwrap().reason(Reason::ConnectionReset) - before;
    assert!(resets >= lost, "{resets} resets for {lost} connections");
}

#[test]
fn connections_of_a_failed_backend_are_reset_over_ipv4() {
    connections_of_a_failed_backend_are_reset(|world| world.vip4.into());
}

#[test]
fn connections_of_a_failed_backend_are_reset_over_ipv6() {
    connections_of_a_failed_backend_are_reset(|world| world.vip6.into());
}
