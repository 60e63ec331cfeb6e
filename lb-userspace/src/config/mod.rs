//! `lb.toml`: read, validated, edited with its comments kept.
//!
//! ```text
//! text ──toml──► tree with places ──reader──► raw ──resolve──► types (Config)      every problem ──► ConfigError
//! text ──toml_edit──► places ──edit──► text with one thing changed                 Config ──print──► text again
//! ```
//! `keys` lists what may stand where, `limits` and `defaults` hold every number, `value` the notations.

pub mod defaults;
pub mod edit;
mod keys;
pub mod limits;
mod print;
mod problem;
mod raw;
mod reader;
mod resolve;
mod store;
#[cfg(test)]
mod tests;
mod types;
mod value;

use std::path::Path;

pub use print::{Printed, Secrets};
pub use problem::{ConfigError, MAX_PROBLEMS, Problem};
pub use store::{Digest, WriteError, read_text, replace, write_atomic, write_unflushed};
use toml::de::DeTable;
pub use types::*;
pub use value::{
    ValueError, check_backend_name, check_destination, check_host, check_interface, check_path,
    check_service_name, check_slots, format_duration, format_expect, format_range, parse_address,
    parse_duration, parse_expect, parse_port_range, parse_prefix, parse_quic_key, parse_seed,
};

impl Config {
    /// Reads and validates a file of at most [`limits::FILE_BYTES`].
    ///
    /// # Errors
    /// The file cannot be read, is too large, is no UTF-8, or its content is refused as by [`Config::parse`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&path.display().to_string(), &read_text(path)?)
    }

    /// Validates the text of a file. `name` is what errors call it.
    ///
    /// # Errors
    /// The first error of syntax, or all problems of meaning (up to [`MAX_PROBLEMS`]), each with line and column.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        store::check_size(name, text.len() as u64)?;
        let tree =
            DeTable::parse(text).map_err(|error| syntax_error(name, text, error.message(), error.span()))?;
        let problems = problem::Problems::new(text);
        let raw = raw::RawConfig::read(&problems, tree.get_ref());
        let nothing = raw.daemon.is_none() && raw.services.is_empty() && raw.agent.is_none();
        let config = resolve::resolve(&problems, &raw);
        if nothing && problems.count() == 0 {
            return Err(ConfigError::whole(name, NOTHING));
        }
        problems.finish(name).map(|()| config)
    }
}

const NOTHING: &str = "nothing to do: expected [[service]] tables and [daemon] for a balancer, or [agent] for a \
                       backend host; docs/configuration.md shows both";

/// What `toml` and `toml_edit` say about broken syntax, with line and column.
fn syntax_error(name: &str, text: &str, message: &str, span: Option<std::ops::Range<usize>>) -> ConfigError {
    let span = span.unwrap_or(0..0);
    let line = text.get(..span.start).and_then(|before| before.rsplit('\n').next()).unwrap_or_default();
    let token = text
        .get(span.clone())
        .filter(|token| !token.is_empty() && !keys::SECRETS.iter().any(|secret| line.contains(secret)));
    let problems = problem::Problems::new(text);
    problems.add(span.start, || match token {
        // The one message that does not say which.
        Some(token) if message == "duplicate key" => {
            format!("{} is set a second time in the same table; remove one", problem::quoted(token))
        }
        Some(token) => format!("not TOML: {message}, found {}", problem::quoted(token)),
        None => format!("not TOML: {message}"),
    });
    match problems.finish(name) {
        Err(error) => error,
        Ok(()) => ConfigError::whole(name, message),
    }
}
