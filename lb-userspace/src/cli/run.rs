//! `lb run`.

use std::path::PathBuf;

use clap::Args;

use super::{context::Context, exit::Failure, hooks::RunOptions, output::log_to_stderr};

/// Run the daemon: attach XDP, check backends, keep the tables.
///
/// SIGINT and SIGTERM stop the daemon and leave the datapath forwarding; `lb detach` removes it.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// Configuration file; changes made with `lb` are written back to it
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Interface to attach to instead of those in the file; may be given several times
    #[arg(short, long = "interface", visible_alias = "iface", value_name = "IF")]
    interfaces: Vec<String>,
    /// Remove the datapath when the daemon stops
    #[arg(long)]
    detach_on_exit: bool,
}

impl Run {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        log_to_stderr("info");
        let options = RunOptions {
            config: self.config.clone(),
            interfaces: self.interfaces.clone(),
            name: cx.global.name.clone(),
            socket: cx.global.socket.clone(),
            detach_on_exit: self.detach_on_exit,
        };
        (cx.hooks.run)(options).map_err(Failure::Failed)
    }
}
