//! Who was in a service before its last changes: from it follows who owned a slot then, and may still have connections.
//!
//! Only memberships are kept, with the time at which each ended, and tables are worked out anew: so balancers that saw
//! the same changes name the same candidates, and one that was started anew learns them from the records of what was in
//! force.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{desired::numbered, maglev, rendezvous::Rendezvous, settling::Seconds};

/// Memberships that are kept. A packet has room for three candidates, and most changes move few slots.
const KEPT: usize = 4;
/// Seconds for which they are kept.
pub const KEPT_FOR: Seconds = 24 * 3600;

/// Members of a service with their weights, by identity. Without those of weight 0.
pub(super) type Weights = BTreeMap<u64, u32>;

/// A table, and the members by index that it was made from.
type Made = (Vec<(u64, u32)>, Arc<[u16]>);

/// The memberships of a service: the one in force, and those before.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    now: Weights,
    /// Newest first, with the time at which it ended.
    earlier: VecDeque<(Weights, Seconds)>,
    /// Their tables, by what they were made from.
    tables: Vec<Made>,
}

impl Past {
    /// Takes the membership that is in force from now on. One without members has no connections and is not noted.
    pub(super) fn change(&mut self, members: &[(u64, u32)], now: Seconds) {
        let weights: Weights = members.iter().copied().filter(|(_, weight)| *weight > 0).collect();
        if weights.is_empty() || weights == self.now {
            return;
        }
        let before = std::mem::replace(&mut self.now, weights);
        self.remember(before, now);
        self.earlier.retain(|(weights, _)| *weights != self.now);
    }

    /// Notes a membership that was in force until then. Later ones are noted later.
    pub(super) fn remember(&mut self, weights: Weights, until: Seconds) {
        if weights.is_empty() {
            return;
        }
        self.earlier.retain(|(earlier, _)| *earlier != weights);
        self.earlier.push_front((weights, until));
        self.earlier.truncate(KEPT);
    }

    /// Whether a membership is older than is kept.
    pub(super) fn is_due(&self, now: Seconds) -> bool {
        self.earlier.iter().any(|(_, until)| now.saturating_sub(*until) > KEPT_FOR)
    }

    /// Who owned each slot in earlier memberships, newest first, by the indices of `list`. Members that are not there any
    /// more have indices above. Tables that cannot be made now are left out.
    pub(super) fn owners(
        &mut self,
        list: &[Option<u64>],
        slots: u32,
        seed: &[u8; 32],
        scratch: &mut maglev::Scratch,
        now: Seconds,
    ) -> Vec<Arc<[u16]>> {
        self.earlier.retain(|(_, until)| now.saturating_sub(*until) <= KEPT_FOR);
        let mut tables = Vec::with_capacity(self.earlier.len());
        for (weights, _) in &self.earlier {
            let weight = |id: &u64| (*id, weights.get(id).copied().unwrap_or(0));
            let mut members: Vec<(u64, u32)> =
                list.iter().map(|id| id.as_ref().map(weight).unwrap_or_default()).collect();
            members.extend(
                weights.iter().filter(|(id, _)| !list.contains(&Some(**id))).map(|(id, w)| (*id, *w)),
            );
            let known =
                self.tables.iter().find(|(of, table)| *of == members && table.len() == slots as usize);
            let table = match known {
                Some((_, table)) => Arc::clone(table),
                None => match Rendezvous::new(&numbered(&members), slots, seed) {
                    Ok(order) => maglev::fill(&order, scratch).into(),
                    Err(_) => continue,
                },
            };
            tables.push((members, table));
        }
        self.tables = tables;
        self.tables.iter().map(|(_, table)| Arc::clone(table)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, KEPT_FOR, Past, numbered};
    use crate::control::{maglev, rendezvous::Rendezvous};

    const SEED: [u8; 32] = [5; 32];
    const SLOTS: u32 = 251;

    fn base(members: &[(u64, u32)]) -> Vec<u16> {
        let order = Rendezvous::new(&numbered(members), SLOTS, &SEED).unwrap();
        maglev::fill(&order, &mut maglev::Scratch::default())
    }

    fn owners(past: &mut Past, list: &[Option<u64>], now: u64) -> Vec<Vec<u16>> {
        let tables = past.owners(list, SLOTS, &SEED, &mut maglev::Scratch::default(), now);
        tables.iter().map(|table| table.to_vec()).collect()
    }

    #[test]
    fn owners_of_before_are_found_by_the_indices_of_now() {
        let mut past = Past::default();
        past.change(&[(7, 100), (8, 100), (9, 100)], 0);
        // 8 leaves, 6 takes its index later; 7 weighs less.
        past.change(&[(7, 10), (6, 100), (9, 100)], 10);
        let list = [Some(7), Some(6), Some(9)];
        let before = base(&[(7, 100), (8, 100), (9, 100)]);
        let by_list: Vec<u16> = before.iter().map(|owner| [0, 3, 2][usize::from(*owner)]).collect();
        assert!(by_list.contains(&3), "a member that is gone is no index of now");
        let expected = [by_list];
        assert_eq!(owners(&mut past, &list, 20), expected);
        assert_eq!(owners(&mut past, &list, 20), expected, "the second time from memory");
        assert!(owners(&mut past, &list, 11 + KEPT_FOR).is_empty(), "forgotten after a while");
    }

    #[test]
    fn the_newest_come_first_and_what_is_in_force_is_not_past() {
        let mut past = Past::default();
        let one = |weight| [(1, weight), (2, 100)];
        for weight in 1..=10 {
            past.change(&one(weight), u64::from(weight));
        }
        let list = [Some(1), Some(2)];
        let expected: Vec<_> = [9, 8, 7, 6].map(|weight| base(&one(weight))).into();
        assert_eq!(owners(&mut past, &list, 10), expected);
        assert_eq!(expected.len(), KEPT);
        past.change(&one(8), 11);
        let expected: Vec<_> = [10, 9, 7].map(|weight| base(&one(weight))).into();
        assert_eq!(owners(&mut past, &list, 12), expected);
        past.change(&[], 12);
        past.change(&one(8), 13);
        assert_eq!(owners(&mut past, &list, 14), expected, "nobody is no membership");
    }

    #[test]
    fn records_are_remembered_before_the_first_membership() {
        let mut past = Past::default();
        past.remember([(1, 100)].into(), 5);
        past.remember([(1, 100), (2, 100)].into(), 6);
        past.change(&[(1, 100), (2, 50)], 7);
        let list = [Some(1), Some(2)];
        let expected = [base(&[(1, 100), (2, 100)]), base(&[(1, 100), (2, 0)])];
        assert_eq!(owners(&mut past, &list, 8), expected);
    }
}
