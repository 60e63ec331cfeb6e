//! Maps of other sizes while traffic goes on: more of everything than there was room for, and another flow table.

use std::{collections::BTreeMap, fs};

use lb_common::abi::ABI_VERSION;
use lb_tests::{
    lb_config::{Capacity, Health, LbConfig, Ports},
    site::Site,
    topology::World,
    view::View,
};
use lb_userspace::config::Forward;

use crate::{
    pinned::{generation, pin_something},
    under_load::{Traffic, config_of},
};

const FEW: u32 = 1 << 13;
const MANY: u32 = 1 << 17;

fn config(world: &World) -> LbConfig {
    let mut config = config_of(world, Forward::L2);
    config.daemon.flow_table = Some(Capacity { capacity: FEW });
    // Idle flows of this test are forgotten within its time.
    config.services[0].settle = Some("8s".into());
    config
}

fn site() -> Site {
    let world = World::one_arm().prepared().build().unwrap();
    let config = config(&world);
    Site::start(world, config).unwrap()
}

/// Writes the file anew, with the flow table of this capacity and what `change` makes of the rest.
fn write(site: &Site, flows: u32, change: impl FnOnce(&mut LbConfig)) {
    let mut config = config(&site.world);
    config.daemon.hash_seed = Some(lb_tests::site::SEED.into());
    config.daemon.flow_table = Some(Capacity { capacity: flows });
    change(&mut config);
    // Those that are there for their number only have short tables.
    let text = config.to_toml().unwrap().replace("name = \"more-", "table_slots = 251\nname = \"more-");
    fs::write(site.lb.config_path(), text).unwrap();
}

fn flow_table(view: &View, field: &str) -> u64 {
    view.0["flow_table"][field].as_u64().unwrap()
}

fn has_capacity(view: &View, flows: u32) -> bool {
    flow_table(view, "capacity") == u64::from(flows)
}

/// Nothing of a change of sizes is left but the maps in force.
fn is_tidy(site: &Site) {
    let left: Vec<_> =
        fs::read_dir(site.lb.pins()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [format!("v{ABI_VERSION}").as_str()]);
}

#[test]
fn another_flow_table_loses_no_flow() {
    let mut site = site();
    let traffic = Traffic::start(&site);
    traffic.goes_on();
    // Every slot is looked up from here on: who was on a slot that moved is known by its entry only.
    site.lb.cli(&["backend", "set", "web/b1", "--weight", "300"]).unwrap();
    traffic.goes_on();
    site.wait("flows to be remembered", |view| flow_table(view, "used") > 0).unwrap();
    let before = generation(&site.lb.pins());
    write(&site, MANY, |config| config.services[0].backends[0].weight = 300);
    site.lb.cli(&["apply"]).unwrap();
    let view = site.view().unwrap();
    assert!(has_capacity(&view, MANY), "{:#}", view.0);
    assert!(generation(&site.lb.pins()) > before);
    is_tidy(&site);
    traffic.goes_on();

    // Back again by a restart, which waits until the flows have left their old places.
    site.lb.kill().unwrap();
    write(&site, FEW, |config| config.services[0].backends[0].weight = 300);
    traffic.goes_on();
    site.lb.start_again().unwrap();
    traffic.goes_on();
    site.wait("the flow table to be small again", |view| {
        has_capacity(view, FEW) && flow_table(view, "moving") == 0
    })
    .unwrap();
    traffic.goes_on();
    traffic.kept_every_flow();
    is_tidy(&site);
}

#[test]
fn more_services_and_ports_than_there_was_room_for() {
    let mut site = site();
    let traffic = Traffic::start(&site);
    traffic.goes_on();
    let before = site.view().unwrap();
    write(&site, FEW, |config| {
        let mut more = config.services[0].clone();
        more.health = Health { interval: "30s".into(), timeout: "5s".into(), ..Health::tcp() };
        more.backends.truncate(1);
        for first in [20_000, 24_000] {
            more.ports = Ports::Numbers((first..first + 4_000).collect());
            more.name = format!("from-{first}");
            config.services.push(more.clone());
        }
        config.services.extend((0..253).map(|n| {
            let (name, ports) = (format!("more-{n}"), Ports::Numbers(vec![30_000 + n]));
            lb_tests::lb_config::Service { name, ports, ..more.clone() }
        }));
    });
    site.lb.cli(&["apply"]).unwrap();
    site.wait_settled().unwrap();
    traffic.goes_on();
    let after = site.view().unwrap();
    assert_eq!(after.0["services"].as_array().unwrap().len(), 256);
    let packets = |view: &View| view.service("web")["packets"].as_u64().unwrap();
    assert!(packets(&after) > packets(&before), "counters go on");
    assert!(after.generation() > before.generation());
    is_tidy(&site);
    // And a new daemon finds all of them.
    site.lb.kill().unwrap();
    traffic.goes_on();
    site.lb.start_again().unwrap();
    traffic.goes_on();
    traffic.lost_nothing();
    assert_eq!(site.view().unwrap().0["services"].as_array().unwrap().len(), 256);
}

/// What a daemon leaves that is killed between its program's taking over and the renaming of the pins, or before.
#[test]
fn a_change_of_sizes_that_was_interrupted_is_ended_by_the_next_start() {
    let mut site = site();
    let traffic = Traffic::start(&site);
    let (pins, version) = (site.lb.pins(), format!("v{ABI_VERSION}"));
    let (current, next) = (pins.join(&version), pins.join(format!("{version}-next")));
    let link = format!("link-{}", site.world.lb.interface);

    site.lb.kill().unwrap();
    pin_something(&next.join("CONTROL"));
    site.lb.start_again().unwrap();
    is_tidy(&site);
    traffic.goes_on();

    let before = site.view().unwrap();
    site.lb.kill().unwrap();
    let in_force = generation(&pins);
    fs::rename(&current, &next).unwrap();
    pin_something(&current.join("CONTROL"));
    fs::rename(next.join(&link), current.join(&link)).unwrap();
    site.lb.start_again().unwrap();
    is_tidy(&site);
    assert!(generation(&pins) >= in_force);
    traffic.goes_on();
    traffic.lost_nothing();
    let digests = |view: &View| -> BTreeMap<String, String> {
        let services = view.0["services"].as_array().unwrap();
        let text = |service: &serde_json::Value, key: &str| service[key].as_str().unwrap().to_owned();
        services.iter().map(|s| (text(s, "name"), text(s, "installed_digest"))).collect()
    };
    assert_eq!(digests(&site.view().unwrap()), digests(&before));
}
