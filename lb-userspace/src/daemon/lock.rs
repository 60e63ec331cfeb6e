//! One daemon per instance: a lock that ends with the process.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

const RUN: &str = "/run/lb";

/// The socket of an instance.
pub fn socket_path(name: &str) -> PathBuf {
    Path::new(RUN).join(format!("{name}.sock"))
}

/// Held as long as the daemon of this instance runs.
pub(super) struct InstanceLock {
    _file: Flock<File>,
}

impl InstanceLock {
    /// Takes the lock of `name`.
    pub(super) fn take(name: &str) -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(RUN)
            .with_context(|| format!("cannot make {RUN}"))?;
        let path = Path::new(RUN).join(format!("{name}.lock"));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { _file: file }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                bail!(
                    "a daemon of instance {name:?} is running already: stop it, or start this one with another --name"
                )
            }
            Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}
