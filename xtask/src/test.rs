//! `cargo xtask test`: runs the suites of the table, counts their tests, and ends with the count.

use std::env;
use std::io::{self, BufRead, BufReader, PipeReader};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::build;
use crate::ebpf_toolchain::Toolchain;
use crate::machine::Privileges;
use crate::process::{run, say};
use crate::report::{Counter, Row, Tally, table};
use crate::setup::{Need, has_clippy, set_up};
use crate::suites::{Kind, SUITES, Suite, choose, test_args};
use crate::vm;
use crate::workspace::{HOST_MEMBERS, cargo, ebpf_cargo};

/// When this is 1, a suite that cannot run is a failure: a machine for tests has what they need.
const REQUIRE_ROOT_VAR: &str = "LB_REQUIRE_ROOT";

/// How long a suite's output may stay open after its end, before what holds it is taken for left behind.
const LINGER: Duration = Duration::from_secs(5);

/// What a suite came to.
struct Outcome {
    tally: Tally,
    remarks: Vec<String>,
}

/// The verb with `--list`.
pub(crate) fn list() -> Result<ExitCode> {
    for Suite { name, needs_root, about, .. } in SUITES {
        println!("{name:<14} {:<5} {about}", if *needs_root { "root" } else { "" });
    }
    Ok(ExitCode::SUCCESS)
}

