//! What a live lab tells other terminals: a file per lab in /run/lb-lab.
//!
//! A lab lives as long as the process that wrote the file; the pid alone may have been given away, so its start time
//! is kept beside it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::scene::Scene;
use crate::cleanup::{Item, Ticket, register, remove};

/// Name of a lab when nothing else is said.
pub(super) const DEFAULT_NAME: &str = "lab";
const FOLDER: &str = "/run/lb-lab";
const LONGEST_NAME: usize = 40;

/// A live lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) pid: u32,
    /// Since boot, in ticks of the kernel.
    start_time: u64,
    /// `l2`, `ipip` or `ipv6`; empty while the lab is being built.
    pub(super) mode: String,
    /// What clients ask.
    pub(super) target: String,
    /// The program that runs as balancer and agents.
    pub(super) lb_binary: PathBuf,
    /// By role: `client`, `router`, `lb`, `b1`…
    pub(super) roles: BTreeMap<String, Role>,
}

/// One host of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Role {
    /// Network namespace.
    pub(super) namespace: String,
    /// `--name` of the balancer or agent that runs there.
    pub(super) instance: Option<String>,
}

/// The file of this process's lab; removed when dropped.
#[derive(Debug)]
pub(super) struct StateFile {
    name: String,
    path: PathBuf,
    _ticket: Ticket,
}

impl State {
    /// What there is to say about a scene of this process.
    pub(super) fn of(scene: &Scene) -> Self {
        let agents = scene.world.backends.iter().zip(&scene.agents);
        let mut instances: BTreeMap<_, _> = agents.map(|(host, agent)| (&host.name, agent.name())).collect();
        instances.insert(&scene.world.lb.name, scene.lb.name());
        instances.extend(scene.world.lb2.iter().zip(&scene.lb2).map(|(host, lb)| (&host.name, lb.name())));
        let role = |host: &crate::topology::world::Host| {
            let instance = instances.get(&host.name).map(|&name| name.to_owned());
            (host.name.clone(), Role { namespace: host.ns.name().to_owned(), instance })
        };
        Self {
            mode: scene.mode().word().to_owned(),
            target: scene.target().to_string(),
            lb_binary: scene.lb.binary().to_owned(),
            roles: scene.world.hosts().map(role).collect(),
            ..Self::being_built()
        }
    }

    fn being_built() -> Self {
        Self {
            pid: process::id(),
            start_time: start_time(process::id()).unwrap_or_default(),
            mode: String::new(),
            target: String::new(),
            lb_binary: PathBuf::new(),
            roles: BTreeMap::new(),
        }
    }

    fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }
}

impl StateFile {
    /// Takes a name for this process.
    ///
    /// # Errors
    /// When the name is no file name, or a lab of that name runs.
    pub(super) fn claim(name: &str) -> Result<Self> {
        Self::claim_in(Path::new(FOLDER), name)
    }

    fn claim_in(folder: &Path, name: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        ensure!(
            !name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(fits),
            "--name {name:?}: 1 to {LONGEST_NAME} letters, digits, - and _"
        );
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        // Two labs that start at once must not both find the name free.
        let directory = File::open(folder)?;
        let _lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        let path = path_in(folder, name);
        if let Some(other) = read(&path)?.filter(State::is_alive) {
            bail!(
                "a lab named {name:?} runs already (pid {}): end it, or use --name for a second one",
                other.pid
            );
        }
        remove_dead_in(folder)?;
        let ticket = register(Item::Path(path.clone()))?;
        let file = Self { name: name.to_owned(), path, _ticket: ticket };
        file.write(&State::being_built())?;
        Ok(file)
    }

    /// Says what is in the lab now.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(&self, state: &State) -> Result<()> {
        // A reader must not find half of it.
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(state)?)
            .with_context(|| format!("writing {}", new.display()))?;
        fs::rename(&new, &self.path).with_context(|| format!("writing {}", self.path.display()))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        if let Err(error) = remove(&Item::Path(self.path.clone())) {
            eprintln!("{error:#}");
        }
    }
}

