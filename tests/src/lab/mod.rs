//! The program `lab`: the laboratory for people, and the demo server as a process.

mod exec;
mod hold;
mod live;
mod measure;
mod numbers;
mod run;
mod scene;
mod state;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{server, soak};

/// The laboratory of lb: a client, a router, a balancer and backends in network namespaces
#[derive(Debug, Parser)]
#[command(name = "lab", bin_name = "cargo xtask lab", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build the lab, send real requests and show which backend answers how many
    Run(run::Options),
    /// Run a command inside of a lab that runs, for example: exec client -- curl http://192.0.2.10/
    Exec(exec::Options),
    /// Name the labs that run, and what is in them
    List(exec::ListOptions),
    /// Keep long-lived connections through everything that may happen to a balancer, and judge what became of them
    Soak(soak::Options),
    /// Remove what labs that were killed have left
    Clean,
    /// Run the demo server of a backend in this network namespace
    #[command(hide = true)]
    Backend(server::Options),
    /// Hold namespaces until a signal comes
    #[command(hide = true)]
    Hold(hold::Options),
}

/// Entry of the `lab` binary.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Run(options) => run::main(&options),
        Verb::Exec(options) => exec::main(&options),
        Verb::List(options) => exec::list(&options),
        Verb::Soak(options) => soak::main(&options),
        Verb::Clean => exec::clean(),
        Verb::Backend(options) => server::run(&options).map(|()| ExitCode::SUCCESS),
        Verb::Hold(options) => hold::main(&options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    })
}
