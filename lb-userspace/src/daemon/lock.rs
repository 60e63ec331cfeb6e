//! One daemon per instance: a lock that ends with the process.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::dataplane;

const RUN: &str = "/run/lb";

/// The socket of an instance.
pub fn socket_path(name: &str) -> PathBuf {
    Path::new(RUN).join(format!("{name}.sock"))
}

/// Held as long as the daemon of this instance runs.
pub(super) struct InstanceLock(#[expect(dead_code, reason = "held, never read")] dataplane::InstanceLock);

impl InstanceLock {
    /// Takes the lock of `name`.
    pub(super) fn take(name: &str) -> anyhow::Result<Self> {
        let path = Path::new(RUN).join(format!("{name}.lock"));
        match dataplane::InstanceLock::take(&path)
            .with_context(|| format!("cannot lock {}", path.display()))?
        {
            Some(lock) => Ok(Self(lock)),
            None => {
                bail!(
                    "a daemon of instance {name:?} is running already: stop it, or start this one with another --name"
                )
            }
        }
    }
}
