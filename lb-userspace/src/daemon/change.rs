//! Changes as transactions: the text as it should be, validated as a whole, then committed by `transaction.rs`.

use std::sync::Arc;

use log::{info, warn};

use super::{
    core::Core,
    journal::Intent,
    transaction::{self, Failure, Stage},
};
use crate::{
    api::{ApiError, Author, Change, Edit, Pending, Plan, Record, Timestamp, Transaction, Via, What},
    config::{self, Config, ConfigError, Digest, WriteError},
    control::plan::{Moves, changes},
};

/// Edits that are made piece by piece; with more, one pass over the whole file costs less.
const PIECES: usize = 8;
/// Edits that a message names.
const NAMED: usize = 5;

/// A change that could be made.
struct Prepared {
    /// Digest of the file as it is.
    before: Digest,
    /// The file as it should be.
    text: String,
    /// Digest of that.
    after: Digest,
    config: Config,
    message: String,
}

impl Core {
    /// Makes a change: all of it, or nothing.
    pub(super) fn change(&mut self, asked: &Transaction) -> Result<Change, ApiError> {
        let rollback = matches!(asked.what, What::Rollback { .. });
        if let Some(pending) = self.history.pending().filter(|_| !rollback) {
            return Err(ApiError::conflict(format!(
                "change {} waits to be confirmed until {}",
                pending.number, pending.until
            ))
            .fix("`lb confirm` keeps it, `lb rollback` takes it back"));
        }
        let prepared = self.prepare(&asked.what)?;
        let fixed = self.fixed(&prepared.config);
        if !fixed.is_empty() {
            return Err(ApiError::conflict(format!("{} while the daemon runs", fixed.join("; ")))
                .fix("stop the daemon and start it again: the datapath goes on meanwhile"));
        }
        if prepared.after == self.applied && prepared.config == self.config {
            let words = match asked.what {
                What::Edits(_) => format!("{}: so already", prepared.message),
                _ => format!("{}: nothing to apply: it says what is in force", prepared.message),
            };
            return Ok(self.answer(None, Moves::default(), words));
        }
        self.commit(asked, prepared)
    }

    /// Says what a change would do.
    pub(super) fn plan(&mut self, asked: &Transaction) -> Result<Plan, ApiError> {
        let prepared = self.prepare(&asked.what)?;
        let fixed = self.fixed(&prepared.config);
        self.plan_of(&prepared.config, fixed).map_err(|e| ApiError::invalid(format!("{e:#}")))
    }

    fn commit(&mut self, asked: &Transaction, prepared: Prepared) -> Result<Change, ApiError> {
        let pending = self.pending_for(asked)?;
        let record = Record {
            number: self.history.next_number(),
            time: Timestamp::now(),
            author: asked.author,
            reason: asked.reason.clone(),
            message: prepared.message,
            digest: prepared.after.to_string(),
            bytes: prepared.text.len() as u64,
        };
        let intent = Intent {
            before: prepared.before,
            after: prepared.after,
            state_before: self.desired.digest(&self.config),
            state_after: self.desired.digest(&prepared.config),
            text: prepared.text,
            record,
            pending,
        };
        let mut live = Live { before: self.config.clone(), config: Some(prepared.config), core: self };
        let done = transaction::commit(&mut live, &intent).map_err(|failure| refused_by(&failure))?;
        self.applied = intent.after;
        self.detach_left();
        let Record { number, message, .. } = intent.record;
        let moved = done.installed;
        info!(
            "change {number}: {message} (generation {}, {} of {} slots moved)",
            self.generation, moved.moved, moved.of
        );
        let message = match done.not_recorded {
            Some(error) => format!("{message}; the history does not have it: {error}"),
            None => message,
        };
        Ok(Change { confirm_until: pending.map(|p| p.until), ..self.answer(Some(number), moved, message) })
    }

    /// What comes back if nobody confirms this change.
    fn pending_for(&self, asked: &Transaction) -> Result<Option<Pending>, ApiError> {
        let Some(time) = asked.confirm else { return Ok(None) };
        let in_force = self.history.last().filter(|record| record.digest == self.applied.to_string());
        let back_to = in_force.ok_or_else(|| {
            ApiError::conflict("the history does not have what is in force, so it could not be brought back")
                .fix("make the change without a time to confirm it; the log says why the history has a gap")
        })?;
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let until = Timestamp::from_unix(Timestamp::now().as_unix().saturating_add(seconds));
        Ok(Some(Pending { number: self.history.next_number(), back_to: back_to.number, until }))
    }

