//! How many sources a change moves, by real requests and by slots.

use std::{collections::BTreeMap, net::IpAddr};

use lb_tests::{
    check,
    lb_config::{LbConfig, Ports},
    load::Requests,
    site::Site,
    topology::World,
    view::View,
};
use lb_userspace::config::{Forward, Protocol, Tracking};

/// Client addresses; so many that a share is seen to within about a percent.
const CLIENTS: u16 = 4000;
/// What a change may move beyond its share.
const SLACK: f64 = 0.02;

type Owners = BTreeMap<IpAddr, String>;

/// Four backends run, the first `configured` of them are in the file.
fn site(configured: usize) -> Site {
    // A datagram shows where a request would go; of a remembered flow it would not.
    site_with(configured, Some(Tracking::Never))
}

fn site_with(configured: usize, tracking: Option<Tracking>) -> Site {
    let world = World::one_arm().backends(4).prepared().build().unwrap();
    let mut config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    let service = &mut config.services[0];
    service.backends.truncate(configured);
    // Affinity by addresses does not look at the protocol.
    service.ports = Ports::Numbers(vec![80, 7]);
    service.protocol = Protocol::Both;
    service.tracking = tracking;
    // Where the table sends a source, not where its flows were before: what is measured is the table.
    service.tracking = tracking;
    Site::start(world, config).unwrap()
}

/// Where every client address goes.
fn owners(site: &Site) -> Owners {
    site.owners_by_udp(CLIENTS, site.vip4(7)).unwrap()
}

/// Requests from 300 of them are answered by those.
fn requests_agree(site: &Site, owners: &Owners) {
    let report = site.spread(300, 300, site.vip4(80)).unwrap();
    check::steady(&report, 300).unwrap();
    for (source, owner) in report.owners() {
        assert_eq!(owner, owners[&source], "{source}");
    }
}

fn counts(owners: &Owners) -> BTreeMap<String, usize> {
    owners.values().fold(BTreeMap::new(), |mut counts, owner| {
        *counts.entry(owner.clone()).or_default() += 1;
        counts
    })
}

/// The part of the clients that has another backend now, and of those, how many went from or to `changed`.
fn moved(before: &Owners, after: &Owners, changed: &str) -> (f64, usize, usize) {
    let movers: Vec<_> = before.iter().filter(|(source, owner)| after[*source] != **owner).collect();
    let concerned = movers.iter().filter(|(source, owner)| *owner == changed || after[*source] == changed);
    (movers.len() as f64 / before.len() as f64, concerned.count(), movers.len())
}

/// No more than `share` of the clients has moved, and next to none of them between others than `changed`.
fn moved_at_most(share: f64, before: &Owners, after: &Owners, changed: &str) {
    let (part, concerned, movers) = moved(before, after, changed);
    assert!(part <= share + SLACK, "{part:.4} of the clients moved, {share:.4} + {SLACK} are allowed");
    let others = (movers - concerned) as f64 / before.len() as f64;
    assert!(others <= SLACK, "{others:.4} of the clients moved between backends that nobody touched");
}

/// The share of each backend is what its weight says, within half a percent of the table.
fn shares_follow_weights(view: &View) {
    let weight = |backend: &serde_json::Value| backend["weight"].as_f64().unwrap();
    let sum: f64 = view.backends().map(weight).sum();
    let total = view.service("web")["slots"].as_u64().unwrap();
    assert_eq!(view.backends().map(|b| b["slots"].as_u64().unwrap()).sum::<u64>(), total);
    for backend in view.backends() {
        let (share, expected) = (backend["share"].as_f64().unwrap(), weight(backend) / sum);
        assert!((share - expected).abs() < 0.005, "share {share} instead of {expected}: {backend:#}");
    }
}

fn by_weight(owners: &Owners, weights: &[(&str, u16)]) {
    check::by_weight(&counts(owners), weights).unwrap();
}

#[test]
fn a_backend_that_joins_takes_its_share_and_gives_it_back() {
    let site = site(3);
    let (before, slots_before) = (owners(&site), site.view().unwrap());
    requests_agree(&site, &before);
    let b4 = site.world.backend(4).unwrap().v4.to_string();
    site.lb.cli(&["backend", "add", "web/b4", "--address", &b4]).unwrap();
    site.wait_settled().unwrap();
    let (after, slots_after) = (owners(&site), site.view().unwrap());
    requests_agree(&site, &after);
    moved_at_most(1.0 / 4.0, &before, &after, "b4");
    shares_follow_weights(&slots_after);
    let total = slots_after.service("web")["slots"].as_f64().unwrap();
    assert!(slots_after.slots("web/b4") as f64 / total <= 1.0 / 4.0 + SLACK);
    for name in ["web/b1", "web/b2", "web/b3"] {
        assert!(slots_after.slots(name) <= slots_before.slots(name), "{name} only loses");
    }
    by_weight(&after, &[("b1", 1), ("b2", 1), ("b3", 1), ("b4", 1)]);

    site.lb.cli(&["backend", "remove", "web/b4"]).unwrap();
    site.wait_settled().unwrap();
    let again = owners(&site);
    moved_at_most(1.0 / 4.0, &after, &again, "b4");
    assert_eq!(again, before, "the same members, the same table");
    requests_agree(&site, &again);
}

