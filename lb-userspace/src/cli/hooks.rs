//! The commands that do their work in this process rather than asking a daemon: one place where the rest of the
//! program is plugged in.

use std::path::{Path, PathBuf};

pub use crate::agent::{Options as AgentOptions, Prepare, Source as AgentSource};
use crate::{agent, config};

/// `lb run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// `--config`: the file that CLI changes are written back to.
    pub config: PathBuf,
    /// `--interface`, as often as given; empty: those of the file.
    pub interfaces: Vec<String>,
    /// `--name`.
    pub name: String,
    /// `--socket`: where to listen instead of the instance's usual socket.
    pub socket: Option<PathBuf>,
    /// Take link and pins away when the daemon ends.
    pub detach_on_exit: bool,
}

/// A valid configuration, every default written out, secrets hidden.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// In the notation of `lb.toml`.
    pub toml: String,
    /// The same as JSON.
    pub json: serde_json::Value,
    /// Number of services.
    pub services: usize,
    /// Number of backends of all services.
    pub backends: usize,
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// One line per problem, with its place.
    pub text: String,
    /// The same as an object whose members join the problem that `--json` prints; `null`: none.
    pub details: serde_json::Value,
}

/// The functions behind the verbs. Each blocks until it is done.
pub struct Hooks {
    /// Runs the daemon until it is told to stop.
    pub run: fn(RunOptions) -> anyhow::Result<()>,
    /// Runs the agent until it is told to stop.
    pub agent: fn(AgentOptions) -> anyhow::Result<()>,
    /// Text (JSON if the flag is set) about the agent of this name.
    pub agent_status: fn(&str, bool) -> anyhow::Result<String>,
    /// Removes the agent's program and pins; gives what was removed, one item each.
    pub agent_detach: fn(&str) -> anyhow::Result<Vec<String>>,
    /// Removes the balancer's links and pins; gives what was removed, one item each; empty when nothing was there.
    pub detach: fn(&str) -> anyhow::Result<Vec<String>>,
    /// Reads and validates an `lb.toml` and changes nothing.
    pub check: fn(&Path) -> Result<Checked, Refused>,
}

/// What the binary uses.
pub const HOOKS: Hooks = Hooks {
    run: |options| {
        crate::daemon::run(crate::daemon::Options {
            config: options.config,
            interfaces: options.interfaces,
            name: options.name,
            socket: options.socket,
            detach_on_exit: options.detach_on_exit,
        })
    },
    agent: agent::run,
    agent_status: agent::status,
    agent_detach: agent::detach,
    detach: crate::daemon::detach,
    check,
};

fn check(path: &Path) -> Result<Checked, Refused> {
    let config = config::Config::load(path).map_err(|error| Refused {
        text: error.to_string(),
        details: serde_json::to_value(&error).unwrap_or_default(),
    })?;
    let printed = config.printed(config::Secrets::Hidden);
    let failed = |error: &dyn std::fmt::Display| Refused {
        text: format!("the configuration is valid but cannot be printed: {error}"),
        details: serde_json::Value::Null,
    };
    Ok(Checked {
        toml: printed.to_toml().map_err(|e| failed(&e))?,
        json: serde_json::to_value(&printed).map_err(|e| failed(&e))?,
        services: config.services.len(),
        backends: config.services.iter().map(|s| s.backends.len()).sum(),
    })
}
