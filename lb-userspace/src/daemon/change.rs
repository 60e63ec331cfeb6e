//! Changes as transactions: edit the text, validate the whole, install, write back.

use log::{info, warn};

use super::core::{Core, Moved};
use crate::{
    api::{ApiError, BackendPatch, Change, NewBackend, change::default_weight},
    config::{self, Config, ConfigError, Digest, Limit, Rate, edit},
};

/// One change of the desired state.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    /// A new backend.
    Add { service: String, backend: NewBackend },
    /// A backend less.
    Remove { service: String, backend: String },
    /// Fields of a backend.
    Set { service: String, backend: String, patch: BackendPatch },
    /// A limit, or none.
    Limit { service: String, limit: Option<Rate> },
}

impl Edit {
    fn words(&self) -> String {
        match self {
            Self::Add { service, backend } => format!("added {service}/{}", backend.resolved_name()),
            Self::Remove { service, backend } => format!("removed {service}/{backend}"),
            Self::Set { service, backend, .. } => format!("set {service}/{backend}"),
            Self::Limit { service, limit: Some(rate) } => {
                format!(
                    "{service}: at most {} packets per second per source, burst {}",
                    rate.rate, rate.burst
                )
            }
            Self::Limit { service, limit: None } => format!("{service}: no limit"),
        }
    }

    fn write(&self, document: &mut edit::Document) -> Result<(), edit::EditError> {
        match self {
            Self::Add { service, backend } => document.add_backend(
                service,
                &edit::BackendSpec {
                    name: backend.name.clone(),
                    address: backend.address,
                    port: backend.port,
                    weight: (backend.weight != default_weight()).then_some(backend.weight),
                    state: (backend.state != config::AdminState::Up).then_some(backend.state),
                },
            ),
            Self::Remove { service, backend } => document.remove_backend(service, backend),
            Self::Set { service, backend, patch } => document.set_backend(
                service,
                backend,
                edit::BackendPatch {
                    weight: patch.weight,
                    state: patch.state,
                    address: patch.address,
                    port: patch.port.flatten(),
                },
            ),
            Self::Limit { service, limit } => {
                document.set_limit(service, limit.map(|anonymous| Limit { anonymous }))
            }
        }
    }
}

impl Core {
    /// Makes a change: all of it, or nothing.
    pub(super) fn change(&mut self, edit: &Edit) -> Result<Change, ApiError> {
        if let Edit::Set { patch: BackendPatch { port: Some(None), .. }, .. } = edit {
            return Err(ApiError::invalid("a port cannot be taken away by a patch")
                .field("port")
                .found("null")
                .fix("remove the line from lb.toml and run `lb reload`"));
        }
        let text = config::read_text(&self.config_path).map_err(|e| refused(&e))?;
        if Digest::of(&text) != self.applied {
            return Err(ApiError::conflict(format!(
                "{} was edited since it was applied",
                self.config_path.display()
            ))
            .fix("apply it with `lb reload`, or undo the edit, and try again"));
        }
        let file = self.config_path.display().to_string();
        let mut document = edit::Document::parse(&file, &text).map_err(|e| refused(&e))?;
        edit.write(&mut document).map_err(|e| edit_refused(&e))?;
        let new_text = document.to_string();
        if new_text == text {
            return Ok(self.answer(false, Moved::default(), format!("{}: so already", edit.words())));
        }
        let config = self.parse(&new_text).map_err(|e| refused(&e))?;
        let before = self.config.clone();
        let moved = self.apply(config).map_err(|e| not_applied(&e))?;
        if let Err(error) = config::write_atomic(&self.config_path, &new_text) {
            // The file is the truth: what it does not say must not be in force.
            if let Err(undo) = self.apply(before) {
                warn!("the change is in force but not in the file, and could not be undone: {undo:#}");
            }
            return Err(ApiError::internal(format!("nothing was changed: {error}")));
        }
        self.applied = Digest::of(&new_text);
        info!(
            "{} (generation {}, {} of {} slots moved)",
            edit.words(),
            self.generation,
            moved.slots,
            moved.of
        );
        Ok(self.answer(true, moved, edit.words()))
    }

    /// Applies the file as it is on disk.
    pub(super) fn reload(&mut self) -> Result<Change, ApiError> {
        let text = config::read_text(&self.config_path).map_err(|e| refused(&e))?;
        let config = self.parse(&text).map_err(|e| refused(&e))?;
        if config.daemon.interfaces != self.config.daemon.interfaces
            || config.daemon.xdp_mode != self.config.daemon.xdp_mode
            || config.daemon.hash_seed != self.config.daemon.hash_seed
            || config.daemon.flow_capacity != self.config.daemon.flow_capacity
            || config.daemon.limit_capacity != self.config.daemon.limit_capacity
            || config.daemon.listen != self.config.daemon.listen
        {
            return Err(ApiError::conflict(
                "interfaces, xdp_mode, hash_seed, table capacities and listen are fixed while the daemon runs",
            )
            .fix("stop the daemon and start it again: the datapath goes on meanwhile"));
        }
        let changed = config != self.config;
        let moved = self.apply(config).map_err(|e| not_applied(&e))?;
        self.applied = Digest::of(&text);
        let words = if changed { "applied" } else { "nothing to apply: the file says what is in force" };
        info!("{} (generation {})", words, self.generation);
        Ok(self.answer(changed, moved, format!("{}: {words}", self.config_path.display())))
    }

    /// Validates a text, with the interfaces of the command line in place.
    pub(super) fn parse(&self, text: &str) -> Result<Config, ConfigError> {
        let mut config = Config::parse(&self.config_path.display().to_string(), text)?;
        if !self.interfaces.is_empty() {
            config.daemon.interfaces.clone_from(&self.interfaces);
        }
        Ok(config)
    }

    fn answer(&self, changed: bool, moved: Moved, message: String) -> Change {
        Change {
            generation: u64::from(self.generation),
            changed,
            slots_moved: moved.slots,
            slots_total: moved.of,
            message,
        }
    }
}

fn refused(error: &ConfigError) -> ApiError {
    ApiError::invalid(error.to_string())
}

fn not_applied(error: &anyhow::Error) -> ApiError {
    ApiError::invalid(format!("nothing was changed: {error:#}"))
}

fn edit_refused(error: &edit::EditError) -> ApiError {
    use edit::EditError;
    let text = error.to_string();
    match error {
        EditError::NoService { name, .. } | EditError::NoBackend { name, .. } => {
            ApiError::not_found(text).found(name)
        }
        EditError::BackendExists { name, .. } => ApiError::conflict(text).field("name").found(name),
        EditError::AddressTaken { address, .. } => {
            ApiError::conflict(text).field("address").found(address.to_string())
        }
        EditError::Value { key, .. } => ApiError::invalid(text).field(*key),
        EditError::NothingToChange | EditError::Form(_) => ApiError::invalid(text),
    }
}
