//! Rate limits per source: GCRA, exact over all CPUs.
//!
//! The generic cell rate algorithm (ITU-T I.371) keeps one number per source: the theoretical arrival time (TAT) of
//! its next packet. A packet is within its rate if TAT is at most `tolerance` ahead of the clock, and then moves TAT
//! by `cost`. One number means one eight-byte word, updated by compare-and-swap, so no packet is counted twice or
//! lost between CPUs.
//!
//! **Time** is in units of 2^-18 kernel tick (15 ns at 250 Hz). The coarse clock (`jiffies`) costs nothing and is
//! exact in the long run; it only delays a refill by up to one tick, so a service whose burst is shorter than a few
//! ticks uses the fine clock (`service_flags::LIMIT_FINE_CLOCK`).
//!
//! **Place.** A source hashes to one bucket of eight words, one cache line. A word is `fingerprint(20) | TAT(44)`.
//! An entry whose TAT lies in the past says nothing that an absent entry would not, so it may be replaced without
//! loss; when all eight are ahead of the clock the one with the least debt goes.

use super::{Address, Tables, Word};
use crate::{
    abi::{BUCKET_ENTRIES, Globals, Service, service_flags},
    hash::{Hasher, domain},
};

/// Bits of a time stamp.
pub const TIME_BITS: u32 = 44;
/// Rate-limit time units in one kernel tick, as a power of two.
pub const UNITS_PER_TICK_BITS: u32 = 18;
/// Scale of [`Globals::limit_time_mult`], as a power of two.
pub const MULT_BITS: u32 = 20;

const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// The most that an entry of any service can be ahead of the clock: tolerance and cost have 32 bits each.
const MOST_DEBT: i64 = 2 * u32::MAX as i64;

/// How far `time` is ahead of `now`, modulo 2^44, signed.
#[inline(always)]
pub fn ahead(time: u64, now: u64) -> i64 {
    ((time.wrapping_sub(now)) << (64 - TIME_BITS)) as i64 >> (64 - TIME_BITS)
}

/// The fine clock in rate-limit units. Wraps like the coarse one.
#[inline(always)]
pub fn fine_time(globals: &Globals, nanoseconds: u64) -> u64 {
    (nanoseconds.wrapping_mul(u64::from(globals.limit_time_mult)) >> MULT_BITS)
        .wrapping_add(globals.limit_time_offset)
        & TIME_MASK
}

/// The coarse clock in rate-limit units.
#[inline(always)]
pub fn coarse_time(jiffies: u64) -> u64 {
    jiffies << UNITS_PER_TICK_BITS & TIME_MASK
}

/// How far an entry is ahead of the clock, if no entry can be more than `most` ahead.
///
/// Time stamps come round after 2^44 units (74 hours at 250 Hz), so one that was left alone for half of that seems to
/// lie in the future. It lies further ahead than any debt can be, and is as good as past.
#[inline(always)]
fn debt(tat: u64, now: u64, most: i64) -> i64 {
    let debt = ahead(tat, now);
    if debt > most { i64::MIN } else { debt }
}

/// One packet against an entry: the new TAT, or `None` when it comes too soon.
#[inline(always)]
pub fn admit(tat: u64, now: u64, cost: u32, tolerance: u32) -> Option<u64> {
    let debt = debt(tat, now, i64::from(tolerance) + i64::from(cost));
    let debt = if debt < 0 { 0 } else { debt };
    if debt > i64::from(tolerance) {
        return None;
    }
    Some(now.wrapping_add(debt as u64).wrapping_add(u64::from(cost)) & TIME_MASK)
}

/// Whether a packet of a source to `service` is within the rate; `source` is [`source_word`].
#[inline(always)]
pub fn allows<T: Tables>(tables: &T, globals: &Globals, service: &Service, source: u64) -> bool {
    let now = if service.flags & service_flags::LIMIT_FINE_CLOCK == 0 {
        coarse_time(tables.jiffies())
    } else {
        fine_time(globals, tables.nanoseconds())
    };
    let rate = Rate { account: service.id, cost: service.limit_cost, tolerance: service.limit_tolerance };
    within(tables, globals, now, rate, source)
}

/// What a source may send: accounts of one number are one.
#[derive(Clone, Copy)]
pub(super) struct Rate {
    pub account: u32,
    pub cost: u32,
    pub tolerance: u32,
}

