//! Where an instance keeps its maps and links: `/sys/fs/bpf/lb/<name>/v<ABI>/`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use lb_common::abi::{ABI_VERSION, OLDEST_ABI_VERSION};
use nix::{
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
    mount::MsFlags,
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::{DataplaneError, unlink::unlink};

const BPFFS: &str = "/sys/fs/bpf";
const LINK: &str = "link-";
/// Ends the name of the directory where maps of other sizes wait to take over.
const NEXT: &str = "-next";

/// Stands for a dot in the name of an interface (`eth0.100`): the BPF file system refuses names with dots
/// (`bpf_lookup`, kernel/bpf/inode.c), and no interface has a colon in its name.
const COLON: &str = ":";

/// The pin directory of an instance.
#[derive(Clone, Debug)]
pub struct Pins {
    name: String,
    /// What removes the pins.
    detach: &'static str,
    instance: PathBuf,
    versioned: PathBuf,
}

impl Pins {
    /// The pins of the balancer instance `name`.
    pub fn balancer(name: &str) -> Self {
        Self::at(name, "lb", "lb detach")
    }

    /// The pins of the agent instance `name`.
    pub fn agent(name: &str) -> Self {
        Self::at(name, "lb-agent", "lb agent detach")
    }

    fn at(name: &str, kind: &str, detach: &'static str) -> Self {
        let instance = Path::new(BPFFS).join(kind).join(name);
        Self { name: name.into(), detach, versioned: instance.join(format!("v{ABI_VERSION}")), instance }
    }

    /// The directory beside this one where maps of other sizes wait to take over.
    pub(super) fn next(&self) -> Self {
        Self { versioned: self.instance.join(format!("v{ABI_VERSION}{NEXT}")), ..self.clone() }
    }

    /// Name of the instance.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The command that removes these pins.
    pub fn detach_command(&self) -> String {
        if self.name == "main" { self.detach.into() } else { format!("{} --name {}", self.detach, self.name) }
    }

    /// The directory of this ABI version.
    pub fn directory(&self) -> &Path {
        &self.versioned
    }

    /// Where the map `name` is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.versioned.join(name)
    }

    /// Where the link to `interface` is pinned.
    pub fn link(&self, interface: &str) -> PathBuf {
        self.versioned.join(format!("{LINK}{}", interface.replace('.', COLON)))
    }

    /// Interfaces that have a pinned link.
    pub fn linked_interfaces(&self) -> Vec<String> {
        let mut names: Vec<String> =
            entries(&self.versioned).iter().filter_map(|pin| interface_of(pin)).collect();
        names.sort();
        names
    }

    /// Makes the directory, readable by root only.
    ///
    /// # Errors
    /// When there is no BPF file system and none can be mounted, or pins of another ABI version are there.
    pub fn prepare(&self) -> Result<(), DataplaneError> {
        if !is_mounted() {
            // Where systemd runs it is mounted at boot; elsewhere nobody may have done it yet.
            let mounted =
                nix::mount::mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"));
            if mounted.is_err() || !is_mounted() {
                return Err(DataplaneError::NoBpffs { path: BPFFS });
            }
            log::info!("mounted a BPF file system at {BPFFS}");
        }
        if let Some(other) = self.other_version() {
            return Err(DataplaneError::OtherAbi {
                name: self.name.clone(),
                found: other,
                expected: ABI_VERSION,
                oldest: OLDEST_ABI_VERSION,
                detach: self.detach_command(),
            });
        }
        let io = |error| DataplaneError::Pin { path: self.versioned.clone(), error };
        fs::create_dir_all(&self.versioned).map_err(io)?;
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&self.instance, fs::Permissions::from_mode(0o700)).map_err(io)
    }

    /// The directory of the only version that has pins.
    pub(super) fn only_version(&self) -> Option<PathBuf> {
        let mut versions = entries(&self.instance);
        versions.retain(|version| !entries(version).is_empty());
        if versions.len() == 1 { versions.pop() } else { None }
    }

    /// A pinned ABI version other than ours.
    fn other_version(&self) -> Option<String> {
        entries(&self.instance)
            .iter()
            .filter(|e| **e != self.versioned && **e != self.next().versioned && !entries(e).is_empty())
            .filter_map(|e| Some(e.file_name()?.to_str()?.to_owned()))
            .next()
    }

    /// Takes the program off one interface, at once, and removes the pin of that link.
    ///
    /// # Errors
    /// When the pin cannot be removed.
    pub fn remove_link(&self, interface: &str) -> Result<(), DataplaneError> {
        let path = self.link(interface);
        unlink(&path).map_err(|error| DataplaneError::Pin { path, error })
    }

    /// Makes the directory, without a look at others.
    pub(super) fn create(&self) -> Result<(), DataplaneError> {
        fs::create_dir_all(&self.versioned)
            .map_err(|error| DataplaneError::Pin { path: self.versioned.clone(), error })
    }

    /// Lets both directories change their places, in one step.
    pub(super) fn exchange(&self, other: &Self) -> Result<(), DataplaneError> {
        let error =
            |errno: nix::Error| DataplaneError::Pin { path: other.versioned.clone(), error: errno.into() };
        renameat2(AT_FDCWD, &other.versioned, AT_FDCWD, &self.versioned, RenameFlags::RENAME_EXCHANGE)
            .map_err(error)
    }

    /// Removes the pins of this directory and leaves what they stood for as it is: links that are pinned elsewhere as well
    /// stay attached.
    pub(super) fn forget(&self) -> Result<(), DataplaneError> {
        for pin in entries(&self.versioned) {
            fs::remove_file(&pin).map_err(|error| DataplaneError::Pin { path: pin.clone(), error })?;
        }
        match fs::remove_dir(&self.versioned) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DataplaneError::Pin { path: self.versioned.clone(), error })
            }
            _ => Ok(()),
        }
    }

    /// What is pinned now, for [`Pins::back_to`].
    pub fn now(&self) -> Vec<PathBuf> {
        entries(&self.versioned)
    }

    /// Removes what has been pinned since `before`, links first: for a start that did not come to its end.
    ///
    /// # Errors
    /// The first pin that cannot be removed, with the reason.
    pub fn back_to(&self, before: &[PathBuf]) -> Result<(), DataplaneError> {
        let mut added = entries(&self.versioned);
        added.retain(|pin| !before.contains(pin));
        added.sort_by_key(|pin| !is_link(pin));
        for pin in added {
            unlink(&pin).map_err(|error| DataplaneError::Pin { path: pin.clone(), error })?;
        }
        for directory in [&self.versioned, &self.instance] {
            // One that is not empty stays, which is right.
            let _ = fs::remove_dir(directory);
        }
        Ok(())
    }

    /// Removes every pin of every version, links first, and says what went. The program is off its interfaces when this
    /// returns.
    ///
    /// # Errors
    /// The first pin that cannot be removed, with the reason.
    pub fn remove(&self) -> Result<Removed, DataplaneError> {
        let mut removed = Removed::default();
        for version in entries(&self.instance) {
            let mut pins = entries(&version);
            pins.sort_by_key(|p| !is_link(p));
            for pin in pins {
                let gone = if is_link(&pin) { unlink(&pin) } else { fs::remove_file(&pin) };
                gone.map_err(|error| DataplaneError::Pin { path: pin.clone(), error })?;
                match interface_of(&pin) {
                    // A resize that was interrupted has every link twice.
                    Some(interface) if removed.interfaces.contains(&interface) => {}
                    Some(interface) => removed.interfaces.push(interface),
                    None => removed.maps += 1,
                }
            }
            fs::remove_dir(&version).map_err(|error| DataplaneError::Pin { path: version.clone(), error })?;
        }
        match fs::remove_dir(&self.instance) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DataplaneError::Pin { path: self.instance.clone(), error })
            }
            _ => Ok(removed),
        }
    }
}

/// What [`Pins::remove`] took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Interfaces that were detached.
    pub interfaces: Vec<String>,
    /// Number of maps unpinned.
    pub maps: usize,
}

fn is_mounted() -> bool {
    statfs(BPFFS).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC)
}

/// The interface whose link is pinned here, if this is the pin of one.
fn interface_of(pin: &Path) -> Option<String> {
    pin.file_name()?.to_str()?.strip_prefix(LINK).map(|name| name.replace(COLON, "."))
}

fn is_link(path: &Path) -> bool {
    interface_of(path).is_some()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Pins, interface_of};

    #[test]
    fn the_pin_of_a_vlan_device_has_no_dot() {
        let pin = Pins::balancer("main").link("eth0.100");
        assert_eq!(pin.file_name().and_then(|name| name.to_str()), Some("link-eth0:100"));
        assert_eq!(interface_of(&pin).as_deref(), Some("eth0.100"));
    }
}
