//! Which slots changed their owner a moment ago, from whom, and when they are settled again.
//!
//! The datapath's side of the rules is `lb_common::datapath::track`; `docs/connections.md` has them in words.

use std::{collections::BTreeMap, sync::Arc};

use lb_common::{
    abi::slot,
    datapath::track::{entry, meta},
};

/// Seconds of a clock that only goes forward; its low 14 bits are the datapath's time.
pub type Seconds = u64;

/// What is remembered of a slot that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unsettled {
    /// Owner before the first of the changes that are not settled: flows from before them live there.
    old: u16,
    /// When the owner changed last.
    since: Seconds,
    /// `slot::UNSETTLED` or `slot::EXCEPTIONS`.
    state: u16,
}

/// The slots of one service.
#[derive(Clone, Debug, Default)]
pub struct Settling {
    /// Owners as they were issued last, without states.
    owners: Arc<[u16]>,
    slots: BTreeMap<u32, Unsettled>,
    /// What was issued last, until something changes.
    issued: Option<Issued>,
}

/// A table as the datapath reads it: owners with states, and the old owners of slots that are not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Slots with their states.
    pub slots: Arc<[u16]>,
    /// Slot → old owner, for every slot that is not settled.
    pub old: Arc<BTreeMap<u32, u16>>,
}

/// How many slots are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Owner changed less than the settling time ago.
    pub unsettled: u32,
    /// Settled but for long-lived flows elsewhere.
    pub exceptions: u32,
}

impl Settling {
    /// Goes on from what an earlier daemon installed. Its clocks are lost, so all of them start again.
    pub fn adopt(slots: &[u16], meta_of: impl Fn(u32) -> u32, now: Seconds) -> Self {
        let mut unsettled = BTreeMap::new();
        for (index, value) in (0u32..).zip(slots) {
            let state = value & slot::STATE;
            if state != slot::SETTLED {
                // An exception may have been seen up to now: as unsettled as a fresh change.
                unsettled.insert(index, Unsettled { old: meta::old(meta_of(index)), since: now, state });
            }
        }
        Self {
            owners: slots.iter().map(|value| value & slot::MEMBER).collect(),
            slots: unsettled,
            issued: None,
        }
    }

    /// Takes the owners that are wanted now and says what to install. `tracked` is false for a service that remembers
    /// nothing: then a change moves what it moves.
    pub fn issue(&mut self, owners: &Arc<[u16]>, tracked: bool, now: Seconds) -> Issued {
        if !tracked || self.owners.len() != owners.len() {
            self.slots.clear();
        } else if !Arc::ptr_eq(&self.owners, owners) {
            let previous = Arc::clone(&self.owners);
            for (index, (before, after)) in (0u32..).zip(previous.iter().zip(owners.iter())) {
                // A slot without an owner has no flows to protect.
                if before != after && *before != slot::EMPTY {
                    self.change(index, *before, now);
                }
            }
        }
        let unchanged = Arc::ptr_eq(&self.owners, owners) && tracked;
        self.owners = Arc::clone(owners);
        if self.slots.is_empty() {
            self.issued = None;
            return Issued { slots: Arc::clone(owners), old: Arc::default() };
        }
        if let Some(issued) = self.issued.as_ref().filter(|_| unchanged) {
            return issued.clone();
        }
        let mut slots: Vec<u16> = owners.to_vec();
        for (index, unsettled) in &self.slots {
            if let Some(value) = slots.get_mut(*index as usize).filter(|value| **value != slot::EMPTY) {
                *value |= unsettled.state;
            }
        }
        let old = self.slots.iter().map(|(index, unsettled)| (*index, unsettled.old)).collect();
        let issued = Issued { slots: slots.into(), old: Arc::new(old) };
        self.issued = Some(issued.clone());
        issued
    }

    fn change(&mut self, index: u32, before: u16, now: Seconds) {
        let unsettled =
            self.slots.entry(index).or_insert(Unsettled { old: before, since: now, state: slot::UNSETTLED });
        // Owners in between have entries for all of their flows: the oldest stays the old one.
        if unsettled.state == slot::EXCEPTIONS {
            unsettled.old = before;
        }
        unsettled.state = slot::UNSETTLED;
        unsettled.since = now;
    }

