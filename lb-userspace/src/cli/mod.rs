//! The command line: one file per verb, tables for people, the API's own bodies for programs.
//!
//! Data goes to stdout, everything else to stderr. Exit codes are a contract: `exit.rs` and `docs/api.md`.

mod agent;
mod apply;
mod args;
mod backend;
mod change_view;
mod check;
mod completions;
mod context;
mod detach;
mod drain;
mod exit;
pub mod hooks;
mod how;
mod limit;
mod man;
mod output;
mod run;
mod service;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod view;

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::{Parser, error::ErrorKind};

use self::{
    args::{Cli, Verb},
    context::Context,
    exit::Failure,
    hooks::{HOOKS, Hooks},
    output::{Output, wants_color},
};
use crate::api::Timestamp;

/// Entry of the `lb` binary.
pub fn main() -> ExitCode {
    let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
    let color = wants_color(stdout.is_terminal(), |name| std::env::var_os(name));
    ExitCode::from(run_with(std::env::args_os(), &HOOKS, &mut stdout, &mut stderr, color))
}

/// The definition of the command line, for whoever wants to compare documents with it.
pub fn command() -> clap::Command {
    use clap::CommandFactory;
    Cli::command()
}

/// Parses and does one command; gives its exit code. Everything it touches comes from outside, for the tests' sake.
fn run_with(
    args: impl IntoIterator<Item = OsString>,
    hooks: &Hooks,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
    color: bool,
) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => return exit::usage(&e, stdout, stderr, color),
    };
    let out = Output::new(stdout, stderr, cli.global.json, color);
    let mut cx = Context { global: &cli.global, hooks, out, now: Timestamp::now() };
    match dispatch(&cli.verb, &mut cx) {
        Ok(()) => exit::OK,
        Err(failure) => cx.out.failure(&failure),
    }
}

fn dispatch(verb: &Verb, cx: &mut Context<'_>) -> Result<(), Failure> {
    match verb {
        Verb::Run(verb) => verb.run(cx),
        Verb::Agent(verb) => verb.run(cx),
        Verb::Detach(verb) => verb.run(cx),
        Verb::Status(show) => show.run(cx),
        Verb::Service { verb } => verb.run(cx),
        Verb::Backend { verb } => verb.run(cx),
        Verb::Limit { verb } => verb.run(cx),
        Verb::Check(verb) => verb.run(cx),
        Verb::Apply(verb) => verb.run(cx),
        Verb::Plan(verb) => verb.run(cx),
        Verb::Confirm => apply::confirm(cx),
        Verb::Rollback(verb) => verb.run(cx),
        Verb::History => apply::history(cx),
        Verb::Diff(verb) => verb.run(cx),
        Verb::Completions(verb) => verb.run(cx),
        Verb::Man(verb) => verb.run(cx),
    }
}

/// A wrong combination that clap's own rules do not catch, told as clap tells its own.
fn usage_error(kind: ErrorKind, message: impl std::fmt::Display) -> Failure {
    use clap::CommandFactory;
    Failure::Usage(Box::new(Cli::command().error(kind, message)))
}
