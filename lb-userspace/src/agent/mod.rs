//! `lb agent`: takes packets for the VIPs out of their tunnels on a backend host.
//!
//! ```text
//! source (file, flags, balancer) ─► run ─► prepare (settings of the host, recorded)
//!                                      └─► dataplane::AgentMaps (load or adopt, fill, attach)
//! status reads pins, host and record; no agent needs to run for that
//! ```
//! The program stays when the agent ends, and the next agent replaces it without a gap: one agent per name, held by a
//! lock, pins under `/sys/fs/bpf/lb-agent/<name>/`, the record of prepared settings in `/var/lib/lb/agent-<name>.json`.

mod balancer;
mod out;
mod peers;
mod places;
mod prepare;
#[cfg(test)]
mod root_tests;
mod run;
mod source;
mod status;

use std::path::PathBuf;

use anyhow::Context;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use self::{out::Out, places::Places, run::Signal};
use crate::{api::types::Digests, config};

/// What another balancer of the group says of its tables; `address` as for `lb agent --from`.
///
/// # Errors
/// When it is no address, or nobody answers as a balancer does.
pub async fn digests_of(address: &str) -> anyhow::Result<Digests> {
    let peer: balancer::Endpoint = address.parse()?;
    Ok(peer.get("/v1/digests").await?.0)
}

/// `lb agent`.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Where the agent learns what it serves; absent only with `unprepare`.
    pub source: Option<Source>,
    /// `--name`.
    pub name: String,
    /// What to do about the host's settings.
    pub prepare: Prepare,
    /// Take the program away when the agent ends.
    pub detach_on_exit: bool,
    /// Status lines on stdout are JSON.
    pub json: bool,
}

/// Where an agent learns its VIPs and tunnel sources.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// `--config`: `[agent]` of this file.
    File(PathBuf),
    /// `--from`: a balancer.
    Balancer {
        /// `HOST`, `HOST:PORT`, a URL or the path of a unix socket, as given.
        address: String,
        /// Interface of this host; absent: the one that the route to the balancer takes.
        interface: Option<String>,
    },
    /// `--interface`, `--vip`, `--tunnel-source`.
    Flags(config::Agent),
}

/// What `lb agent` does about the settings of a backend host (VIP on lo, ARP, reverse path, segment size).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepare {
    /// Neither: they are as the operator left them.
    Leave,
    /// Make them, then run.
    Prepare,
    /// Undo exactly what was made, then end.
    Unprepare,
}

/// Runs the agent until SIGINT or SIGTERM; SIGHUP reads its source again.
///
/// # Errors
/// Anything that keeps it from starting, in words. What was prepared until then stays recorded.
pub fn run(options: Options) -> anyhow::Result<()> {
    let places = Places::system(&options.name);
    block_on(async move {
        let signals = signals()?;
        run::run(options, &places, signals, &mut Out::stdout()).await
    })
}

/// What the agent of this name does on this host, as text or as JSON. Needs no agent to run.
///
/// # Errors
/// When there is no such agent, or its pins cannot be read.
pub fn status(name: &str, json: bool) -> anyhow::Result<String> {
    let places = Places::system(name);
    block_on(async { status::read(&places).await?.render(json) })
}

/// Removes the program and the pins of the agent of this name; gives what was removed, one item each.
///
/// # Errors
/// When the agent still runs, or a pin cannot be removed.
pub fn detach(name: &str) -> anyhow::Result<Vec<String>> {
    detach_of(&Places::system(name))
}

fn detach_of(places: &Places) -> anyhow::Result<Vec<String>> {
    let _lock = places.lock()?;
    let removed = places.pins.remove()?;
    let mut words: Vec<String> = removed.interfaces.iter().map(|i| format!("the program on {i}")).collect();
    if removed.maps > 0 {
        words.push(format!("{} maps", removed.maps));
    }
    if places.record.exists() {
        log::warn!("the settings of this host are still prepared: `lb agent --unprepare` undoes them");
    }
    Ok(words)
}

/// One thread: the settings below `/proc/sys/net` are those of the calling thread's network namespace.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(work)
}

/// The signals of the process, as the agent wants them.
fn signals() -> anyhow::Result<mpsc::Receiver<Signal>> {
    // More than one of each need not be remembered.
    let (send, receive) = mpsc::channel(4);
    for (kind, meaning) in [
        (SignalKind::interrupt(), Signal::Stop),
        (SignalKind::terminate(), Signal::Stop),
        (SignalKind::hangup(), Signal::Reload),
    ] {
        let mut signals = signal(kind).context("cannot listen to signals")?;
        let send = send.clone();
        tokio::spawn(
            async move { while signals.recv().await.is_some() && send.send(meaning).await.is_ok() {} },
        );
    }
    Ok(receive)
}
