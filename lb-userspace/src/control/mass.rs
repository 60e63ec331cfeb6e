//! Who takes traffic when many fail at once. Health checks can be wrong together (a broken check, a cut between the
//! balancer and all of its backends), and then doing what they say is worse than doing nothing.
//!
//! In order: the configured share stays in service whatever checks say, the longest failed leave first (`max_ejected`);
//! if too few are ready, everybody takes traffic (`panic_below`), until clearly more are; if nobody does, those that are
//! there to say sorry do.

use crate::config::Mass;

/// Points of ready backends above `panic_below` that end a panic: without a gap it would begin and end with every
/// check.
const CALM: u32 = 10;

/// A backend that the operator has not taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Keyed digest; decides between backends that failed at the same moment.
    pub identity: u64,
    /// Its checks pass.
    pub ready: bool,
    /// It has been checked: what is not known yet is not ready, and no failure either.
    pub known: bool,
    /// `CLOCK_REALTIME` seconds of its last change.
    pub since: u64,
    /// Only for when nobody else is there.
    pub sorry: bool,
}

/// Why other backends take traffic than those that are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Those that are ready.
    #[default]
    Normal,
    /// Some that are not ready stay, since too many would have left.
    Limited,
    /// All, since too few are ready.
    Panic,
    /// Those that say sorry, since nobody else is ready.
    Sorry,
    /// Nobody.
    Nobody,
}

/// Who takes traffic, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// By the place of the candidate.
    pub available: Vec<bool>,
    /// Why.
    pub mode: Mode,
    /// Candidates that are ready, those that say sorry left out.
    pub ready: u32,
    /// Candidates, those that say sorry left out.
    pub of: u32,
}

/// Decides. `was` is the last decision's mode: a panic ends later than it begins.
pub fn decide(candidates: &[Candidate], rules: &Mass, was: Mode) -> Decision {
    let regular = |c: &Candidate| !c.sorry;
    let of = count(candidates, regular);
    let ready = count(candidates, |c| regular(c) && c.ready);
    let mut decision = Decision {
        available: candidates.iter().map(|c| regular(c) && c.ready).collect(),
        mode: Mode::Normal,
        ready,
        of,
    };
    let known = candidates.iter().any(|c| regular(c) && c.known);
    if of > 0 && known {
        let below = u32::from(rules.panic_below) + if was == Mode::Panic { CALM } else { 0 };
        // Exact in whole numbers; at 100 % nothing is left to fear.
        if rules.panic_below > 0 && ready < of && ready * 100 < below.min(100) * of {
            decision.available = candidates.iter().map(regular).collect();
            decision.mode = Mode::Panic;
            return decision;
        }
        keep_some(candidates, rules, &mut decision);
    }
    if !decision.available.contains(&true) {
        decision.available = candidates.iter().map(|c| c.sorry && c.ready).collect();
        decision.mode = if decision.available.contains(&true) { Mode::Sorry } else { Mode::Nobody };
    }
    decision
}

/// Leaves those in service that would be more than may leave: who failed last stays.
fn keep_some(candidates: &[Candidate], rules: &Mass, decision: &mut Decision) {
    let most = decision.of * u32::from(rules.max_ejected) / 100;
    let mut bad: Vec<(u64, u64, usize)> = candidates
        .iter()
        .enumerate()
        .filter(|(_, c)| !c.sorry && !c.ready && c.known)
        .map(|(place, c)| (c.since, c.identity, place))
        .collect();
    bad.sort_unstable();
    for (_, _, place) in bad.into_iter().skip(most as usize) {
        decision.available[place] = true;
        decision.mode = Mode::Limited;
    }
}