/// What suites are told through the environment: names and values of variables.
type Told = [(&'static str, Option<String>); 2];

/// The verb.
pub(crate) fn main(names: &[String], told: Told) -> Result<ExitCode> {
    let suites = choose(names).map_err(|error| anyhow!(error))?;
    let told: Vec<(&str, String)> =
        told.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let strict = env::var_os(REQUIRE_ROOT_VAR).is_some_and(|value| value == "1");
    let refusal = Privileges::now()?.refusal();
    let mut rows = Vec::new();
    // The last line is the count even if there is nothing but this to count.
    let prepared = timed(&mut rows, "build", || prepare(&suites));
    if let Some(toolchain) = prepared {
        for suite in suites {
            timed(&mut rows, suite.name, || {
                let outcome = match &refusal {
                    Some(why) if suite.needs_root => out_of_reach(why, strict),
                    _ => run_suite(suite, toolchain.as_ref(), &told)?,
                };
                Ok(((), outcome))
            });
        }
    }
    let (text, total) = table(&rows);
    print!("\n{text}");
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Set-up and everything that the suites run, so that they find it built: suites start `lb` and the lab.
fn prepare(suites: &[&Suite]) -> Result<(Option<Toolchain>, Outcome)> {
    let toolchain = set_up(Need::Test)?;
    if suites.iter().any(|suite| suite.kind != Kind::Format) {
        build::programs(toolchain.as_ref())?;
        build::host(false)?;
    }
    Ok((toolchain, Outcome { tally: Tally::PASSED, remarks: Vec::new() }))
}

/// Runs `step` and makes a row of it; an error is a failure, and its words a remark.
fn timed<T>(rows: &mut Vec<Row>, name: &str, step: impl FnOnce() -> Result<(T, Outcome)>) -> Option<T> {
    say(&format!("suite {name}"));
    let start = Instant::now();
    let (value, outcome) = match step() {
        Ok((value, outcome)) => (Some(value), outcome),
        Err(error) => (None, Outcome { tally: Tally::FAILED, remarks: vec![format!("{error:#}")] }),
    };
    let Outcome { tally, remarks } = outcome;
    rows.push(Row { suite: name.to_owned(), tally, time: start.elapsed(), remarks });
    value
}

/// A suite that this process may not run.
fn out_of_reach(why: &str, strict: bool) -> Outcome {
    if strict {
        let remark = format!("not run: {why}, and {REQUIRE_ROOT_VAR}=1 demands it");
        return Outcome { tally: Tally::FAILED, remarks: vec![remark] };
    }
    let remark = format!("not run: {why} (sudo -E env PATH=\"$PATH\" cargo xtask test)");
    Outcome { tally: Tally::SKIPPED, remarks: vec![remark] }
}

fn run_suite(suite: &Suite, toolchain: Option<&Toolchain>, told: &[(&str, String)]) -> Result<Outcome> {
    match suite.kind {
        Kind::Format => check(cargo("fmt").args(["--all", "--check"])),
        Kind::Clippy => {
            check(cargo("clippy").args(HOST_MEMBERS).args(["--all-targets", "--", "-D", "warnings"]))
        }
        Kind::EbpfClippy => ebpf_clippy(toolchain),
        Kind::Tests(commands) => {
            let mut told = told.to_vec();
            if suite.name == vm::SUITE {
                told.extend(vm::set_up()?);
            }
            let mut sum = Outcome { tally: Tally::default(), remarks: Vec::new() };
            for args in commands {
                let Outcome { tally, remarks } =
                    tests(cargo("test").args(test_args(args)).envs(told.iter().cloned()))?;
                sum.tally += tally;
                sum.remarks.extend(remarks);
            }
            Ok(sum)
        }
    }
}

/// One command that is right or wrong.
fn check(command: &mut Command) -> Result<Outcome> {
    run(command)?;
    Ok(Outcome { tally: Tally::PASSED, remarks: Vec::new() })
}

fn ebpf_clippy(toolchain: Option<&Toolchain>) -> Result<Outcome> {
    let skipped = |why: String| Outcome { tally: Tally::SKIPPED, remarks: vec![why] };
    let Some(toolchain) = toolchain else {
        return Ok(skipped("not run: the objects are given, there is no toolchain for them".to_owned()));
    };
    if !has_clippy(&toolchain.compiler) {
        return Ok(skipped(format!("not run: the toolchain {} has no clippy", toolchain.compiler.name)));
    }
    check(ebpf_cargo(toolchain, "clippy")?.args(["--lib", "--", "-D", "warnings"]))
}

/// One `cargo test`: its output passes through, and its result lines are counted.
fn tests(command: &mut Command) -> Result<Outcome> {
    let mut counter = Counter::default();
    let (status, left_behind) = stream(command, |line| counter.read(line))?;
    let mut remarks = counter.complaints(status.success());
    if left_behind {
        remarks.push("a process that a test started has outlived it".to_owned());
    }
    let mut tally = counter.tally;
    tally.failed += u32::try_from(remarks.len()).unwrap_or(u32::MAX);
    Ok(Outcome { tally, remarks })
}

/// Runs a command, passing on each line of its output, both kinds in the order they come. Also says whether the
/// output was still open some time after its end: then a process has been left behind, and is not waited for.
fn stream(command: &mut Command, mut each: impl FnMut(&str)) -> Result<(ExitStatus, bool)> {
    let (reader, mut child) = spawn(command)?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    let mut ended: Option<(ExitStatus, Instant)> = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                println!("{line}");
                each(&line);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok((child.wait()?, false)),
            Err(RecvTimeoutError::Timeout) => {}
        }
        match ended {
            Some((status, when)) if when.elapsed() > LINGER => return Ok((status, true)),
            Some(_) => {}
            None => ended = child.try_wait()?.map(|status| (status, Instant::now())),
        }
    }
}

/// Starts a command with both its outputs going to one pipe.
fn spawn(command: &mut Command) -> Result<(PipeReader, Child)> {
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let child = command
        .env("CARGO_TERM_COLOR", "never") // the lines are parsed
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("cannot share a pipe")?)
        .stderr(writer)
        .spawn()
        .context("cannot run cargo test")?;
    // The command holds the pipe's other end open for as long as it could be started again.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok((reader, child))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Tally, out_of_reach, stream, tests};

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_outputs_are_read_in_order() {
        let mut seen = Vec::new();
        let mut command = sh("echo one; echo two >&2; printf three; exit 7");
        let (status, left_behind) = stream(&mut command, |line| seen.push(line.to_owned())).unwrap();
        assert_eq!(seen, ["one", "two", "three"]);
        assert_eq!((status.code(), left_behind), (Some(7), false));
    }

    #[test]
    fn a_test_program_that_says_nothing_has_failed() {
        let outcome = tests(&mut sh("exit 0")).unwrap();
        assert_eq!(outcome.tally, Tally::FAILED);
        assert_eq!(outcome.remarks, ["no test program ran"]);
    }

    #[test]
    fn without_root_a_suite_is_skipped_or_where_demanded_failed_but_never_passed() {
        assert_eq!(out_of_reach("needs root", false).tally, Tally::SKIPPED);
        let strict = out_of_reach("needs root", true);
        assert_eq!(strict.tally, Tally::FAILED);
        assert!(strict.remarks[0].contains("LB_REQUIRE_ROOT=1"));
    }
}
