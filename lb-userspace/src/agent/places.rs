//! Where an agent keeps things.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::dataplane::{InstanceLock, Pins};

const RUN: &str = "/run/lb-agent";
const STATE: &str = "/var/lib/lb";

/// The places of one agent.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// `--name`.
    pub(super) name: String,
    /// Maps and link.
    pub(super) pins: Pins,
    /// What `--prepare` changed.
    pub(super) record: PathBuf,
    /// The last answer of the balancer.
    pub(super) answer: PathBuf,
    /// Held while the agent runs.
    pub(super) lock: PathBuf,
}

impl Places {
    /// Of the agent `name` of this host.
    pub(super) fn system(name: &str) -> Self {
        Self::below(name, Path::new(RUN), Path::new(STATE))
    }

    /// With other directories than the system's.
    pub(super) fn below(name: &str, run: &Path, state: &Path) -> Self {
        Self {
            name: name.into(),
            pins: Pins::agent(name),
            record: state.join(format!("agent-{name}.json")),
            answer: state.join(format!("answer-{name}.json")),
            lock: run.join(format!("{name}.lock")),
        }
    }

    /// Makes sure that no other agent of this name runs as long as the value lives.
    pub(super) fn lock(&self) -> anyhow::Result<InstanceLock> {
        match InstanceLock::take(&self.lock)
            .with_context(|| format!("cannot lock {}", self.lock.display()))?
        {
            Some(lock) => Ok(lock),
            None => bail!(
                "an agent of the name {:?} is running on this host: stop it (SIGTERM), or give this one another --name",
                self.name
            ),
        }
    }
}
