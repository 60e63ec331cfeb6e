//! The seed of the hashes: from the configuration, or made once and kept.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::config::Seed;

/// Where an instance keeps what outlives a boot.
pub(super) const STATE: &str = "/var/lib/lb";

fn path(name: &str) -> PathBuf {
    Path::new(STATE).join(format!("{name}.seed"))
}

/// The configured seed, else the one that this instance made for itself; the flag says that it is the latter.
pub(super) fn of(configured: Option<Seed>, name: &str) -> anyhow::Result<(Seed, bool)> {
    match configured {
        Some(seed) => Ok((seed, false)),
        None => Ok((kept(&path(name))?, true)),
    }
}

fn kept(path: &Path) -> anyhow::Result<Seed> {
    if path.exists() {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut seed = [0; 32];
        if hex::decode_to_slice(text.trim(), &mut seed).is_err() {
            bail!(
                "{} does not hold a seed (64 hex digits): remove it to have a new one made (every source may move to another backend)",
                path.display()
            );
        }
        return Ok(Seed(seed));
    }
    let mut seed = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut seed))
        .context("cannot read /dev/urandom")?;
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut f| {
            f.write_all(hex::encode(seed).as_bytes())?;
            f.sync_all()
        })
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Seed(seed))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::kept;

    #[test]
    fn a_seed_is_made_once_and_kept_private() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("sub/main.seed");
        let first = kept(&path).expect("made");
        assert_eq!(kept(&path).expect("kept"), first);
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "nonsense").expect("written");
        assert!(kept(&path).expect_err("refused").to_string().contains("does not hold a seed"));
    }
}
