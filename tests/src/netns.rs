//! Network namespaces as guards.
//!
//! A namespace is entered with setns(2) and never with `ip netns exec`, which mounts a new /sys and so hides the BPF
//! file system. The price: /sys/class/net keeps showing the devices of the namespace it was mounted in. Ask netlink
//! (`ip link`) or /proc/net, which follow the caller.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    unistd::geteuid,
};

use crate::{
    cleanup::{self, Item, NETNS_DIR, Ticket},
    netdev,
};

/// The namespace of the calling thread (not of its process).
const OF_THIS_THREAD: &str = "/proc/thread-self/ns/net";

/// A network namespace of ours, with `lo` up. Dropping it ends the processes in it and removes it.
#[derive(Debug)]
pub struct Namespace {
    entry: Entry,
    item: Item,
    _ticket: Ticket,
}

/// A way into a network namespace that somebody holds.
#[derive(Clone, Debug)]
pub struct Entry {
    name: String,
    file: Arc<File>,
}

impl Namespace {
    /// Makes a namespace `lbt-<pid>-<counter>-<role>`.
    ///
    /// # Errors
    /// Without root, or when the kernel refuses.
    pub fn new(role: &str) -> Result<Self> {
        require_root()?;
        let name = cleanup::unique_name(role);
        let item = Item::Namespace(name.clone());
        let ticket = cleanup::register(item.clone())?;
        let path = path_of(&name);
        prepare_directory()?;
        File::create_new(&path).with_context(|| format!("creating {}", path.display()))?;
        match make(&path) {
            Ok(file) => Ok(Self { entry: Entry { name, file: Arc::new(file) }, item, _ticket: ticket }),
            Err(error) => {
                cleanup::remove(&item)?;
                Err(error.context(format!("making network namespace {name}")))
            }
        }
    }

    /// The way in, which may be kept and copied; it keeps the namespace alive, not its name.
    #[must_use]
    pub fn entry(&self) -> Entry {
        self.entry.clone()
    }

    /// Its name, as `ip netns list` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// See [`Entry::run`].
    ///
    /// # Errors
    /// Those of `work`.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.entry.run(work)
    }

    /// See [`Entry::block_on`].
    ///
    /// # Errors
    /// Those of `work`.
    pub fn block_on<T: Send, F: Future<Output = Result<T>>>(
        &self,
        work: impl FnOnce() -> F + Send,
    ) -> Result<T> {
        self.entry.block_on(work)
    }

    /// See [`Entry::command`].
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.entry.command(program)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = cleanup::remove(&self.item) {
            // No panic: this may run while one unwinds.
            eprintln!("network namespace {} is left behind: {error:#}", self.entry.name);
        }
    }
}

impl Entry {
    /// Opens a namespace that another process has named.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn open(name: &str) -> Result<Self> {
        let path = path_of(name);
        let file =
            File::open(&path).with_context(|| format!("no network namespace {name} ({})", path.display()))?;
        Ok(Self { name: name.to_owned(), file: Arc::new(file) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub fn enter(&self) -> Result<()> {
        setns(&*self.file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering network namespace {}", self.name))
    }

    /// Runs `work` inside, on a thread of its own that ends with it. Sockets made by `work` stay in the namespace
    /// whoever uses them later. A panic in `work` is passed on.
    ///
    /// # Errors
    /// Those of `work`, or when the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let body = || {
                self.enter()?;
                work()
            };
            let thread = thread::Builder::new().name(self.name.clone()).spawn_scoped(scope, body)?;
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Like [`Entry::run`] for asynchronous work, on a tokio runtime of one thread.
    ///
    /// # Errors
    /// Those of `work`, or when the namespace cannot be entered.
    pub fn block_on<T: Send, F: Future<Output = Result<T>>>(
        &self,
        work: impl FnOnce() -> F + Send,
    ) -> Result<T> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work())
        })
    }

    /// A command that will run inside; everything else of it is as usual.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = Arc::clone(&self.file);
        // SAFETY: between fork and exec the closure makes one system call on a descriptor that it owns; it neither
        // allocates nor locks.
        unsafe {
            command.pre_exec(move || setns(&*file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
        }
        command
    }
}

/// # Errors
/// When this process is not root: everything here needs CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_BPF.
pub fn require_root() -> Result<()> {
    if !geteuid().is_root() {
        bail!(
            "the laboratory makes network namespaces and loads XDP programs: run it as root \
             (now: user id {}), for example with sudo -E",
            geteuid()
        );
    }
    Ok(())
}

fn path_of(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// Makes a namespace on a thread that dies with this call and mounts it at `path`.
fn make(path: &Path) -> Result<File> {
    let work = || -> Result<File> {
        unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
        quiet_defaults()?;
        netdev::set_up("lo")?;
        mount(Some(OF_THIS_THREAD), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("mounting it at {}", path.display()))?;
        File::open(OF_THIS_THREAD).context("opening it")
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("new-netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// What must not depend on the machine: new namespaces take their IPv4 settings from the first one (forwarding and
/// `rp_filter` among them). For IPv6: no duplicate address detection, which keeps addresses unusable for about a
/// second, and no router discovery.
fn quiet_defaults() -> Result<()> {
    // First of all, since it resets others.
    write_sysctl("net/ipv4/ip_forward", "0")?;
    for group in ["default", "all"] {
        for (key, value) in
            [("rp_filter", "0"), ("send_redirects", "0"), ("arp_ignore", "0"), ("arp_announce", "0")]
        {
            write_sysctl(&format!("net/ipv4/conf/{group}/{key}"), value)?;
        }
        for (key, value) in [("accept_dad", "0"), ("dad_transmits", "0"), ("accept_ra", "0")] {
            write_sysctl(&format!("net/ipv6/conf/{group}/{key}"), value)?;
        }
    }
    Ok(())
}

/// Writes a sysctl (slashes, not dots) of the calling thread's namespace.
///
/// # Errors
/// When there is no such key or the value is not accepted.
pub fn write_sysctl(key: &str, value: &str) -> Result<()> {
    fs::write(Path::new("/proc/sys").join(key), value).with_context(|| format!("sysctl {key} = {value}"))
}

/// The directory must be a shared mount of its own, or a name that is removed here lives on in the mount namespaces of
/// others. The lock keeps concurrent processes, `ip netns add` included, from mounting it twice.
fn prepare_directory() -> Result<()> {
    fs::create_dir_all(NETNS_DIR).with_context(|| format!("creating {NETNS_DIR}"))?;
    let directory = File::open(NETNS_DIR).with_context(|| format!("opening {NETNS_DIR}"))?;
    let _lock = Flock::lock(directory, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("locking {NETNS_DIR}"))?;
    let share =
        || mount(None::<&str>, NETNS_DIR, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    match share() {
        // Not a mount point yet.
        Err(Errno::EINVAL) => {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(NETNS_DIR), NETNS_DIR, None::<&str>, flags, None::<&str>)
                .and_then(|()| share())
                .with_context(|| format!("making {NETNS_DIR} a shared mount"))
        }
        result => result.with_context(|| format!("making {NETNS_DIR} a shared mount")),
    }
}
