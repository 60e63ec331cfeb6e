//! Clears what the flow table need not know any more.

use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::{abi::BUCKET_ENTRIES, datapath::track::entry};

use super::region::Region;

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries that are valid.
    pub used: u64,
    /// Of those, connections that go on (not SYN, not on probation).
    pub established: u64,
    /// Entries that were removed because nothing was seen of them for longer than any settling time.
    pub removed: u64,
}

/// Removes entries that were not seen for `longest` seconds, the longest settling time of all services: shorter ones
/// are checked by the datapath itself. Without this the 14-bit clock would make an old entry look young again.
pub(super) fn sweep(flows: &Region<[u64; BUCKET_ENTRIES]>, longest: u16, now: u16) -> Swept {
    let mut swept = Swept::default();
    for bucket in flows.as_slice() {
        for word in bucket {
            // SAFETY: an aligned word of shared memory that the datapath changes only by whole-word stores and
            // compare-and-swap, as is done here.
            let word = unsafe { AtomicU64::from_ptr(std::ptr::from_ref(word).cast_mut()) };
            let value = word.load(Ordering::Relaxed);
            if value == 0 {
                continue;
            }
            if entry::age(entry::time(value), now) > longest
                && word.compare_exchange(value, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
            {
                swept.removed += 1;
                continue;
            }
            swept.used += 1;
            swept.established += u64::from(entry::kind(value) == entry::ESTABLISHED);
        }
    }
    swept
}
