//! A change that is killed before, between and after all of its steps, and one whose steps fail.

use std::{
    cell::Cell,
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
};

use super::{Failure, Stage, commit, record, recover};
use crate::{
    api::{Pending, Timestamp},
    config::{Digest, WriteError, replace},
    daemon::{
        history::History,
        journal::{Fate, Intent, Journal, tests::intent},
    },
};

const OLD: &str = "# old\n";
const NEW: &str = "# new\n";
const STATES: (u64, u64) = (11, 22);

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accident {
    /// The process is gone before the step.
    Killed,
    /// The step fails.
    Failed,
}

/// A change over real files and one number in the place of the maps: that those switch in one step is shown where
/// they are written.
struct Bench {
    directory: tempfile::TempDir,
    in_force: Cell<u64>,
    accident: Option<(Accident, usize)>,
    step: usize,
}

impl Bench {
    fn new(accident: Option<(Accident, usize)>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("lb.toml"), OLD).unwrap();
        let bench = Self { directory, in_force: Cell::new(STATES.0), accident, step: 0 };
        let first = intent("", OLD, (0, STATES.0));
        let record = crate::api::Record { number: 1, ..first.record };
        bench.history().add(record, OLD).unwrap();
        bench
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("lb.toml")
    }

    fn journal_at(&self) -> Journal {
        Journal::new(&self.directory.path().join("main.journal"))
    }

    fn history(&self) -> History {
        History::open(&self.directory.path().join("main.history")).unwrap()
    }

    /// Before every step.
    fn step(&mut self) -> Result<(), WriteError> {
        self.step += 1;
        match self.accident.filter(|(_, at)| *at == self.step) {
            // Not `panic!`: the test's own output is no place for what is expected.
            Some((Accident::Killed, _)) => resume_unwind(Box::new("killed")),
            Some((Accident::Failed, _)) => Err(WriteError::NotReplaced {
                step: "write",
                path: self.file(),
                source: io::Error::from(io::ErrorKind::StorageFull),
            }),
            None => Ok(()),
        }
    }

    /// All places agree on this state.
    fn assert_all(&self, new: bool, what: &str) {
        let text = std::fs::read_to_string(self.file()).unwrap();
        let history = self.history();
        let last = history.last().unwrap();
        let want = if new { (NEW, 2, STATES.1) } else { (OLD, 1, STATES.0) };
        assert_eq!((text.as_str(), last.number, self.in_force.get()), want, "{what}");
        assert_eq!(history.text(last).unwrap(), text, "{what}");
        assert_eq!(history.pending().is_some(), new, "{what}");
        assert_eq!(self.journal_at().read().unwrap(), None, "{what}");
    }
}

impl Stage for Bench {
    type Installed = ();

    fn journal(&mut self, intent: &Intent) -> Result<(), WriteError> {
        self.step()?;
        self.journal_at().write(intent)
    }

    fn install(&mut self) -> anyhow::Result<()> {
        self.step()?;
        self.in_force.set(STATES.1);
        Ok(())
    }

    fn take_back(&mut self) {
        self.in_force.set(STATES.0);
    }

    fn write_back(&mut self, intent: &Intent) -> Result<(), WriteError> {
        self.step()?;
        replace(&self.file(), &intent.text, intent.before)
    }

    fn record(&mut self, intent: &Intent) -> Result<(), WriteError> {
        self.step()?;
        record(&mut self.history(), intent)
    }

    fn forget(&mut self) {
        // Forgetting cannot fail; being killed before it can happen.
        let _ = self.step();
        self.journal_at().clear();
    }
}

fn change() -> Intent {
    let pending = Pending { number: 2, back_to: 1, until: Timestamp::from_unix(9) };
    Intent { pending: Some(pending), ..intent(OLD, NEW, STATES) }
}

