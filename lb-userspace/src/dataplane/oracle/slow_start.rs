//! Slow start in whole tables: how many slots move, when, and that no connection notices.

use std::{collections::BTreeMap, time::Duration};

use super::{ACK, Balancer, Flow, SYN, World};
use crate::{config::Tracking, control::slow_start::STEPS};

/// Seconds.
const SLOW_START: u64 = 30;
/// Unix seconds at which the backend of the tests becomes ready.
const READY: u64 = 1_000_000;

fn world() -> World {
    World {
        backends: (1..=5).map(|n| (n, false)).collect(),
        slow_start: Duration::from_secs(SLOW_START),
        now: READY,
        ..World::default()
    }
}

fn balancer(world: &World) -> Balancer {
    let mut balancer = Balancer::new(1024);
    balancer.set_time(100);
    balancer.install(world, Tracking::Changes);
    balancer
}

/// Slots of `backend` that differ, and slots of all others that do.
fn moved(before: &[Option<u8>], after: &[Option<u8>], backend: u8) -> (usize, usize) {
    let changed: Vec<_> = before.iter().zip(after).filter(|(a, b)| a != b).collect();
    let (own, other): (Vec<_>, Vec<_>) =
        changed.into_iter().partition(|(a, b)| **a == Some(backend) || **b == Some(backend));
    (own.len(), other.len())
}

/// A world in which backend 5 was failed and has just recovered, and the balancer that saw it; and the table when all
/// are well.
fn recovering() -> (World, Balancer, Vec<Option<u8>>) {
    let mut world = world();
    let mut balancer = balancer(&world);
    let full = balancer.owners();
    world.backends.insert(5, true);
    balancer.install(&world, Tracking::Changes);
    world.backends.insert(5, false);
    world.since.insert(5, READY);
    (world, balancer, full)
}

#[test]
fn a_backend_that_recovers_gets_each_slot_once_and_no_connection_moves() {
    let (mut world, mut balancer, full) = recovering();
    let share = full.iter().filter(|owner| **owner == Some(5)).count();
    let mut before = balancer.owners();
    assert!(!before.contains(&Some(5)), "it had failed");
    let mut connections: BTreeMap<Flow, u8> = BTreeMap::new();
    let (mut steps, mut total) = (0, 0);
    for second in 0..=SLOW_START {
        balancer.set_time(100 + second);
        world.now = READY + second;
        balancer.install(&world, Tracking::Changes);
        let after = balancer.owners();
        let (own, others) = moved(&before, &after, 5);
        assert_eq!(others, 0, "second {second}: only its own slots move");
        assert!(before.iter().zip(&after).all(|(b, a)| *b != Some(5) || a == b), "and none back");
        assert!(own < share / 5, "second {second}: {own} of {share} slots at once");
        steps += u8::from(own > 0);
        total += own;
        before = after;
        for (flow, backend) in &connections {
            assert_eq!(balancer.packet(*flow, ACK), Some(*backend), "second {second}");
        }
        for port in 1..=20 {
            let flow = Flow { source: 0xc612_0000 + second as u32, port };
            let backend = balancer.packet(flow, SYN).expect("forwarded");
            assert_eq!(balancer.packet(flow, ACK), Some(backend));
            connections.insert(flow, backend);
        }
    }
    assert_eq!((steps, total), (STEPS, share));
    assert_eq!(before, full, "as if it had never been gone");
    assert!(connections.values().filter(|backend| **backend == 5).count() > 20);
}

#[test]
fn a_backend_that_is_added_moves_little_more_than_its_share() {
    let mut world = world();
    let mut balancer = balancer(&world);
    let mut before = balancer.owners();
    let slots = before.len();
    world.backends.insert(6, false);
    world.since.insert(6, READY);
    let mut total = 0;
    for second in 0..=SLOW_START {
        world.now = READY + second;
        balancer.install(&world, Tracking::Changes);
        let after = balancer.owners();
        let (own, others) = moved(&before, &after, 6);
        total += own + others;
        before = after;
    }
    // The table of six differs from that of five by more than the slots of the sixth; so does every table.
    assert!(total * 100 < slots * 20, "{total} of {slots} slots moved for one of six");
    let mut at_once = self::balancer(&world);
    world.slow_start = Duration::ZERO;
    at_once.install(&world, Tracking::Changes);
    assert_eq!(before, at_once.owners());
}

/// Two balancers that saw the recovery a second apart differ around each step, by that step, and are equal between.
#[test]
fn balancers_that_saw_it_a_second_apart_differ_by_one_step_at_most() {
    let (mut world, mut one, full) = recovering();
    let (mut later, mut other, _) = recovering();
    later.since.insert(5, READY + 1);
    let share = full.iter().filter(|owner| **owner == Some(5)).count();
    let mut equal = 0;
    for second in 1..=SLOW_START + 1 {
        (world.now, later.now) = (READY + second, READY + second);
        one.install(&world, Tracking::Changes);
        other.install(&later, Tracking::Changes);
        let (own, others) = moved(&one.owners(), &other.owners(), 5);
        assert!(others == 0 && own < share / 5, "second {second}: {own} of {share}, {others} of others");
        equal += u64::from(own == 0);
    }
    assert!(equal > SLOW_START / 2, "equal in {equal} of {SLOW_START} seconds");
}

#[test]
fn a_backend_takes_everything_when_those_before_it_are_gone() {
    let (mut world, mut balancer, _) = recovering();
    balancer.install(&world, Tracking::Changes);
    (1..=4).for_each(|n| {
        world.backends.insert(n, true);
    });
    balancer.install(&world, Tracking::Changes);
    assert!(balancer.owners().iter().all(|owner| *owner == Some(5)));
}