fn count(candidates: &[Candidate], which: impl Fn(&Candidate) -> bool) -> u32 {
    u32::try_from(candidates.iter().filter(|c| which(c)).count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(identity: u64, ready: bool, since: u64) -> Candidate {
        Candidate { identity, ready, known: true, since, sorry: false }
    }

    /// `ready` of `of`, the others failed one after the other.
    fn some(ready: u64, of: u64) -> Vec<Candidate> {
        (0..of).map(|n| candidate(n, n < ready, 100 + n)).collect()
    }

    const OFF: Mass = Mass { max_ejected: 100, panic_below: 0, min_ready: 1 };

    #[test]
    fn without_rules_those_that_are_ready_take_traffic() {
        let decision = decide(&some(2, 4), &OFF, Mode::Normal);
        assert_eq!((decision.available, decision.mode), (vec![true, true, false, false], Mode::Normal));
        assert_eq!(decide(&some(0, 4), &OFF, Mode::Normal).mode, Mode::Nobody);
        assert_eq!(decide(&[], &OFF, Mode::Normal).mode, Mode::Nobody);
    }

    #[test]
    fn no_more_than_the_share_leaves_and_the_last_to_fail_stay() {
        let half = Mass { max_ejected: 50, ..OFF };
        let decision = decide(&some(1, 4), &half, Mode::Normal);
        assert_eq!((decision.available, decision.mode), (vec![true, false, false, true], Mode::Limited));
        assert_eq!(decide(&some(2, 4), &half, Mode::Normal).mode, Mode::Normal);
    }

    #[test]
    fn a_panic_begins_below_the_threshold_and_ends_clearly_above_it() {
        let rules = Mass { panic_below: 50, ..OFF };
        for (ready, was, mode) in [
            (5, Mode::Normal, Mode::Normal),
            (4, Mode::Normal, Mode::Panic),
            (5, Mode::Panic, Mode::Panic),
            (6, Mode::Panic, Mode::Normal),
            (0, Mode::Normal, Mode::Panic),
        ] {
            let decision = decide(&some(ready, 10), &rules, was);
            assert_eq!(decision.mode, mode, "{ready} of 10 after {was:?}");
            assert_eq!(decision.available.iter().all(|a| *a), mode == Mode::Panic);
        }
        let whole = Mass { panic_below: 100, ..OFF };
        assert_eq!(decide(&some(9, 10), &whole, Mode::Normal).mode, Mode::Panic);
        assert_eq!(decide(&some(10, 10), &whole, Mode::Panic).mode, Mode::Normal);
    }

    #[test]
    fn what_was_never_checked_is_no_failure() {
        let fresh: Vec<_> = some(0, 3).into_iter().map(|c| Candidate { known: false, ..c }).collect();
        let rules = Mass { max_ejected: 0, panic_below: 100, min_ready: 1 };
        assert_eq!(decide(&fresh, &rules, Mode::Normal).mode, Mode::Nobody);
    }

    #[test]
    fn those_who_say_sorry_take_traffic_only_when_nobody_else_does() {
        let with = |ready| {
            let mut all = some(ready, 2);
            all.push(Candidate { sorry: true, ..candidate(9, true, 0) });
            all
        };
        let decision = decide(&with(1), &OFF, Mode::Normal);
        assert_eq!((decision.available, decision.of), (vec![true, false, false], 2));
        let decision = decide(&with(0), &OFF, Mode::Normal);
        assert_eq!((decision.available, decision.mode), (vec![false, false, true], Mode::Sorry));
    }

    proptest! {
        #[test]
        fn who_is_ready_always_takes_traffic_and_no_more_leave_than_may(
            all in proptest::collection::vec((any::<bool>(), any::<bool>(), 0_u64..5), 0..20),
            max_ejected in 0_u8..=100,
            panic_below in 0_u8..=100,
        ) {
            let candidates: Vec<Candidate> = (0..)
                .zip(&all)
                .map(|(identity, (ready, known, since))| {
                    Candidate { identity, ready: *ready, known: *known || *ready, since: *since, sorry: false }
                })
                .collect();
            let decision = decide(&candidates, &Mass { max_ejected, panic_below, min_ready: 1 }, Mode::Normal);
            let mut out = 0;
            for (candidate, available) in candidates.iter().zip(&decision.available) {
                prop_assert!(*available || !candidate.ready);
                out += usize::from(!available && candidate.known);
            }
            prop_assert!(out * 100 <= candidates.len() * usize::from(max_ejected));
        }
    }
}