/// Whether a packet of a source at `now` is within the rate.
#[inline(always)]
pub(super) fn within<T: Tables>(tables: &T, globals: &Globals, now: u64, rate: Rate, source: u64) -> bool {
    let mut hasher = Hasher::new(&globals.key, domain::LIMIT);
    hasher.pair((source >> 32) as u32, source as u32);
    hasher.pair(rate.account, 0);
    let hash = hasher.finish();
    // A fingerprint of 0 would make a fresh word look like an entry.
    let fingerprint = (hash >> TIME_BITS) | 1;
    let Some(bucket) = tables.limit_bucket(hash as u32 & globals.limit_mask) else { return true };

    // Attempts are written out: as a loop they are compiled to one whose last instruction runs into its first without
    // a jump, which Linux 6.1 refuses (`visit_insn`, kernel/bpf/verifier.c).
    let once = Attempt { bucket, fingerprint, now, rate };
    if let Some(admitted) = once.take() {
        return admitted;
    }
    if let Some(admitted) = once.take() {
        return admitted;
    }
    if let Some(admitted) = once.take() {
        return admitted;
    }
    // Another CPU won each time, on the same source: the packet is let through.
    once.take().unwrap_or(true)
}

/// One packet against one bucket.
struct Attempt<'a, W> {
    bucket: &'a [W; BUCKET_ENTRIES],
    fingerprint: u64,
    now: u64,
    rate: Rate,
}

impl<W: Word> Attempt<'_, W> {
    /// Whether the packet is within the rate; `None` when another CPU changed the entry at this very moment.
    #[inline(always)]
    fn take(&self) -> Option<bool> {
        let Self { bucket, fingerprint, now, rate } = *self;
        let (word, old) = choose(bucket, fingerprint, now)?;
        let tat = if old >> TIME_BITS == fingerprint { old & TIME_MASK } else { now };
        let Some(tat) = admit(tat, now, rate.cost, rate.tolerance) else {
            return Some(false);
        };
        word.replace(old, fingerprint << TIME_BITS | tat).then_some(true)
    }
}

/// What stands for one source, in one word: all of an IPv4 address, or the first 64 bits of an IPv6 address.
#[inline(always)]
pub(super) fn source_word<A: Address>(source: A) -> u64 {
    let [high, low] = source.source_prefix();
    u64::from(high) << 32 | u64::from(low)
}

/// The entry of this fingerprint, or one to replace: any in the past, else the one with the least debt. With it comes
/// what was read there: whoever replaces it must replace just that, or the same source on another CPU, which may have
/// taken the same place in between, loses its packet from the account. None when another CPU changed the entry with
/// the least debt at this very moment.
///
/// One thing is searched at a time, and left at once when found: a place kept through a loop would be a pointer with
/// eight possible values in each of its rounds, and the verifier would follow every sequence of them.
#[inline(always)]
fn choose<W: Word>(bucket: &[W; BUCKET_ENTRIES], fingerprint: u64, now: u64) -> Option<(&W, u64)> {
    let mut i = 0;
    while i < BUCKET_ENTRIES {
        let word = bucket.get(i)?;
        let entry = word.load();
        if entry >> TIME_BITS == fingerprint {
            return Some((word, entry));
        }
        i += 1;
    }
    let mut least = u64::MAX;
    let mut i = 0;
    while i < BUCKET_ENTRIES {
        let word = bucket.get(i)?;
        let entry = word.load();
        let debt = debt(entry & TIME_MASK, now, MOST_DEBT);
        if entry == 0 || debt < 0 {
            return Some((word, entry));
        }
        let rank = rank(debt, i);
        if rank < least {
            least = rank;
        }
        i += 1;
    }
    let mut i = 0;
    while i < BUCKET_ENTRIES {
        let word = bucket.get(i)?;
        let entry = word.load();
        if rank(debt(entry & TIME_MASK, now, MOST_DEBT), i) == least {
            return Some((word, entry));
        }
        i += 1;
    }
    None
}

/// Orders entries by debt, and says where one is: `debt | place(3)`.
#[inline(always)]
fn rank(debt: i64, place: usize) -> u64 {
    (debt as u64) << 3 | place as u64
}

#[cfg(test)]
mod tests {
    use super::{TIME_BITS, TIME_MASK, admit};

    const COST: u32 = 1000;
    const TOLERANCE: u32 = 2000;

    /// Whether a packet at `now` is admitted to an entry that a burst at time 5 filled.
    fn admitted(now: u64) -> bool {
        let mut tat = 5;
        while let Some(next) = admit(tat, 5, COST, TOLERANCE) {
            tat = next;
        }
        admit(tat, now & TIME_MASK, COST, TOLERANCE).is_some()
    }

    #[test]
    fn a_full_entry_admits_again_after_its_cost() {
        assert!(!admitted(5));
        assert!(!admitted(5 + u64::from(COST) - 1));
        assert!(admitted(5 + u64::from(COST)));
    }

    #[test]
    fn an_entry_is_past_however_long_ago() {
        for eighth in 1..8 {
            assert!(
                admitted(5 + (eighth << (TIME_BITS - 3))),
                "{eighth} eighths of the time that stamps hold"
            );
        }
    }
}
