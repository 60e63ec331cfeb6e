//! What this process has put on the machine, and its removal on every way out.
//!
//! Guards remove their own things when dropped, also while a panic unwinds. What is left here covers the other ways:
//! SIGINT, SIGTERM and SIGHUP (a thread removes everything that is registered, then ends the process), and a process
//! that was killed (the next one of its kind finds the dead pid in the names and removes what they belong to).
//!
//! Every name carries `lbt-<pid>-<counter>-`: nothing without that prefix is ever touched.

use std::{
    collections::BTreeMap,
    env, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    signal::unix::{Signal as Stream, SignalKind, signal},
    sync::watch,
};

/// First part of every name that this package gives to something outside the process.
pub const PREFIX: &str = "lbt-";
/// Where iproute2 keeps named network namespaces.
pub const NETNS_DIR: &str = "/run/netns";
/// Where `lb` keeps its pins, one directory per instance.
pub const PIN_DIR: &str = "/sys/fs/bpf/lb";
/// Where `lb` keeps its sockets and locks.
pub const SOCKET_DIR: &str = "/run/lb";
/// Where `lb agent` keeps its pins, one directory per instance.
pub const AGENT_PIN_DIR: &str = "/sys/fs/bpf/lb-agent";
/// Where `lb agent` keeps its locks.
const AGENT_RUN_DIR: &str = "/run/lb-agent";
/// Where both keep what outlives a boot; an agent's files have a word before the instance's name.
const STATE_DIR: &str = "/var/lib/lb";
const STATE_WORDS: [&str; 2] = ["agent-", "answer-"];

/// Something of ours on the machine. The order is the order of removal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Item {
    /// A named network namespace, with every process in it.
    Namespace(String),
    /// Pins, socket, locks and seed of an instance of `lb`.
    Instance(String),
    /// Pins, lock and records of an instance of `lb agent`.
    Agent(String),
    /// A file or directory.
    Path(PathBuf),
}

/// Registration of an [`Item`]; drop it after the item has been removed.
#[derive(Debug)]
pub(crate) struct Ticket(u64);

impl Drop for Ticket {
    fn drop(&mut self) {
        registry().remove(&self.0);
    }
}

/// Notes `item`, to be called before it is made.
pub(crate) fn register(item: Item) -> Result<Ticket> {
    start()?;
    let number = next_number();
    registry().insert(number, item);
    Ok(Ticket(number))
}

/// Once per process: removes the left-overs of dead processes and starts to watch signals.
fn start() -> Result<()> {
    static START: OnceLock<Result<(), String>> = OnceLock::new();
    START
        .get_or_init(|| {
            sweep();
            watch_signals().map_err(|e| format!("{e:#}"))
        })
        .clone()
        .map_err(|e| anyhow!("cannot watch signals: {e}"))
}

/// A name that no other process and no other call gets: `lbt-<pid>-<counter>-<role>`.
#[must_use]
pub fn unique_name(role: &str) -> String {
    format!("{PREFIX}{}-{}-{role}", process::id(), next_number())
}

/// A temporary directory of ours; dropping it removes it.
#[derive(Debug)]
pub struct Folder {
    folder: TempDir,
    _ticket: Ticket,
}

impl Folder {
    /// Makes one, `lbt-<pid>-<counter>-<role>` in the machine's directory for such.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(role: &str) -> Result<Self> {
        let path = env::temp_dir().join(unique_name(role));
        let ticket = register(Item::Path(path.clone()))?;
        let name = path.file_name().unwrap_or_default();
        let folder =
            tempfile::Builder::new().prefix(name).rand_bytes(0).tempdir().context("temporary directory")?;
        Ok(Self { folder, _ticket: ticket })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// From now on the first signal only shows in the returned channel (as its number), so that the program can end in
/// an orderly way; the second one removes everything and ends the process.
///
/// # Errors
/// When signal handlers cannot be installed.
pub fn orderly_stop() -> Result<watch::Receiver<Option<i32>>> {
    start()?;
    Ok(stop_channel().subscribe())
}

fn next_number() -> u64 {
    static COUNTER: AtomicU64 = AtomicU64::new(1);
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

/// A panic elsewhere must not keep the rest from being removed, hence no poisoning.
fn registry() -> MutexGuard<'static, BTreeMap<u64, Item>> {
    static REGISTRY: Mutex<BTreeMap<u64, Item>> = Mutex::new(BTreeMap::new());
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stop_channel() -> &'static watch::Sender<Option<i32>> {
    static STOP: OnceLock<watch::Sender<Option<i32>>> = OnceLock::new();
    STOP.get_or_init(|| watch::Sender::new(None))
}

fn watch_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut streams = {
        let _inside = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .map(|kind| signal(kind).map(|stream| (kind, stream)))
            .into_iter()
            .collect::<io::Result<Vec<_>>>()?
    };
    thread::Builder::new().name("cleanup".into()).spawn(move || {
        loop {
            let number = runtime.block_on(next_signal(&mut streams));
            if stop_channel().receiver_count() > 0 && stop_channel().borrow().is_none() {
                stop_channel().send_replace(Some(number));
                continue;
            }
            // The lock is kept until the process has ended: nobody can register, hence make, anything new.
            let left = registry();
            remove_all(left.values());
            // The convention of shells for "ended by a signal".
            process::exit(128 + number);
        }
    })?;
    Ok(())
}

async fn next_signal(streams: &mut [(SignalKind, Stream)]) -> i32 {
    let waits = streams.iter_mut().map(|(kind, stream)| {
        let number = kind.as_raw_value();
        Box::pin(async move {
            stream.recv().await;
            number
        })
    });
    futures::future::select_all(waits).await.0
}