#[test]
fn killed_at_every_step_it_leaves_the_old_or_the_new_state_everywhere() {
    let mut fates = Vec::new();
    for at in 1..=6 {
        let mut bench = Bench::new(Some((Accident::Killed, at)));
        let ended = catch_unwind(AssertUnwindSafe(|| commit(&mut bench, &change()).is_ok()));
        assert_eq!(ended.is_err(), at <= 5, "step {at}: there are five of them");

        // The next daemon: it recovers, then installs what the file says.
        let fate =
            recover(&bench.journal_at(), &mut bench.history(), &bench.file(), Some(bench.in_force.get()))
                .unwrap();
        let new = std::fs::read_to_string(bench.file()).unwrap() == NEW;
        bench.in_force.set(if new { STATES.1 } else { STATES.0 });
        bench.assert_all(new, &format!("killed before step {at}"));
        fates.push(fate);
    }
    assert_eq!(
        fates,
        [None, Some(Fate::Back), Some(Fate::Forward), Some(Fate::Finish), Some(Fate::Finish), None]
    );
}

#[test]
fn killed_in_the_middle_of_recovering_it_recovers_again() {
    let mut bench = Bench::new(Some((Accident::Killed, 3)));
    let _ = catch_unwind(AssertUnwindSafe(|| commit(&mut bench, &change()).is_ok()));
    // As if the first recovery had been killed after it wrote the file, and the second after the record.
    replace(&bench.file(), NEW, Digest::of(OLD)).unwrap();
    for fate in [Some(Fate::Finish), Some(Fate::Finish), None] {
        let intent = bench.journal_at().read().unwrap();
        let found =
            recover(&bench.journal_at(), &mut bench.history(), &bench.file(), Some(STATES.1)).unwrap();
        assert_eq!(found, fate);
        if let Some(intent) = intent.filter(|_| bench.step == 3) {
            bench.journal_at().write(&intent).unwrap();
            bench.step += 1;
        }
    }
    bench.assert_all(true, "recovered twice");
}

#[test]
fn a_step_that_fails_leaves_the_old_state_everywhere() {
    for at in 1..=3 {
        let mut bench = Bench::new(Some((Accident::Failed, at)));
        let failure = commit(&mut bench, &change()).unwrap_err();
        assert_eq!(matches!(failure, Failure::Install(_)), at == 2);
        bench.assert_all(false, &format!("step {at} failed"));
    }
}

#[test]
fn a_history_that_cannot_be_written_does_not_undo_the_change() {
    let mut bench = Bench::new(Some((Accident::Failed, 4)));
    let committed = commit(&mut bench, &change()).unwrap();
    assert!(committed.not_recorded.is_some());
    assert_eq!(std::fs::read_to_string(bench.file()).unwrap(), NEW);
    assert_eq!(bench.in_force.get(), STATES.1);
}

#[test]
fn a_file_that_somebody_writes_meanwhile_wins() {
    let mut bench = Bench::new(None);
    std::fs::write(bench.file(), "# theirs\n").unwrap();
    let failure = commit(&mut bench, &change()).unwrap_err();
    assert!(matches!(failure, Failure::Write(WriteError::Changed { .. })), "{failure:?}");
    assert_eq!(bench.in_force.get(), STATES.0);
    assert_eq!(std::fs::read_to_string(bench.file()).unwrap(), "# theirs\n");

    let mut bench = Bench::new(Some((Accident::Killed, 3)));
    let _ = catch_unwind(AssertUnwindSafe(|| commit(&mut bench, &change()).is_ok()));
    std::fs::write(bench.file(), "# theirs\n").unwrap();
    let fate = recover(&bench.journal_at(), &mut bench.history(), &bench.file(), Some(STATES.1)).unwrap();
    assert_eq!(fate, Some(Fate::Superseded));
    assert_eq!(bench.history().records().len(), 1);
}

#[test]
fn a_journal_that_cannot_be_read_is_put_aside() {
    let bench = Bench::new(None);
    std::fs::write(bench.journal_at().path(), "{\"before\":").unwrap();
    let fate = recover(&bench.journal_at(), &mut bench.history(), &bench.file(), Some(STATES.0)).unwrap();
    assert_eq!((fate, bench.journal_at().path().exists()), (None, false));
}
