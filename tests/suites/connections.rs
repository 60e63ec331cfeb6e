//! Live connections through scale events: they stay where they are, new ones go where the table says.

#[cfg(test)]
#[path = "connections/drain.rs"]
mod drain;
#[cfg(test)]
#[path = "connections/failure.rs"]
mod failure;
#[cfg(test)]
#[path = "connections/slow_start.rs"]
mod slow_start;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use lb_tests::{
        lb_config::{LbConfig, Ports},
        site::{LIMIT, Site},
        topology::World,
        traffic::LongLived,
    };
    use lb_userspace::config::Forward;

    /// Port of the line protocol.
    const LINES: u16 = 9000;
    const CONNECTIONS: usize = 60;

    /// Four backends run, the first three are in the file.
    fn site(forward: Forward) -> Site {
        let world = World::one_arm().backends(4).prepared().build().unwrap();
        let mut config = LbConfig::web(&world, world.vip4.into(), forward, false);
        config.services[0].backends.truncate(3);
        config.services[0].ports = Ports::Numbers(vec![80, LINES]);
        Site::start(world, config).unwrap()
    }

    /// A connection and who answered its first line.
    struct Held {
        connection: LongLived,
        backend: String,
    }

    fn open(site: &Site, client: u16) -> Held {
        let source = SocketAddr::from((World::source_v4(client), 0));
        let mut connection =
            LongLived::open(&site.world.client.ns.entry(), source, site.vip4(LINES), LIMIT).unwrap();
        let backend = connection.ask("hello").unwrap();
        Held { connection, backend }
    }

    fn open_many(site: &Site) -> Vec<Held> {
        let held: Vec<Held> = (0..CONNECTIONS as u16).map(|client| open(site, client)).collect();
        for name in ["b1", "b2", "b3"] {
            assert!(held.iter().any(|h| h.backend == name), "nobody is on {name}");
        }
        held
    }

    /// Every one of them is answered, by its own backend.
    fn all_stay(held: &mut [Held], after: &str) {
        for (i, held) in held.iter_mut().enumerate() {
            let answer = held.connection.ask(after);
            assert!(
                matches!(&answer, Ok(backend) if *backend == held.backend),
                "{after}: connection {i} was on {}, now: {answer:?}",
                held.backend
            );
        }
    }

    /// Backends that new connections from these clients reach.
    fn new_ones(site: &Site) -> Vec<String> {
        (0..CONNECTIONS as u16).map(|client| open(site, client).backend).collect()
    }

    fn live_connections_stay(forward: Forward) {
        let mut site = site(forward);
        let mut held = open_many(&site);

        site.lb.cli(&["backend", "drain", "web/b2"]).unwrap();
        all_stay(&mut held, "b2 drains");
        assert!(!new_ones(&site).contains(&"b2".to_owned()), "a draining backend got a new connection");
        assert!(site.view().unwrap().service("web")["unsettled"].as_u64().unwrap() > 1000);

        let b4 = site.world.backends[3].v4.to_string();
        site.lb.cli(&["backend", "add", "web/b4", "--address", &b4]).unwrap();
        site.wait("b4 to be ready", |view| view.state("web/b4") == "ready" && view.slots("web/b4") > 0)
            .unwrap();
        all_stay(&mut held, "b4 is added");
        assert!(new_ones(&site).contains(&"b4".to_owned()));

        site.lb.cli(&["backend", "set", "web/b1", "--weight", "10"]).unwrap();
        all_stay(&mut held, "b1 weighs less");

        site.servers[2].set_ready(false).unwrap();
        site.wait("b3 to be not ready", |view| view.state("web/b3") == "not_ready").unwrap();
        all_stay(&mut held, "b3 is not ready");
        assert!(
            !new_ones(&site).contains(&"b3".to_owned()),
            "a backend that is not ready got a new connection"
        );

        site.lb.kill().unwrap();
        all_stay(&mut held, "the daemon was killed");
        site.lb.start_again().unwrap();
        all_stay(&mut held, "another daemon took over");

        site.servers[2].set_ready(true).unwrap();
        site.lb.cli(&["backend", "enable", "web/b2"]).unwrap();
        site.wait("b3 to be ready", |view| view.state("web/b3") == "ready").unwrap();
        all_stay(&mut held, "all are back");

        // A backend that is taken out takes its connections along, and only those.
        site.lb.cli(&["backend", "set", "web/b1", "--state", "down"]).unwrap();
        let (mut gone, mut left): (Vec<Held>, Vec<Held>) = held.into_iter().partition(|h| h.backend == "b1");
        all_stay(&mut left, "b1 is down");
        for held in &mut gone {
            let answer = held.connection.ask("b1 is down");
            assert!(answer.is_err(), "a connection of a backend that is down was answered: {answer:?}");
        }
    }

    #[test]
    fn live_connections_stay_with_l2() {
        live_connections_stay(Forward::L2);
    }

    #[test]
    fn live_connections_stay_with_ipip() {
        live_connections_stay(Forward::Ipip);
    }

    /// Nothing is remembered, as in a balancer that was just started: the candidates and the agents alone bring every
    /// packet to the backend that has its connection.
    fn second_chance_saves(backends_v6: bool) {
        let world = World::one_arm().backends(4).prepared().build().unwrap();
        let mut config = LbConfig::web(&world, world.vip4.into(), Forward::Gue, backends_v6);
        config.services[0].backends.truncate(3);
        config.services[0].ports = Ports::Numbers(vec![80, LINES]);
        config.services[0].tracking = Some(lb_userspace::config::Tracking::Never);
        let site = Site::start(world, config).unwrap();
        let mut held = open_many(&site);
        site.lb.cli(&["backend", "drain", "web/b2"]).unwrap();
        all_stay(&mut held, "b2 drains");
        assert!(!new_ones(&site).contains(&"b2".to_owned()), "a draining backend got a new connection");
        let b4 = &site.world.backends[3];
        let b4 = if backends_v6 { b4.v6.to_string() } else { b4.v4.to_string() };
        site.lb.cli(&["backend", "add", "web/b4", "--address", &b4]).unwrap();
        site.wait("b4 to be ready", |view| view.state("web/b4") == "ready" && view.slots("web/b4") > 0)
            .unwrap();
        all_stay(&mut held, "b4 is added");
        site.lb.cli(&["backend", "enable", "web/b2"]).unwrap();
        all_stay(&mut held, "b2 is back");
    }

    #[test]
    fn second_chance_saves_what_nobody_remembers() {
        second_chance_saves(false);
    }

    #[test]
    fn second_chance_saves_what_nobody_remembers_over_ipv6() {
        second_chance_saves(true);
    }

    #[test]
    fn without_tracking_a_drain_ends_connections() {
        // What the other tests see is the tracking, not luck.
        let world = World::one_arm().backends(3).prepared().build().unwrap();
        let mut config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
        config.services[0].ports = Ports::Numbers(vec![80, LINES]);
        config.services[0].tracking = Some(lb_userspace::config::Tracking::Never);
        let site = Site::start(world, config).unwrap();
        let held = open_many(&site);
        site.lb.cli(&["backend", "drain", "web/b2"]).unwrap();
        for mut held in held {
            let answer = held.connection.ask("b2 drains");
            assert_eq!(answer.is_ok(), held.backend != "b2", "{}: {answer:?}", held.backend);
        }
    }
}
