//! The programs under test as guards: `lb run` in the balancer's namespace, `lb agent` in those of backends.
//!
//! Every instance has a name of its own (`lbt-<pid>-…`), so that pins and sockets of worlds that live at the same time
//! do not meet. Dropping a guard ends the process, detaches its datapath and removes its pins.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use serde_json::Value;

use crate::{
    binaries,
    cleanup::{self, Folder, Item, Ticket},
    netns::Entry,
    process::{Output, Process, output_of, run},
    topology::world::Host,
    view::View,
};

/// For loading and attaching on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// For one call of the command line.
const CALL_LIMIT: Duration = Duration::from_secs(30);
const BPFFS: &str = "/sys/fs/bpf";

/// What `lb run` and `lb agent` have in common: an instance with a name, a configuration file and a log.
#[derive(Debug)]
struct Instance {
    name: String,
    verb: &'static str,
    arguments: Vec<String>,
    ns: Entry,
    binary: PathBuf,
    process: Process,
    folder: Folder,
    item: Item,
    _ticket: Ticket,
}

/// A balancer.
#[derive(Debug)]
pub struct LbProcess(Instance);

/// How a balancer refused to run.
#[derive(Debug)]
pub struct Refused {
    /// What it said.
    pub output: Output,
    /// Pins and socket that it has made all the same.
    pub left: Vec<PathBuf>,
}

fn socket_of(name: &str) -> PathBuf {
    Path::new(cleanup::SOCKET_DIR).join(format!("{name}.sock"))
}

/// An agent on a backend.
#[derive(Debug)]
pub struct AgentProcess {
    instance: Instance,
    /// Device that it attaches to.
    interface: String,
}

impl LbProcess {
    /// `lb run` on the balancer's interface with `config` (the text of a file), and waits until its status answers.
    /// The datapath outlives the process, as in production, until the guard is dropped.
    ///
    /// # Errors
    /// When the binary is not built, or the daemon does not come up; the message carries its log.
    pub fn start(host: &Host, config: &str) -> Result<Self> {
        Self::start_with(host, config, &["--interface", &host.interface])
    }

    /// The same with other arguments after `lb run --config … --name …`.
    ///
    /// # Errors
    /// When the binary is not built, or the daemon does not come up; the message carries its log.
    pub fn start_with(host: &Host, config: &str, arguments: &[&str]) -> Result<Self> {
        let mut lb = Self(Instance::start("run", host, config, arguments)?);
        lb.wait_up()?;
        Ok(lb)
    }

    /// `lb run` that is expected to refuse, under a name of its own, with what it leaves behind.
    ///
    /// # Errors
    /// When it cannot be run, or is still running after a while.
    pub fn refused(host: &Host, config: &str, arguments: &[&str]) -> Result<Refused> {
        let name = cleanup::unique_name(&host.name);
        let item = item("run", &name);
        let _ticket = cleanup::register(item.clone())?;
        let refused = Self::refused_as(&name, host, config, arguments);
        cleanup::remove(&item)?;
        refused
    }

    /// The same under a given name.
    ///
    /// # Errors
    /// When it cannot be run, or is still running after a while.
    pub fn refused_as(name: &str, host: &Host, config: &str, arguments: &[&str]) -> Result<Refused> {
        mount_bpffs()?;
        let folder = Folder::new(&host.name)?;
        let file = folder.path().join("lb.toml");
        fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
        let mut command = host.ns.entry().command(binaries::lb()?);
        command.arg("run").arg("--config").arg(&file).args(["--name", name]).args(arguments);
        let output = run(command, START_LIMIT)?;
        let places = [Path::new(cleanup::PIN_DIR).join(name), socket_of(name)];
        let left = places.into_iter().filter(|path| path.exists()).collect();
        Ok(Refused { output, left })
    }

