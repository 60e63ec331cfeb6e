//! Maps that somebody else writes to while the daemon runs.

use std::process::Command;

use lb_common::abi::{ABI_VERSION, Reason, maps};
use lb_tests::{
    check,
    lb_config::LbConfig,
    process::output_of,
    site::{LIMIT, Site},
    topology::World,
};
use lb_userspace::config::Forward;

/// Writes over an element of a pinned map, as an operator with bpftool can.
fn overwrite(site: &Site, map: &str, key: u8, value: u8, bytes: usize) {
    let pin = site.lb.pins().join(format!("v{ABI_VERSION}")).join(map);
    let mut command = Command::new("bpftool");
    command.args(["map", "update", "pinned"]).arg(pin);
    command.args(["key", &key.to_string(), "0", "0", "0", "value"]);
    command.args(vec![value.to_string(); bytes]);
    output_of(command, LIMIT).unwrap();
}

#[test]
fn what_somebody_else_writes_to_the_maps_is_told_and_repaired() {
    let world = World::one_arm().prepared().build().unwrap();
    let config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    let site = Site::start(world, config).unwrap();
    // Four slots without an owner; then every setting of this generation.
    for (number, (map, key, bytes, words)) in [
        (maps::SLOTS, 0, 8, "table of service web"),
        (maps::GLOBALS, 0, 128, "generation, globals or look-up tables"),
    ]
    .into_iter()
    .enumerate()
    {
        let before = site.view().unwrap().generation();
        // The other half is in force after a repair.
        let key = if map == maps::GLOBALS { (before & 1) as u8 } else { key };
        overwrite(&site, map, key, 255, bytes);
        let count = number as u64 + 1;
        site.wait("the repair", |view| view.0["drift"]["count"] == count).unwrap();
        let view = site.view().unwrap();
        assert_eq!(view.0["drift"]["what"], serde_json::json!([words]), "{:#}", view.0);
        assert!(view.generation() > before);
        let warnings = view.0["warnings"].to_string();
        assert!(
            warnings.contains("somebody else wrote to the maps") && warnings.contains(words),
            "{warnings}"
        );
        let (lost, report) = (view.reason(Reason::NoBackend), site.spread(300, 300, site.vip4(80)).unwrap());
        check::balanced(&report, 300, &["b1", "b2", "b3"]).unwrap();
        assert_eq!(site.view().unwrap().reason(Reason::NoBackend), lost);
    }
}
