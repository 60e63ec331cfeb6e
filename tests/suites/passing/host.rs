//! The balancer's host goes on being a host, and a router, while it balances.

use lb_tests::{
    backend::Backend,
    flood::{Flood, Sink},
    lb_config::{LbConfig, Limit, Ports},
    load::{Conversations, Requests},
    site::{LIMIT, Site},
    topology::World,
    traffic::http_get,
};
use lb_userspace::config::{Forward, Protocol, Rate};

#[test]
fn connections_to_the_balancer_itself_and_through_it_work_under_load() {
    let world = World::two_arm().backends(2).prepared().build().unwrap();
    let mut config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    let service = &mut config.services[0];
    service.ports = Ports::Numbers(vec![80, 9]);
    service.protocol = Protocol::Both;
    service.limit = Some(Limit { anonymous: Rate { rate: 1000, burst: 1000 } });
    let site = Site::start(world, config).unwrap();
    let World { client, lb, backends, .. } = &site.world;
    // What an administrator's session is: one connection to the host's own address that stays.
    let _host = Backend::start_with(&lb.ns, "host", site.folder.path(), &[]).unwrap();
    let _sinks: Vec<_> = backends.iter().map(|host| Sink::start(&host.ns.entry(), 9).unwrap()).collect();
    let entry = client.ns.entry();
    let own = |address: std::net::IpAddr| {
        let sources = [World::sources_for(address, 2)[1]];
        Conversations::start(&entry, &sources, (address, 9000).into()).unwrap()
    };
    // To the host, and by its routing to a backend's own address; both families.
    let conversations =
        [own(lb.v4.into()), own(lb.v6.into()), own(backends[0].v4.into()), own(backends[1].v6.into())];
    let sources = World::sources_for(site.world.vip4.into(), 100);
    let requests = Requests::start(&entry, &sources, site.vip4(80), 50).unwrap();
    let flood = Flood {
        source: (World::source_v4(500), 0).into(),
        target: site.vip4(9),
        per_second: 5000,
        duration: std::time::Duration::from_secs(2),
        cpu: None,
    };
    let sent = flood.send(&entry).unwrap();
    assert!(sent.len() > 1000);

    let source = World::source_v4(600);
    assert_eq!(http_get(&entry, source, (lb.v4, 80).into(), "/", LIMIT).unwrap().text(), "host");
    for conversation in &conversations {
        conversation.wait_more(20).unwrap();
    }
    for request in requests.finish().unwrap() {
        assert!(request.outcome.is_ok(), "{request:?}");
    }
    for (conversation, name) in conversations.into_iter().zip(["host", "host", "b1", "b2"]) {
        let talk = conversation.finish().unwrap().remove(0);
        assert_eq!((talk.failure.as_deref(), talk.backend.as_str()), (None, name), "{talk:?}");
        assert!(talk.lines > 20, "{talk:?}");
    }
}
