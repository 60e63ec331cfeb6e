//! Plans of small configurations: what is said, and which slots are counted how.

use std::net::IpAddr;

use super::{changes, leaving, moves, slots, sum};
use crate::{
    config::{Config, Seed},
    control::{
        desired::{Condition, Desired, READY, View},
        model::{Hop, Snapshot},
    },
};

struct AllReady;

impl View for AllReady {
    fn condition(&self, _: &str, _: &str) -> Condition {
        Condition { health: READY, since: 0 }
    }

    fn joining(&self, _: &str, _: &str) -> bool {
        false
    }

    fn hop(&self, _: IpAddr) -> Option<Hop> {
        None
    }

    fn unix_time(&self) -> u64 {
        0
    }
}

fn config(service: &str, backends: &[(u8, &str)]) -> Config {
    let mut text = format!(
        "[[service]]\nname = \"web\"\naddresses = [\"192.0.2.10\"]\nports = [80]\ntable_slots = 1021\n{service}\n"
    );
    for (last, keys) in backends {
        text += &format!(
            "[[service.backend]]\nname = \"b{last}\"\naddress = \"198.51.100.{last}\"\n{}\n",
            keys.replace(", ", "\n")
        );
    }
    Config::parse("lb.toml", &text).unwrap()
}

/// The snapshots of two configurations, one after the other.
fn snapshots(old: &Config, new: &Config) -> (Snapshot, Snapshot) {
    let mut desired = Desired::new(Seed([7; 32]));
    let before = desired.snapshot(old, &AllReady).unwrap();
    (before, desired.snapshot(new, &AllReady).unwrap())
}

const THREE: [(u8, &str); 3] = [(1, ""), (2, ""), (3, "")];

#[test]
fn every_difference_has_a_sentence() {
    let old = config("", &[(1, ""), (2, "weight = 70"), (3, "")]);
    let new = config("affinity = \"source\"", &[(2, "weight = 50, state = \"drain\""), (3, ""), (4, "")]);
    assert_eq!(
        changes(&old, &new),
        [
            "service web: affinity addresses → source",
            "service web: backend b1 removed (198.51.100.1)",
            "service web: backend b2: weight 70 → 50",
            "service web: backend b2: state up → drain",
            "service web: backend b4 added (198.51.100.4, weight 100)",
        ]
    );
    assert_eq!(changes(&old, &old), [""; 0]);
}

#[test]
fn a_seed_is_never_told() {
    let mut old = config("", &THREE);
    let new = old.clone();
    old.daemon.hash_seed = Some(Seed([0xab; 32]));
    assert_eq!(changes(&old, &new), ["daemon: hash_seed changed"]);
}

#[test]
fn a_drained_backend_keeps_its_flows_and_a_removed_one_does_not() {
    let old = config("", &THREE);
    let (before, drained) = snapshots(&old, &config("", &[(1, "state = \"drain\""), (2, ""), (3, "")]));
    let moved = sum(&moves(&before, &drained));
    assert_eq!((moved.protected, moved.at_risk, moved.of), (moved.moved, 0, 1021));
    assert!((300..=380).contains(&moved.moved), "a third of the slots: {moved:?}");
    assert!(leaving(&before, &drained).is_empty());

    let (before, removed) = snapshots(&old, &config("", &THREE[1..]));
    let moved = sum(&moves(&before, &removed));
    assert!((300..=380).contains(&moved.at_risk), "{moved:?}");
    assert_eq!(moved.moved, moved.at_risk + moved.protected);
    assert_eq!(leaving(&before, &removed).len(), 1);
}

#[test]
fn without_memory_every_move_is_a_risk() {
    let never = "tracking = \"never\"";
    let drained = config(never, &[(1, "state = \"drain\""), (2, ""), (3, "")]);
    let (before, after) = snapshots(&config(never, &THREE), &drained);
    let moved = sum(&moves(&before, &after));
    assert_eq!((moved.protected, moved.at_risk), (0, moved.moved));
}

#[test]
fn another_affinity_moves_everything() {
    let (before, after) = snapshots(&config("", &THREE), &config("affinity = \"flow\"", &THREE));
    let moved = sum(&moves(&before, &after));
    assert_eq!((moved.moved, moved.at_risk, moved.of), (1021, 1021, 1021));
}

#[test]
fn equal_tables_count_once() {
    let old = config("", &THREE);
    let (before, after) = snapshots(&old, &old);
    assert_eq!(slots(&before, &after), (1021, 0, 1021));
    assert!(moves(&before, &after).is_empty());
    let (before, after) = snapshots(&old, &config("", &THREE[1..]));
    assert_eq!(slots(&before, &after), (1021, 1021, 1021));
}
