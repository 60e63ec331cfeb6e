//! When a target is checked: a first check soon, then its own phase, never more than an interval between two starts.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use tokio::time::Instant;

/// The first checks of many targets are spread over this much, or over the interval when that is shorter.
const FIRST_SPREAD: Duration = Duration::from_millis(200);
/// The gaps before checks 2 and 3 are shortened by up to half an interval each, by the same share: together they
/// move targets that began within [`FIRST_SPREAD`] to phases all over the interval, without a gap above it.
const PHASE_GAPS: u64 = 2;
/// Jitter shortens a gap by up to this share, so that two balancers do not stay in step.
const MAX_JITTER: f64 = 0.1;

/// The due times of one target.
#[derive(Clone, Debug)]
pub(super) struct Cadence {
    interval: Duration,
    /// A hash of the target's key: decides its phase and its jitter.
    seed: u64,
    /// Checks ended so far.
    checks: u64,
    due: Instant,
}

impl Cadence {
    /// The first check is due within [`FIRST_SPREAD`] of `now`.
    pub(super) fn new(interval: Duration, seed: u64, now: Instant) -> Self {
        let due = now + interval.min(FIRST_SPREAD).mul_f64(fraction(seed, 0));
        Self { interval, seed, checks: 0, due }
    }

    /// Start of the next check.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Plans the next check after one that ended at `now`.
    ///
    /// Counted from when the last one was due, not from when it began or ended, so that delays do not add up. A check
    /// that ended late is followed at once by one other, never by a burst. More than an interval too late means that
    /// this process stood still, and most likely for every target: the cadence begins anew, spread again.
    pub(super) fn advance(&mut self, now: Instant) {
        self.checks += 1;
        let next = self.due + self.gap();
        if now > next + self.interval {
            *self = Self::new(self.interval, self.seed, now);
        } else {
            self.due = next.max(now);
        }
    }

    fn gap(&self) -> Duration {
        let shortened = if self.checks <= PHASE_GAPS {
            fraction(self.seed, 1) / 2.0
        } else {
            MAX_JITTER * fraction(self.seed, self.checks)
        };
        self.interval.mul_f64(1.0 - shortened)
    }
}

/// A number in [0, 1) that depends on both arguments only.
fn fraction(seed: u64, number: u64) -> f64 {
    let mut hasher = DefaultHasher::new();
    (seed, number).hash(&mut hasher);
    // The 53 upper bits: what an f64 holds exactly.
    (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);

    /// Due times of `count` checks that take no time.
    fn dues(interval: Duration, seed: u64, start: Instant, count: usize) -> Vec<Instant> {
        let mut cadence = Cadence::new(interval, seed, start);
        let next = || {
            let due = cadence.due();
            cadence.advance(due);
            due
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    proptest! {
        #[test]
        fn gaps_are_only_shortened(seed: u64, interval_ms in 100_u64..3_600_000) {
            let interval = Duration::from_millis(interval_ms);
            let start = Instant::now();
            let dues = dues(interval, seed, start, 20);
            prop_assert!(dues[0] >= start && dues[0] - start < interval.min(FIRST_SPREAD));
            for (number, pair) in dues.windows(2).enumerate() {
                let gap = pair[1] - pair[0];
                let least = if number < 2 { 0.5 } else { 1.0 - MAX_JITTER };
                prop_assert!(gap <= interval && gap >= interval.mul_f64(least), "gap {number}: {gap:?}");
            }
        }

        #[test]
        fn slow_checks_do_not_shift_the_cadence(seed: u64, share in 0.0..0.9_f64) {
            let start = Instant::now();
            let mut cadence = Cadence::new(INTERVAL, seed, start);
            for expected in dues(INTERVAL, seed, start, 20) {
                prop_assert_eq!(cadence.due(), expected);
                // Checks 2 and 3 may come after half an interval: a check longer than that would be a late one.
                let took = if cadence.checks < PHASE_GAPS { share.min(0.5) } else { share };
                cadence.advance(cadence.due() + INTERVAL.mul_f64(took));
            }
        }
    }

    #[test]
    fn third_checks_are_spread_over_the_whole_interval() {
        let start = Instant::now();
        let mut tenths = [0; 10];
        for seed in 0..10_000 {
            let third = dues(INTERVAL, seed, start, 3)[2] - start;
            tenths[((third.as_secs_f64() / INTERVAL.as_secs_f64()).fract() * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (800..1200).contains(count)), "{tenths:?}");
    }

    #[test]
    fn a_late_check_is_followed_by_one_at_once() {
        let mut cadence = Cadence::new(INTERVAL, 7, Instant::now());
        cadence.checks = 10;
        let ended = cadence.due() + INTERVAL.mul_f64(1.3);
        cadence.advance(ended);
        assert_eq!(cadence.due(), ended);
        cadence.advance(ended);
        assert!(cadence.due() >= ended + INTERVAL.mul_f64(1.0 - MAX_JITTER));
    }

    #[test]
    fn after_a_standstill_targets_are_spread_again() {
        let start = Instant::now();
        let woken = start + INTERVAL * 100;
        let restarted = |seed| {
            let mut cadence = Cadence::new(INTERVAL, seed, start);
            cadence.advance(woken);
            assert!(cadence.due() >= woken && cadence.due() < woken + FIRST_SPREAD);
            cadence.due()
        };
        let distinct: std::collections::BTreeSet<_> = (0..100).map(restarted).collect();
        assert!(distinct.len() > 90, "{} distinct due times of 100", distinct.len());
    }
}
