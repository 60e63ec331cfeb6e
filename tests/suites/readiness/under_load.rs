//! Requests and conversations go on while backends come and go.

use std::time::Instant;

use lb_tests::{
    load::{Conversations, Request, Requests},
    site::{LIMIT, Site},
    topology::World,
    wait::wait_for,
};
use lb_userspace::config::Forward;

use crate::scene::{CLIENTS, FALL, INTERVAL, clients_of, config, owners, site};

/// What is promised beyond `fall` intervals.
const GRACE: std::time::Duration = std::time::Duration::from_secs(1);
/// Requests that are looked at after a change.
const ENOUGH: usize = 150;

fn requests(site: &Site) -> Requests {
    let sources = World::sources_for(site.world.vip4.into(), CLIENTS);
    Requests::start(&site.world.client.ns.entry(), &sources, site.vip4(80), 100).unwrap()
}

/// Waits until enough requests that began after `from` have ended.
fn enough_after(requests: &Requests, from: Instant) {
    let count = || requests.so_far().iter().filter(|request| request.began > from).count();
    wait_for("requests after the change", LIMIT, || count() >= ENOUGH).unwrap();
}

/// Whom `request` reached.
fn answered_by(request: &Request) -> &str {
    request.outcome.as_deref().unwrap_or("nobody")
}

/// What becomes of b1's connections that are open when it goes out.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    /// It answers them: they stay.
    Stay,
    /// It is dead, and they are with it.
    Break,
}

/// `fail` takes b1 out. From `fall` intervals and a second later on it gets nothing new; the clients of the others
/// notice nothing at all.
fn goes_out_in_time(mut site: Site, open: Open, fail: impl FnOnce(&mut Site)) {
    let before = owners(&site);
    let staying = if open == Open::Stay { &["b1", "b2", "b3"][..] } else { &["b2", "b3"] };
    let talkers: Vec<_> =
        staying.iter().flat_map(|name| clients_of(&before, name).into_iter().take(10)).collect();
    let client = site.world.client.ns.entry();
    let conversations = Conversations::start(&client, &talkers, site.vip4(9000)).unwrap();
    let requests = requests(&site);
    requests.wait_more(ENOUGH).unwrap();

    fail(&mut site);
    let deadline = Instant::now() + INTERVAL * FALL + GRACE;
    enough_after(&requests, deadline);
    conversations.wait_more(talkers.len() * 2).unwrap();

    for request in requests.finish().unwrap() {
        let owner = &before[&request.source];
        if owner != "b1" {
            assert_eq!(answered_by(&request), owner, "{request:?}");
        } else if request.began > deadline {
            assert!(["b2", "b3"].contains(&answered_by(&request)), "{request:?}");
        } else {
            assert!(open == Open::Break || request.outcome.is_ok(), "{request:?}");
        }
    }
    for talk in conversations.finish().unwrap() {
        assert_eq!((&talk.failure, &talk.backend), (&None, &before[&talk.source]), "{talk:?}");
        assert!(talk.lines > 2, "{talk:?}");
    }
}

#[test]
fn a_backend_that_is_not_ready_gets_no_new_connection_and_keeps_those_it_has() {
    goes_out_in_time(site(), Open::Stay, |site| site.servers[0].set_ready(false).unwrap());
}

#[test]
fn a_backend_that_was_killed_gets_no_new_connection() {
    goes_out_in_time(site(), Open::Break, |site| site.servers[0].kill().unwrap());
}

#[test]
fn the_same_through_tunnels() {
    let world = World::one_arm().build().unwrap();
    let config = config(&world, Forward::Ipip);
    let site = Site::start(world, config).unwrap();
    goes_out_in_time(site, Open::Stay, |site| site.servers[0].set_ready(false).unwrap());
}

#[test]
fn it_comes_back_and_the_others_notice_nothing() {
    let site = site();
    let before = owners(&site);
    site.servers[0].set_ready(false).unwrap();
    site.wait("b1 to be out", |view| view.slots("web/b1") == 0).unwrap();
    let requests = requests(&site);
    requests.wait_more(ENOUGH).unwrap();
    site.servers[0].set_ready(true).unwrap();
    site.wait("b1 to be back", lb_tests::view::View::is_settled).unwrap();
    let back = Instant::now();
    enough_after(&requests, back);
    for request in requests.finish().unwrap() {
        let owner = &before[&request.source];
        if owner != "b1" || request.began > back {
            assert_eq!(answered_by(&request), owner, "{request:?}");
        } else {
            assert!(request.outcome.is_ok(), "{request:?}");
        }
    }
}