#[test]
fn removing_one_that_was_there_from_the_start_moves_its_clients() {
    let site = site(4);
    let before = owners(&site);
    let share = counts(&before)["b2"] as f64 / f64::from(CLIENTS);
    site.lb.cli(&["backend", "remove", "web/b2"]).unwrap();
    site.wait_settled().unwrap();
    let after = owners(&site);
    requests_agree(&site, &after);
    moved_at_most(share, &before, &after, "b2");
    shares_follow_weights(&site.view().unwrap());
    by_weight(&after, &[("b1", 1), ("b3", 1), ("b4", 1)]);
    let moved: Owners = after.into_iter().filter(|(source, _)| before[source] == "b2").collect();
    by_weight(&moved, &[("b1", 1), ("b3", 1), ("b4", 1)]);
}

#[test]
fn a_weight_moves_in_proportion() {
    let site = site(3);
    let before = owners(&site);
    site.lb.cli(&["backend", "set", "web/b1", "--weight", "200"]).unwrap();
    let after = owners(&site);
    shares_follow_weights(&site.view().unwrap());
    by_weight(&after, &[("b1", 2), ("b2", 1), ("b3", 1)]);
    moved_at_most(1.0 / 2.0 - 1.0 / 3.0, &before, &after, "b1");

    site.lb.cli(&["backend", "set", "web/b1", "--weight", "0"]).unwrap();
    let without = owners(&site);
    assert_eq!(site.view().unwrap().slots("web/b1"), 0);
    by_weight(&without, &[("b2", 1), ("b3", 1)]);
    moved_at_most(1.0 / 2.0, &after, &without, "b1");

    site.lb.cli(&["backend", "set", "web/b1", "--weight", "100"]).unwrap();
    assert_eq!(owners(&site), before);
}

#[test]
fn drain_and_down_hand_on_exactly_one_share() {
    let site = site(3);
    let before = owners(&site);
    for (verb, state) in
        [(&["drain", "web/b1"][..], "draining"), (&["set", "web/b1", "--state", "down"], "down")]
    {
        site.lb.cli(&[&["backend"], verb].concat()).unwrap();
        let view = site.view().unwrap();
        assert_eq!((view.state("web/b1"), view.slots("web/b1")), (state, 0));
        let after = owners(&site);
        for (source, owner) in &before {
            assert!(if owner == "b1" { after[source] != "b1" } else { after[source] == *owner });
        }
        site.lb.cli(&["backend", "enable", "web/b1"]).unwrap();
        site.wait_settled().unwrap();
        assert_eq!(owners(&site), before);
    }
}

#[test]
fn no_request_is_lost_while_backends_come_and_change() {
    let site = site_with(3, None);
    let sources = World::sources_for(site.world.vip4.into(), 300);
    let owners = || {
        let report = site.spread_from(300, &sources, site.vip4(80)).unwrap();
        check::steady(&report, 300).unwrap();
        report.owners()
    };
    let before = owners();
    let client = site.world.client.ns.entry();
    let requests = Requests::start(&client, &sources, site.vip4(80), 100).unwrap();
    requests.wait_more(30).unwrap();
    let b4 = site.world.backend(4).unwrap().v4.to_string();
    let changes = [
        &["backend", "add", "web/b4", "--address", &b4][..],
        &["backend", "set", "web/b4", "--weight", "300"],
        &["backend", "drain", "web/b1"],
        &["backend", "enable", "web/b1"],
    ];
    let mut seen = vec![before.clone()];
    for change in changes {
        site.lb.cli(change).unwrap();
        site.wait("every backend to be as it is wanted", |view| {
            view.backends().all(|b| ["ready", "draining"].contains(&b["state"].as_str().unwrap()))
        })
        .unwrap();
        seen.push(owners());
        requests.wait_more(30).unwrap();
    }
    for request in requests.finish().unwrap() {
        assert!(request.outcome.is_ok(), "{request:?}");
        // Who never had another backend was not answered by one.
        let mut owned = seen.iter().map(|owners| &owners[&request.source]);
        let first = owned.next().unwrap();
        if owned.all(|owner| owner == first) {
            assert_eq!(request.outcome.as_ref(), Ok(first), "{request:?}");
        }
    }
    site.lb.cli(&["backend", "remove", "web/b4"]).unwrap();
    site.wait_settled().unwrap();
    assert_eq!(owners(), before);
}

#[test]
fn a_backend_that_joins_unready_takes_nothing_until_it_is() {
    let site = site(3);
    let before = owners(&site);
    site.servers[3].set_ready(false).unwrap();
    let b4 = site.world.backend(4).unwrap().v4.to_string();
    site.lb.cli(&["backend", "add", "web/b4", "--address", &b4, "--weight", "50"]).unwrap();
    site.wait("b4 to be known as not ready", |view| view.state("web/b4") == "not_ready").unwrap();
    assert_eq!(site.view().unwrap().slots("web/b4"), 0);
    assert_eq!(owners(&site), before);
    site.servers[3].set_ready(true).unwrap();
    site.wait_settled().unwrap();
    let after = owners(&site);
    moved_at_most(1.0 / 7.0, &before, &after, "b4");
    by_weight(&after, &[("b1", 2), ("b2", 2), ("b3", 2), ("b4", 1)]);
}
