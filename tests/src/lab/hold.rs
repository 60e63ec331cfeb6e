//! `lab hold`: a process that owns namespaces and nothing else, for the tests of how they go.

use std::{
    io::{self, Write},
    process::ExitCode,
    thread,
};

use anyhow::Result;

use crate::netns::Namespace;

/// Command line of `lab hold`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// How many
    #[arg(long, default_value_t = 1)]
    namespaces: usize,
}

/// Makes them, starts a process in the first, prints `ready`, and waits for a signal.
pub(super) fn main(options: &Options) -> Result<ExitCode> {
    let namespaces = (0..options.namespaces).map(|_| Namespace::new("hold")).collect::<Result<Vec<_>>>()?;
    if let Some(first) = namespaces.first() {
        // Nobody waits for it: it ends with its namespace, whoever removes that.
        first.command("sleep").arg("1000").spawn()?;
    }
    println!("ready");
    io::stdout().flush()?;
    loop {
        thread::park();
    }
}
