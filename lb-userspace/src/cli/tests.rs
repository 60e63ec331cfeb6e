//! The command line from its words to its output: against a daemon on a real socket, and against hooks that note what
//! they were given.

use std::{ffi::OsString, path::Path, sync::Mutex};

use clap::{CommandFactory, Parser};
use serde_json::{Value, json};

use super::{
    args::Cli,
    hooks::{AgentOptions, AgentSource, Checked, Hooks, Prepare, Refused, RunOptions},
    run_with,
};
use crate::{
    api::{
        ApiError,
        fake::{FakeControl, TestDaemon},
    },
    config::{self, XdpMode},
};

/// What one run of `lb` left behind.
struct Ran {
    code: u8,
    stdout: String,
    stderr: String,
}

/// Runs `lb` with words that hold no blanks.
fn lb_with(hooks: &Hooks, line: &str) -> Ran {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let words = std::iter::once("lb").chain(line.split_whitespace()).map(OsString::from);
    let code = run_with(words, hooks, &mut stdout, &mut stderr, false);
    Ran { code, stdout: String::from_utf8(stdout).unwrap(), stderr: String::from_utf8(stderr).unwrap() }
}

fn lb(line: &str) -> Ran {
    lb_with(&NOTING, line)
}

/// Runs `lb` against this daemon.
fn ask(daemon: &TestDaemon, line: &str) -> Ran {
    lb(&format!("--socket {} {line}", daemon.socket.display()))
}

static RUN: Mutex<Option<RunOptions>> = Mutex::new(None);
static AGENT: Mutex<Option<AgentOptions>> = Mutex::new(None);
/// One test at a time may read what the hooks noted.
static TURN: Mutex<()> = Mutex::new(());

/// Hooks that note their options.
const NOTING: Hooks = Hooks {
    run: |options| {
        *RUN.lock().unwrap() = Some(options);
        Ok(())
    },
    agent: |options| {
        *AGENT.lock().unwrap() = Some(options);
        Ok(())
    },
    agent_status: |name, json| Ok(format!("agent {name} json {json}")),
    agent_detach: |_| Ok(vec!["link of eth0".into()]),
    detach: |name| {
        if name == "gone" { Ok(Vec::new()) } else { Ok(vec!["link of eth0".into(), "pins".into()]) }
    },
    check: check_by_name,
};

fn check_by_name(path: &Path) -> Result<Checked, Refused> {
    if path == Path::new("good.toml") {
        let json = json!({"service": [{"name": "web"}]});
        return Ok(Checked { toml: "[[service]]\nname = \"web\"\n".into(), json, services: 1, backends: 2 });
    }
    Err(Refused {
        text: "bad.toml:3:1: unknown key \"weigth\"".into(),
        details: json!({"file": "bad.toml", "problems": [{"line": 3}], "status": 200}),
    })
}

#[test]
fn tables_for_people_and_the_body_for_programs() {
    let daemon = TestDaemon::start(FakeControl::new());
    for (line, path, word) in [
        ("status", "/v1/status", "service web: 192.0.2.10"),
        ("service list", "/v1/services", "1 of 3"),
        ("service show web", "/v1/services/web", "16,381 slots"),
        ("backend list", "/v1/backends", "dns/b1"),
        ("backend list web", "/v1/backends?service=web", "web/b2"),
        ("limit show", "/v1/limits", "no limit"),
        ("limit show web", "/v1/services/web/limit", "1,000/s per source"),
    ] {
        let ran = ask(&daemon, line);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
        assert!(ran.stdout.contains(word) && ran.stdout.ends_with('\n'), "{line}: {}", ran.stdout);
        let body = daemon.client().get(path).unwrap().body;
        let ran = ask(&daemon, &format!("{line} --json"));
        assert_eq!(ran.stdout.trim_end_matches('\n').as_bytes(), body, "{line}");
    }
    assert!(!ask(&daemon, "backend list web").stdout.contains("dns/b1"));
}

