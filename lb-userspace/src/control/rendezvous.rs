//! Who comes first at a slot: a weighted rendezvous order that can be walked from both ends.
//!
//! Every member runs through all slots of the table along a pseudo-random course of its own, faster the more it
//! weighs; the order of arrival at a slot is the slot's order of members. Two questions have to be cheap:
//! - *when does this member reach this slot?* A slot in need of a few members asks all of them.
//! - *where is this member after e steps?* A table in need of an owner for every slot lets all members run.
//!
//! Plain rendezvous hashing answers the first only. Here a course is a keyed permutation that is easy both ways, as in
//! Maglev (NSDI'16, section 3.4), but not Maglev's arithmetic progression: on about one pair of members in two
//! hundred (at 16,381 slots) two progressions fall into step, and then a scale event moves several percent too many
//! slots. So the affine map is followed by a shuffle that all members share (docs/decisions/0002-tables.md).
//!
//! After e of the N steps of a course a member of weight w has run for −ln(1 − (e + ½)/N) / w. A position along a
//! permutation is uniform, so this time is exponential with rate w: among any set of members each is first with
//! probability weight / total. Members that arrive in the same instant go by rank: the heavier first, and in a keyed
//! order of identities where weights are equal. The place of a member in the configuration has no influence on
//! anything but its index.
//!
//! All of it is integer arithmetic, equal on every machine. Times of a course are off by less than 2⁻³⁵ of the time
//! of a whole one, so the weights of two members compare to 2⁻¹⁴ on their first step and better on every later one.

use std::cmp::Reverse;

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{
    arith::{LN_BITS, Modulus, ln, mix, mul_high},
    prime::{is_prime, prime_at_least, prime_at_most},
};

/// What a slot of a table holds: a member index local to the service, 0 to 16,382, or [`EMPTY`].
pub type Slot = u16;

/// "No member": all 14 bits of a member index set.
pub const EMPTY: Slot = (1 << 14) - 1;

/// Members of one service, weight 0 included.
pub const MAX_MEMBERS: usize = EMPTY as usize;

/// The longest table: the largest prime below 2²⁰.
pub const MAX_SLOTS: u32 = 1_048_573;

/// A member of a service, as the tables see it. Its index is its place in the slice it comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Stands for the backend on every balancer of a group: a hash of its identity, made by the caller. The tables key
    /// it with the seed.
    pub identity: u64,
    /// Share of the slots relative to the other members. 0: no slots, but the index stays taken. Any number; what
    /// divides all of them plays no part.
    pub weight: u32,
}

/// Why there is no table.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TableError {
    /// The length is not a prime that fits.
    #[error(
        "a table has a prime number of slots, at most {MAX_SLOTS}; found {found}, \
         which could be {below} or {above}"
    )]
    Length {
        /// What was asked for.
        found: u32,
        /// The next usable length below (the largest one, for a number above it).
        below: u32,
        /// The next usable length above (the largest one, for a number above it).
        above: u32,
    },
    /// A member index has 14 bits.
    #[error("a service has at most {MAX_MEMBERS} members; found {found}")]
    TooManyMembers {
        /// How many were given.
        found: usize,
    },
    /// Some member would have to go without a slot.
    #[error(
        "{members} members with a weight above 0 need a table of at least as many slots; found {slots}: \
         use {prime} or more"
    )]
    TooFewSlots {
        /// Members with a weight above 0.
        members: usize,
        /// Length asked for.
        slots: u32,
        /// The smallest length that holds them.
        prime: u32,
    },
    /// Two members cannot be told apart.
    #[error("members {first} and {second} have the same identity: each backend of a service needs its own")]
    SameIdentity {
        /// Index of one.
        first: Slot,
        /// Index of the other.
        second: Slot,
    },
}

/// One member's course: `place = scale · slot + offset` modulo the length, then [`Shuffle`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Runner {
    pub(super) scale: u32,
    pub(super) offset: u32,
    /// 2⁶⁴ / weight; 0 for a member that does not run.
    pub(super) pace: u64,
    /// After the division of all weights by their greatest common divisor.
    pub(super) weight: u32,
    /// Keyed, uniform, 32 bits: decides who gets the odd slot.
    pub(super) odd: u32,
    /// Place in the order that decides ties.
    rank: Slot,
}

/// The order of members at every slot of a table, for one set of members, one length and one seed.
#[derive(Clone, Debug)]
pub struct Rendezvous {
    pub(super) modulus: Modulus,
    pub(super) shuffle: Shuffle,
    slots: u32,
    /// By member index.
    runners: Vec<Runner>,
    /// Members with a weight above 0, first in ties first.
    ranks: Vec<Slot>,
    pub(super) clock: Clock,
}

/// Keys of the hashes, derived from the seed once.
struct Keys {
    rank: u64,
    scale: u64,
    offset: u64,
    shuffle: u64,
}

impl Keys {
    fn new(seed: &[u8; 32]) -> Self {
        // The label separates these keys from everything else that is derived from the seed; its number changes
        // whenever a table would.
        let digest: [u8; 32] =
            Sha256::new().chain_update(b"lb tables 1").chain_update(seed).finalize().into();
        let word = |i: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&digest[8 * i..8 * i + 8]);
            u64::from_le_bytes(bytes)
        };
        Self { rank: word(0), scale: word(1), offset: word(2), shuffle: word(3) }
    }
}

