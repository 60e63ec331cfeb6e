//! Clears what the flow table need not know any more, and counts what it does know.

use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::{abi::BUCKET_ENTRIES, datapath::track::entry};

use super::region::Region;

/// Tags of services: one byte.
const TAGS: usize = 256;

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries that are valid.
    pub used: u64,
    /// Of those, connections that go on (not SYN, not on probation).
    pub established: u64,
    /// Entries that were removed because nothing was seen of them for longer than any settling time.
    pub removed: u64,
    /// Entries in the table from before the size was changed.
    pub in_old: u64,
    /// Flows by tag of the service and member; `None`: two services share the tag.
    by_tag: Vec<Option<Vec<u64>>>,
}

impl Swept {
    /// Flows of a member of the service with this number: seen within its settling time, more than a SYN, and not
    /// closing. `None` when another service has the same tag.
    pub(super) fn flows(&self, service: u32, member: u16) -> Option<u64> {
        match self.by_tag.get(usize::from(entry::tag_of(service))) {
            Some(Some(counts)) => Some(counts.get(usize::from(member)).copied().unwrap_or_default()),
            Some(None) => None,
            // Nothing was swept yet.
            None => Some(0),
        }
    }
}

/// Settling times by tag.
#[derive(Clone, Debug)]
pub(super) struct Settles(Vec<Settle>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settle {
    /// No service: what is left of one that is gone.
    Nobody,
    /// Seconds.
    Of(u16),
    /// Several services.
    Shared,
}

impl Default for Settles {
    fn default() -> Self {
        Self(vec![Settle::Nobody; TAGS])
    }
}

impl Settles {
    /// Adds the service with this number.
    pub(super) fn add(&mut self, number: u32, seconds: u16) {
        let of_tag = &mut self.0[usize::from(entry::tag_of(number))];
        *of_tag = if *of_tag == Settle::Nobody { Settle::Of(seconds) } else { Settle::Shared };
    }
}

/// Removes entries that were not seen for `longest` seconds, the longest settling time of all services: shorter ones
/// are checked by the datapath itself. Without this the 14-bit clock would make an old entry look young again.
pub(super) fn sweep(
    [flows, old]: [&Region<[u64; BUCKET_ENTRIES]>; 2],
    settles: &Settles,
    longest: u16,
    now: u16,
) -> Swept {
    let by_tag = settles.0.iter().map(|settle| (*settle != Settle::Shared).then(Vec::new)).collect();
    let mut swept = Swept { by_tag, ..Swept::default() };
    for (table, is_old) in [(flows, false), (old, true)] {
        for word in table.as_slice().iter().flatten() {
            // SAFETY: an aligned word of shared memory that the datapath changes only by whole-word stores and
            // compare-and-swap, as is done here.
            let word = unsafe { AtomicU64::from_ptr(std::ptr::from_ref(word).cast_mut()) };
            let value = word.load(Ordering::Relaxed);
            if value == 0 {
                continue;
            }
            let age = entry::age(entry::time(value), now);
            if age > longest && word.compare_exchange(value, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                swept.removed += 1;
                continue;
            }
            swept.used += 1;
            swept.in_old += u64::from(is_old);
            let kind = entry::kind(value);
            swept.established += u64::from(kind == entry::ESTABLISHED);
            let tag = usize::from(entry::tag(value));
            if matches!(kind, entry::ESTABLISHED | entry::PROBATION)
                && settles.0.get(tag).is_some_and(|settle| matches!(settle, Settle::Of(s) if age <= *s))
                && let Some(Some(counts)) = swept.by_tag.get_mut(tag)
            {
                let member = usize::from(entry::member(value));
                if counts.len() <= member {
                    counts.resize(member + 1, 0);
                }
                counts[member] += 1;
            }
        }
    }
    swept
}

#[cfg(test)]
mod tests {
    use lb_common::datapath::track::entry;

    use super::{BUCKET_ENTRIES, Region, Settles, sweep};

    #[test]
    fn flows_are_counted_by_service_and_member() {
        let mut flows: Region<[u64; BUCKET_ENTRIES]> = Region::heap(2);
        let word = |service, member, kind, time| {
            entry::new(entry::key(0x1234_5678_9abc_def0, service), member, kind, time)
        };
        flows.as_mut_slice()[0] = [
            word(1, 0, entry::ESTABLISHED, 95),
            word(1, 0, entry::PROBATION, 95),
            word(1, 0, entry::SYN, 95),
            word(1, 0, entry::CLOSING, 95),
            word(1, 3, entry::ESTABLISHED, 95),
            word(2, 0, entry::ESTABLISHED, 95),
            word(2, 0, entry::ESTABLISHED, 60),
            0,
        ];
        flows.as_mut_slice()[1][0] = word(7, 0, entry::ESTABLISHED, 95);
        let mut settles = Settles::default();
        settles.add(1, 60);
        settles.add(2, 20);
        let old = Region::heap(1);
        let swept = sweep([&flows, &old], &settles, 60, 100);
        assert_eq!((swept.used, swept.removed), (8, 0));
        assert_eq!([swept.flows(1, 0), swept.flows(1, 3), swept.flows(1, 4)], [Some(2), Some(1), Some(0)]);
        assert_eq!(swept.flows(2, 0), Some(1), "one was silent for longer than its service remembers");
        assert_eq!(sweep([&flows, &old], &settles, 30, 100).removed, 1);
        assert_eq!(swept.in_old, 0);
        assert_eq!(sweep([&old, &flows], &settles, 60, 100).in_old, 7, "one is gone");
    }

    #[test]
    fn services_that_share_a_tag_are_not_told_apart() {
        let mut flows: Region<[u64; BUCKET_ENTRIES]> = Region::heap(1);
        flows.as_mut_slice()[0][0] = entry::new(entry::key(5, 1), 0, entry::ESTABLISHED, 95);
        let mut settles = Settles::default();
        settles.add(1, 60);
        settles.add(256, 60);
        settles.add(255, 60);
        let swept = sweep([&flows, &Region::heap(1)], &settles, 60, 100);
        assert_eq!((swept.flows(1, 0), swept.flows(256, 0), swept.flows(255, 0)), (None, None, Some(0)));
    }
}