fn remove_all<'a>(items: impl Iterator<Item = &'a Item>) {
    let mut items: Vec<_> = items.collect();
    items.sort();
    for item in items {
        if let Err(error) = remove(item) {
            log::warn!("{error:#}");
        }
    }
}

/// Removes `item`; what is already gone is no error.
pub(crate) fn remove(item: &Item) -> Result<()> {
    match item {
        Item::Namespace(name) => remove_namespace(name),
        Item::Instance(name) => {
            let run = ["sock", "sock.lock", "lock"].map(|end| format!("{SOCKET_DIR}/{name}.{end}"));
            let state = ["seed", "history", "journal"].map(|end| format!("{STATE_DIR}/{name}.{end}"));
            remove_all_of([format!("{PIN_DIR}/{name}")].iter().chain(&run).chain(&state))
        }
        Item::Agent(name) => {
            let state = STATE_WORDS.map(|word| format!("{STATE_DIR}/{word}{name}.json"));
            let rest = [format!("{AGENT_PIN_DIR}/{name}"), format!("{AGENT_RUN_DIR}/{name}.lock")];
            remove_all_of(rest.iter().chain(&state))
        }
        Item::Path(path) => remove_path(path),
    }
}

fn remove_namespace(name: &str) -> Result<()> {
    let path = Path::new(NETNS_DIR).join(name);
    let mut last = kill_inhabitants(&path);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // EINVAL: not a mount point, so the process died between making the file and the mount.
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
        Err(error) => last = last.and(Err(error).with_context(|| format!("unmounting {}", path.display()))),
    }
    last.and(remove_path(&path))
}

/// Removes every path, also after an error; the first error counts.
fn remove_all_of<'a>(paths: impl Iterator<Item = &'a String>) -> Result<()> {
    let results: Vec<_> = paths.map(|path| remove_path(Path::new(path))).collect();
    results.into_iter().collect()
}

fn remove_path(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Ends every process whose network namespace is the one at `path`. The namespace is ours alone, so they are ours.
fn kill_inhabitants(path: &Path) -> Result<()> {
    let Ok(namespace) = fs::metadata(path) else { return Ok(()) };
    for entry in fs::read_dir("/proc").context("listing /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(theirs) = fs::metadata(entry.path().join("ns/net")) else { continue };
        let same = (theirs.dev(), theirs.ino()) == (namespace.dev(), namespace.ino());
        if same && pid.cast_unsigned() != process::id() {
            // It may have ended in between; its number is not given away that fast.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    Ok(())
}

/// Removes what processes that are gone have left: namespaces, pins, sockets, temporary files. Returns the names.
pub fn sweep() -> Vec<String> {
    let mut items: Vec<Item> = Vec::new();
    items.extend(dead_names(Path::new(NETNS_DIR)).into_iter().map(Item::Namespace));
    items.extend(dead_names(Path::new(PIN_DIR)).into_iter().map(Item::Instance));
    items.extend(dead_names(Path::new(AGENT_PIN_DIR)).into_iter().map(Item::Agent));
    let folders = [SOCKET_DIR, AGENT_RUN_DIR, STATE_DIR].map(PathBuf::from);
    for folder in folders.into_iter().chain([env::temp_dir()]) {
        items.extend(dead_names(&folder).into_iter().map(|name| Item::Path(folder.join(name))));
    }
    remove_all(items.iter());
    items
        .into_iter()
        .map(|item| match item {
            Item::Namespace(name) => format!("namespace {name}"),
            Item::Instance(name) | Item::Agent(name) => format!("pins of {name}"),
            Item::Path(path) => path.display().to_string(),
        })
        .collect()
}

fn dead_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| owner(name).is_some_and(|pid| !is_alive(pid))).collect()
}

/// Names of namespaces that process `pid` has made and that are still there.
#[must_use]
pub fn namespaces_of(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(NETNS_DIR) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| owner(name).is_some_and(|owner| owner.cast_unsigned() == pid)).collect()
}

/// The pid in a name of ours.
fn owner(name: &str) -> Option<i32> {
    let name = STATE_WORDS.iter().find_map(|word| name.strip_prefix(word)).unwrap_or(name);
    let (pid, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
    rest.starts_with(|c: char| c.is_ascii_digit()).then(|| pid.parse().ok()).flatten().filter(|pid| *pid > 0)
}

fn is_alive(pid: i32) -> bool {
    // EPERM would mean that it lives under another user.
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_form_have_an_owner() {
        assert_eq!(owner("lbt-4711-3-client"), Some(4711));
        assert_eq!(owner("agent-lbt-4711-3-b1.json"), Some(4711));
        for foreign in [
            "lbt-",
            "lbt-4711",
            "lbt-x-3-client",
            "lbt--1-3-client",
            "lbt-0-1-a",
            "lbt-4711-client",
            "lb-1-2-a",
            "agent-main.json",
        ] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn names_are_unique_and_carry_the_pid() {
        let (a, b) = (unique_name("x"), unique_name("x"));
        assert_ne!(a, b);
        assert_eq!(owner(&a), Some(process::id().cast_signed()));
    }

    #[test]
    fn this_process_is_alive() {
        assert!(is_alive(process::id().cast_signed()));
    }

    #[test]
    fn removing_what_is_gone_is_no_error() {
        remove(&Item::Path("/nonexistent/lbt".into())).unwrap();
        remove(&Item::Namespace("lbt-0-0-nobody".into())).unwrap();
    }
}
