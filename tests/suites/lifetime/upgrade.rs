//! Maps that another version of the ABI has made, and settings that only a restart changes.

use std::fs;

use lb_common::abi::{ABI_VERSION, OLDEST_ABI_VERSION, maps};
use lb_tests::{site::Site, topology::World, view::View};
use lb_userspace::config::{Affinity, Forward};

use crate::{
    pinned::{age, generation},
    under_load::{Traffic, config_of},
};

fn site() -> Site {
    let world = World::one_arm().prepared().build().unwrap();
    let config = config_of(&world, Forward::L2);
    Site::start(world, config).unwrap()
}

fn versions(site: &Site) -> Vec<String> {
    let entries = fs::read_dir(site.lb.pins()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn maps_of_the_oldest_version_are_taken_over_under_load() {
    let mut site = site();
    let traffic = Traffic::start(&site);
    traffic.goes_on();
    // Slots that are not settled: flows and stamps count.
    site.lb.cli(&["backend", "drain", "web/b1"]).unwrap();
    traffic.goes_on();
    site.wait("flows to be remembered", |view| view.0["flow_table"]["used"].as_u64() > Some(0)).unwrap();
    let packets = |view: &View| view.service("web")["packets"].as_u64().unwrap();
    let before = site.view().unwrap();
    let counted = generation(&site.lb.pins());
    site.lb.kill().unwrap();
    age(&site.lb.pins(), OLDEST_ABI_VERSION);
    traffic.goes_on();

    // A start that is refused leaves them to the version that made them.
    let good = fs::read_to_string(site.lb.config_path()).unwrap();
    fs::write(site.lb.config_path(), good.replace("forward = ", "forwards = ")).unwrap();
    site.lb.start_again().expect_err("a mistake in the file");
    assert_eq!(versions(&site), [format!("v{OLDEST_ABI_VERSION}")]);

    fs::write(site.lb.config_path(), good).unwrap();
    site.lb.start_again().unwrap();
    traffic.goes_on();
    assert_eq!(versions(&site), [format!("v{ABI_VERSION}")]);
    assert!(site.lb.pins().join(format!("v{ABI_VERSION}")).join(maps::FLOWS_OLD).exists());
    assert!(generation(&site.lb.pins()) > counted, "generations count on");
    let after = site.view().unwrap();
    assert!(packets(&after) > packets(&before), "counters go on");
    traffic.kept_every_flow();
}

#[test]
fn what_would_break_every_connection_of_a_service_is_refused_while_the_daemon_runs() {
    let site = site();
    let before = site.view().unwrap().generation();
    let mut config = config_of(&site.world, Forward::L2);
    config.daemon.hash_seed = Some("7".repeat(64));
    refused(&site, &config.to_toml().unwrap(), "hash_seed is fixed");
    config.daemon.hash_seed = Some(lb_tests::site::SEED.into());
    let text = config.to_toml().unwrap().replace("name = \"web\"", "name = \"web\"\ntable_slots = 251");
    refused(&site, &text, "other table_slots would break the connections of service web");
    config.services[0].affinity = Affinity::Flow;
    refused(&site, &config.to_toml().unwrap(), "another affinity would break the connections of service web");
    assert_eq!(site.view().unwrap().generation(), before);
}

fn refused(site: &Site, text: &str, words: &str) {
    fs::write(site.lb.config_path(), text).unwrap();
    let error = format!("{:#}", site.lb.cli(&["apply"]).expect_err(words));
    assert!(error.contains(words) && error.contains("while the daemon runs"), "{error}");
}