    /// The text that is asked for, validated.
    fn prepare(&self, what: &What) -> Result<Prepared, ApiError> {
        let file = self.config_path.display().to_string();
        let current = config::read_text(&self.config_path).map_err(|e| refused(&e))?;
        let before = Digest::of(&current);
        if *what != What::File && before != self.applied {
            return Err(ApiError::conflict(format!("{file} was edited since it was applied"))
                .fix("apply it with `lb apply`, or undo the edit (`lb diff` shows it), and try again"));
        }
        if let What::Edits(edits) = what
            && let Some((text, config)) = self.edited_in_pieces(&file, &current, edits)
        {
            return Ok(Prepared { before, after: Digest::of(&text), text, config, message: words(edits) });
        }
        let (text, message) = match what {
            What::File => (current, format!("applied {file}")),
            What::Edits(edits) => (self.edited(&file, &current, edits)?, words(edits)),
            What::Text { text, base } => {
                if let Some(base) = base.as_ref().filter(|base| **base != before.to_string()) {
                    return Err(ApiError::conflict("somebody else changed the configuration meanwhile")
                        .field("base")
                        .found(base)
                        .expected(before.to_string())
                        .fix("read it again, make the change there, and send it with the new digest"));
                }
                (text.clone(), format!("replaced {file}"))
            }
            What::Rollback { to } => self.recorded(*to)?,
        };
        let config = self.parse(&text).map_err(|e| refused(&e))?;
        let message = match changes(&self.config, &config).as_slice() {
            [one] if !matches!(what, What::Edits(_)) => format!("{message}: {one}"),
            _ => message,
        };
        Ok(Prepared { before, after: Digest::of(&text), text, config, message })
    }

    /// The text and what it means after these edits, if each is about one service that stands in one piece. (The text is
    /// what is in force.)
    fn edited_in_pieces(&self, file: &str, text: &str, edits: &[Edit]) -> Option<(String, Config)> {
        if edits.is_empty() || edits.len() > PIECES {
            return None;
        }
        let mut config = self.config.clone();
        let mut result: Option<String> = None;
        for edit in edits {
            let name = edit.in_service()?;
            let index = config.services.iter().position(|service| service.name == name)?;
            let before = result.as_deref().unwrap_or(text);
            let (after, service) =
                config::edit::in_piece(file, before, &config.services, index, |document| {
                    super::edits::write(edit, document).ok()
                })?;
            config.services[index] = Arc::new(service);
            result = Some(after);
        }
        Some((result?, config))
    }

    fn edited(&self, file: &str, text: &str, edits: &[Edit]) -> Result<String, ApiError> {
        let mut document = config::edit::Document::parse(file, text).map_err(|e| refused(&e))?;
        for edit in edits {
            super::edits::write(edit, &mut document)?;
        }
        Ok(document.to_string())
    }

    /// The text of a record, by its number or the one before what is in force.
    fn recorded(&self, to: Option<u64>) -> Result<(String, String), ApiError> {
        let records = self.history.records();
        let number = match (to, self.history.pending()) {
            (Some(number), _) => number,
            (None, Some(pending)) => pending.back_to,
            (None, None) => match records {
                [.., before, _] => before.number,
                _ => {
                    return Err(ApiError::not_found("the history has nothing from before what is in force")
                        .fix("`lb history` lists what there is"));
                }
            },
        };
        let record = self.record(number)?;
        let text = self.history.text(record).map_err(|e| ApiError::internal(format!("{e:#}")))?;
        Ok((text, format!("rolled back to {number}")))
    }

    /// A record of the history; 404 when there is none.
    pub(super) fn record(&self, number: u64) -> Result<&Record, ApiError> {
        self.history.get(number).ok_or_else(|| {
            let records = self.history.records();
            let range = records.first().zip(records.last());
            let known = range.map_or("none yet".to_owned(), |(a, b)| format!("{} to {}", a.number, b.number));
            ApiError::not_found(format!("the history has no record {number}"))
                .field("to")
                .found(number.to_string())
                .expected(known)
                .fix("`lb history` lists what there is")
        })
    }

    /// What this configuration changes that cannot change while the daemon runs.
    fn fixed(&self, config: &Config) -> Vec<String> {
        let (old, new) = (&self.config.daemon, &config.daemon);
        let added = new.interfaces.iter().any(|name| !old.interfaces.contains(name));
        let differs = [
            ("interfaces cannot be added", added || new.interfaces.is_empty() && !old.interfaces.is_empty()),
            ("xdp_mode is fixed", old.xdp_mode != new.xdp_mode),
            ("hash_seed is fixed", old.hash_seed != new.hash_seed),
            (
                "flow_table.capacity is fixed until every flow has moved since its last change",
                self.installer.is_moving() && old.flow_capacity != new.flow_capacity,
            ),
            ("listen is fixed", old.listen != new.listen),
        ];
        let of_daemon =
            differs.into_iter().filter(|(_, differs)| *differs).map(|(words, _)| words.to_owned());
        of_daemon.chain(self.fixed_of_services(config)).collect()
    }

    /// What decides about every slot of a service at once: with another value nearly all connections would change their
    /// backend.
    fn fixed_of_services(&self, config: &Config) -> impl Iterator<Item = String> {
        config.services.iter().filter_map(|new| {
            let old = self.config.services.iter().find(|old| old.name == new.name)?;
            let what = match (old.affinity != new.affinity, old.table_slots != new.table_slots) {
                (true, true) => "another affinity and table_slots",
                (true, false) => "another affinity",
                (false, true) => "other table_slots",
                (false, false) => return None,
            };
            Some(format!("{what} would break the connections of service {}: fixed", new.name))
        })
    }