/// All labs that run, by name.
///
/// # Errors
/// When a file cannot be read or is none of ours.
pub(super) fn running() -> Result<BTreeMap<String, State>> {
    let all = all_in(Path::new(FOLDER))?;
    Ok(all.into_iter().filter(|(_, state)| state.is_alive()).collect())
}

/// The lab `name`, or the only one that runs.
///
/// # Errors
/// When there is none, or more than one to choose from.
pub(super) fn find(name: Option<&str>) -> Result<State> {
    let mut running = running()?;
    let names = running.keys().cloned().collect::<Vec<_>>().join(", ");
    let known = if names.is_empty() { "none runs; start one with `cargo xtask run`".into() } else { names };
    let state = match name {
        Some(name) => {
            running.remove(name).ok_or_else(|| anyhow!("no lab named {name:?} runs (running: {known})"))?
        }
        None if running.len() == 1 => {
            running.pop_first().map(|(_, state)| state).unwrap_or_else(State::being_built)
        }
        None => bail!("which lab? Name one with --name (running: {known})"),
    };
    ensure!(!state.roles.is_empty(), "the lab (pid {}) is still being built", state.pid);
    Ok(state)
}

/// Removes the files of labs that were killed; returns their names.
///
/// # Errors
/// When a file cannot be read or removed.
pub(super) fn remove_dead() -> Result<Vec<String>> {
    remove_dead_in(Path::new(FOLDER))
}

fn remove_dead_in(folder: &Path) -> Result<Vec<String>> {
    let dead: Vec<_> = all_in(folder)?.into_iter().filter(|(_, state)| !state.is_alive()).collect();
    dead.into_iter().map(|(name, _)| remove(&Item::Path(path_in(folder, &name))).map(|()| name)).collect()
}

fn all_in(folder: &Path) -> Result<BTreeMap<String, State>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(BTreeMap::new()) };
    let mut all = BTreeMap::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let name =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json"));
        if let (Some(name), Some(state)) = (name, read(&path)?) {
            all.insert(name.to_owned(), state);
        }
    }
    Ok(all)
}

fn path_in(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.json"))
}

fn read(path: &Path) -> Result<Option<State>> {
    let Ok(bytes) = fs::read(path) else { return Ok(None) };
    let state = serde_json::from_slice(&bytes);
    state.map(Some).with_context(|| format!("{} is no state of a lab; remove it", path.display()))
}

/// Field 22 of /proc/PID/stat, counted after the command's name, which may contain anything.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_as_long_as_its_lab_lives() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateFile::claim_in(folder.path(), "one").unwrap();
        let error = StateFile::claim_in(folder.path(), "one").unwrap_err().to_string();
        assert!(error.contains("runs already") && error.contains("--name"), "{error}");
        StateFile::claim_in(folder.path(), "two").unwrap();
        drop(first);
        StateFile::claim_in(folder.path(), "one").unwrap();
        assert!(all_in(folder.path()).unwrap().is_empty());
    }

    #[test]
    fn a_dead_lab_gives_its_name_free() {
        let folder = tempfile::tempdir().unwrap();
        // This process did not start at boot: the pid was given away.
        let dead = State { start_time: 0, ..State::being_built() };
        let write = || fs::write(path_in(folder.path(), "one"), serde_json::to_vec(&dead).unwrap()).unwrap();
        write();
        drop(StateFile::claim_in(folder.path(), "one").unwrap());
        let live = StateFile::claim_in(folder.path(), "two").unwrap();
        write();
        assert_eq!(remove_dead_in(folder.path()).unwrap(), ["one"]);
        assert_eq!(all_in(folder.path()).unwrap().into_keys().collect::<Vec<_>>(), ["two"]);
        drop(live);
    }

    #[test]
    fn a_name_must_be_a_file_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "a/b", "..", "a b", &"x".repeat(41)] {
            assert!(StateFile::claim_in(folder.path(), name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_start_time_tells_processes_apart() {
        assert!(start_time(process::id()).unwrap() > start_time(1).unwrap());
        assert_eq!(start_time(u32::MAX), None);
    }
}
