//! The file on disk: read within bounds, replaced in one step, recognised by its digest.

use std::{
    fmt,
    fs::{File, Metadata},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{limits, problem::ConfigError};

/// SHA-256 of the text of a file: tells a file that was edited since it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of a text, every byte of it: a changed comment is a changed file.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map(|()| Self(bytes))
    }
}

/// Reads a file of at most [`limits::FILE_BYTES`].
///
/// # Errors
/// The file cannot be read, is larger (whatever its metadata says: it may be a pipe), or is no UTF-8.
pub fn read_text(path: &Path) -> Result<String, ConfigError> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limits::FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| ConfigError::whole(&name, format!("cannot read the file: {error}")))?;
    check_size(&name, bytes.len() as u64)?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..valid]);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let place = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let message = format!("found byte 0x{:02x}, expected UTF-8 text", error.as_bytes()[valid]);
        ConfigError::at(&name, place(line), place(column), message)
    })
}

/// Refuses a text that would cost too much to parse.
pub(super) fn check_size(name: &str, bytes: u64) -> Result<(), ConfigError> {
    if bytes <= limits::FILE_BYTES {
        return Ok(());
    }
    let most = limits::FILE_BYTES;
    Err(ConfigError::whole(name, format!("the file is too large, expected at most {most} bytes (16 MiB)")))
}

/// A file that could not be replaced, or not for certain.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The old file is untouched.
    #[error("cannot {step} {}: {source}; the file is unchanged", path.display())]
    NotReplaced {
        /// What was tried, in words.
        step: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else wrote the file meanwhile; what they wrote is there.
    #[error("{} was changed by somebody else in this moment; it is as they left it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The new file is there, but the directory could not be flushed.
    #[error("{} is replaced, but a power cut could bring the old one back: {source}", path.display())]
    NotFlushed {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Replaces a file by a text: readers see all of the old one or all of the new one, also after a power cut.
///
/// The new file has the mode and the owner of the old one; where there is none, mode 0600, since it may hold a
/// `hash_seed`. A symbolic link stays: the file that it names is replaced. Access control lists and extended
/// attributes are not carried over.
///
/// # Errors
/// Any step that fails, the one that keeps the owner included.
pub fn write_atomic(path: &Path, text: &str) -> Result<(), WriteError> {
    write(path, text, None, Flush::Yes)
}

/// As [`write_atomic`], but a power cut may leave anything there: an old text, a part of one, or none.
///
/// # Errors
/// Any step that fails.
pub fn write_unflushed(path: &Path, text: &str) -> Result<(), WriteError> {
    write(path, text, None, Flush::No)
}

/// As [`write_atomic`], if the file still holds the text with this digest: of two writers the second is told, and what
/// the first wrote is not lost.
///
/// # Errors
/// Any step that fails; [`WriteError::Changed`].
pub fn replace(path: &Path, text: &str, expected: Digest) -> Result<(), WriteError> {
    write(path, text, Some(expected), Flush::Yes)
}

/// Whether what is written must survive a power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Yes,
    No,
}

fn write(path: &Path, text: &str, expected: Option<Digest>, flush: Flush) -> Result<(), WriteError> {
    let step = |step: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| WriteError::NotReplaced { step, path, source }
    };
    let old = match std::fs::metadata(path) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(step("look at", path)(error)),
    };
    // A dangling link has no metadata and no canonical path: it is replaced like an absent file.
    let target =
        if old.is_some() { path.canonicalize().map_err(step("find", path))? } else { path.to_owned() };
    if old.is_none() && expected.is_some() {
        return Err(WriteError::Changed { path: path.to_owned() });
    }
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = tempfile::Builder::new()
        .prefix(".lb-")
        .suffix(".tmp")
        .tempfile_in(directory)
        .map_err(step("make a file in", directory))?;
    new.write_all(text.as_bytes()).map_err(step("write", new.path()))?;
    let old_exists = old.is_some();
    if let Some(old) = old {
        keep_ownership(new.as_file(), &old).map_err(step("keep mode and owner of", &target))?;
    }
    if flush == Flush::Yes {
        new.as_file().sync_all().map_err(step("flush", new.path()))?;
    }
    if let Some(expected) = expected.filter(|_| old_exists) {
        let still = exchange(new.path(), &target, expected).map_err(step("replace", &target))?;
        if !still {
            return Err(WriteError::Changed { path: target });
        }
    } else {
        new.persist(&target).map_err(|error| step("replace", &target)(error.error))?;
    }
    if flush == Flush::No {
        return Ok(());
    }
    // The rename itself lives in the directory.
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| WriteError::NotFlushed { path: target.clone(), source })
}