impl Rendezvous {
    /// The order for these members over `slots` slots.
    ///
    /// # Errors
    /// [`TableError`]: a length that is no prime up to [`MAX_SLOTS`], more than [`MAX_MEMBERS`] members, more members
    /// with a weight than slots, two members with one identity.
    pub fn new(members: &[Member], slots: u32, seed: &[u8; 32]) -> Result<Self, TableError> {
        check_length(slots)?;
        if members.len() > MAX_MEMBERS {
            return Err(TableError::TooManyMembers { found: members.len() });
        }
        let running = members.iter().filter(|m| m.weight > 0).count();
        if running > slots as usize {
            let prime = prime_at_least(running as u32).unwrap_or(MAX_SLOTS);
            return Err(TableError::TooFewSlots { members: running, slots, prime });
        }
        let keys = Keys::new(seed);
        let mut keyed: Vec<(u64, Slot)> =
            members.iter().map(|m| mix(m.identity ^ keys.rank)).zip(0..).collect();
        keyed.sort_unstable();
        // `mix` is a bijection: keys are equal only where identities are.
        if let Some(pair) = keyed.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(TableError::SameIdentity { first: pair[0].1, second: pair[1].1 });
        }
        let divisor = members.iter().fold(0, |divisor, m| gcd(divisor, m.weight)).max(1);
        let weight = |index: Slot| members[usize::from(index)].weight / divisor;
        // Stable: those of one weight stay in order of their keys.
        keyed.sort_by_key(|&(_, index)| Reverse(weight(index)));
        let modulus = Modulus::new(slots);
        let mut runners = vec![Runner::default(); members.len()];
        for (rank, &(key, index)) in (0..).zip(&keyed) {
            let (weight, hash) = (weight(index), mix(key ^ keys.scale));
            runners[usize::from(index)] = Runner {
                scale: 1 + mul_high(hash, u64::from(slots) - 1) as u32,
                offset: mul_high(mix(key ^ keys.offset), u64::from(slots)) as u32,
                pace: u64::MAX.checked_div(u64::from(weight)).unwrap_or(0),
                weight,
                odd: mix(hash) as u32,
                rank,
            };
        }
        let ranks = keyed[..running].iter().map(|&(_, index)| index).collect();
        let total = runners.iter().map(|r| u64::from(r.weight)).sum();
        let shuffle = Shuffle::new(slots, keys.shuffle);
        let clock = Clock::new(slots, total, shuffle.steps());
        Ok(Self { modulus, shuffle, slots, runners, ranks, clock })
    }

    /// Length of the tables.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// How many members there are, those of weight 0 included.
    #[must_use]
    pub fn members(&self) -> usize {
        self.runners.len()
    }

    /// Members with a weight above 0, in the order that decides ties.
    pub(super) fn ranks(&self) -> &[Slot] {
        &self.ranks
    }

    pub(super) fn runner(&self, member: Slot) -> &Runner {
        &self.runners[usize::from(member)]
    }

    /// Steps after which the runner comes to the slot, 0 to [`Shuffle::steps`] − 1.
    #[inline]
    pub(super) fn step(&self, runner: &Runner, slot: u32) -> u32 {
        let place = u64::from(runner.scale) * u64::from(slot) + u64::from(runner.offset);
        self.shuffle.step(self.modulus.reduce(place))
    }

    /// When the member reaches the slot, and its rank: whoever has the smaller pair comes first. A member of weight 0
    /// has no time: `None`.
    ///
    /// # Panics
    /// If `member` is no index of a member.
    #[must_use]
    pub fn arrival(&self, slot: u32, member: Slot) -> Option<(u64, Slot)> {
        let runner = self.runner(member);
        let time = self.clock.time(self.step(runner, slot), runner.pace);
        (runner.weight > 0).then_some((time, runner.rank))
    }

    /// The first member at the slot among those that `available` accepts by index; `None` if it accepts none that has
    /// a weight. Costs some 10 ns per member: for a whole table see [`super::table::apply_health`].
    pub fn next_owner(&self, slot: u32, available: impl Fn(usize) -> bool) -> Option<Slot> {
        let candidates = self.ranks.iter().filter(|&&member| available(usize::from(member)));
        candidates.min_by_key(|&&member| self.arrival(slot, member)).copied()
    }

    /// The first `k` members at the slot, whatever their health; fewer if fewer have a weight.
    #[must_use]
    pub fn order(&self, slot: u32, k: usize) -> Vec<Slot> {
        let mut arrivals: Vec<_> = self.ranks.iter().map(|&m| (self.arrival(slot, m), m)).collect();
        if k < arrivals.len() && k > 0 {
            arrivals.select_nth_unstable(k - 1);
        }
        arrivals.truncate(k);
        arrivals.sort_unstable();
        arrivals.into_iter().map(|(_, member)| member).collect()
    }
}

