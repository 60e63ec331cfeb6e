//! The program `lab`, with a stand-in for the balancer: what it says, what it leaves, and when it is content.

use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use lb_tests::{
    cleanup::namespaces_of,
    process::{Output, run},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(arguments).env("LB_BIN", env!("CARGO_BIN_EXE_lab-stand-in"));
    command
}

fn says(arguments: &[&str]) -> Output {
    run(lab(arguments), LIMIT).unwrap()
}

#[test]
fn every_request_in_every_mode_is_a_success() {
    let output = says(&["run", "--requests", "900", "--exit", "--json"]);
    let verdict: Value = serde_json::from_str(&output.stdout).unwrap();
    assert!(output.status.success(), "{verdict:#}\n{}", output.stderr);
    assert_eq!((&verdict["ok"], &verdict["left"]), (&true.into(), &serde_json::json!([])));
    let modes = verdict["modes"].as_array().unwrap();
    assert_eq!(
        modes.iter().map(|m| m["mode"].as_str().unwrap()).collect::<Vec<_>>(),
        ["l2", "ipip", "ipv6", "gue"]
    );
    for mode in modes {
        assert_eq!(
            (&mode["answered"], &mode["clients"], &mode["wandering"]),
            (&900.into(), &300.into(), &0.into())
        );
        let sum: u64 =
            mode["backends"].as_array().unwrap().iter().map(|b| b["requests"].as_u64().unwrap()).sum();
        assert_eq!(sum, 900);
    }
}

#[test]
fn clients_that_wander_are_no_success() {
    let mut command = lab(&["run", "--requests", "600", "--exit", "--mode", "l2"]);
    command.env("LAB_STAND_IN", "flows");
    let output = run(command, LIMIT).unwrap();
    assert_eq!(output.status.code(), Some(1), "{}\n{}", output.stdout, output.stderr);
    assert!(output.stdout.contains("l2: 600 of 600 requests answered"), "{}", output.stdout);
    assert!(output.stdout.contains("saw more than one backend: b1"), "{}", output.stdout);
    assert!(output.stdout.contains("NOT all is well"), "{}", output.stdout);
}

#[test]
fn a_missing_balancer_is_one_sentence_with_the_fix() {
    let mut command = lab(&["run", "--exit", "--mode", "l2"]);
    command.env("LB_BIN", "/nonexistent/lb");
    let output = run(command, LIMIT).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.contains("cargo build -p lb-userspace"), "{}", output.stderr);
}

#[test]
fn a_balancer_that_does_not_start_is_quoted() {
    let mut command = lab(&["run", "--exit", "--mode", "l2"]);
    command.env("LB_BIN", "/bin/false");
    let output = run(command, LIMIT).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stderr.contains("lb run") && output.stderr.contains("exit status: 1"),
        "{}",
        output.stderr
    );
}

/// A live lab under a name of its own; ended when dropped.
struct Live {
    child: Child,
    name: String,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Live {
    fn start(role: &str) -> Self {
        let name = format!("test-{role}-{}", std::process::id());
        let mut command = lab(&["run", "--mode", "l2", "--backends", "2", "--json", "--name", &name]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, name, lines: Some(lines) }
    }

    /// Reads pictures until one satisfies `wanted`.
    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let lines = self.lines.iter_mut().flatten();
        let pictures = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        pictures.take(60).find(wanted).expect("a picture of what was wanted")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    fn exec(&self, role: &str, command: &[&str]) -> Output {
        says(&[&["exec", "--name", &self.name, role, "--"], command].concat())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // By then nobody reads its pictures, which must not keep it from ending.
            self.signal(Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

#[test]
fn a_live_lab_shows_traffic_and_goes_with_ctrl_c() {
    let mut live = Live::start("live");
    let picture = live.until(|picture| picture["answered"].as_u64() > Some(50));
    assert_eq!((&picture["failed"], &picture["moves"]), (&0.into(), &0.into()), "{picture}");
    assert_eq!(picture["states"]["b2"], "ready");
    assert_eq!(namespaces_of(live.child.id()).len(), 5);

    live.signal(Signal::SIGINT);
    assert!(live.child.wait().unwrap().success());
    assert_eq!(namespaces_of(live.child.id()), [""; 0]);
    assert!(!says(&["list"]).stdout.contains(&live.name));
}

#[test]
fn a_lab_whose_reader_is_gone_ends_in_order() {
    let mut live = Live::start("reader");
    live.until(|picture| picture["answered"].as_u64() > Some(0));
    live.lines = None;
    assert_eq!(live.child.wait().unwrap().code(), Some(1));
    assert_eq!(namespaces_of(live.child.id()), [""; 0]);
}

#[test]
fn a_second_terminal_finds_the_lab() {
    let mut live = Live::start("second");
    live.until(|picture| picture["answered"].as_u64() > Some(0));

    let addresses = live.exec("b1", &["ip", "-brief", "address", "show", "dev", "eth0"]);
    assert!(addresses.stdout.contains("198.51.100.11/24"), "{addresses:?}");
    let found =
        live.exec("lb", &["sh", "-c", "command -v lab-stand-in; test -S $LB_SOCKET && echo $LB_NAME"]);
    assert!(found.stdout.starts_with(env!("CARGO_BIN_EXE_lab-stand-in")), "{found:?}");
    assert!(found.stdout.lines().nth(1).unwrap().starts_with("lbt-"), "{found:?}");
    assert_eq!(live.exec("client", &["sh", "-c", "exit 7"]).status.code(), Some(7));

    let unknown = live.exec("b9", &["true"]);
    assert!(unknown.stderr.contains("b1, b2, client, lb, router"), "{unknown:?}");
    let list = says(&["list"]).stdout;
    assert!(list.contains(&live.name) && list.contains("192.0.2.10:80"), "{list}");
    let twice = says(&["run", "--name", &live.name]);
    assert_eq!(twice.status.code(), Some(1));
    assert!(twice.stderr.contains("runs already"), "{twice:?}");
    let nobody = says(&["exec", "--name", "nobody", "lb", "--", "true"]);
    assert!(nobody.stderr.contains("no lab named \"nobody\" runs"), "{nobody:?}");
}

#[test]
fn a_killed_lab_is_cleaned_up() {
    let mut live = Live::start("killed");
    live.until(|picture| picture["answered"].as_u64() > Some(0));
    live.child.kill().unwrap();
    live.child.wait().unwrap();
    assert!(says(&["clean"]).status.success());
    assert_eq!(namespaces_of(live.child.id()), [""; 0]);
    assert!(!says(&["list", "--json"]).stdout.contains(&live.name));
}
