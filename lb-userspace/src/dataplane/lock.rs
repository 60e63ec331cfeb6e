//! One process per set of pins: a lock that ends with the process.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::stat::{major, minor},
};

/// Held as long as this value lives, and at most as long as the process.
#[derive(Debug)]
pub struct InstanceLock {
    _file: Flock<File>,
}

impl InstanceLock {
    /// Takes the lock at `path` and makes the directory where it lies; `None`: somebody else holds it.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(Self { _file: file })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }

    /// Whether somebody holds the lock at `path`. Only looks: taking it for a moment would keep out who comes just then.
    pub fn is_held(path: &Path) -> bool {
        let Ok(file) = fs::metadata(path) else { return false };
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let place = format!("{:02x}:{:02x}:{}", major(file.dev()), minor(file.dev()), file.ino());
        locks.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.contains(&"FLOCK") && words.contains(&place.as_str())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_free_again_when_its_holder_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/main.lock");
        let held = InstanceLock::take(&path).unwrap();
        assert!(held.is_some() && InstanceLock::is_held(&path));
        assert!(InstanceLock::take(&path).unwrap().is_none());
        drop(held);
        assert!(!InstanceLock::is_held(&path) && path.exists());
        assert!(InstanceLock::take(&path).unwrap().is_some());
    }
}