    /// Keeps the change that waits to be confirmed.
    pub(super) fn confirm(&mut self) -> Result<Change, ApiError> {
        let pending = self.history.pending().ok_or_else(|| {
            ApiError::conflict("no change waits to be confirmed")
                .fix("`lb history` shows what was done; a change that ran out of time was taken back")
        })?;
        self.history.set_pending(None).map_err(|e| not_written(&e))?;
        info!("change {} is confirmed", pending.number);
        Ok(self.answer(
            Some(pending.number),
            Moves::default(),
            format!("confirmed change {}", pending.number),
        ))
    }

    /// Takes the change back that nobody confirmed in time.
    pub(super) fn expire(&mut self) {
        let Some(pending) = self.history.pending().filter(|p| p.until <= Timestamp::now()) else { return };
        warn!("change {} was not confirmed in time: back to {}", pending.number, pending.back_to);
        if let Err(error) = self.put_edit_aside() {
            warn!("{}: {error}", self.config_path.display());
        }
        let what = What::Rollback { to: Some(pending.back_to) };
        let mut back = Transaction::new(what, Author::daemon(Via::Timer));
        back.reason = Some(format!("change {} was not confirmed in time", pending.number));
        if let Err(error) = self.change(&back) {
            warn!("change {} could not be taken back, and is tried again: {error}", pending.number);
        }
    }

    /// An edit that was not applied would keep the state from coming back: it is kept beside the file.
    fn put_edit_aside(&self) -> anyhow::Result<()> {
        let text = config::read_text(&self.config_path)?;
        if Digest::of(&text) == self.applied {
            return Ok(());
        }
        let mut aside = self.config_path.clone().into_os_string();
        aside.push(".not-applied");
        config::write_atomic(std::path::Path::new(&aside), &text)?;
        warn!("the edit that was not applied is kept in {}", std::path::Path::new(&aside).display());
        let last = self.history.last().filter(|record| record.digest == self.applied.to_string());
        let last = last.ok_or_else(|| anyhow::anyhow!("the history does not have what is in force"))?;
        let in_force = self.history.text(last)?;
        Ok(config::replace(&self.config_path, &in_force, Digest::of(&text))?)
    }

    /// Validates a text, with the interfaces of the command line in place.
    pub(super) fn parse(&self, text: &str) -> Result<Config, ConfigError> {
        let mut config = Config::parse(&self.config_path.display().to_string(), text)?;
        if !self.interfaces.is_empty() {
            config.daemon.interfaces.clone_from(&self.interfaces);
        }
        Ok(config)
    }

    fn answer(&self, record: Option<u64>, moved: Moves, message: String) -> Change {
        Change {
            generation: u64::from(self.generation),
            changed: record.is_some(),
            slots_moved: moved.moved,
            slots_total: moved.of,
            message,
            record,
            confirm_until: None,
        }
    }
}

/// A change of the running instance.
struct Live<'c> {
    core: &'c mut Core,
    config: Option<Config>,
    before: Config,
}

impl Stage for Live<'_> {
    type Installed = Moves;

    fn journal(&mut self, intent: &Intent) -> Result<(), WriteError> {
        self.core.journal.write(intent)
    }

    fn install(&mut self) -> anyhow::Result<Moves> {
        match self.config.take() {
            Some(config) => self.core.apply(config),
            None => Ok(Moves::default()),
        }
    }

    fn take_back(&mut self) {
        if let Err(error) = self.core.apply(self.before.clone()) {
            warn!("the change is in force but not in the file, and could not be undone: {error:#}");
        }
    }

    fn write_back(&mut self, intent: &Intent) -> Result<(), WriteError> {
        if intent.before == intent.after {
            return Ok(());
        }
        config::replace(&self.core.config_path, &intent.text, intent.before)
    }

    fn record(&mut self, intent: &Intent) -> Result<(), WriteError> {
        transaction::record(&mut self.core.history, intent)
    }

    fn forget(&mut self) {
        self.core.journal.clear();
    }
}

/// What edits do, in words.
fn words(edits: &[Edit]) -> String {
    let mut words: Vec<String> = edits.iter().take(NAMED).map(Edit::words).collect();
    if edits.len() > NAMED {
        words.push(format!("{} more", edits.len() - NAMED));
    }
    words.join(", ")
}

fn refused(error: &ConfigError) -> ApiError {
    ApiError::invalid(error.to_string())
}

fn refused_by(failure: &Failure) -> ApiError {
    match failure {
        Failure::Install(error) => ApiError::invalid(format!("nothing was changed: {error:#}")),
        Failure::Write(error @ WriteError::Changed { .. }) => {
            ApiError::conflict(format!("nothing was changed: {error}"))
                .fix("apply the file with `lb apply`, or undo the edit, and try again")
        }
        Failure::Write(error) => not_written(error),
    }
}

fn not_written(error: &WriteError) -> ApiError {
    ApiError::internal(format!("nothing was changed: {error}"))
}
