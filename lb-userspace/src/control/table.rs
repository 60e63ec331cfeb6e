//! A service's table: by membership, and with health applied.
//!
//! Membership rebuilds, health patches. The base table is built over all configured members whatever their health
//! ([`super::maglev`]). A member that takes nothing new (failed, not ready, draining) keeps its place in that build;
//! only its own slots are handed on, each to the next member in that slot's order. So a health event moves exactly the
//! share of its member and gives exactly that back, and balancers that disagree about health still name the same few
//! candidates for a slot.

use sha2::{Digest, Sha256};

use super::{
    race::{self, Scratch},
    rendezvous::{EMPTY, Rendezvous, Slot},
};

/// Writes to `out` the base table with each slot of a member that is not available given to the first member in the
/// slot's order that is. If none with a weight is available those slots are [`EMPTY`]. A pure function of its input.
pub fn apply_health(
    order: &Rendezvous,
    base: &[Slot],
    available: &[bool],
    out: &mut Vec<Slot>,
    scratch: &mut Scratch,
) {
    let is_available = |member: Slot| available.get(usize::from(member)).copied().unwrap_or(false);
    hand_on(order, base, |_, member| is_available(member), is_available, out, scratch);
}

/// The same, slot by slot: `keeps` says whether a slot's member keeps it, `stands_in` who may take it else.
pub fn hand_on(
    order: &Rendezvous,
    base: &[Slot],
    keeps: impl Fn(u32, Slot) -> bool,
    stands_in: impl Fn(Slot) -> bool,
    out: &mut Vec<Slot>,
    scratch: &mut Scratch,
) {
    out.clear();
    out.extend((0..).zip(base).map(|(slot, &member)| if keeps(slot, member) { member } else { EMPTY }));
    if out.contains(&EMPTY) {
        let stand_ins = order.ranks().iter().copied().filter(|&member| stands_in(member));
        race::run(order, stand_ins.map(|member| (member, u32::MAX)), out, scratch);
    }
}

/// What two balancers compare: the identities of the owners, slot by slot, since indices may differ between balancers
/// that saw members come and go in another order. First eight bytes of SHA-256, in hex.
#[must_use]
pub fn owners_digest(table: &[Slot], identity: impl Fn(Slot) -> u64) -> String {
    let mut hash = Sha256::new();
    hash.update((table.len() as u64).to_le_bytes());
    for owner in table {
        let identity = if *owner == EMPTY { 0 } else { identity(*owner) };
        hash.update(identity.to_le_bytes());
    }
    hex::encode(&hash.finalize()[..8])
}

/// How many slots have different owners. Slots that only one of the tables has count.
#[must_use]
pub fn moved(old: &[Slot], new: &[Slot]) -> u32 {
    let changed = old.iter().zip(new).filter(|(old, new)| old != new).count();
    (changed + old.len().abs_diff(new.len())) as u32
}

/// Tells tables apart: the first 8 bytes of SHA-256 over a label, the length (`u32`) and the slots (`u16`), all little
/// endian.
#[cfg(test)]
pub(super) fn digest(table: &[Slot]) -> [u8; 8] {
    let mut bytes = Vec::with_capacity(4 + 2 * table.len());
    bytes.extend((table.len() as u32).to_le_bytes());
    bytes.extend(table.iter().flat_map(|slot| slot.to_le_bytes()));
    let hash: [u8; 32] = Sha256::new().chain_update(b"lb table").chain_update(bytes).finalize().into();
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    first
}

