//! The program `lab`: the laboratory for people, and the demo server as a process.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::server;

/// The laboratory of lb: a client, a router, a balancer and backends in network namespaces
#[derive(Debug, Parser)]
#[command(name = "lab", bin_name = "cargo xtask lab", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the demo server of a backend in this network namespace
    #[command(hide = true)]
    Backend(server::Options),
    /// Hold namespaces until a signal comes
    #[command(hide = true)]
    Hold(hold::Options),
}

mod hold;

/// Entry of the `lab` binary.
#[must_use]
pub fn main() -> ExitCode {
    let result: Result<ExitCode> = match Cli::parse().verb {
        Verb::Backend(options) => server::run(&options).map(|()| ExitCode::SUCCESS),
        Verb::Hold(options) => hold::main(&options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    })
}