    /// Moves on what has waited for `settle` seconds; `stamp` is the time of a slot's last exception, from the
    /// datapath. Says whether any state changed.
    pub fn settle(&mut self, settle: u16, stamp: impl Fn(u32) -> u16, now: Seconds) -> bool {
        let mut changed = false;
        self.slots.retain(|index, unsettled| {
            if now.saturating_sub(unsettled.since) <= Seconds::from(settle) {
                return true;
            }
            let quiet = entry::age(stamp(*index), now as u16 & entry::TIME) > settle;
            if quiet {
                changed = true;
                return false;
            }
            if unsettled.state == slot::UNSETTLED {
                unsettled.state = slot::EXCEPTIONS;
                changed = true;
            }
            true
        });
        if changed {
            self.issued = None;
        }
        changed
    }

    /// Whether flows from before a change may still be on this member.
    pub fn refers_to(&self, member: u16) -> bool {
        self.slots.values().any(|unsettled| unsettled.old == member)
    }

    /// How many slots are in which state.
    pub fn counts(&self) -> Counts {
        let unsettled = self.slots.values().filter(|u| u.state == slot::UNSETTLED).count();
        Counts {
            unsettled: u32::try_from(unsettled).unwrap_or(u32::MAX),
            exceptions: u32::try_from(self.slots.len() - unsettled).unwrap_or(u32::MAX),
        }
    }
}

/// A stamp that says "no exception for longer than any settling time".
pub fn never(now: Seconds) -> u16 {
    (now as u16).wrapping_sub(8191) & entry::TIME
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lb_common::abi::slot;

    use super::{Counts, Settling, never};

    fn owners(list: &[u16]) -> Arc<[u16]> {
        Arc::from(list)
    }

    #[test]
    fn a_change_unsettles_only_its_slots() {
        let mut settling = Settling::default();
        let first = owners(&[0, 1, 2]);
        assert_eq!(settling.issue(&first, true, 100).slots, first, "nothing was there before");
        let issued = settling.issue(&owners(&[0, 2, 2]), true, 200);
        assert_eq!(*issued.slots, [0, 2 | slot::UNSETTLED, 2]);
        assert_eq!(issued.old.get(&1), Some(&1));
        assert_eq!(settling.counts(), Counts { unsettled: 1, exceptions: 0 });
    }

    #[test]
    fn the_oldest_owner_stays_the_old_one_until_settled() {
        let mut settling = Settling::default();
        settling.issue(&owners(&[0]), true, 0);
        settling.issue(&owners(&[1]), true, 10);
        let issued = settling.issue(&owners(&[2]), true, 20);
        assert_eq!(issued.old.get(&0), Some(&0));
        assert!(!settling.settle(15, |_| never(30), 30), "the clock started again at 20");
        assert!(settling.settle(15, |_| never(36), 36));
        assert_eq!(*settling.issue(&owners(&[2]), true, 36).slots, [2]);
    }

    #[test]
    fn exceptions_outlive_the_settling_time() {
        let mut settling = Settling::default();
        settling.issue(&owners(&[0]), true, 0);
        let table = owners(&[1]);
        settling.issue(&table, true, 10);
        assert!(settling.settle(60, |_| 65, 80), "a flow was seen at the old owner 15 s ago");
        assert_eq!(*settling.issue(&table, true, 80).slots, [1 | slot::EXCEPTIONS]);
        assert!(!settling.settle(60, |_| 65, 100));
        let issued = settling.issue(&owners(&[2]), true, 100);
        assert_eq!(
            (issued.slots[0], issued.old.get(&0)),
            (2 | slot::UNSETTLED, Some(&1)),
            "exceptions have entries"
        );
        assert!(settling.settle(60, |_| 65, 170));
        assert_eq!(settling.counts(), Counts::default());
    }

    #[test]
    fn adopted_states_start_their_clocks_again() {
        let adopted = [0, 1 | slot::UNSETTLED, 2 | slot::EXCEPTIONS, slot::EMPTY];
        let mut settling = Settling::adopt(&adopted, |i| if i == 1 { 7 } else { 9 }, 1000);
        assert_eq!(settling.counts(), Counts { unsettled: 1, exceptions: 1 });
        assert!(settling.refers_to(7) && settling.refers_to(9) && !settling.refers_to(0));
        assert!(!settling.settle(60, |_| never(1050), 1050));
        assert!(settling.settle(60, |_| never(1061), 1061));
    }

    #[test]
    fn without_tracking_nothing_is_remembered() {
        let mut settling = Settling::default();
        settling.issue(&owners(&[0]), false, 0);
        let table = owners(&[1]);
        assert_eq!(settling.issue(&table, false, 10).slots, table);
    }

    #[test]
    fn a_slot_that_had_no_owner_has_nothing_to_protect() {
        let mut settling = Settling::default();
        settling.issue(&owners(&[slot::EMPTY]), true, 0);
        let table = owners(&[1]);
        assert_eq!(settling.issue(&table, true, 10).slots, table);
    }
}
