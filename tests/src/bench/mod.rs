//! The benchmark: `cargo xtask bench`. What is measured and how: `docs/performance.md`.

mod cases;
mod control;
mod echo;
mod machine;
mod memory;
mod object;
mod recipe;
mod report;
mod rounds;
mod runner;
mod tables;
mod wire;
mod world;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use machine::Machine;
use report::Report;

/// Measures lb against floors and yardsticks on this machine
#[derive(Debug, Parser)]
#[command(name = "bench", bin_name = "cargo xtask bench", version)]
struct Options {
    /// Only this suite; may be repeated
    #[arg(long = "suite", value_name = "NAME")]
    suites: Vec<String>,
    /// Only cases whose name contains this; may be repeated
    #[arg(long = "case", value_name = "PART")]
    cases: Vec<String>,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Show figures of this commit from the history beside these
    #[arg(long, value_name = "COMMIT")]
    compare: Option<String>,
    /// Name the suites and their cases instead of running them
    #[arg(long)]
    list: bool,
    /// Rounds; as many again are made while figures are spread widely
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Processor to measure on; the last one unless given
    #[arg(long)]
    cpu: Option<usize>,
    /// The benchmark's XDP object
    #[arg(long, hide = true, value_name = "FILE")]
    object: Option<PathBuf>,
    /// Where packages with other balancers are unpacked
    #[arg(long, hide = true, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// Where the history is
    #[arg(long, hide = true, value_name = "FILE")]
    history: Option<PathBuf>,
}

/// Suites and what they are about.
const SUITES: [(&str, &str); 6] = [
    ("packet", "one packet through the loaded program, in every mode, against floors and `plain`"),
    ("growth", "the same with many flows, services and backends at random"),
    ("tables", "how long tables take to build, how even they are, and what moves when members come and go"),
    ("control", "from a change to the datapath, and starting with many services"),
    (
        "wire",
        "packets and requests through veth, against constant encapsulation, the kernel, nftables, HAProxy and nginx",
    ),
    ("memory", "bytes for a flow, a service, a backend"),
];

/// A round of the closed loop has thousands of times of its own.
const CLOSED_LOOP_ROUNDS: u32 = 5;

/// One line about what is going on.
fn say(text: &str) {
    eprintln!("bench: {text}");
}

/// Entry of the `bench` binary.
#[must_use]
pub fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    for name in &options.suites {
        let known = SUITES.iter().any(|(suite, _)| suite == name);
        let all = SUITES.map(|(suite, _)| suite).join(", ");
        ensure!(known, "there is no suite `{name}`; there are {all}");
    }
    let suites = SUITES
        .iter()
        .filter(|(name, _)| options.suites.is_empty() || options.suites.iter().any(|wanted| wanted == name));
    if options.list {
        for (name, about) in suites {
            println!("{name}: {about}");
            for case in names(name) {
                println!("    {case}");
            }
        }
        return Ok(());
    }
    crate::netns::require_root()?;
    ensure!(options.rounds > 0, "--rounds must be at least 1");
    let target = target_dir()?;
    let object = options
        .object
        .clone()
        .unwrap_or_else(|| target.join("ebpf").join("bpfel-unknown-none").join("release").join("bench"));
    let history = options.history.clone().unwrap_or_else(|| target.join("bench").join("history.jsonl"));
    let mut report = Report { machine: Machine::now(None), figures: Vec::new(), absent: Vec::new() };
    report.machine.busy_before = machine::busy();
    report.machine.pinned = pin(options.cpu)?;
    let wanted = |case: &str| {
        options.cases.is_empty() || options.cases.iter().any(|part| case.contains(part.as_str()))
    };
    for (name, about) in suites {
        say(&format!("suite {name}: {about}"));
        run_suite(name, &wanted, &object, options.peers.as_deref(), options.rounds, &mut report)
            .with_context(|| format!("suite {name}"))?;
    }
    ensure!(
        !(report.figures.is_empty() && report.absent.is_empty()),
        "no case of these suites has a name with {}",
        options.cases.join(" or ")
    );
    report.machine.busy_after = machine::busy();
    print!("{}", report.table());
    if let Some(commit) = &options.compare {
        print!("\n{}", report.compare(&history, commit)?);
    }
    report.keep(options.json.as_deref(), &history)
}

fn run_suite(
    name: &'static str,
    wanted: &dyn Fn(&str) -> bool,
    object: &Path,
    peers: Option<&Path>,
    rounds: u32,
    report: &mut Report,
) -> Result<()> {
    match name {
        "control" => everywhere(|| control::run(wanted, report)),
        "wire" => {
            wire::run(wanted, object, rounds, report)?;
            everywhere(|| echo::run(wanted, peers, rounds.min(CLOSED_LOOP_ROUNDS), report))
        }
        "memory" => memory::run(wanted, report),
        "tables" => tables::run(wanted, rounds, report),
        _ => cases::run(name, wanted, object, rounds, report),
    }
}

/// Names of the cases of a suite.
fn names(suite: &str) -> Vec<String> {
    match suite {
        "control" => control::names(),
        "wire" => wire::names().into_iter().chain(echo::names()).collect(),
        "memory" => memory::names(),
        "tables" => tables::names(),
        _ => cases::names(suite).into_iter().map(str::to_owned).collect(),
    }
}

/// Moves this thread to a processor, and says which.
fn pin(wanted: Option<usize>) -> Result<Option<usize>> {
    let last = std::thread::available_parallelism().map_or(1, |n| n.get()) - 1;
    let cpu = wanted.unwrap_or(last);
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("moving to processor {cpu}"))?;
    Ok(Some(cpu))
}

/// Lets `work`, and whatever it starts, run on every processor.
fn everywhere<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let own = sched_getaffinity(Pid::from_raw(0))?;
    let mut all = CpuSet::new();
    (0..CpuSet::count()).try_for_each(|cpu| all.set(cpu))?;
    sched_setaffinity(Pid::from_raw(0), &all)?;
    let done = work();
    sched_setaffinity(Pid::from_raw(0), &own)?;
    done
}

/// The target directory: this program lies in `target/<profile>/`.
fn target_dir() -> Result<PathBuf> {
    let own = std::env::current_exe().context("where this program itself is")?;
    own.ancestors().nth(2).map(Path::to_path_buf).context("this program lies in no target directory")
}
