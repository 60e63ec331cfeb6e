//! `lab exec`, `lab list` and `lab clean`: from a second terminal.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, anyhow};

use super::state::{self, State};
use crate::{
    cleanup::{SOCKET_DIR, sweep},
    netns::{Entry, require_root},
};

/// Command line of `lab exec`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Which lab; default: the only one that runs
    #[arg(long)]
    name: Option<String>,
    /// client, router, lb, b1, b2, …
    role: String,
    /// The command, after --
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Command line of `lab list`.
#[derive(Debug, clap::Args)]
pub(super) struct ListOptions {
    /// JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Becomes the command, inside; returns only when that fails.
pub(super) fn main(options: &Options) -> Result<ExitCode> {
    require_root()?;
    let state = state::find(options.name.as_deref())?;
    let (program, arguments) = options.command.split_first().context("a command after --")?;
    let role = state.roles.get(&options.role).ok_or_else(|| {
        let known = state.roles.keys().cloned().collect::<Vec<_>>().join(", ");
        anyhow!("the lab has no {:?}; it has {known}", options.role)
    })?;
    // This thread is the only one, and the command takes its place.
    Entry::open(&role.namespace)?.enter()?;
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path_with(&state)?);
    if let Some(instance) = &role.instance {
        let socket = Path::new(SOCKET_DIR).join(format!("{instance}.sock"));
        command.env("LB_NAME", instance).env("LB_SOCKET", socket);
    }
    Err(command.exec()).with_context(|| format!("running {}", program.to_string_lossy()))
}

/// The folder of the lab's `lb` first: `lb status` is then the very program that runs.
fn path_with(state: &State) -> Result<OsString> {
    let own = state.lb_binary.parent().map(Path::to_owned);
    let inherited = env::var_os("PATH");
    let inherited = inherited.as_deref().unwrap_or(OsStr::new("/usr/sbin:/usr/bin:/sbin:/bin"));
    env::join_paths(own.into_iter().chain(env::split_paths(inherited))).context("the PATH for the command")
}

/// Prints the labs that run.
pub(super) fn list(options: &ListOptions) -> Result<ExitCode> {
    let running = state::running()?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&running)?);
        return Ok(ExitCode::SUCCESS);
    }
    if running.is_empty() {
        println!("no lab runs; start one with `cargo xtask run`");
    }
    for (name, State { pid, mode, target, roles, .. }) in &running {
        if roles.is_empty() {
            println!("{name} (pid {pid}): being built");
            continue;
        }
        println!("{name} (pid {pid}): {mode}, {target}");
        for (role, place) in roles {
            println!("  {role:<8} namespace {}", place.namespace);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes what dead labs and dead tests have left, and says what it was.
pub(super) fn clean() -> Result<ExitCode> {
    require_root()?;
    let states = state::remove_dead()?.into_iter().map(|name| format!("state of lab {name}"));
    let removed: Vec<_> = states.chain(sweep()).collect();
    for what in &removed {
        println!("removed: {what}");
    }
    if removed.is_empty() {
        println!("nothing was left behind");
    }
    Ok(ExitCode::SUCCESS)
}
