//! Maps of an older ABI version become ours.
//!
//! Only their directory gets another name here, in one step. What they lack is made when they are loaded
//! ([`super::spec::adopt`]), and `Control::abi_version` says which version wrote them until this one has installed a
//! generation. So a daemon that is killed anywhere in between leaves what the next one can go on with.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lb_common::abi::{ABI_VERSION, OLDEST_ABI_VERSION};
use log::{info, warn};

use super::{DataplaneError, Pins, peek};

/// Maps that were taken over from an older version.
#[derive(Debug)]
pub struct Migrated {
    /// Where they were.
    from: PathBuf,
}

/// Takes over the pins of an older version, if there are any and none of others: maps, links and what they stand for stay
/// as they are.
///
/// # Errors
/// [`DataplaneError::Pin`] when the directory cannot be renamed.
pub fn migrate(pins: &Pins) -> Result<Option<Migrated>, DataplaneError> {
    let Some(from) = pins.only_version() else { return Ok(None) };
    let version = from.file_name().and_then(|name| name.to_str()?.strip_prefix('v')?.parse::<u32>().ok());
    if !version.is_some_and(|version| (OLDEST_ABI_VERSION..ABI_VERSION).contains(&version)) {
        return Ok(None);
    }
    rename(&from, pins.directory())?;
    info!(
        "maps of an older version are taken over: {} is now {}",
        from.display(),
        pins.directory().display()
    );
    Ok(Some(Migrated { from }))
}

impl Migrated {
    /// For a start that did not come to its end: the version that made the maps can go on with them, unless this one has
    /// installed a generation.
    pub fn undo(&self, pins: &Pins) {
        if peek::written_by(pins).is_some_and(|version| version >= ABI_VERSION) {
            return;
        }
        if let Err(error) = rename(pins.directory(), &self.from) {
            warn!("the maps of an older version have their new place all the same: {error}");
        }
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), DataplaneError> {
    fs::rename(from, to).map_err(|error| DataplaneError::Pin { path: from.into(), error })
}
