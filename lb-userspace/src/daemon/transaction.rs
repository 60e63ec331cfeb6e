//! The order in which a change is made, and what is done about one whose daemon died in the middle of it.
//!
//! Journal, install, write back, record, forget. Whatever step is the last one that happens, a daemon that starts
//! afterwards ends with the old state or with the new one in all places: maps, file and history.

use std::path::Path;

use log::{info, warn};

use super::{
    history::History,
    journal::{Fate, Intent, Journal},
};
use crate::config::{Digest, WriteError, read_text, replace};

/// What a change is made of. The real one is in `change.rs`.
pub(super) trait Stage {
    /// What installing tells.
    type Installed;

    /// Notes what will be done.
    fn journal(&mut self, intent: &Intent) -> Result<(), WriteError>;
    /// Puts it in force. On an error nothing has changed.
    fn install(&mut self) -> anyhow::Result<Self::Installed>;
    /// Puts in force what was before.
    fn take_back(&mut self);
    /// Writes the file, if it still is what it was.
    fn write_back(&mut self, intent: &Intent) -> Result<(), WriteError>;
    /// Adds to the history.
    fn record(&mut self, intent: &Intent) -> Result<(), WriteError>;
    /// Forgets the note.
    fn forget(&mut self);
}

/// Why nothing was changed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It cannot be installed.
    Install(anyhow::Error),
    /// It cannot be written.
    Write(WriteError),
}

/// What was done.
#[derive(Debug)]
pub(super) struct Committed<I> {
    pub(super) installed: I,
    /// The change is in force and in the file, but the history does not have it.
    pub(super) not_recorded: Option<WriteError>,
}

/// Makes a change: all of it, or nothing.
pub(super) fn commit<S: Stage>(stage: &mut S, intent: &Intent) -> Result<Committed<S::Installed>, Failure> {
    stage.journal(intent).map_err(Failure::Write)?;
    let installed = match stage.install() {
        Ok(installed) => installed,
        Err(error) => {
            stage.forget();
            return Err(Failure::Install(error));
        }
    };
    match stage.write_back(intent) {
        Ok(()) => {}
        // It is written, only perhaps not for ever.
        Err(error @ WriteError::NotFlushed { .. }) => warn!("{error}"),
        Err(error) => {
            // The file is the truth: what it does not say must not be in force.
            stage.take_back();
            stage.forget();
            return Err(Failure::Write(error));
        }
    }
    let not_recorded = stage.record(intent).err();
    if let Some(error) = &not_recorded {
        warn!("the change is made, but the history does not have it: {error}");
    }
    stage.forget();
    Ok(Committed { installed, not_recorded })
}

/// Writes what a change leaves in the history.
pub(super) fn record(history: &mut History, intent: &Intent) -> Result<(), WriteError> {
    // First what brings the old state back: a record without it would be believed to be confirmed.
    if intent.pending.is_some() || history.pending().is_some() {
        history.set_pending(intent.pending)?;
    }
    history.add(intent.record.clone(), &intent.text)
}

/// Ends what a daemon that died had begun. Called before the file is read.
pub(super) fn recover(
    journal: &Journal,
    history: &mut History,
    file: &Path,
    in_force: Option<u64>,
) -> anyhow::Result<Option<Fate>> {
    let intent = match journal.read() {
        Ok(Some(intent)) => intent,
        Ok(None) => return Ok(None),
        Err(error) => {
            warn!("{}: {error}; the file stands as it is", journal.path().display());
            journal.clear();
            return Ok(None);
        }
    };
    let digest = Digest::of(&read_text(file)?);
    let fate = intent.fate(digest, in_force);
    let what = &intent.record.message;
    match fate {
        Fate::Finish => info!("a change that an earlier daemon had made is noted: {what}"),
        Fate::Forward => {
            info!("a change that was in force when an earlier daemon died is kept: {what}");
            replace(file, &intent.text, digest)?;
        }
        Fate::Back => {
            warn!("a change that was not in force when an earlier daemon died is forgotten: {what}");
        }
        Fate::Superseded => {
            warn!(
                "{} was written by somebody else after an earlier daemon died in the middle of a change ({what}): it \
                 stands as it is",
                file.display()
            );
        }
    }
    if matches!(fate, Fate::Finish | Fate::Forward) && history.get(intent.record.number).is_none() {
        record(history, &intent)?;
    }
    journal.clear();
    Ok(Some(fate))
}

#[cfg(test)]
mod tests;
