//! What the tests of this suite share.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use lb_tests::{
    check,
    lb_config::{Health, LbConfig, Ports},
    site::Site,
    topology::World,
};
use lb_userspace::config::Forward;

/// Client addresses that are asked from.
pub(super) const CLIENTS: u16 = 300;
pub(super) const INTERVAL: Duration = Duration::from_millis(500);
pub(super) const FALL: u32 = 3;

/// Client address → backend.
pub(super) type Owners = BTreeMap<IpAddr, String>;

/// HTTP and the line protocol over three backends, checked every [`INTERVAL`].
pub(super) fn config(world: &World, forward: Forward) -> LbConfig {
    let mut config = LbConfig::web(world, world.vip4.into(), forward, false);
    let service = &mut config.services[0];
    service.ports = Ports::Numbers(vec![80, 9000]);
    let every = format!("{}ms", INTERVAL.as_millis());
    service.health = Health { interval: every.clone(), timeout: every, fall: FALL, ..Health::default() };
    config
}

pub(super) fn site() -> Site {
    let world = World::one_arm().prepared().build().unwrap();
    let config = config(&world, Forward::L2);
    Site::start(world, config).unwrap()
}

/// Who answers whom now; everybody is answered.
pub(super) fn owners(site: &Site) -> Owners {
    let report = site.spread(CLIENTS.into(), CLIENTS, site.vip4(80)).unwrap();
    check::steady(&report, CLIENTS.into()).unwrap();
    report.owners()
}

/// Client addresses of `owner`.
pub(super) fn clients_of(owners: &Owners, owner: &str) -> Vec<IpAddr> {
    owners.iter().filter(|(_, name)| *name == owner).map(|(source, _)| *source).collect()
}

/// Nobody but the clients of `gone` has moved; those are spread over `others`.
pub(super) fn only_the_share_moved(before: &Owners, after: &Owners, gone: &str, others: &[&str]) {
    let mut moved = BTreeMap::new();
    for (source, owner) in before {
        if owner == gone {
            *moved.entry(after[source].clone()).or_default() += 1;
        } else {
            assert_eq!(after[source], *owner, "{source} was not {gone}'s and has moved");
        }
    }
    let weights: Vec<_> = others.iter().map(|name| (*name, 1)).collect();
    check::by_weight(&moved, &weights).unwrap();
}
