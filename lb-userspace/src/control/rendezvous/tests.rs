//! Tests of `rendezvous`: properties, golden values, and the definition played slowly.

use proptest::prelude::*;

use super::*;

fn members(weights: &[u32]) -> Vec<Member> {
    (0..).zip(weights).map(|(i, &weight)| Member { identity: mix(1000 + i), weight }).collect()
}

fn order(weights: &[u32], slots: u32) -> Rendezvous {
    Rendezvous::new(&members(weights), slots, &[7; 32]).unwrap()
}

#[test]
fn every_course_visits_every_slot_once() {
    for slots in [2, 3, 251, 16_381, 65_537] {
        let order = order(&[1, 1], slots);
        for member in [0, 1] {
            let mut seen = vec![false; order.shuffle.steps() as usize];
            for slot in 0..slots {
                let step = order.step(order.runner(member), slot) as usize;
                assert!(
                    !std::mem::replace(&mut seen[step], true),
                    "{slots} slots, member {member}, slot {slot}"
                );
            }
        }
    }
}

#[test]
fn shuffle_goes_both_ways() {
    for slots in [2, 251, 4_093, 16_381, 65_537, 1_048_573] {
        let shuffle = Shuffle::new(slots, 42);
        for place in (0..slots).step_by(1 + slots as usize / 5000) {
            assert_eq!(shuffle.place(shuffle.step(place)), Some(place));
        }
        let places = (0..shuffle.steps()).filter(|&step| shuffle.place(step).is_some()).count();
        assert_eq!(places, slots as usize, "of {} steps", shuffle.steps());
    }
}

#[test]
fn time_grows_with_every_step_and_falls_with_weight() {
    for weights in [vec![1, 2, 3], vec![100; 10], vec![1, u32::MAX], vec![u32::MAX; 3]] {
        let order = order(&weights, 65_537);
        for &member in order.ranks() {
            let Runner { pace, .. } = *order.runner(member);
            let times: Vec<_> = (0..order.shuffle.steps()).map(|step| order.clock.time(step, pace)).collect();
            assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{weights:?}, member {member}");
            let slope = order.clock.slope(pace);
            let line = |step: usize| step as u64 * slope;
            assert!((0..times.len()).all(|step| line(step) <= times[step] + Clock::ALLOWANCE));
        }
    }
    let order = order(&[1, 2], 65_537);
    let time = |member| order.clock.time(500, order.runner(member).pace);
    assert!(time(0).abs_diff(2 * time(1)) < 4);
}

#[test]
fn first_in_order_is_proportional_to_weight() {
    // Three members, 65,537 slots: the exponential race gives shares of 1/10, 3/10, 6/10 ± a few tenths of a percent.
    let order = order(&[10, 30, 60], 65_537);
    let mut first = [0u32; 3];
    (0..65_537).for_each(|slot| first[usize::from(order.order(slot, 1)[0])] += 1);
    for (count, expected) in first.into_iter().zip([0.1, 0.3, 0.6]) {
        assert!((f64::from(count) / 65_537.0 - expected).abs() < 0.01, "{first:?}");
    }
    // And so is who comes next, among the others.
    let mut next = [0u32; 3];
    (0..65_537).for_each(|slot| next[usize::from(order.next_owner(slot, |m| m != 2).unwrap())] += 1);
    assert!((f64::from(next[0]) / 65_537.0 - 0.25).abs() < 0.01, "{next:?}");
}

#[test]
fn members_of_no_weight_are_nowhere() {
    let order = order(&[0, 5, 0, 5], 251);
    assert_eq!(order.members(), 4);
    assert!(order.arrival(17, 0).is_none() && order.arrival(17, 1).is_some());
    assert!((0..251).all(|slot| order.order(slot, 9).len() == 2));
    assert_eq!(order.next_owner(17, |member| member == 0), None);
    assert_eq!(order.next_owner(17, |member| member == 3), Some(3));
}

#[test]
fn refusals_name_what_was_found_and_what_would_do() {
    let refusal =
        |members: &[Member], slots| Rendezvous::new(members, slots, &[0; 32]).unwrap_err().to_string();
    assert_eq!(
        refusal(&[], 16_384),
        "a table has a prime number of slots, at most 1048573; found 16384, which could be 16381 or 16411"
    );
    assert!(refusal(&[], 0).ends_with("found 0, which could be 2 or 2"));
    assert!(refusal(&[], 1_048_583).ends_with("found 1048583, which could be 1048573 or 1048573"));
    assert_eq!(
        refusal(&members(&[1; 252]), 251),
        "252 members with a weight above 0 need a table of at least as many slots; found 251: use 257 or more"
    );
    assert_eq!(refusal(&members(&[1; 16_384]), 65_537), "a service has at most 16383 members; found 16384");
    let twins = [
        Member { identity: 5, weight: 1 },
        Member { identity: 6, weight: 1 },
        Member { identity: 5, weight: 0 },
    ];
    assert_eq!(
        refusal(&twins, 251),
        "members 0 and 2 have the same identity: each backend of a service needs its own"
    );
    // Members of no weight need no slot.
    assert!(Rendezvous::new(&members(&[0; 252]), 251, &[0; 32]).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn order_is_by_arrival_and_next_is_the_first_of_it(
        weights in prop::collection::vec(0..50u32, 1..40),
        slot in 0..16_381u32,
        k in 0..45usize,
        available in prop::collection::vec(any::<bool>(), 40),
    ) {
        let order = order(&weights, 16_381);
        let all = order.order(slot, weights.len());
        let arrivals: Vec<_> = all.iter().map(|&member| order.arrival(slot, member).unwrap()).collect();
        prop_assert!(arrivals.is_sorted());
        prop_assert_eq!(all.len(), weights.iter().filter(|&&weight| weight > 0).count());
        prop_assert_eq!(order.order(slot, k), &all[..k.min(all.len())]);
        let next = all.iter().copied().find(|&member| available[usize::from(member)]);
        prop_assert_eq!(order.next_owner(slot, |member| available[member]), next);
    }

    #[test]
    fn the_slice_gives_indices_and_nothing_else(
        weights in prop::collection::vec(1..5u32, 2..30),
        slot in 0..251u32,
        turn in any::<prop::sample::Index>(),
    ) {
        let turn = turn.index(weights.len());
        let mut turned = members(&weights);
        turned.rotate_left(turn);
        let turned = Rendezvous::new(&turned, 251, &[7; 32]).unwrap();
        let back = |member: Slot| ((usize::from(member) + turn) % weights.len()) as Slot;
        let found: Vec<_> = turned.order(slot, 30).into_iter().map(back).collect();
        prop_assert_eq!(found, order(&weights, 251).order(slot, 30));
    }

    #[test]
    fn others_keep_their_order_when_one_leaves(
        weights in prop::collection::vec(1..5u32, 2..30),
        slot in 0..251u32,
        gone in any::<prop::sample::Index>(),
    ) {
        let gone = gone.index(weights.len());
        let mut rest = members(&weights);
        rest.remove(gone);
        let rest = Rendezvous::new(&rest, 251, &[7; 32]).unwrap().order(slot, 30);
        let rest: Vec<_> = rest.into_iter().map(|m| if usize::from(m) < gone { m } else { m + 1 }).collect();
        let mut all = order(&weights, 251).order(slot, 30);
        all.retain(|&member| usize::from(member) != gone);
        prop_assert_eq!(rest, all);
    }
}