    /// Starts the daemon again, after [`LbProcess::stop`] or [`LbProcess::kill`], with the same file and name.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_again(&mut self) -> Result<()> {
        self.0.spawn_again()?;
        self.wait_up()
    }

    /// The same without waiting until it answers, only until `ready` is true.
    ///
    /// # Errors
    /// When it ends first.
    pub fn start_again_until(&mut self, state: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
        self.0.spawn_again()?;
        self.0.process.wait_ready(state, START_LIMIT, |_| ready())
    }

    /// Waits until it answers, after [`LbProcess::start_again_until`].
    ///
    /// # Errors
    /// When it ends first.
    pub fn wait_up(&mut self) -> Result<()> {
        let socket = self.socket();
        let instance = &mut self.0;
        // The cheap look first; the real one costs a process.
        instance
            .process
            .wait_ready("open its socket", START_LIMIT, |_| UnixStream::connect(&socket).is_ok())?;
        let (ns, binary) = (instance.ns.clone(), instance.binary.clone());
        instance.process.wait_ready("answer `lb status`", START_LIMIT, |_| {
            let mut command = ns.command(&binary);
            command.args(["status", "--json", "--socket"]).arg(&socket);
            output_of(command, CALL_LIMIT).is_ok()
        })
    }

    /// What the daemon says of itself, asked without a process in between.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn view(&self) -> Result<View> {
        View::ask(&self.socket())
    }

    /// `lb status --json`.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn status(&self) -> Result<Value> {
        let text = self.cli(&["status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("lb status --json printed {text:?}"))
    }

    /// Runs a command of the command line against this instance; returns its standard output.
    ///
    /// # Errors
    /// When it ends with an error; the message carries what it said.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        output_of(self.command(arguments), CALL_LIMIT)
    }

    /// The same for commands that are expected to fail.
    ///
    /// # Errors
    /// When it cannot be run, or does not end in time.
    pub fn try_cli(&self, arguments: &[&str]) -> Result<Output> {
        run(self.command(arguments), CALL_LIMIT)
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.0.ns.command(&self.0.binary);
        command.args(arguments).arg("--socket").arg(self.socket());
        command
    }

    /// SIGTERM; the datapath stays.
    ///
    /// # Errors
    /// When it does not end in time, or ends with an error.
    pub fn stop(&mut self) -> Result<()> {
        self.0.process.stop(STOP_LIMIT)
    }

    /// SIGKILL; the datapath stays.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.0.process.kill()
    }

    /// What is left when its machine loses power: the files. The process is killed, its datapath is gone.
    ///
    /// # Errors
    /// When the kernel refuses, or something of the datapath stays.
    pub fn lose(&mut self) -> Result<()> {
        self.0.process.kill()?;
        self.0.detach()
    }

    /// `--name` of the instance.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket_of(&self.0.name)
    }

    /// The directory of its pins.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        Path::new(cleanup::PIN_DIR).join(&self.0.name)
    }

    /// Its configuration file, which the command line edits.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.0.config_path()
    }

    /// The program that runs.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.0.binary
    }

    /// The process, for its pid and log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.0.process
    }
}

impl AgentProcess {
    /// `lb agent --prepare` on a backend, and waits until its XDP program is on the interface.
    ///
    /// # Errors
    /// When the binary is not built, or the agent does not come up; the message carries its log.
    pub fn start(host: &Host, config: &str) -> Result<Self> {
        let instance = Instance::start("agent", host, config, &["--prepare"])?;
        let mut agent = Self { instance, interface: host.interface.clone() };
        agent.wait_up()?;
        Ok(agent)
    }

    /// Starts it again, after [`AgentProcess::stop`] or [`AgentProcess::kill`].
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_again(&mut self) -> Result<()> {
        self.instance.spawn_again()?;
        self.wait_up()
    }

    fn wait_up(&mut self) -> Result<()> {
        let (ns, interface) = (self.instance.ns.clone(), self.interface.clone());
        self.instance
            .process
            .wait_ready("attach its XDP program", START_LIMIT, |_| has_xdp(&ns, &interface).unwrap_or(false))
    }

    /// SIGTERM; the datapath stays.
    ///
    /// # Errors
    /// When it does not end in time, or ends with an error.
    pub fn stop(&mut self) -> Result<()> {
        self.instance.process.stop(STOP_LIMIT)
    }

