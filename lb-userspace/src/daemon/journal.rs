//! What a transaction is about to do, on disk before it does it; and what a daemon makes of it that finds it there.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    api::{Pending, Record},
    config::{Digest, WriteError, write_unflushed},
};

/// A change under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Intent {
    /// Digest of the file before.
    pub(super) before: Digest,
    /// Digest of the file afterwards.
    pub(super) after: Digest,
    /// What the maps say of the desired state before.
    pub(super) state_before: u64,
    /// What they say afterwards.
    pub(super) state_after: u64,
    /// The file afterwards. In the journal it follows the line with the rest: as JSON it would cost more than the change.
    #[serde(skip)]
    pub(super) text: String,
    /// The line of the history.
    pub(super) record: Record,
    /// Whether it waits to be confirmed.
    pub(super) pending: Option<Pending>,
}

/// What becomes of a change whose daemon died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is in the file: the rest is done.
    Finish,
    /// It was in force, and the file does not say so yet: it is written there.
    Forward,
    /// It was not in force: as if it had never been asked for.
    Back,
    /// Somebody wrote the file since: that is what they want.
    Superseded,
}

impl Intent {
    /// Old or new, never a mixture: what was in force decides, and the file before that.
    pub(super) fn fate(&self, file: Digest, in_force: Option<u64>) -> Fate {
        if file == self.after {
            return Fate::Finish;
        }
        if file != self.before {
            return Fate::Superseded;
        }
        // Where both states are equal for the datapath, the file decides alone.
        if self.state_before != self.state_after && in_force == Some(self.state_after) {
            Fate::Forward
        } else {
            Fate::Back
        }
    }
}

/// The place of at most one [`Intent`].
#[derive(Clone, Debug)]
pub(super) struct Journal(PathBuf);

impl Journal {
    /// At this path, which need not exist.
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Notes a change. Not flushed to the disk: it is for a daemon that dies while the maps live on. A power cut takes the
    /// maps as well, and then the file decides alone.
    pub(super) fn write(&self, intent: &Intent) -> Result<(), WriteError> {
        let mut text = serde_json::to_string(intent).map_err(|error| WriteError::NotReplaced {
            step: "write",
            path: self.0.clone(),
            source: error.into(),
        })?;
        text.push('\n');
        text.push_str(&intent.text);
        write_unflushed(&self.0, &text)
    }

    /// The change under way. One that cannot be read was never written to its end by us.
    pub(super) fn read(&self) -> io::Result<Option<Intent>> {
        match fs::read(&self.0) {
            Ok(bytes) => parse(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets the change.
    pub(super) fn clear(&self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("{} cannot be removed: {error}", self.0.display());
        }
    }
}

/// An intent as [`Journal::write`] wrote it; anything that a power cut has left half is refused.
fn parse(bytes: &[u8]) -> io::Result<Intent> {
    let invalid = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    let end =
        bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| invalid("it ends in its first line"))?;
    let mut intent: Intent = serde_json::from_slice(&bytes[..end])?;
    intent.text = String::from_utf8(bytes[end + 1..].to_vec()).map_err(io::Error::other)?;
    if Digest::of(&intent.text) != intent.after {
        return Err(invalid("its text is not the one that it names"));
    }
    Ok(intent)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::api::{Author, Timestamp, Via};

    pub(crate) fn intent(before: &str, after: &str, states: (u64, u64)) -> Intent {
        Intent {
            before: Digest::of(before),
            after: Digest::of(after),
            state_before: states.0,
            state_after: states.1,
            text: after.into(),
            record: Record {
                number: 2,
                time: Timestamp::from_unix(1_000),
                author: Author::daemon(Via::Signal),
                reason: None,
                message: "applied".into(),
                digest: Digest::of(after).to_string(),
                bytes: after.len() as u64,
            },
            pending: None,
        }
    }

    #[test]
    fn what_was_in_force_decides() {
        let intent = intent("old", "new", (1, 2));
        for (file, in_force, fate) in [
            ("old", Some(1), Fate::Back),
            ("old", None, Fate::Back),
            ("old", Some(3), Fate::Back),
            ("old", Some(2), Fate::Forward),
            ("new", Some(2), Fate::Finish),
            ("new", None, Fate::Finish),
            ("other", Some(2), Fate::Superseded),
            ("other", Some(1), Fate::Superseded),
        ] {
            assert_eq!(intent.fate(Digest::of(file), in_force), fate, "{file} {in_force:?}");
        }
        let comment = Intent { state_after: 1, ..intent };
        assert_eq!(comment.fate(Digest::of("old"), Some(1)), Fate::Back);
    }

    #[test]
    fn a_journal_holds_one_intent() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::new(&directory.path().join("main.journal"));
        assert_eq!(journal.read().unwrap(), None);
        journal.clear();
        let intent = intent("old", "new", (u64::MAX, 2));
        journal.write(&intent).unwrap();
        assert_eq!(journal.read().unwrap(), Some(intent));
        journal.clear();
        assert_eq!(journal.read().unwrap(), None);
        fs::write(journal.path(), "{").unwrap();
        assert!(journal.read().is_err());
    }
}
