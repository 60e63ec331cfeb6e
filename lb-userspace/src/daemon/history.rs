//! What was in force: a directory of numbered texts, bounded in number and size. It says what was, never what is: that
//! is `lb.toml` alone.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use log::warn;

use crate::{
    api::{Pending, Record},
    config::{Digest, WriteError, limits, read_text, write_atomic},
};

/// Records that are kept.
const KEEP: usize = 100;
/// Bytes of texts that are kept, the last two apart.
const KEEP_BYTES: u64 = 64 << 20;
/// Bytes of what is written beside a text.
const RECORD_BYTES: u64 = 64 << 10;
const PENDING: &str = "pending.json";

/// The history of an instance.
#[derive(Debug)]
pub(super) struct History {
    directory: PathBuf,
    /// Oldest first.
    records: Vec<Record>,
    /// Highest number that was ever given.
    last_number: u64,
    pending: Option<Pending>,
}

impl History {
    /// Opens the history in this directory, which is made if need be (0700: texts may hold a `hash_seed`). What cannot
    /// be read is left out with a warning.
    pub(super) fn open(directory: &Path) -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let entries =
            fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
        let mut records = Vec::new();
        let mut last_number = 0;
        for entry in entries.flatten() {
            let path = entry.path();
            let number = path.file_stem().and_then(|n| n.to_str()).and_then(|n| n.parse::<u64>().ok());
            last_number = last_number.max(number.unwrap_or_default());
            if path.extension().is_none_or(|e| e != "json") || number.is_none() {
                continue;
            }
            match read_json::<Record>(&path) {
                Ok(record) if Some(record.number) == number => records.push(record),
                Ok(_) => warn!("{}: not the record of its number; left out", path.display()),
                Err(error) => warn!("{}: {error}; left out", path.display()),
            }
        }
        records.sort_by_key(|record| record.number);
        let pending = directory.join(PENDING);
        let pending = if pending.exists() { read_json(&pending).map(Some) } else { Ok(None) };
        let pending = pending.unwrap_or_else(|error| {
            warn!("what waits to be confirmed cannot be read: {error}");
            None
        });
        Ok(Self { directory: directory.to_owned(), records, last_number, pending })
    }

    /// Oldest first.
    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    /// The newest.
    pub(super) fn last(&self) -> Option<&Record> {
        self.records.last()
    }

    /// The record of this number.
    pub(super) fn get(&self, number: u64) -> Option<&Record> {
        self.records.iter().find(|record| record.number == number)
    }

    /// The number that the next record gets.
    pub(super) fn next_number(&self) -> u64 {
        self.last_number + 1
    }

    /// The text of a record.
    pub(super) fn text(&self, record: &Record) -> anyhow::Result<String> {
        let path = self.path(record.number, "toml");
        let text = read_text(&path)?;
        anyhow::ensure!(
            Digest::of(&text).to_string() == record.digest,
            "{} was changed since it was recorded",
            path.display()
        );
        Ok(text)
    }

    /// Adds a record; the oldest leave.
    pub(super) fn add(&mut self, record: Record, text: &str) -> Result<(), WriteError> {
        // The text first: a record without one would promise what cannot be had.
        write_atomic(&self.path(record.number, "toml"), text)?;
        write_json(&self.path(record.number, "json"), &record)?;
        self.last_number = self.last_number.max(record.number);
        self.records.retain(|old| old.number != record.number);
        self.records.push(record);
        self.forget_oldest();
        Ok(())
    }

    /// What waits to be confirmed.
    pub(super) fn pending(&self) -> Option<Pending> {
        self.pending
    }

    /// Notes what waits to be confirmed, or that nothing does.
    pub(super) fn set_pending(&mut self, pending: Option<Pending>) -> Result<(), WriteError> {
        let path = self.directory.join(PENDING);
        match pending {
            Some(pending) => write_json(&path, &pending)?,
            None => {
                let failed = |source| WriteError::NotReplaced { step: "remove", path: path.clone(), source };
                remove(&path).map_err(failed)?;
            }
        }
        self.pending = pending;
        Ok(())
    }

    fn forget_oldest(&mut self) {
        let mut bytes: u64 = self.records.iter().map(|record| record.bytes).sum();
        while self.records.len() > 2 && (self.records.len() > KEEP || bytes > KEEP_BYTES) {
            if self.pending.is_some_and(|pending| pending.back_to == self.records[0].number) {
                return;
            }
            let record = self.records.remove(0);
            bytes -= record.bytes;
            for kind in ["json", "toml"] {
                let path = self.path(record.number, kind);
                if let Err(error) = remove(&path) {
                    warn!("{} cannot be removed: {error}", path.display());
                }
            }
        }
    }

    fn path(&self, number: u64, kind: &str) -> PathBuf {
        self.directory.join(format!("{number:010}.{kind}"))
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let size = fs::metadata(path)?.len();
    anyhow::ensure!(size <= RECORD_BYTES.min(limits::FILE_BYTES), "{size} bytes are too many for a record");
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), WriteError> {
    let text = serde_json::to_string(value).map_err(|error| WriteError::NotReplaced {
        step: "write",
        path: path.to_owned(),
        source: error.into(),
    })?;
    write_atomic(path, &text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{api::Timestamp, daemon::journal};

    fn record(number: u64, text: &str) -> Record {
        Record { number, ..journal::tests::intent("", text, (0, 0)).record }
    }

    #[test]
    fn records_outlive_the_daemon_and_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("main.history");
        let mut history = History::open(&path).unwrap();
        assert_eq!((history.next_number(), history.last()), (1, None));
        for (number, text) in [(1, "a"), (2, "b")] {
            history.add(record(number, text), text).unwrap();
        }
        let pending = Pending { number: 2, back_to: 1, until: Timestamp::from_unix(99) };
        history.set_pending(Some(pending)).unwrap();
        let mut again = History::open(&path).unwrap();
        assert_eq!((again.records(), again.pending()), (history.records(), Some(pending)));
        assert_eq!(again.text(&again.records()[0]).unwrap(), "a");
        again.set_pending(None).unwrap();
        assert_eq!(History::open(&path).unwrap().pending(), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("0000000001.toml"))), (0o700, 0o600));
    }

    #[test]
    fn the_oldest_leave_and_numbers_are_never_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut history = History::open(directory.path()).unwrap();
        for number in 1..=KEEP as u64 + 3 {
            history.add(record(number, "x"), "x").unwrap();
        }
        assert_eq!((history.records().len(), history.records()[0].number), (KEEP, 4));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2 * KEEP);
        let again = History::open(directory.path()).unwrap();
        assert_eq!(again.next_number(), KEEP as u64 + 4);
    }

    #[test]
    fn what_is_broken_is_left_out_and_what_was_changed_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let mut history = History::open(directory.path()).unwrap();
        history.add(record(1, "a"), "a").unwrap();
        history.add(record(2, "b"), "b").unwrap();
        fs::write(directory.path().join("0000000002.json"), "{").unwrap();
        fs::write(directory.path().join("0000000001.toml"), "c").unwrap();
        fs::write(directory.path().join("pending.json"), "?").unwrap();
        let again = History::open(directory.path()).unwrap();
        assert_eq!((again.records().len(), again.next_number(), again.pending()), (1, 3, None));
        let error = again.text(&again.records()[0]).unwrap_err();
        assert!(error.to_string().contains("was changed since"), "{error}");
    }
}
