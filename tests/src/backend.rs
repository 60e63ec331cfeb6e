//! The demo server as a process in a backend's namespace.

use std::{net::Ipv4Addr, path::Path, process::Stdio, time::Duration};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::{
    binaries,
    netns::{Entry, Namespace},
    process::Process,
    server,
    topology::world::Host,
    traffic,
};

/// A busy machine may take this long to start a small process.
const START_LIMIT: Duration = Duration::from_secs(20);
/// More than the server's own grace.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const CONTROL_LIMIT: Duration = Duration::from_secs(5);
/// The port on which readiness is switched, if it is one of the server's.
const CONTROL_PORT: u16 = 80;

/// A running server; see [`server`] for what it answers.
#[derive(Debug)]
pub struct Backend {
    process: Process,
    entry: Entry,
}

impl Backend {
    /// Starts a server under the name of the host, logs in `folder`, and waits until it listens.
    ///
    /// # Errors
    /// When the `lab` binary is not built, or the server does not come up.
    pub fn start(host: &Host, folder: &Path) -> Result<Self> {
        Self::start_with(&host.ns, &host.name, folder, &[])
    }

    /// The same with further arguments (of `lab backend`).
    ///
    /// # Errors
    /// When the `lab` binary is not built, or the server does not come up.
    pub fn start_with(ns: &Namespace, name: &str, folder: &Path, arguments: &[&str]) -> Result<Self> {
        let entry = ns.entry();
        let mut command = entry.command(binaries::lab()?);
        command.args(["backend", "--exit-with-stdin", "--name", name]).args(arguments);
        // The process guard holds the other end: it closes however this process ends.
        command.stdin(Stdio::piped());
        let log = folder.join(format!("{name}.log"));
        let mut process = Process::start(&format!("backend {name}"), command, &log)?;
        process
            .wait_ready("listen", START_LIMIT, |log| log.lines().any(|line| line == server::READY_LINE))?;
        Ok(Self { process, entry })
    }

    /// Switches what `/ready` answers.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn set_ready(&self, ready: bool) -> Result<()> {
        let path = if ready { "/ready/on" } else { "/ready/off" };
        let localhost = Ipv4Addr::LOCALHOST;
        let answer = self.entry.block_on(|| {
            traffic::get((localhost, 0).into(), (localhost, CONTROL_PORT).into(), path, CONTROL_LIMIT)
        })?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.text());
        Ok(())
    }

    /// Ends it as an operator would: open requests are finished.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop(STOP_LIMIT)
    }

    /// Ends it as a crash would: the kernel resets what was open and refuses what is new.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Connections are still accepted by the kernel, and nobody answers.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn freeze(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Undoes [`Backend::freeze`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn thaw(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// The process, for its pid and log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
