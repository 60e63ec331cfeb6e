//! Tests of `race`: properties, golden values, and the definition played slowly.

use proptest::prelude::*;

use super::{
    super::{
        arith::mix,
        rendezvous::{EMPTY, Member},
    },
    *,
};

/// The definition, slowly: all pairs in order of arrival.
fn by_definition(order: &Rendezvous, wants: &[(Slot, u32)], table: &mut [Slot]) {
    let mut wants = wants.to_vec();
    let mut arrivals = Vec::new();
    for slot in 0..order.slots() {
        arrivals.extend((0..wants.len()).map(|i| (order.arrival(slot, wants[i].0), slot, i)));
    }
    arrivals.sort_unstable();
    for (_, slot, i) in arrivals {
        let (member, left) = &mut wants[i];
        if table[slot as usize] == EMPTY && *left > 0 {
            table[slot as usize] = *member;
            *left -= 1;
        }
    }
}

fn order(weights: &[u32], slots: u32, seed: u8) -> Rendezvous {
    let members: Vec<_> =
        (0..).zip(weights).map(|(i, &weight)| Member { identity: mix(i), weight }).collect();
    Rendezvous::new(&members, slots, &[seed; 32]).unwrap()
}

/// Runs the race with every change-over from "never ask" to "only ask" and demands the table of the definition.
fn check(order: &Rendezvous, wants: &[(Slot, u32)], start: &[Slot], scratch: &mut Scratch) {
    let mut expected = start.to_vec();
    by_definition(order, wants, &mut expected);
    let slots = order.slots();
    for change_at in [None, Some(0), Some(slots / 20), Some(slots / 3), Some(slots)] {
        let mut table = start.to_vec();
        Race::new(order, wants.iter().copied(), &mut table, scratch).run(change_at);
        assert_eq!(table, expected, "asking from {change_at:?} free slots on");
    }
}

fn primes() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![2, 3, 5, 17, 61, 67, 127, 251, 257, 509])
}

/// Equal, few and many different weights.
fn weights() -> impl Strategy<Value = Vec<u32>> {
    let kinds = prop_oneof![Just(1..2u32), Just(1..4), Just(1..1000), Just(1..u32::MAX)];
    kinds.prop_flat_map(|range| prop::collection::vec(range, 1..40))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn finds_the_table_of_the_definition(weights in weights(), slots in primes(), seed in any::<u8>()) {
        prop_assume!(weights.len() <= slots as usize);
        let order = order(&weights, slots, seed);
        let share = slots / weights.len() as u32 + 1;
        let wants: Vec<_> = order.ranks().iter().map(|&member| (member, share)).collect();
        check(&order, &wants, &vec![EMPTY; slots as usize], &mut Scratch::default());
    }

    #[test]
    fn finishes_a_table_that_is_half_full(
        weights in weights(),
        slots in primes(),
        wanted in prop::collection::vec(prop_oneof![Just(0), 1..20u32, Just(u32::MAX)], 40),
        held in prop::collection::vec(any::<bool>(), 509),
    ) {
        prop_assume!(weights.len() <= slots as usize);
        let order = order(&weights, slots, 1);
        let wants: Vec<_> = order.ranks().iter().copied().zip(wanted).collect();
        let start: Vec<_> = held[..slots as usize].iter().map(|&held| if held { 0 } else { EMPTY }).collect();
        check(&order, &wants, &start, &mut Scratch::default());
    }
}

#[test]
fn groups_of_one_weight_run_like_single_members() {
    // Enough members that whole groups take steps, at first; they thin out to windows and questions.
    let mut scratch = Scratch::default();
    for kinds in [1, 2, 3] {
        let weights: Vec<_> = (0..GROUP as u32 * 3 + 10).map(|i| 1 + i % kinds).collect();
        let order = order(&weights, 1_009, 3);
        let total: u32 = weights.iter().sum();
        let share = |&member: &Slot| (member, weights[usize::from(member)] * 1_009 / total + 1);
        let wants: Vec<_> = order.ranks().iter().map(share).collect();
        check(&order, &wants, &[EMPTY; 1_009], &mut scratch);
    }
}

#[test]
fn scratch_carries_nothing_over() {
    let (small, large) = (order(&[1, 2, 3], 61, 5), order(&[7; 40], 509, 6));
    let mut scratch = Scratch::default();
    for order in [&large, &small, &large, &small] {
        let wants: Vec<_> = order.ranks().iter().map(|&member| (member, order.slots())).collect();
        check(order, &wants, &vec![EMPTY; order.slots() as usize], &mut scratch);
    }
}

#[test]
fn the_slow_ones_are_left_when_the_fast_ones_have_gone() {
    // By the pace of a member of the largest weight, those of small weights take their first step after hours.
    for weights in [[u32::MAX, 1, 2, 3], [65_535, 1, 1, 2], [u32::MAX, u32::MAX, 1, u32::MAX - 1]] {
        let order = order(&weights, 509, 2);
        let slow: Vec<_> = order.ranks().iter().map(|&m| (m, if m == 0 { 100 } else { u32::MAX })).collect();
        let without: Vec<_> = slow.iter().copied().filter(|&(member, _)| member != 0).collect();
        for wants in [slow, without] {
            check(&order, &wants, &[EMPTY; 509], &mut Scratch::default());
        }
    }
}

#[test]
fn slots_that_nobody_wants_stay_empty() {
    let order = order(&[1, 1, 5], 251, 0);
    for change_at in [None, Some(0), Some(251)] {
        let mut table = vec![EMPTY; 251];
        let wants = order.ranks().iter().map(|&member| (member, 10));
        Race::new(&order, wants, &mut table, &mut Scratch::default()).run(change_at);
        let empty = table.iter().filter(|&&slot| slot == EMPTY).count();
        assert_eq!(empty, 251 - 30, "{change_at:?}");
    }
    let mut table = vec![EMPTY; 251];
    run(&order, std::iter::empty(), &mut table, &mut Scratch::default());
    assert!(table.iter().all(|&slot| slot == EMPTY));
}

#[test]
fn visits_are_sorted_whatever_their_spread() {
    for (count, bits) in [(0, 60), (1, 60), (5000, 60), (5000, 20), (5000, 8), (100, 1)] {
        let mut visits: Vec<u64> = (0..count).map(|i| mix(i + 1) >> (64 - bits)).collect();
        let mut expected = visits.clone();
        expected.sort_unstable();
        sort_visits(&mut visits, &mut Vec::new(), bits);
        assert_eq!(visits, expected, "{count} of {bits} bits");
    }
}
