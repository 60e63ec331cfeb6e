//! What `--prepare` changed, on disk before it is changed: `/var/lib/lb/agent-<name>.json`.

use std::{fmt, fs, io, net::IpAddr, os::unix::fs::MetadataExt, path::Path};

use anyhow::Context;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::write_atomic;

/// Version of the file's form.
const VERSION: u32 = 1;

/// Something on this host that has a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(in crate::agent) enum Setting {
    /// A file below `/proc/sys`: a number.
    Sysctl {
        /// Its path there: `net/ipv4/conf/all/arp_ignore`.
        name: String,
    },
    /// A VIP as an address of loopback, alone (/32 or /128): [`ABSENT`] or [`PRESENT`].
    Address {
        /// The VIP.
        address: IpAddr,
    },
    /// An interface: [`DOWN`] or [`UP`].
    Link {
        /// Its name.
        interface: String,
    },
    /// `advmss` of a route of the main table in bytes, or [`NONE`].
    Advmss {
        /// The route as `ip route` writes it.
        route: String,
    },
}

pub(super) const ABSENT: &str = "absent";
pub(super) const PRESENT: &str = "present";
pub(super) const DOWN: &str = "down";
pub(super) const UP: &str = "up";
pub(super) const NONE: &str = "none";

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl { name } => f.write_str(name),
            Self::Address { address } => write!(f, "address {} on lo", IpNet::from(*address)),
            Self::Link { interface } => write!(f, "interface {interface}"),
            Self::Advmss { route } => write!(f, "advmss of the route {route}"),
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::agent) struct Change {
    /// What was changed.
    #[serde(flatten)]
    pub(in crate::agent) setting: Setting,
    /// Its value before.
    pub(in crate::agent) before: String,
    /// The value that it was given.
    pub(in crate::agent) set: String,
}

/// Where changes were made: they end with the start of the kernel and with the network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::agent) struct Place {
    /// The kernel's `boot_id`.
    boot: String,
    /// Inode of the network namespace.
    namespace: u64,
}

impl Place {
    /// Of the calling thread.
    pub(in crate::agent) fn here() -> anyhow::Result<Self> {
        let boot = "/proc/sys/kernel/random/boot_id";
        let boot = fs::read_to_string(boot).with_context(|| format!("cannot read {boot}"))?;
        let namespace = "/proc/thread-self/ns/net";
        let namespace = fs::metadata(namespace).with_context(|| format!("cannot look at {namespace}"))?.ino();
        Ok(Self { boot: boot.trim().into(), namespace })
    }

    #[cfg(test)]
    pub(super) fn with_boot(&self, boot: &str) -> Self {
        Self { boot: boot.into(), ..self.clone() }
    }

    #[cfg(test)]
    pub(super) fn with_namespace(&self, namespace: u64) -> Self {
        Self { namespace, ..self.clone() }
    }

    /// Whether the host has started again since.
    pub(super) fn restarted(&self, now: &Self) -> bool {
        self.boot != now.boot
    }
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::agent) struct Record {
    version: u32,
    /// Where the changes were made.
    #[serde(flatten)]
    pub(in crate::agent) place: Place,
    /// In the order in which they were made.
    pub(in crate::agent) changes: Vec<Change>,
}

impl Record {
    pub(super) fn new(place: Place, changes: Vec<Change>) -> Self {
        Self { version: VERSION, place, changes }
    }

    /// Reads the file; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is none of this version: it is never guessed what to undo.
    pub(in crate::agent) fn load(path: &Path) -> anyhow::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let record: Self = serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is not a record of prepared settings: repair it, or remove it and undo by hand",
                path.display()
            )
        })?;
        anyhow::ensure!(
            record.version == VERSION,
            "{} has version {}, expected {VERSION}: undo it with the version of lb that made it",
            path.display(),
            record.version
        );
        Ok(Some(record))
    }

    /// Replaces the file; without changes there is none.
    pub(super) fn save(&self, path: &Path) -> anyhow::Result<()> {
        if self.changes.is_empty() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("cannot remove {}", path.display()))
                }
                _ => Ok(()),
            };
        }
        let text = serde_json::to_string_pretty(self).context("cannot write the record as JSON")?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        Ok(write_atomic(path, &text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        let change =
            |setting, before: &str, set: &str| Change { setting, before: before.into(), set: set.into() };
        let place = Place { boot: "b".into(), namespace: 4 };
        Record::new(
            place,
            vec![
                change(Setting::Sysctl { name: "net/ipv4/conf/eth0.5/arp_ignore".into() }, "0", "1"),
                change(Setting::Address { address: "2001:db8::10".parse().unwrap() }, ABSENT, PRESENT),
            ],
        )
    }

    #[test]
    fn a_record_comes_back_as_it_was_saved_and_an_empty_one_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lb/agent-main.json");
        assert_eq!(Record::load(&path).unwrap(), None);
        sample().save(&path).unwrap();
        assert_eq!(Record::load(&path).unwrap(), Some(sample()));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"kind\": \"sysctl\"") && text.contains("\"before\": \"0\""), "{text}");
        let empty = Record::new(sample().place, Vec::new());
        empty.save(&path).unwrap();
        assert!(!path.exists());
        empty.save(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_something_else_is_not_guessed_at() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent-main.json");
        fs::write(&path, "{}").unwrap();
        let error = format!("{:#}", Record::load(&path).unwrap_err());
        assert!(error.contains("is not a record of prepared settings"), "{error}");
        fs::write(&path, serde_json::to_string(&Record { version: 2, ..sample() }).unwrap()).unwrap();
        let error = format!("{:#}", Record::load(&path).unwrap_err());
        assert!(error.contains("has version 2, expected 1"), "{error}");
    }

    #[test]
    fn settings_are_named_for_people() {
        let names: Vec<_> = sample().changes.iter().map(|c| c.setting.to_string()).collect();
        assert_eq!(names, ["net/ipv4/conf/eth0.5/arp_ignore", "address 2001:db8::10/128 on lo"]);
    }
}
