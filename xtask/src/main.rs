//! `cargo xtask`: set-up, build, run, lab, bench and test of `lb`. One file per verb; this one only dispatches.

mod apt;
mod bench;
mod build;
mod ebpf_toolchain;
mod lab;
mod linker;
mod machine;
mod process;
mod report;
mod run;
mod setup;
mod soak;
mod suites;
mod test;
mod vm;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up, build, run, lab, bench and test of lb.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find or install what building, running and testing need (every other verb does its part of this by itself)
    Setup,
    /// Build everything and say where `lb` is
    Build {
        /// Build what `run` uses, optimised
        #[arg(long)]
        release: bool,
    },
    /// Run the lab; with --interface IF --config FILE, run `lb` on that interface instead
    ///
    /// Without --interface (or --iface) all arguments go to `lab run`, with it to `lb run`.
    Run {
        /// Arguments of `lab run` or `lb run`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run the lab's own command, for example `cargo xtask lab exec client -- curl …`
    Lab {
        /// Arguments of `lab`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run a soak: long-lived connections through scale events, restarts or floods, and what became of them
    ///
    /// All arguments go to `lab soak`: NAME [--size ci|full] [--seed N] [--json].
    Soak {
        /// Arguments of `lab soak`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Measure lb against floors and yardsticks, with a table and, with --json FILE, figures for programs
    ///
    /// All arguments go to the benchmark; --help names them.
    #[command(disable_help_flag = true)]
    Bench {
        /// Arguments of the benchmark: --suite NAME, --case PART, --json FILE, --compare COMMIT, --list
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run the test suites, and end with the line `N passed, N failed, N skipped`
    Test {
        /// Name the suites instead of running them
        #[arg(long)]
        list: bool,
        /// Run this suite only; may be repeated
        #[arg(long = "suite", value_name = "NAME")]
        suites: Vec<String>,
        /// How many packets the suite `random` makes; default a million
        #[arg(long, value_name = "N")]
        packets: Option<u64>,
        /// What its packets are made from: a number, or `random`; default always the same
        #[arg(long, value_name = "S")]
        seed: Option<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Setup => setup::main(),
        Verb::Build { release } => build::main(release),
        Verb::Run { args } => run::main(args),
        Verb::Lab { args } => lab::main(args),
        Verb::Soak { args } => soak::main(args),
        Verb::Bench { args } => bench::main(args),
        Verb::Test { list: true, .. } => test::list(),
        Verb::Test { list: false, suites, packets, seed } => {
            let chosen = [("LB_TEST_PACKETS", packets.map(|n| n.to_string())), ("LB_TEST_SEED", seed)];
            test::main(&suites, chosen)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
