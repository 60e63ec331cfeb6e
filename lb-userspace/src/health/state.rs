//! The rise/fall rules, without a clock: outcomes of checks in, states out.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Readiness of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Never observed.
    Unknown,
    /// In service.
    Ready,
    /// Connected, but the answer was wrong or late: keeps its flows, gets no new ones.
    NotReady,
    /// No connection: its flows are sent elsewhere.
    Failed,
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Ready => "ready",
            Self::NotReady => "not ready",
            Self::Failed => "failed",
        })
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The expected answer, in time.
    Good,
    /// Connected, then: wrong, malformed or late answer, or closed early. With the reason.
    NotReady(String),
    /// Not connected: refused, reset, unreachable or timed out. With the reason.
    Failed(String),
}

impl Outcome {
    /// The state that enough outcomes of this kind lead to.
    pub fn state(&self) -> HealthState {
        match self {
            Self::Good => HealthState::Ready,
            Self::NotReady(_) => HealthState::NotReady,
            Self::Failed(_) => HealthState::Failed,
        }
    }

    /// The reason in words.
    pub fn reason(&self) -> &str {
        match self {
            Self::Good => "check passed",
            Self::NotReady(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// The state machine of one target.
///
/// - Unknown: the first outcome decides at once, so that a fresh start is fast.
/// - Ready: `fall` bad outcomes in a row end it. They may mix both bad kinds; the last one names the new state.
/// - NotReady and Failed: `rise` good outcomes in a row lead to Ready; `fall` outcomes of the other bad kind in a row
///   lead to that kind.
///
/// An outcome that agrees with the state ends every streak against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streak {
    state: HealthState,
    rise: u32,
    fall: u32,
    /// Outcomes in a row against `state`.
    against: u32,
    /// Kind of the last of them; without meaning while `against` is 0.
    last: HealthState,
}

impl Streak {
    /// Starts in `state` without a streak. `rise` and `fall` count outcomes; 0 acts as 1.
    pub fn new(state: HealthState, rise: u32, fall: u32) -> Self {
        Self { state, rise, fall, against: 0, last: state }
    }

    /// The state after everything observed so far.
    pub fn state(&self) -> HealthState {
        self.state
    }

    /// Takes the next outcome; true when it changed the state.
    pub fn observe(&mut self, outcome: &Outcome) -> bool {
        let seen = outcome.state();
        if seen == self.state {
            self.against = 0;
            return false;
        }
        // While Ready, what counts is that it is bad; elsewhere good and the other bad kind are separate streaks.
        let continues = self.state == HealthState::Ready || self.last == seen;
        self.against = if continues { self.against.saturating_add(1) } else { 1 };
        self.last = seen;
        let needed = match (self.state, seen) {
            (HealthState::Unknown, _) => 1,
            (_, HealthState::Ready) => self.rise,
            _ => self.fall,
        };
        let changed = self.against >= needed;
        if changed {
            self.state = seen;
            self.against = 0;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use HealthState::{Failed, NotReady, Ready, Unknown};

    const KINDS: [HealthState; 3] = [Ready, NotReady, Failed];

    fn outcome(kind: HealthState) -> Outcome {
        match kind {
            NotReady => Outcome::NotReady("503".into()),
            Failed => Outcome::Failed("refused".into()),
            _ => Outcome::Good,
        }
    }

    fn last_all(history: &[HealthState], count: u32, wanted: impl Fn(HealthState) -> bool) -> bool {
        let count = count.max(1) as usize;
        history.len() >= count && history[history.len() - count..].iter().all(|kind| wanted(*kind))
    }

    /// The rules once more, as sentences over what was seen since the last change of state: no counters, so that it
    /// can't share a mistake with the machine.
    fn by_definition(start: HealthState, rise: u32, fall: u32, outcomes: &[HealthState]) -> Vec<HealthState> {
        let mut state = start;
        let mut since_change = 0;
        let mut states = Vec::new();
        for end in 1..=outcomes.len() {
            let seen = outcomes[end - 1];
            let history = &outcomes[since_change..end];
            let leaves = match state {
                Unknown => true,
                Ready => last_all(history, fall, |kind| kind != Ready),
                bad if seen == Ready => last_all(history, rise, |kind| kind == Ready) && bad != Ready,
                bad => seen != bad && last_all(history, fall, |kind| kind == seen),
            };
            if leaves {
                state = seen;
                since_change = end;
            }
            states.push(state);
        }
        states
    }

    fn by_machine(start: HealthState, rise: u32, fall: u32, outcomes: &[HealthState]) -> Vec<HealthState> {
        let mut streak = Streak::new(start, rise, fall);
        let observe = |kind: &HealthState| {
            let before = streak.state();
            let changed = streak.observe(&outcome(*kind));
            assert_eq!(changed, before != streak.state());
            streak.state()
        };
        outcomes.iter().map(observe).collect()
    }

    #[test]
    fn every_short_sequence_follows_the_rules() {
        const LENGTH: u32 = 7;
        for number in 0..3_usize.pow(LENGTH) {
            let outcomes: Vec<_> = (0..LENGTH).map(|digit| KINDS[number / 3_usize.pow(digit) % 3]).collect();
            for start in [Unknown, Ready, NotReady, Failed] {
                for (rise, fall) in [(0, 0), (1, 1), (1, 3), (2, 1), (2, 2), (2, 3), (3, 2), (3, 3)] {
                    assert_eq!(
                        by_machine(start, rise, fall, &outcomes),
                        by_definition(start, rise, fall, &outcomes),
                        "start {start}, rise {rise}, fall {fall}, outcomes {outcomes:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_first_outcome_decides_alone() {
        for kind in KINDS {
            assert_eq!(by_machine(Unknown, 5, 5, &[kind]), [kind]);
        }
    }

    #[test]
    fn the_last_kind_of_a_mixed_streak_names_the_state() {
        assert_eq!(by_machine(Ready, 2, 3, &[Failed, Failed, NotReady]), [Ready, Ready, NotReady]);
        assert_eq!(by_machine(Ready, 2, 3, &[NotReady, NotReady, Failed]), [Ready, Ready, Failed]);
    }

    #[test]
    fn a_change_starts_every_streak_anew() {
        // The two Failed before the change do not count towards Failed after it.
        assert_eq!(
            by_machine(Ready, 2, 3, &[Failed, Failed, NotReady, Failed, Failed, Failed]),
            [Ready, Ready, NotReady, NotReady, NotReady, Failed]
        );
    }

    #[test]
    fn a_good_outcome_between_interrupts_the_way_to_the_other_bad_kind() {
        assert_eq!(by_machine(NotReady, 2, 2, &[Failed, Ready, Failed]), [NotReady, NotReady, NotReady]);
        assert_eq!(by_machine(Failed, 2, 2, &[Ready, NotReady, Ready]), [Failed, Failed, Failed]);
    }

    fn kinds(max: usize) -> impl Strategy<Value = Vec<HealthState>> {
        vec(prop::sample::select(KINDS.to_vec()), 0..max)
    }

    proptest! {
        #[test]
        fn long_sequences_follow_the_rules(
            start in prop::sample::select(vec![Unknown, Ready, NotReady, Failed]),
            rise in 1_u32..9, fall in 1_u32..9, outcomes in kinds(200),
        ) {
            prop_assert_eq!(
                by_machine(start, rise, fall, &outcomes), by_definition(start, rise, fall, &outcomes)
            );
        }

        #[test]
        fn after_any_past_enough_of_one_kind_leads_to_it(
            rise in 1_u32..9, fall in 1_u32..9, past in kinds(50), kind in prop::sample::select(KINDS.to_vec()),
        ) {
            let mut outcomes = past;
            outcomes.extend(std::iter::repeat_n(kind, rise.max(fall) as usize));
            let states = by_machine(Unknown, rise, fall, &outcomes);
            prop_assert_eq!(states.last(), Some(&kind));
        }

        #[test]
        fn fewer_than_fall_never_end_ready(
            fall in 2_u32..9, bad in vec(prop::sample::select(vec![NotReady, Failed]), 1..8),
        ) {
            let short = &bad[..bad.len().min(fall as usize - 1)];
            let outcomes: Vec<_> = std::iter::repeat_n([short, &[Ready]].concat(), 5).flatten().collect();
            prop_assert!(by_machine(Ready, 2, fall, &outcomes).iter().all(|state| *state == Ready));
        }
    }
}