/// How many slots each of `members` members owns, by index.
#[must_use]
pub fn shares(table: &[Slot], members: usize) -> Vec<u32> {
    let mut shares = vec![0; members];
    for &slot in table {
        if let Some(share) = shares.get_mut(usize::from(slot)) {
            *share += 1;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{apply_health, moved, owners_digest, shares};
    use crate::control::{
        maglev::{self, Member, Scratch},
        rendezvous::{EMPTY, Rendezvous, Slot},
    };

    const SEED: [u8; 32] = [42; 32];

    fn members(n: usize) -> Vec<Member> {
        (0..n)
            .map(|i| Member { identity: 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(i as u64 + 1), weight: 100 })
            .collect()
    }

    fn build(members: &[Member], slots: u32) -> (Rendezvous, Vec<Slot>) {
        let order = Rendezvous::new(members, slots, &SEED).expect("a table");
        let table = maglev::build(members, slots, &SEED, &mut Scratch::default()).expect("a table");
        (order, table)
    }

    fn with_health(order: &Rendezvous, base: &[Slot], available: &[bool]) -> Vec<Slot> {
        let mut out = Vec::new();
        apply_health(order, base, available, &mut out, &mut Scratch::default());
        out
    }

    fn identities(members: &[Member]) -> impl Fn(Slot) -> u64 {
        move |i| members[usize::from(i)].identity
    }

    /// A changed hash must not slip by: every flow of every balancer would move.
    #[test]
    fn golden_tables() {
        let five = members(5);
        let (_, table) = build(&five, 1009);
        let first: Vec<Slot> = table[..32].to_vec();
        assert_eq!(
            (owners_digest(&table, identities(&five)).as_str(), first),
            (GOLDEN, GOLDEN_FIRST.to_vec())
        );
        let mut weighted = members(5);
        for (i, member) in weighted.iter_mut().enumerate() {
            member.weight = 10 * (i as u32 + 1);
        }
        let (_, table) = build(&weighted, 1009);
        assert_eq!(owners_digest(&table, identities(&weighted)), GOLDEN_WEIGHTED);
        assert_eq!(shares(&table, 5), [67, 135, 202, 269, 336]);
    }
    const GOLDEN: &str = "d9e5cbe57ffa066d";
    const GOLDEN_FIRST: [Slot; 32] =
        [0, 3, 2, 4, 3, 2, 4, 2, 2, 3, 2, 1, 1, 3, 0, 3, 3, 4, 1, 1, 4, 4, 1, 2, 2, 0, 2, 0, 4, 4, 3, 2];
    const GOLDEN_WEIGHTED: &str = "c229f25c9c6defce";

    #[test]
    fn equal_weights_share_equally() {
        for (n, slots) in [(1, 251), (3, 1021), (10, 16_381), (100, 65_537)] {
            let (_, table) = build(&members(n), slots);
            let mean = f64::from(slots) / n as f64;
            for share in shares(&table, n) {
                assert!(
                    (f64::from(share) - mean).abs() <= (mean * 0.02).max(1.0),
                    "{share} of {slots} for one of {n}"
                );
            }
        }
    }

    #[test]
    fn a_member_that_comes_or_goes_moves_little_more_than_its_share() {
        for (n, slots) in [(2, 16_381), (4, 16_381), (10, 16_381), (50, 65_537), (100, 65_537)] {
            let all = members(n);
            let (_, with) = build(&all, slots);
            let (_, without) = build(&all[..n - 1], slots);
            let share = f64::from(moved(&with, &without)) / f64::from(slots);
            assert!(share <= 1.0 / n as f64 + 0.01, "{share} of the slots moved for one of {n}");
        }
    }

    #[test]
    fn the_order_of_the_configuration_does_not_matter() {
        let forward = members(7);
        let backward: Vec<Member> = forward.iter().rev().copied().collect();
        let (_, a) = build(&forward, 1021);
        let (_, b) = build(&backward, 1021);
        assert_eq!(owners_digest(&a, identities(&forward)), owners_digest(&b, identities(&backward)));
        assert_eq!(a.iter().map(|i| 6 - i).collect::<Vec<_>>(), b);
    }

    #[test]
    fn nobody_available_is_empty_and_weight_0_gets_nothing() {
        let mut three = members(3);
        three[1].weight = 0;
        let (order, table) = build(&three, 251);
        assert_eq!(shares(&table, 3)[1], 0);
        assert!(with_health(&order, &table, &[false; 3]).iter().all(|owner| *owner == EMPTY));
        assert!(with_health(&order, &table, &[false, true, true]).iter().all(|owner| *owner == 2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// A health event moves the slots of its member and nothing else; what is installed depends on who is
        /// available, not on the order in which they failed.
        #[test]
        fn health_moves_only_its_own_slots(
            n in 2usize..12,
            down in prop::collection::btree_set(0usize..12, 0..6),
            next in 0usize..12,
        ) {
            let next = next % n;
            let (order, base) = build(&members(n), 1021);
            let available = |down: &BTreeSet<usize>| (0..n).map(|i| !down.contains(&i)).collect::<Vec<_>>();
            let before = with_health(&order, &base, &available(&down));
            let mut more = down.clone();
            more.insert(next);
            let after = with_health(&order, &base, &available(&more));
            for (old, new) in before.iter().zip(&after) {
                if usize::from(*old) == next {
                    prop_assert!(*new == EMPTY || !more.contains(&usize::from(*new)));
                } else {
                    prop_assert_eq!(old, new);
                }
            }
            // Back again: bit for bit what it was.
            prop_assert_eq!(with_health(&order, &base, &available(&down)), before);
            prop_assert_eq!(with_health(&order, &base, &vec![true; n]), base);
        }

        /// Shares follow weights, every slot has an owner.
        #[test]
        fn weights_are_respected(weights in prop::collection::vec(0u32..1000, 1..20)) {
            prop_assume!(weights.iter().any(|w| *w > 0));
            let list: Vec<Member> =
                members(weights.len()).into_iter().zip(&weights).map(|(m, w)| Member { weight: *w, ..m }).collect();
            let (_, table) = build(&list, 4093);
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            for (share, weight) in shares(&table, weights.len()).into_iter().zip(&weights) {
                let exact = 4093.0 * f64::from(*weight) / total;
                prop_assert!((f64::from(share) - exact).abs() <= 1.0 + exact * 0.01, "{} for {}", share, exact);
            }
            prop_assert!(table.iter().all(|owner| *owner != EMPTY));
        }
    }
}
