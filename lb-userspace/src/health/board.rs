//! What is known of every target, and the events that wait to be sent. Plain data: no clock, no task, no lock.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use tokio::task::AbortHandle;

use super::{Event, HealthState, Outcome, Status, Streak, Target, TargetKey};

/// Ends a task with the value that holds it.
#[derive(Debug)]
pub(super) struct AbortOnDrop(pub(super) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells the tasks that a target has had apart: an aborted one may still be about to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life(u64);

/// All targets. The events that wait are at most one per target: a newer one takes the place of the older.
#[derive(Debug, Default)]
pub(super) struct Board {
    entries: BTreeMap<TargetKey, Entry>,
    /// By sequence number, so that the oldest goes first.
    outbox: BTreeMap<u64, Event>,
    /// The next sequence number, and the next life.
    next: u64,
}

#[derive(Debug)]
struct Entry {
    target: Arc<Target>,
    streak: Streak,
    status: Status,
    /// Whether an outcome has been seen since the target was added.
    observed: bool,
    life: Life,
    /// Place in the outbox.
    waiting: Option<u64>,
    task: Option<AbortOnDrop>,
}

impl Board {
    /// Makes `targets` the ones that are known and returns those whose check has to be started. Of two targets with
    /// one key the later counts.
    ///
    /// - Same address, port and check: untouched.
    /// - Another port or check: its old task ends and its state stays, without a streak.
    /// - Another address is another machine, of which the old state says nothing: as if removed and added.
    pub(super) fn reconcile(&mut self, targets: Vec<Target>, now: SystemTime) -> Vec<(Arc<Target>, Life)> {
        let wanted: BTreeMap<_, _> = targets.into_iter().map(|target| (target.key.clone(), target)).collect();
        let gone: Vec<_> = self.entries.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for key in gone {
            self.remove(&key);
        }
        let mut started = Vec::new();
        for (key, target) in wanted {
            let life = Life(self.number());
            let target = Arc::new(target);
            match self.entries.get_mut(&key) {
                Some(entry) if entry.target.address == target.address => {
                    if entry.target.port == target.port && entry.target.health == target.health {
                        continue;
                    }
                    entry.restart(Arc::clone(&target), life);
                }
                _ => {
                    self.remove(&key);
                    self.entries.insert(key, Entry::new(Arc::clone(&target), life, now));
                }
            }
            started.push((target, life));
        }
        started
    }

    /// Hands over the task that checks a target, to be ended with it.
    pub(super) fn attach(&mut self, key: &TargetKey, task: AbortOnDrop) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.task = Some(task);
        }
    }

    /// Takes an outcome. False: that life of the target is over and its task has to end.
    pub(super) fn observe(
        &mut self,
        key: &TargetKey,
        life: Life,
        outcome: &Outcome,
        now: SystemTime,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.life == life) else { return false };
        let changed = entry.streak.observe(outcome);
        let agrees = outcome.state() == entry.streak.state();
        let says_more = agrees && entry.status.reason != outcome.reason();
        if says_more {
            outcome.reason().clone_into(&mut entry.status.reason);
        }
        self.settle(key, changed, says_more, now);
        true
    }

    /// A target without a check is ready.
    pub(super) fn unchecked(&mut self, key: &TargetKey, now: SystemTime) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let changed = entry.streak.state() != HealthState::Ready;
        entry.streak = Streak::new(HealthState::Ready, 1, 1);
        "no check configured".clone_into(&mut entry.status.reason);
        self.settle(key, changed, false, now);
    }

    /// Notes that a check could not be made: visible while there is nothing better to say. False as in `observe`.
    pub(super) fn inconclusive(&mut self, key: &TargetKey, life: Life, why: String) -> bool {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.life == life) else { return false };
        if entry.status.state == HealthState::Unknown {
            entry.status.reason = why;
        }
        true
    }

    /// The event that has waited longest.
    pub(super) fn pop(&mut self) -> Option<Event> {
        let (_, event) = self.outbox.pop_first()?;
        if let Some(entry) = self.entries.get_mut(&event.key) {
            entry.waiting = None;
        }
        Some(event)
    }

    /// Every target with its status.
    pub(super) fn statuses(&self) -> BTreeMap<TargetKey, Status> {
        self.entries.iter().map(|(key, entry)| (key.clone(), entry.status.clone())).collect()
    }

    /// Forgets a target, its task and its waiting event.
    fn remove(&mut self, key: &TargetKey) {
        if let Some(sequence) = self.entries.remove(key).and_then(|entry| entry.waiting) {
            self.outbox.remove(&sequence);
        }
    }

    /// Carries the streak's state into the status, and into an event when it is news, or when its reason is.
    fn settle(&mut self, key: &TargetKey, changed: bool, says_more: bool, now: SystemTime) {
        let sequence = self.number();
        let Some(entry) = self.entries.get_mut(key) else { return };
        if changed {
            entry.status.state = entry.streak.state();
            entry.status.since = now;
        }
        let first = !std::mem::replace(&mut entry.observed, true);
        if !changed && !says_more && !first {
            return;
        }
        let sequence = *entry.waiting.get_or_insert(sequence);
        let event = Event { key: key.clone(), status: entry.status.clone(), first };
        // Replacing an event keeps its place and the news that it was the first.
        let waiting = self.outbox.entry(sequence).or_insert_with(|| event.clone());
        waiting.first |= event.first;
        waiting.status = event.status;
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Entry {
    fn new(target: Arc<Target>, life: Life, now: SystemTime) -> Self {
        let unknown =
            || Status { state: HealthState::Unknown, reason: "not checked yet".to_owned(), since: now };
        let status = target.initial.clone().unwrap_or_else(unknown);
        let streak = Streak::new(status.state, target.health.rise, target.health.fall);
        Self { target, streak, status, observed: false, life, waiting: None, task: None }
    }

    fn restart(&mut self, target: Arc<Target>, life: Life) {
        self.streak = Streak::new(self.status.state, target.health.rise, target.health.fall);
        self.target = target;
        self.life = life;
        self.task = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::health::testing::target;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn refused() -> Outcome {
        Outcome::Failed("refused".into())
    }

    fn board(backends: &[&str]) -> (Board, Vec<(Arc<Target>, Life)>) {
        let mut board = Board::default();
        let started = board.reconcile(backends.iter().map(|backend| target(backend)).collect(), NOW);
        (board, started)
    }

    fn popped(board: &mut Board) -> Vec<(String, HealthState, bool)> {
        let event = |event: Event| (event.key.backend, event.status.state, event.first);
        std::iter::from_fn(|| board.pop()).map(event).collect()
    }

    #[test]
    fn a_newer_event_takes_the_place_of_the_older_and_stays_the_first() {
        let (mut board, started) = board(&["b1", "b2"]);
        for (target, life) in &started {
            assert!(board.observe(&target.key, *life, &Outcome::Good, NOW));
        }
        let (b1, life) = &started[0];
        let later = NOW + Duration::from_secs(9);
        for _ in 0..3 {
            board.observe(&b1.key, *life, &refused(), later);
        }
        assert_eq!(board.statuses()[&b1.key].since, later);
        let expected =
            [("b1".to_owned(), HealthState::Failed, true), ("b2".to_owned(), HealthState::Ready, true)];
        assert_eq!(popped(&mut board), expected);
        // Once sent, the next ones are events of their own and queue up behind each other.
        for ((target, life), outcome, times) in [(&started[1], refused(), 3), (&started[0], Outcome::Good, 2)]
        {
            for _ in 0..times {
                board.observe(&target.key, *life, &outcome, later);
            }
        }
        let expected =
            [("b2".to_owned(), HealthState::Failed, false), ("b1".to_owned(), HealthState::Ready, false)];
        assert_eq!(popped(&mut board), expected);
    }

    #[test]
    fn a_report_from_an_earlier_life_is_refused() {
        let (mut board, started) = board(&["b1"]);
        let (before, old) = &started[0];
        let changed = Target { port: 81, ..target("b1") };
        let restarted = board.reconcile(vec![changed], NOW);
        assert!(!board.observe(&before.key, *old, &refused(), NOW));
        assert!(!board.inconclusive(&before.key, *old, "late".into()));
        assert_eq!(board.statuses()[&before.key].reason, "not checked yet");
        assert!(popped(&mut board).is_empty());
        assert!(board.observe(&before.key, restarted[0].1, &refused(), NOW));
    }

    #[test]
    fn the_waiting_event_of_a_removed_target_is_not_sent() {
        let (mut board, started) = board(&["b1", "b2"]);
        for (target, life) in &started {
            board.observe(&target.key, *life, &refused(), NOW);
        }
        assert!(board.reconcile(vec![target("b2")], NOW).is_empty());
        assert_eq!(popped(&mut board), [("b2".to_owned(), HealthState::Failed, true)]);
    }

    #[test]
    fn reconciling_twice_starts_once_and_the_later_of_two_with_one_key_counts() {
        let mut board = Board::default();
        let later = Target { port: 81, ..target("b1") };
        let both = || vec![target("b1"), later.clone()];
        let started = board.reconcile(both(), NOW);
        assert_eq!(started.iter().map(|(target, _)| target.port).collect::<Vec<_>>(), [81]);
        assert!(board.reconcile(both(), NOW).is_empty());
    }
}