#[test]
fn every_changing_verb_says_what_it_means() {
    let daemon = TestDaemon::start(FakeControl::new());
    let all = |name: &str, patch: &str| vec![format!("set */{name} {patch}")];
    let one = |call: &str| vec![call.to_owned()];
    let cases: Vec<(&str, Vec<String>)> = vec![
        (
            "backend add web/b4 --address 198.51.100.14 --weight 7 --port 81 --state down",
            one("add web/b4 198.51.100.14 port Some(81) weight 7 Down"),
        ),
        (
            "backend add web --address 2001:db8::14",
            one("add web/2001:db8::14 2001:db8::14 port None weight 100 Up"),
        ),
        ("backend remove web/b1", one("remove web/b1")),
        ("backend rm b3 --all-services", one("remove */b3")),
        ("backend set web/b1 --weight 0", one(r#"set web/b1 {"weight":0}"#)),
        ("backend set web/b1 --no-port --state up", one(r#"set web/b1 {"state":"up","port":null}"#)),
        (
            "backend set web/b1 --address 192.0.2.7 --port 9",
            one(r#"set web/b1 {"address":"192.0.2.7","port":9}"#),
        ),
        ("backend set b1 --all-services --weight 5", all("b1", r#"{"weight":5}"#)),
        ("backend drain web/2001:db8::14", one(r#"set web/2001:db8::14 {"state":"drain"}"#)),
        ("backend drain --all-services b1", all("b1", r#"{"state":"drain"}"#)),
        ("backend enable web/b1", one(r#"set web/b1 {"state":"up"}"#)),
        ("limit set web --rate 5 --burst 6", one("limit web 5/6")),
        ("limit clear web", one("clear web")),
        ("reload", one("reload")),
        ("apply --confirm 2m --reason drill", one("reload because drill confirm 120s")),
        ("confirm", one("confirm")),
        ("rollback", one("rollback None")),
        ("rollback 7", one("rollback Some(7)")),
        (
            "service add api --address 192.0.2.20 --port 443 --port 8000-8100 --forward l2",
            one(
                r#"add service {"name":"api","addresses":["192.0.2.20"],"ports":["443","8000-8100"],"forward":"l2"}"#,
            ),
        ),
        ("service rm dns --reason unused", one("remove service dns because unused")),
    ];
    for (line, calls) in cases {
        let ran = ask(&daemon, line);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
        assert_eq!(daemon.control.take_calls(), calls, "{line}");
        assert!(ran.stdout.contains("generation 13: "), "{line}: {}", ran.stdout);
        let ran = ask(&daemon, &format!("{line} --json"));
        let body: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(body["changed"], true, "{line}");
        daemon.control.take_calls();
    }
}

#[test]
fn every_changing_verb_can_be_planned() {
    let daemon = TestDaemon::start(FakeControl::new());
    for (line, call) in [
        ("backend remove web/b1 --plan", "remove web/b1"),
        ("backend add web --address 192.0.2.7 --plan", "add web/192.0.2.7 192.0.2.7 port None weight 100 Up"),
        ("backend set web/b1 --weight 5 --plan", r#"set web/b1 {"weight":5}"#),
        ("limit clear web --plan", "clear web"),
        ("service remove dns --plan", "remove service dns"),
        ("rollback --plan", "rollback None"),
        ("apply --plan", "reload"),
        ("plan", "reload"),
    ] {
        let ran = ask(&daemon, line);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
        assert_eq!(daemon.control.take_calls(), [format!("plan {call}")], "{line}");
        assert!(ran.stdout.contains("at most 7 are at risk"), "{line}: {}", ran.stdout);
    }
}

#[test]
fn a_file_is_planned_applied_and_compared() {
    let daemon = TestDaemon::start(FakeControl::new());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new.toml");
    std::fs::write(&file, "a = 1").unwrap();
    let file = file.display();
    for (line, call) in [
        (format!("plan {file}"), "plan text \"a = 1\" base None"),
        (format!("apply {file} --base 5e --confirm 60s"), "text \"a = 1\" base Some(\"5e\") confirm 60s"),
        ("history".into(), "history"),
        ("diff".into(), "diff None None"),
        ("diff 1 2".into(), "diff Some(1) Some(2)"),
    ] {
        let ran = ask(&daemon, &line);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
        assert_eq!(daemon.control.take_calls(), [call], "{line}");
    }
    let ran = ask(&daemon, "apply /nonexistent/x.toml");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("cannot read the file"), "{}", ran.stderr);
}

#[test]
fn wrong_command_lines_end_with_2_and_ask_nothing() {
    let daemon = TestDaemon::start(FakeControl::new());
    for (line, said) in [
        ("", "Usage: lb"),
        ("statsu", "unrecognized subcommand"),
        ("backend drain web/b1 --wait soon", "expected a duration"),
        ("backend drain web/b1 --quiet 5s", "--wait <DURATION>"),
        ("backend drain b1", "expected SERVICE/NAME, found 'b1'"),
        ("backend drain /b1", "expected SERVICE/NAME"),
        ("backend drain web/", "expected SERVICE/NAME"),
        ("backend drain web/b1 --all-services", "--all-services takes NAME alone"),
        ("backend add web/ --address 192.0.2.1", "expected SERVICE/NAME"),
        ("backend add web/b1", "--address"),
        ("backend add web/b1 --address 192.0.2.300", "invalid value '192.0.2.300'"),
        ("backend add web/b1 --address 192.0.2.3 --weight 65536", "65536 is not in 0..=65535"),
        ("backend set web/b1", "required arguments were not provided"),
        ("backend set web/b1 --port 0", "0 is not in 1..=65535"),
        ("backend set web/b1 --port 1 --no-port", "cannot be used with"),
        ("backend set web/b1 --state gone", "[possible values: up, drain, down]"),
        ("limit set web --rate 0 --burst 1", "0 is not in 1..=1000000"),
        ("limit set web --rate 1", "--burst"),
        ("apply --confirm 0s", "expected at least 1s"),
        ("apply --confirm 48h", "expected at most 24h"),
        ("apply --confirm 60s --plan", "cannot be used with"),
        ("rollback seven", "invalid value 'seven'"),
        ("service add api --address 192.0.2.20", "--port"),
        ("--name ../x status", "expected 1 to 63 of"),
        ("run", "--config"),
        ("agent", "--config"),
        ("agent --config a --from b", "cannot be used with"),
        ("agent --vip 192.0.2.1", "required arguments were not provided"),
        ("agent --config a --prepare --unprepare", "cannot be used with"),
        ("completions tcsh", "possible values"),
    ] {
        let ran = ask(&daemon, line);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{line}");
        assert!(ran.stderr.contains(said), "{line}: {}", ran.stderr);
    }
    assert_eq!(daemon.control.take_calls(), [""; 0]);
}

#[test]
fn exit_codes_tell_why() {
    let dir = tempfile::tempdir().unwrap();
    let gone = lb(&format!("status --socket {}/main.sock", dir.path().display()));
    assert_eq!((gone.code, gone.stdout.as_str()), (3, ""));
    assert!(
        gone.stderr.starts_with("lb: the daemon of instance 'main' is not running (no "),
        "{}",
        gone.stderr
    );

    let daemon = TestDaemon::start(FakeControl::new());
    let none = ask(&daemon, "service show wbe");
    assert_eq!(none.code, 4);
    assert!(none.stderr.contains("there is no service \"wbe\"") && none.stderr.contains("one of web, dns"));

    let no = ApiError::conflict("lb.toml was edited but not applied").fix("`lb reload` applies it");
    let daemon = TestDaemon::start(FakeControl::refusing(no));
    let refused = ask(&daemon, "backend remove web/b1");
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    assert_eq!(refused.stderr, "lb: lb.toml was edited but not applied\n  fix: `lb reload` applies it\n");
}

#[test]
fn with_json_a_refusal_is_a_body_too() {
    let no = ApiError::conflict("no");
    let daemon = TestDaemon::start(FakeControl::refusing(no.clone()));
    let refused = ask(&daemon, "--json backend remove web/b1");
    assert_eq!(refused.code, 1);
    assert_eq!(serde_json::from_str::<ApiError>(&refused.stdout).unwrap(), no);

    let dir = tempfile::tempdir().unwrap();
    let gone = lb(&format!("--json --socket {}/x.sock status", dir.path().display()));
    let problem: Value = serde_json::from_str(&gone.stdout).unwrap();
    assert_eq!((gone.code, &problem["type"]), (3, &json!("urn:lb:problem:not-running")));
}

#[test]
fn run_gets_its_options() {
    let _turn = TURN.lock().unwrap();
    let ran = lb("run --config lb.toml --interface eth0 --iface eth1 --name edge --detach-on-exit");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let want = RunOptions {
        config: "lb.toml".into(),
        interfaces: vec!["eth0".into(), "eth1".into()],
        name: "edge".into(),
        socket: None,
        detach_on_exit: true,
    };
    assert_eq!(RUN.lock().unwrap().take(), Some(want));
}

#[test]
fn an_agent_learns_from_a_file_a_balancer_or_flags() {
    let _turn = TURN.lock().unwrap();
    let flags = AgentSource::Flags(config::Agent {
        interface: "eth0".into(),
        vips: vec!["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()],
        tunnel_sources: vec!["198.51.100.0/28".parse().unwrap()],
        gue_port: 6080,
        peers: Vec::new(),
        xdp_mode: XdpMode::Generic,
    });
    let from = |interface: Option<&str>| AgentSource::Balancer {
        address: "192.0.2.1:9870".into(),
        interface: interface.map(Into::into),
    };
    for (line, source, prepare) in [
        ("--config a.toml", Some(AgentSource::File("a.toml".into())), Prepare::Leave),
        ("--from 192.0.2.1:9870 --prepare", Some(from(None)), Prepare::Prepare),
        ("--from 192.0.2.1:9870 --interface eth0", Some(from(Some("eth0"))), Prepare::Leave),
        (
            "--interface eth0 --vip 192.0.2.10 --vip 2001:db8::10 --tunnel-source 198.51.100.0/28 --xdp-mode generic",
            Some(flags),
            Prepare::Leave,
        ),
        ("--unprepare", None, Prepare::Unprepare),
    ] {
        let ran = lb(&format!("agent {line}"));
        assert_eq!(ran.code, 0, "{line}: {}", ran.stderr);
        let got = AGENT.lock().unwrap().take().unwrap();
        assert_eq!((got.source, got.prepare), (source, prepare), "{line}");
        assert_eq!((got.name.as_str(), got.detach_on_exit, got.json), ("main", false, false), "{line}");
    }
}

#[test]
fn agent_status_and_detach_need_no_source() {
    assert_eq!(lb("agent status --json --name a1").stdout, "agent a1 json true\n");
    assert_eq!(lb("--socket /nowhere agent status").stdout, "agent main json false\n");
    assert_eq!(lb("agent detach").stdout, "removed link of eth0\n");
}

#[test]
fn detach_says_what_it_removed_and_waits_for_the_daemon_to_stop() {
    let daemon = TestDaemon::start(FakeControl::new());
    let refused = ask(&daemon, "detach");
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("stop it first (SIGTERM)"), "{}", refused.stderr);
    assert_eq!(lb("--socket /nowhere detach").stdout, "removed link of eth0\nremoved pins\n");
    let gone = "--socket /nowhere --name gone detach";
    assert!(lb(gone).stdout.starts_with("nothing to remove: no balancer of instance 'gone'"));
    let json: Value = serde_json::from_str(&lb(&format!("{gone} --json")).stdout).unwrap();
    assert_eq!(json, json!({"name": "gone", "changed": false, "removed": []}));
}

#[test]
fn check_prints_the_resolved_form_or_every_problem() {
    let good = lb("check -c good.toml");
    assert_eq!((good.code, good.stdout.as_str()), (0, "[[service]]\nname = \"web\"\n"));
    assert_eq!(good.stderr, "good.toml is valid: 1 service, 2 backends\n");
    let good = lb("check --config good.toml --json");
    assert_eq!((good.stdout.as_str(), good.stderr.as_str()), ("{\"service\":[{\"name\":\"web\"}]}\n", ""));

    let bad = lb("check -c bad.toml");
    assert_eq!((bad.code, bad.stdout.as_str()), (1, ""));
    assert_eq!(bad.stderr, "lb: bad.toml:3:1: unknown key \"weigth\"\n");
    let problem: Value = serde_json::from_str(&lb("check -c bad.toml --json").stdout).unwrap();
    assert_eq!(problem["problems"], json!([{"line": 3}]));
    assert_eq!(problem["status"], 422, "details cannot overwrite what a problem is");
}

#[test]
fn help_version_completions_and_manual_go_to_stdout() {
    for (line, word) in [
        ("--help", "Exit codes: 0 done"),
        ("--version", concat!("lb ", env!("CARGO_PKG_VERSION"))),
        ("backend set --help", "--no-port"),
        ("completions bash", "complete -F _lb"),
        ("completions zsh", "#compdef lb"),
        ("completions fish", "complete -c lb"),
        ("man", ".TH lb 1"),
    ] {
        let ran = lb(line);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
        assert!(ran.stdout.contains(word), "{line}: {}", ran.stdout);
    }
}

#[test]
fn manual_pages_are_written_for_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("man");
    assert_eq!(lb(&format!("man --out {}", out.display())).code, 0);
    for page in ["lb.1", "lb-run.1", "lb-backend-drain.1", "lb-agent-status.1"] {
        assert!(out.join(page).exists(), "{page}");
    }
}

#[test]
fn every_verb_and_option_has_a_help_text() {
    fn check(command: &clap::Command) {
        assert!(command.get_about().is_some(), "{} has no text", command.get_name());
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{} {} has no text", command.get_name(), arg.get_id());
        }
        command.get_subcommands().for_each(check);
    }
    let mut command = Cli::command();
    command.build();
    check(&command);
}

#[test]
fn options_that_every_verb_takes_stand_anywhere() {
    let cli = Cli::try_parse_from(["lb", "backend", "list", "--json", "--name", "a"]).unwrap();
    assert!(cli.global.json);
    assert_eq!(cli.global.name, "a");
}