    /// SIGKILL; the datapath stays.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.instance.process.kill()
    }

    /// `lb agent status --json`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn status(&self) -> Result<Value> {
        let mut command = self.instance.ns.command(&self.instance.binary);
        command.args(["agent", "status", "--json", "--name", &self.instance.name]);
        let text = output_of(command, CALL_LIMIT)?;
        serde_json::from_str(&text).with_context(|| format!("lb agent status --json printed {text:?}"))
    }

    /// `--name` of the instance.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.instance.name
    }

    /// The process, for its pid and log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.instance.process
    }
}

impl Instance {
    fn start(verb: &'static str, host: &Host, config: &str, arguments: &[&str]) -> Result<Self> {
        let binary = binaries::lb()?;
        mount_bpffs()?;
        let name = cleanup::unique_name(&host.name);
        let item = item(verb, &name);
        let folder = Folder::new(&host.name)?;
        let ticket = cleanup::register(item.clone())?;
        let file = folder.path().join("lb.toml");
        fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
        let ns = host.ns.entry();
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let process = spawn(&ns, &binary, verb, &name, &arguments, folder.path())?;
        Ok(Self { name, verb, arguments, ns, binary, process, folder, item, _ticket: ticket })
    }

    fn spawn_again(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process =
            spawn(&self.ns, &self.binary, self.verb, &self.name, &self.arguments, self.folder.path())?;
        Ok(())
    }

    fn config_path(&self) -> PathBuf {
        self.folder.path().join("lb.toml")
    }

    fn detach(&self) -> Result<()> {
        let (pins, words): (_, &[&str]) = match self.item {
            Item::Agent(_) => (cleanup::AGENT_PIN_DIR, &["agent", "detach"]),
            _ => (cleanup::PIN_DIR, &["detach"]),
        };
        if !Path::new(pins).join(&self.name).exists() {
            return Ok(());
        }
        let mut command = self.ns.command(&self.binary);
        command.args(words).args(["--name", &self.name]);
        output_of(command, CALL_LIMIT).map(drop)
    }

    fn remove(&mut self) -> Result<()> {
        self.process.kill()?;
        let detached = self.detach();
        // Whether or not `lb` could: the pins go.
        cleanup::remove(&self.item).and(detached)
    }
}

/// What `lb <verb> --name <name>` puts on the machine.
fn item(verb: &str, name: &str) -> Item {
    if verb == "agent" { Item::Agent(name.into()) } else { Item::Instance(name.into()) }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            // No panic: this may run while one unwinds.
            eprintln!("{error:#}");
        }
    }
}

fn spawn(
    ns: &Entry,
    binary: &Path,
    verb: &str,
    name: &str,
    arguments: &[String],
    folder: &Path,
) -> Result<Process> {
    let mut command = ns.command(binary);
    command.arg(verb).arg("--config").arg(folder.join("lb.toml")).args(["--name", name]).args(arguments);
    command.stdin(std::process::Stdio::null());
    Process::start(&format!("lb {verb} ({name})"), command, &folder.join("log"))
}

/// Whether an XDP program is on a device, native or generic.
///
/// # Errors
/// When there is no such device.
pub fn has_xdp(ns: &Entry, device: &str) -> Result<bool> {
    let mut command = ns.command("ip");
    command.args(["-json", "link", "show", "dev", device]);
    let text = output_of(command, CALL_LIMIT)?;
    let links: Value =
        serde_json::from_str(&text).with_context(|| format!("ip -json link printed {text:?}"))?;
    Ok(links.get(0).is_some_and(|link| link.get("xdp").is_some()))
}

/// systemd mounts the BPF file system at boot; a container or a small system may not have it.
fn mount_bpffs() -> Result<()> {
    let mounted = statfs(BPFFS).with_context(|| format!("{BPFFS}: is sysfs mounted?"))?.filesystem_type();
    if mounted != BPF_FS_MAGIC {
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .with_context(|| format!("mounting the BPF file system at {BPFFS}"))?;
    }
    Ok(())
}
