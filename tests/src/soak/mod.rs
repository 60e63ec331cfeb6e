//! Soaks: long-lived connections under everything that may happen to a balancer, and the judgement of what became of
//! each of them. `cargo xtask soak NAME` runs one; a smaller one of each kind is in the suite `soak`.

pub mod connections;
mod events;
pub mod failover;
pub mod flood;
mod generator;
pub mod restart;
mod talkers;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use serde_json::{Value, json};

/// Port of the demo server's line protocol.
const LINES: u16 = 9000;
/// Open files of a process that holds every connection, with room for its own.
const OPEN_FILES: u64 = 16_384;

/// Which soak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// Live connections through random scale events
    Connections,
    /// Live connections and numbered datagrams through kills, restarts and replaced programs
    Restart,
    /// Live connections through the loss of one of two balancers, whose backends change meanwhile
    Failover,
    /// Live connections while packets from tuples that nobody has go through the same service
    Flood,
}

/// How large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// Under a minute: part of `cargo xtask test`
    Ci,
    /// As long and as many as the promise names
    Full,
}

/// Command line of `lab soak`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What to run
    #[arg(value_enum)]
    pub name: Name,
    /// How large
    #[arg(long, value_enum, default_value = "full")]
    pub size: Size,
    /// Of everything that is chosen at random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print the outcome as one JSON object, on the last line
    #[arg(long)]
    pub json: bool,
}

/// What came of a soak: fields for people and programs, and what is wrong with them.
pub trait Outcome: Serialize {
    /// Nothing, or one sentence for everything that must not be.
    fn complaints(&self) -> Vec<String>;
}

/// Runs one and prints what came of it; exit status 1 if something is wrong with that.
///
/// # Errors
/// When it could not be run to its end.
pub fn main(options: &Options) -> Result<ExitCode> {
    let start = Instant::now();
    let Options { size, seed, .. } = *options;
    let (outcome, complaints) = match options.name {
        Name::Connections => judged(&connections::run(size, seed)?)?,
        Name::Restart => judged(&restart::run(size, seed)?)?,
        Name::Failover => judged(&failover::run(size, seed)?)?,
        Name::Flood => judged(&flood::run(size, seed)?)?,
    };
    for complaint in &complaints {
        eprintln!("lab: {complaint}");
    }
    let Value::Object(fields) = outcome else { bail!("an outcome has fields") };
    let mut all = json!({ "soak": word(&options.name), "size": word(&size), "seed": seed });
    if let Value::Object(all) = &mut all {
        all.extend(fields);
        all.insert("seconds".into(), start.elapsed().as_secs().into());
        all.insert("passed".into(), complaints.is_empty().into());
    }
    if options.json {
        println!("{all}");
    } else {
        for (name, value) in all.as_object().into_iter().flatten() {
            println!("{name:<26} {value}");
        }
    }
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn judged(outcome: &impl Outcome) -> Result<(Value, Vec<String>)> {
    Ok((serde_json::to_value(outcome)?, outcome.complaints()))
}

/// A value as the command line takes it.
fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

/// Says what is going on, for whoever waits.
fn say(text: &str) {
    eprintln!("lab: {text}");
}

/// Lets this process and those that it starts open as many files as connections need.
fn many_files() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("reading the limit of open files")?;
    if soft >= OPEN_FILES {
        return Ok(());
    }
    // Root may raise the hard limit as well.
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, hard.max(OPEN_FILES))
        .with_context(|| format!("raising the limit of open files from {soft} to {OPEN_FILES}"))
}

/// Between two lines of a connection.
const PERIOD: Duration = Duration::from_secs(1);
