//! What is refused: in clear words, with the documented exit code, and without changing anything.

use std::fs;

use lb_tests::{lb_config::LbConfig, site::Site, topology::World};
use lb_userspace::config::Forward;

fn site() -> Site {
    let world = World::one_arm().backends(3).prepared().build().unwrap();
    let config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    Site::start(world, config).unwrap()
}

/// Exit codes of `docs/api.md`.
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_RUNNING: i32 = 3;
const NOT_FOUND: i32 = 4;

/// Commands, how they end, and words that must be in what they say.
const REFUSED: &[(&[&str], i32, &[&str])] = &[
    (&["backend", "add", "web/b1", "--address", "198.51.100.99"], FAILED, &["b1", "already"]),
    (&["backend", "add", "web/b9", "--address", "198.51.100.11"], FAILED, &["198.51.100.11", "b1"]),
    (&["backend", "add", "web/b9", "--address", "2001:db8:1::19"], FAILED, &["2001:db8:1::19", "l2"]),
    (&["backend", "add", "web/b9", "--address", "192.0.2.10"], FAILED, &["192.0.2.10"]),
    (&["backend", "add", "web/b9", "--address", "127.0.0.1"], FAILED, &["127.0.0.1", "loopback"]),
    (&["backend", "add", "web/b 9", "--address", "198.51.100.99"], FAILED, &["b 9", "name"]),
    (&["backend", "add", "mail/b9", "--address", "198.51.100.99"], NOT_FOUND, &["mail", "web"]),
    (&["backend", "add", "web/b9", "--address", "b9.example"], USAGE, &["b9.example", "--address"]),
    (&["backend", "add", "web/b9"], USAGE, &["--address"]),
    (&["backend", "add", "web/b9", "--address", "198.51.100.99", "--weight", "65536"], USAGE, &["65536"]),
    (&["backend", "remove", "web/b9"], NOT_FOUND, &["b9", "b1"]),
    (&["backend", "remove", "mail/b1"], NOT_FOUND, &["mail"]),
    (&["backend", "remove", "b1"], USAGE, &["SERVICE/NAME"]),
    (&["backend", "set", "web/b1", "--weight", "70000"], USAGE, &["70000"]),
    (&["backend", "set", "web/b1", "--weight=-1"], USAGE, &["-1"]),
    (&["backend", "set", "web/b1"], USAGE, &["--weight"]),
    (&["backend", "set", "web/b9", "--weight", "7"], NOT_FOUND, &["b9"]),
    (&["backend", "set", "web/b1", "--state", "gone"], USAGE, &["gone", "drain"]),
    (&["backend", "set", "web/b1", "--address", "198.51.100.12"], FAILED, &["198.51.100.12", "b2"]),
    (&["backend", "drain", "web/b9"], NOT_FOUND, &["b9"]),
    (&["backend", "enable", "mail/b1"], NOT_FOUND, &["mail"]),
    (&["backend", "list", "mail"], NOT_FOUND, &["mail"]),
    (&["service", "show", "mail"], NOT_FOUND, &["mail"]),
    (&["limit", "set", "mail", "--rate", "10", "--burst", "10"], NOT_FOUND, &["mail"]),
    (&["limit", "set", "web", "--rate", "0", "--burst", "10"], USAGE, &["0", "--rate"]),
    (&["limit", "set", "web", "--rate", "10", "--burst", "10000001"], USAGE, &["10000001", "--burst"]),
    (&["backends"], USAGE, &["backends", "backend"]),
];

#[test]
fn refusals_are_clear_and_change_nothing() {
    let site = site();
    let file = site.lb.config_path();
    let (text, before) = (fs::read(&file).unwrap(), site.view().unwrap());
    for (arguments, code, words) in REFUSED {
        let output = site.lb.try_cli(arguments).unwrap();
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {}", output.stderr);
        assert_eq!(output.stdout, "", "{arguments:?}: data on stdout");
        for word in *words {
            assert!(output.stderr.contains(word), "{arguments:?} does not say {word:?}: {}", output.stderr);
        }
        assert_eq!(fs::read(&file).unwrap(), text, "{arguments:?} has changed the file");
        assert_eq!(site.view().unwrap().lasting(), before.lasting(), "{arguments:?} has changed something");
    }
}

#[test]
fn a_refusal_is_a_problem_for_programs() {
    let site = site();
    let cases = [
        (&["backend", "add", "web/b1", "--address", "198.51.100.99", "--json"][..], FAILED, "conflict", 409),
        (&["backend", "remove", "web/b9", "--json"], NOT_FOUND, "not-found", 404),
        (&["backend", "add", "web/b9", "--address", "2001:db8:1::19", "--json"], FAILED, "invalid", 422),
    ];
    for (arguments, code, kind, status) in cases {
        let output = site.lb.try_cli(arguments).unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", output.stderr);
        let problem: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(problem["type"], format!("urn:lb:problem:{kind}"));
        assert_eq!(problem["status"], status);
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
}

#[test]
fn the_last_weight_cannot_be_taken_away() {
    let site = site();
    for name in ["web/b1", "web/b2"] {
        site.lb.cli(&["backend", "set", name, "--weight", "0"]).unwrap();
    }
    let (text, before) = (fs::read(site.lb.config_path()).unwrap(), site.view().unwrap());
    for arguments in [&["backend", "set", "web/b3", "--weight", "0"][..], &["backend", "remove", "web/b3"]] {
        let output = site.lb.try_cli(arguments).unwrap();
        assert_eq!(output.status.code(), Some(FAILED), "{arguments:?}: {}", output.stderr);
        assert!(output.stderr.contains("weight"), "{}", output.stderr);
        assert_eq!(fs::read(site.lb.config_path()).unwrap(), text);
        assert_eq!(site.view().unwrap().lasting(), before.lasting());
    }
}

#[test]
fn without_a_daemon_every_question_says_so() {
    let mut site = site();
    site.lb.stop().unwrap();
    for arguments in [&["status"][..], &["backend", "drain", "web/b1"], &["reload"]] {
        let output = site.lb.try_cli(arguments).unwrap();
        assert_eq!(output.status.code(), Some(NOT_RUNNING), "{arguments:?}: {}", output.stderr);
        assert!(output.stderr.contains("lb run"), "{}", output.stderr);
    }
}