fn check_length(slots: u32) -> Result<(), TableError> {
    if slots <= MAX_SLOTS && is_prime(slots) {
        return Ok(());
    }
    let usable = slots.clamp(2, MAX_SLOTS);
    let below = prime_at_most(usable).unwrap_or(2);
    let above = prime_at_least(usable).unwrap_or(MAX_SLOTS);
    Err(TableError::Length { found: slots, below, above })
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// A permutation of the places of a course that has no linear structure: two rounds of a Feistel network with random
/// tables. Every member's course goes through the same one; their affine maps tell them apart.
///
/// It permutes a power of two, so some steps lead to no place. That costs next to nothing: the members share the
/// shuffle, so one look tells all of them.
#[derive(Clone, Debug)]
pub(super) struct Shuffle {
    slots: u32,
    bits: u32,
    /// Flips bits of the column (the low byte), by row.
    flip: Box<[u8; 1 << (Shuffle::MAX_BITS - 8)]>,
    /// Flips bits of the row, by column.
    turn: Box<[u32; 256]>,
}

impl Shuffle {
    const MAX_BITS: u32 = 20;
    /// Enough rows for the tables to be of use.
    const MIN_BITS: u32 = 12;

    fn new(slots: u32, key: u64) -> Self {
        let bits = slots.next_power_of_two().ilog2().clamp(Self::MIN_BITS, Self::MAX_BITS);
        let word = |i: u64| mix(key ^ mix(key.wrapping_add(i)));
        let mut flip = Box::new([0; 1 << (Self::MAX_BITS - 8)]);
        let mut turn = Box::new([0; 256]);
        flip.iter_mut().zip(1 << 32..).for_each(|(flip, i)| *flip = word(i) as u8);
        turn.iter_mut().zip(0..).for_each(|(turn, i)| *turn = (word(i) as u32) & ((1 << bits) - 256));
        Self { slots, bits, flip, turn }
    }

    /// Length of a course in steps: a power of two, at least the slots.
    pub(super) fn steps(&self) -> u32 {
        1 << self.bits
    }

    /// The step on which a course comes to a place (below the number of slots).
    #[inline]
    pub(super) fn step(&self, place: u32) -> u32 {
        let flipped = place ^ u32::from(self.flip[(place >> 8) as usize % self.flip.len()]);
        flipped ^ self.turn[flipped as usize % 256]
    }

    /// The place that a course comes to on a step; `None` where it leads nowhere.
    #[inline]
    pub(super) fn place(&self, step: u32) -> Option<u32> {
        let turned = step ^ self.turn[step as usize % 256];
        let place = turned ^ u32::from(self.flip[(turned >> 8) as usize % self.flip.len()]);
        (place < self.slots).then_some(place)
    }
}

/// Turns steps into time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    steps: u32,
    /// ln(2 · steps).
    whole: u64,
    /// Low bits of a time that are dropped, so that a window of time fits into [`Clock::WINDOW_BITS`].
    shift: u32,
    /// log₂ of the time in which all members together come to [`Clock::window_visits`] slots, or half of it.
    pub(super) window_bits: u32,
}

impl Clock {
    /// Most bits of a window that the race may ask for.
    pub(super) const WINDOW_BITS: u32 = 30;

    fn new(slots: u32, total_weight: u64, steps: u32) -> Self {
        // One unit of ln per unit of weight sees every member pass all slots once: slots · weight visits.
        let visits = u128::from(Self::window_visits(slots));
        let span = (visits << LN_BITS) / (u128::from(slots) * u128::from(total_weight.max(1)));
        let bits = span.max(1).ilog2();
        // Four doublings of room for windows that have become thin.
        let shift = bits.saturating_sub(Self::WINDOW_BITS - 4);
        Self { steps, whole: ln(2 * steps), shift, window_bits: bits - shift }
    }

    /// Visits that one window is made for: small against the slots, so that few visits are in vain; small enough for
    /// the second-level cache; large enough to sort well.
    fn window_visits(slots: u32) -> u32 {
        (slots / 16).clamp(64, 1 << 16)
    }

    /// −ln(1 − (step + ½) / steps), in multiples of 2⁻⁶⁰.
    #[inline]
    pub(super) fn run(&self, step: u32) -> u64 {
        self.whole - ln(2 * (self.steps - step) - 1)
    }

    /// Time of a run at a pace.
    #[inline]
    pub(super) fn at_pace(&self, run: u64, pace: u64) -> u64 {
        mul_high(run, pace) >> self.shift
    }

    /// A line below all times at a pace: `step · slope <= time(step) + ALLOWANCE`, as −ln(1 − u) ≥ u. The allowance
    /// is for the rounding of the logarithm.
    pub(super) fn slope(&self, pace: u64) -> u64 {
        self.at_pace((1 << LN_BITS) / u64::from(self.steps), pace)
    }

    /// See [`Self::slope`].
    pub(super) const ALLOWANCE: u64 = 1 << (LN_BITS - 35);

    #[inline]
    pub(super) fn time(&self, step: u32, pace: u64) -> u64 {
        self.at_pace(self.run(step), pace)
    }
}

#[cfg(test)]
mod tests;
