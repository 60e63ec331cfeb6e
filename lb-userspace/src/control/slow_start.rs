//! Slow start: a backend that becomes ready beside others that have long been takes its slots step by step.
//!
//! The table is the one that it would be anyway; the slots of a member that warms up are handed on, like those of one
//! that failed, but fewer of them at each step ([`STEPS`] in all). Which slots come at which step is a hash of slot and
//! member: every slot moves once, from its stand-in to its owner, and no step takes one back. The level is a pure
//! function of times that every balancer sees for itself, so those that saw a backend become ready at different seconds
//! differ by one step of that one backend, for as many seconds around each step.
//!
//! A member is behind the one that has been ready longest, by the time between the two, but by no more than
//! `slow_start`; and it catches up as time passes. So members that become ready together (at the start of everything, or
//! after a failure of all) do not hold each other back, and with nobody before it a member takes what there is.

use super::arith::mix;

/// Parts that a member's slots come in; also the level of a member that takes all of them.
pub const STEPS: u8 = 10;

/// The level of each member, 1 to [`STEPS`]: so many parts of [`STEPS`] of its slots does it take.
///
/// `ready_since`: Unix seconds for a member that takes traffic because it is ready, else `None`: then there is nothing
/// to warm up, or nothing to take. `slow_start` in seconds; 0 = all at once. `now` in Unix seconds; a clock that was set
/// back to before a member was ready ends its slow start, rather than to keep it waiting.
#[must_use]
pub fn levels(ready_since: &[Option<u64>], slow_start: u64, now: u64) -> Vec<u8> {
    let Some(first) = ready_since.iter().flatten().min() else { return vec![STEPS; ready_since.len()] };
    let level = |since: &Option<u64>| match since {
        Some(since) if slow_start > 0 => level((since - first).min(slow_start), *since, slow_start, now),
        _ => STEPS,
    };
    ready_since.iter().map(level).collect()
}

/// Of a member that became ready `lag` seconds after the first, which counts as no more than `slow_start`.
fn level(lag: u64, since: u64, slow_start: u64, now: u64) -> u8 {
    let Some(elapsed) = now.checked_sub(since) else { return STEPS };
    let behind = lag.saturating_sub(elapsed);
    let missing = (u128::from(behind) * u128::from(STEPS) / u128::from(slow_start)) as u8;
    (STEPS - missing).max(1)
}

/// Whether a slot of this member is among those that it takes at this level.
#[must_use]
pub fn takes(identity: u64, slot: u32, level: u8) -> bool {
    let hash = mix(identity ^ mix(u64::from(slot) + 1)) >> 32;
    (hash * u64::from(STEPS)) >> 32 < u64::from(level)
}

/// Percent of its slots that a member takes at this level.
#[must_use]
pub fn percent(level: u8) -> u8 {
    (u16::from(level) * 100 / u16::from(STEPS)) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{STEPS, levels, percent, takes};

    /// Levels of a member that became ready at 1,000 beside one that has been for ever, second by second.
    fn ramp(slow_start: u64) -> Vec<u8> {
        (1000..=1000 + slow_start).map(|now| levels(&[Some(0), Some(1000)], slow_start, now)[1]).collect()
    }

    #[test]
    fn a_member_takes_a_tenth_more_at_each_step() {
        assert_eq!(ramp(10), [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let half_a_minute = ramp(30);
        let at = |second: usize| half_a_minute[second];
        assert_eq!([at(0), at(3), at(4), at(15), at(27), at(28), at(30)], [1, 1, 2, 5, 9, 10, 10]);
        assert!(half_a_minute.is_sorted());
        assert_eq!(ramp(1), [1, 10], "shorter than its steps");
        assert_eq!((percent(1), percent(STEPS)), (10, 100));
    }

    #[test]
    fn who_has_nobody_before_it_takes_everything() {
        assert_eq!(levels(&[Some(1000)], 30, 1000), [STEPS]);
        assert_eq!(levels(&[None, Some(1000)], 30, 1000), [STEPS, STEPS], "nobody else is ready");
        assert_eq!(levels(&[Some(1000), Some(1002)], 30, 1002), [STEPS, STEPS], "together");
        assert_eq!(levels(&[Some(1000), Some(1015)], 30, 1015), [STEPS, 5], "half as warm as the first");
        assert_eq!(levels(&[Some(0), Some(1000)], 0, 1000), [STEPS, STEPS], "no slow start");
        assert_eq!(levels(&[], 30, 0), [0; 0]);
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nobody_up() {
        assert_eq!(levels(&[Some(0), Some(1000)], 30, 999), [STEPS, STEPS]);
    }

    #[test]
    fn the_parts_of_a_member_are_even_and_its_own() {
        let part = |identity, level| (0..10_000).filter(|slot| takes(identity, *slot, level)).count();
        for level in 1..=STEPS {
            let expected = 1_000 * usize::from(level);
            assert!(part(7, level).abs_diff(expected) < 250, "level {level}: {}", part(7, level));
        }
        let both = (0..10_000).filter(|slot| takes(7, *slot, 5) && takes(8, *slot, 5)).count();
        assert!(both.abs_diff(2_500) < 250, "{both} slots of two members");
    }

    proptest! {
        /// Nobody ever takes less as time passes, everybody takes something, and in the end everything.
        #[test]
        fn levels_only_rise(
            since in prop::collection::vec(prop::option::of(0u64..200), 0..6),
            slow_start in 0u64..100,
        ) {
            let mut before = vec![1; since.len()];
            for now in 200..=300 {
                let levels = levels(&since, slow_start, now);
                for (level, before) in levels.iter().zip(&before) {
                    prop_assert!((*before..=STEPS).contains(level));
                }
                before = levels;
            }
            prop_assert_eq!(before, vec![STEPS; since.len()]);
        }

        /// What a member takes at one level it takes at all higher ones.
        #[test]
        fn no_step_takes_a_slot_back(identity: u64, slot in 0u32..1_048_573, level in 1..STEPS) {
            prop_assert!(!takes(identity, slot, level) || takes(identity, slot, level + 1));
            prop_assert!(takes(identity, slot, STEPS));
        }
    }
}