/// Puts `new` in the place of `target` if that holds what is expected; says whether it did. The two change places in one
/// step, and again if what came back is not what was expected: nothing that somebody wrote is ever removed unread.
fn exchange(new: &Path, target: &Path, expected: Digest) -> io::Result<bool> {
    let swap = || renameat2(AT_FDCWD, new, AT_FDCWD, target, RenameFlags::RENAME_EXCHANGE);
    let holds = |path: &Path| read_text(path).is_ok_and(|text| Digest::of(&text) == expected);
    match swap() {
        Ok(()) if holds(new) => Ok(true),
        Ok(()) => swap().map(|()| false).map_err(io::Error::from),
        // A file system without this call: the next best is a look directly before the rename.
        Err(Errno::EINVAL | Errno::ENOSYS) if holds(target) => std::fs::rename(new, target).map(|()| true),
        Err(Errno::EINVAL | Errno::ENOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Owner first: a change of owner clears set-id bits. Nothing is asked of the system when nothing differs, so an
/// ordinary user can edit a file of their own.
fn keep_ownership(new: &File, old: &Metadata) -> io::Result<()> {
    let found = new.metadata()?;
    if (found.uid(), found.gid()) != (old.uid(), old.gid()) {
        fchown(new, Some(old.uid()), Some(old.gid()))?;
    }
    new.set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_keeps_mode_owner_and_link() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("real.toml");
        let link = directory.path().join("lb.toml");
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let can_chown = nix::unistd::geteuid().is_root();
        if can_chown {
            std::os::unix::fs::chown(&file, Some(1234), Some(4321)).unwrap();
        }
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_atomic(&link, "new\n").unwrap();
        let metadata = std::fs::metadata(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new\n");
        assert_eq!(metadata.mode() & 0o7777, 0o640);
        assert!(!can_chown || (metadata.uid(), metadata.gid()) == (1234, 4321));
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn a_new_file_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lb.toml");
        write_atomic(&file, "x").unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_failed_write_says_where_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("absent/lb.toml");
        let error = write_atomic(&absent, "x").unwrap_err();
        assert!(error.to_string().contains("absent: "), "{error}");
        assert!(error.to_string().ends_with("the file is unchanged"), "{error}");
    }

    #[test]
    fn of_two_writers_the_second_is_told_and_nothing_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lb.toml");
        std::fs::write(&file, "mine").unwrap();
        replace(&file, "mine, changed", Digest::of("mine")).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine, changed");
        std::fs::write(&file, "theirs").unwrap();
        let error = replace(&file, "mine, again", Digest::of("mine, changed")).unwrap_err();
        assert!(matches!(error, WriteError::Changed { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "theirs");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
        std::fs::remove_file(&file).unwrap();
        let error = replace(&file, "mine", Digest::of("theirs")).unwrap_err();
        assert!(matches!(error, WriteError::Changed { .. }) && !file.exists(), "{error}");
    }

    #[test]
    fn files_are_read_within_bounds() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lb.toml");
        let error = read_text(&file).unwrap_err().to_string();
        assert!(error.contains("lb.toml: cannot read the file: No such file"), "{error}");
        std::fs::write(&file, b"a = 1\n  \xff").unwrap();
        let error = read_text(&file).unwrap_err().to_string();
        assert!(error.ends_with("lb.toml:2:3: found byte 0xff, expected UTF-8 text"), "{error}");
        File::create(&file).unwrap().set_len(limits::FILE_BYTES + 1).unwrap();
        let error = read_text(&file).unwrap_err().to_string();
        assert!(error.contains("too large, expected at most 16777216 bytes"), "{error}");
    }

    #[test]
    fn digests_tell_texts_apart_and_survive_json() {
        let digest = Digest::of("a");
        assert_eq!(digest.to_string(), "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb");
        assert_ne!(digest, Digest::of("a\n"));
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        assert!(serde_json::from_str::<Digest>("\"ca97\"").is_err());
    }
}
