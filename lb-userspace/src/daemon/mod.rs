//! `lb run`: the daemon.
//!
//! One task owns everything that can change ([`core::Core`]); health events, next-hop changes, API calls and signals
//! reach it through channels, one after the other. `start` brings it up in an order that never leaves the datapath
//! with less than it had; `handle` is the API's side of the channel; `status` puts the picture together.

mod change;
mod core;
mod drift;
mod edits;
mod handle;
mod history;
mod hops;
mod interfaces;
mod journal;
mod lock;
mod manager;
mod plan;
mod records;
mod resize;
mod seed;
mod start;
mod status;
mod transaction;
mod way_back;

use std::path::PathBuf;

use anyhow::Context;

pub use lock::socket_path;

/// What `lb run` was told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Interfaces that replace those of the file; empty: those of the file.
    pub interfaces: Vec<String>,
    /// Name of the instance.
    pub name: String,
    /// Socket of the API; absent: [`socket_path`] of the name.
    pub socket: Option<PathBuf>,
    /// Remove the datapath when the daemon ends.
    pub detach_on_exit: bool,
}

/// Runs the daemon until SIGINT or SIGTERM.
///
/// # Errors
/// Anything that keeps it from starting, in words; nothing was changed then.
pub fn run(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(start::run(options));
    // Checks that hang in a connect must not delay the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

/// `lb detach`: removes links, program and maps of an instance; says what went, one sentence each.
///
/// # Errors
/// When a daemon of this instance still runs, or a pin cannot be removed.
pub fn detach(name: &str) -> anyhow::Result<Vec<String>> {
    let _lock = lock::InstanceLock::take(name).context("stop the daemon first")?;
    let pins = crate::dataplane::Pins::balancer(name);
    let removed = start::block_on(start::detach(&pins))?;
    let mut words: Vec<String> = removed.interfaces.iter().map(|i| format!("the program on {i}")).collect();
    if removed.maps > 0 {
        words.push(format!("{} maps", removed.maps));
    }
    Ok(words)
}
