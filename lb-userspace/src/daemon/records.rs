//! The history as the API shows it, and differences between texts, without their secrets.

use similar::TextDiff;

use super::core::Core;
use crate::{
    api::{ApiError, Author, Diff, History, InForce, Record, Timestamp, Via},
    config::{self, Digest, edit::hidden},
};

/// Lines around a difference.
const CONTEXT: usize = 3;
/// Differences are looked for no longer; the rest is then told as removed and added.
const DIFF_TIME: std::time::Duration = std::time::Duration::from_secs(2);

impl Core {
    /// What was in force.
    pub(super) fn history(&self) -> Result<History, ApiError> {
        let edited = config::read_text(&self.config_path).map_or(true, |t| Digest::of(&t) != self.applied);
        Ok(History { history: self.history.records().to_vec(), pending: self.history.pending(), edited })
    }

    /// The text that is in force.
    pub(super) fn in_force(&self) -> Result<InForce, ApiError> {
        Ok(InForce { digest: self.applied.to_string(), text: hidden(&self.applied_text()?) })
    }

    /// What differs between two records; absent: what is in force, and the file.
    pub(super) fn diff(&self, from: Option<u64>, to: Option<u64>) -> Result<Diff, ApiError> {
        let text = |record: &Record| {
            let text = self.history.text(record).map_err(|e| ApiError::internal(format!("{e:#}")))?;
            Ok::<_, ApiError>((format!("record {}", record.number), text))
        };
        let (from, old) = match from {
            Some(number) => text(self.record(number)?)?,
            None => ("in force".to_owned(), self.applied_text()?),
        };
        let (to, new) = match to {
            Some(number) => text(self.record(number)?)?,
            None => {
                let text =
                    config::read_text(&self.config_path).map_err(|e| ApiError::invalid(e.to_string()))?;
                (self.config_path.display().to_string(), text)
            }
        };
        let (old, new) = (hidden(&old), hidden(&new));
        let diff = tokio::task::block_in_place(|| {
            let lines = TextDiff::configure().timeout(DIFF_TIME).diff_lines(old.as_str(), new.as_str());
            lines.unified_diff().context_radius(CONTEXT).header(&from, &to).to_string()
        });
        Ok(Diff { from, to, diff })
    }

    /// From the file if it still is what was applied, else from the history.
    fn applied_text(&self) -> Result<String, ApiError> {
        if let Ok(text) = config::read_text(&self.config_path)
            && Digest::of(&text) == self.applied
        {
            return Ok(text);
        }
        let applied = self.applied.to_string();
        let record = self.history.records().iter().rev().find(|record| record.digest == applied);
        let record = record.ok_or_else(|| {
            ApiError::conflict("the file was edited, and the history does not have what is in force")
                .fix("`lb check` shows the file with its defaults, `lb status` what is in force")
        })?;
        self.history.text(record).map_err(|e| ApiError::internal(format!("{e:#}")))
    }

    /// Notes the file as the daemon found it, unless the history ends with it.
    pub(super) fn note_start(&mut self, text: &str) {
        let digest = self.applied.to_string();
        if self.history.last().is_some_and(|last| last.digest == digest) {
            return;
        }
        let record = Record {
            number: self.history.next_number(),
            time: Timestamp::now(),
            author: Author::daemon(Via::Start),
            reason: None,
            message: format!("found {}", self.config_path.display()),
            digest,
            bytes: text.len() as u64,
        };
        if let Err(error) = self.history.add(record, text) {
            log::warn!("the history does not have what is in force: {error}");
        }
    }
}
