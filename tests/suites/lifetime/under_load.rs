//! Requests, connections and datagrams go on without the daemon, and do not notice a new one.

use std::collections::BTreeMap;

use lb_tests::{
    check,
    lb_config::{LbConfig, Ports},
    load::{Conversations, Numbered, Request, Requests, report},
    site::Site,
    topology::World,
};
use lb_userspace::config::{Forward, Protocol};

const CLIENTS: u16 = 100;

/// HTTP, the line protocol and UDP echo.
pub(super) fn config_of(world: &World, forward: Forward) -> LbConfig {
    let mut config = LbConfig::web(world, world.vip4.into(), forward, false);
    config.services[0].ports = Ports::Numbers(vec![80, 9000, 7]);
    config.services[0].protocol = Protocol::Both;
    config
}

fn site(world: World, forward: Forward) -> Site {
    let config = config_of(&world, forward);
    Site::start(world, config).unwrap()
}

fn l2() -> Site {
    site(World::one_arm().prepared().build().unwrap(), Forward::L2)
}

/// Everything that is under way in a site.
pub(super) struct Traffic {
    requests: Requests,
    conversations: Conversations,
    datagrams: Numbered,
}

impl Traffic {
    pub(super) fn start(site: &Site) -> Self {
        let client = site.world.client.ns.entry();
        let sources = World::sources_for(site.world.vip4.into(), CLIENTS);
        let talker = World::source_v4(3);
        Self {
            requests: Requests::start(&client, &sources, site.vip4(80), 100).unwrap(),
            conversations: Conversations::start(&client, &sources[..20], site.vip4(9000)).unwrap(),
            datagrams: Numbered::start(&client, (talker, 0).into(), site.vip4(7), 100).unwrap(),
        }
    }

    /// Waits until some of each have come and gone.
    pub(super) fn goes_on(&self) {
        self.requests.wait_more(CLIENTS.into()).unwrap();
        self.conversations.wait_more(40).unwrap();
        self.datagrams.wait_more(40).unwrap();
    }

    /// Ends it: nothing was lost, nothing was broken, everybody was answered by one backend.
    pub(super) fn lost_nothing(self) {
        let requests = self.lost_no_flow();
        check::steady(&report(&requests), requests.len()).unwrap();
    }

    /// Ends it: nothing was lost, nothing was broken; a client's next connection may have gone to another backend.
    pub(super) fn kept_every_flow(self) {
        let requests = self.lost_no_flow();
        for request in requests {
            assert!(request.outcome.is_ok(), "{request:?}");
        }
    }

    fn lost_no_flow(self) -> Vec<Request> {
        let requests = self.requests.finish().unwrap();
        let mut backends = BTreeMap::<_, usize>::new();
        for talk in self.conversations.finish().unwrap() {
            assert_eq!(talk.failure, None, "{talk:?}");
            *backends.entry(talk.backend).or_default() += 1;
        }
        assert!(backends.len() > 1, "{backends:?}");
        let echoes = self.datagrams.finish().unwrap();
        assert_eq!(echoes.missing, [0; 0], "of {}", echoes.sent);
        assert_eq!(echoes.backends.len(), 1);
        requests
    }
}

/// `end` ends the daemon; traffic flows on, and on when a new one has taken over.
fn survives(mut site: Site, end: impl FnOnce(&mut Site)) {
    let traffic = Traffic::start(&site);
    traffic.goes_on();
    let before = site.view().unwrap();
    end(&mut site);
    traffic.goes_on();
    site.lb.start_again().unwrap();
    traffic.goes_on();
    let after = site.view().unwrap();
    traffic.lost_nothing();
    let digest = |view: &lb_tests::view::View| view.service("web")["installed_digest"].clone();
    assert_eq!(digest(&after), digest(&before));
    assert!(after.generation() >= before.generation());
    // The counters are those of the datapath, not of the daemon.
    let packets = |view: &lb_tests::view::View| view.service("web")["packets"].as_u64().unwrap();
    assert!(packets(&after) > packets(&before));
}

#[test]
fn a_killed_daemon_is_not_missed() {
    survives(l2(), |site| site.lb.kill().unwrap());
}

#[test]
fn a_stopped_daemon_leaves_the_datapath() {
    survives(l2(), |site| site.lb.stop().unwrap());
}

#[test]
fn the_same_through_tunnels_and_with_agents_that_are_killed() {
    let site = site(World::one_arm().build().unwrap(), Forward::Ipip);
    survives(site, |site| {
        site.lb.kill().unwrap();
        for agent in &mut site.agents {
            agent.kill().unwrap();
            agent.start_again().unwrap();
        }
    });
}

#[test]
fn a_daemon_that_dies_while_it_starts_harms_nothing() {
    let mut site = l2();
    let traffic = Traffic::start(&site);
    traffic.goes_on();
    site.lb.kill().unwrap();
    // Once before it has loaded anything, then with everything in place but nothing said.
    let socket = site.lb.socket();
    std::fs::remove_file(&socket).unwrap();
    site.lb.start_again_until("make its socket", || socket.exists()).unwrap();
    site.lb.kill().unwrap();
    for _ in 0..2 {
        site.lb.start_again_until("begin", || true).unwrap();
        traffic.goes_on();
        site.lb.kill().unwrap();
    }
    site.lb.start_again().unwrap();
    traffic.goes_on();
    traffic.lost_nothing();
    site.wait_settled().unwrap();
}

#[test]
fn connections_from_before_a_change_survive_a_new_daemon() {
    let world = World::one_arm().backends(4).prepared().build().unwrap();
    let mut config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    config.services[0].ports = Ports::Numbers(vec![80, 9000]);
    config.services[0].backends.truncate(3);
    let mut site = Site::start(world, config).unwrap();
    let client = site.world.client.ns.entry();
    let sources = World::sources_for(site.world.vip4.into(), 60);
    let conversations = Conversations::start(&client, &sources, site.vip4(9000)).unwrap();
    let b4 = site.world.backend(4).unwrap().v4.to_string();
    site.lb.cli(&["backend", "add", "web/b4", "--address", &b4]).unwrap();
    site.wait_settled().unwrap();
    conversations.wait_more(120).unwrap();
    site.lb.kill().unwrap();
    conversations.wait_more(120).unwrap();
    site.lb.start_again().unwrap();
    conversations.wait_more(120).unwrap();
    // A change by the new daemon, on top of what it has adopted.
    site.lb.cli(&["backend", "set", "web/b4", "--weight", "300"]).unwrap();
    conversations.wait_more(120).unwrap();
    for talk in conversations.finish().unwrap() {
        assert_eq!(talk.failure, None, "{talk:?}");
        assert_ne!(talk.backend, "b4");
    }
    let report = site.spread(300, 300, site.vip4(80)).unwrap();
    check::steady(&report, 300).unwrap();
    check::by_weight(&report.clients_per_backend(), &[("b1", 1), ("b2", 1), ("b3", 1), ("b4", 3)]).unwrap();
}
