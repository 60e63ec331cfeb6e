//! The file is the truth: changes are written back with its comments, and its own edits are applied or refused.

use std::fs;

use lb_tests::{
    check,
    site::{SEED, Site},
    topology::World,
};
use nix::sys::signal::Signal;

/// A file as a person writes it.
fn text() -> String {
    format!(
        r#"# The balancer of the test.
[daemon]
hash_seed = "{SEED}"   # the same on both balancers

[[service]]
name = "web"           # what users see
addresses = ["192.0.2.10"]
ports = [80]
forward = "l2"

[service.health]
type = "http"
path = "/ready"        # 503 while it starts
interval = "1s"

# The old machines:
[[service.backend]]
name = "b1"
address = "198.51.100.11"

[[service.backend]]
name = "b2"
address = "198.51.100.12"   # second rack
weight = 100

# The new machine:
[[service.backend]]
name = "b3"
address = "198.51.100.13"
"#
    )
}

fn site() -> Site {
    let world = World::one_arm().backends(4).prepared().build().unwrap();
    Site::start_text(world, Vec::new(), &text(), &["--interface", "eth0"]).unwrap()
}

fn file(site: &Site) -> String {
    fs::read_to_string(site.lb.config_path()).unwrap()
}

/// Replaces the file as an editor does.
fn edit(site: &Site, text: &str) {
    let path = site.lb.config_path();
    let aside = path.with_extension("new");
    fs::write(&aside, text).unwrap();
    fs::rename(aside, path).unwrap();
}

/// Comments of a text, each with its line.
fn comments(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.contains('#')).collect()
}

#[test]
fn changes_are_written_back_and_comments_stay() {
    let mut site = site();
    let original = text();
    site.lb.cli(&["backend", "add", "web/b4", "--address", "198.51.100.14", "--weight", "50"]).unwrap();
    site.lb.cli(&["backend", "set", "web/b2", "--weight", "70"]).unwrap();
    site.lb.cli(&["backend", "drain", "web/b1"]).unwrap();
    site.lb.cli(&["limit", "set", "web", "--rate", "100000", "--burst", "5000"]).unwrap();
    let changed = file(&site);
    assert_eq!(comments(&changed), comments(&original));
    for words in ["\"198.51.100.14\"", "weight = 50", "weight = 70", "\"drain\"", "100000", "5000"] {
        assert!(changed.contains(words), "{words} is not in\n{changed}");
    }
    site.wait("b4 to be ready", |view| view.state("web/b4") == "ready").unwrap();
    let before = site.view().unwrap();

    // A daemon that starts from this file makes the same of it.
    site.lb.stop().unwrap();
    site.lb.start_again().unwrap();
    let after = site.view().unwrap();
    assert_eq!(after.service("web")["desired_digest"], before.service("web")["desired_digest"]);
    assert_eq!(after.service("web")["limit"], serde_json::json!({ "rate": 100_000, "burst": 5000 }));
    assert_eq!(after.state("web/b1"), "draining");

    // And all the way back.
    site.lb.cli(&["backend", "remove", "web/b4"]).unwrap();
    site.lb.cli(&["backend", "set", "web/b2", "--weight", "100"]).unwrap();
    site.lb.cli(&["backend", "enable", "web/b1"]).unwrap();
    site.lb.cli(&["limit", "clear", "web"]).unwrap();
    assert_eq!(comments(&file(&site)), comments(&original));
    site.wait_settled().unwrap();
    check::balanced(&site.spread(300, 300, site.vip4(80)).unwrap(), 300, &["b1", "b2", "b3"]).unwrap();
}

#[test]
fn a_change_that_is_not_needed_writes_nothing() {
    let site = site();
    let before = site.view().unwrap();
    let output = site.lb.cli(&["backend", "set", "web/b2", "--weight", "100", "--json"]).unwrap();
    let change: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!((&change["changed"], &change["slots_moved"]), (&false.into(), &0.into()));
    assert_eq!(file(&site), text());
    assert_eq!(site.view().unwrap().lasting(), before.lasting());
}

#[test]
fn an_edited_file_is_applied_before_anything_else_changes() {
    let site = site();
    let before = site.view().unwrap();
    let edited = text().replace("weight = 100", "weight = 300");
    edit(&site, &edited);
    let output = site.lb.try_cli(&["backend", "drain", "web/b1"]).unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
    for words in ["edited", "lb apply", "lb.toml"] {
        assert!(output.stderr.contains(words), "{words} is not in: {}", output.stderr);
    }
    assert_eq!(file(&site), edited, "the edit is left alone");
    assert_eq!(site.view().unwrap().lasting(), before.lasting());

    site.lb.cli(&["reload"]).unwrap();
    assert_eq!(site.view().unwrap().backend("web/b2")["weight"], 300);
    site.lb.cli(&["backend", "drain", "web/b1"]).unwrap();
    assert_eq!(site.view().unwrap().state("web/b1"), "draining");
    assert!(file(&site).contains("weight = 300"));
}

#[test]
fn sighup_applies_the_file() {
    let mut site = site();
    let (first, generation) = (text(), site.view().unwrap().generation());
    edit(&site, &first.replace("\"198.51.100.13\"", "\"198.51.100.14\""));
    site.lb.process().signal(Signal::SIGHUP).unwrap();
    let moved = |view: &lb_tests::view::View| view.backend("web/b3")["address"] == "198.51.100.14";
    site.wait("the edit to be in force", moved).unwrap();
    site.wait_settled().unwrap();
    assert!(site.view().unwrap().generation() > generation);
    let report = site.spread(300, 300, site.vip4(80)).unwrap();
    check::balanced(&report, 300, &["b1", "b2", "b4"]).unwrap();
}

#[test]
fn a_file_that_is_wrong_is_refused_with_its_line_and_nothing_changes() {
    let mut site = site();
    let before = site.view().unwrap();
    let wrong = text().replace("weight = 100", "weight = \"heavy\"");
    let line = 1 + wrong.lines().position(|line| line.contains("heavy")).unwrap();
    edit(&site, &wrong);
    for arguments in [&["reload"][..], &["backend", "drain", "web/b1"]] {
        let output = site.lb.try_cli(arguments).unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
        assert_eq!(site.view().unwrap().lasting(), before.lasting());
        if arguments[0] == "reload" {
            assert!(output.stderr.contains(&format!("lb.toml:{line}:")), "{}", output.stderr);
        }
    }
    site.lb.process().signal(Signal::SIGHUP).unwrap();
    let process = site.lb.process();
    process.wait_ready("refuse", lb_tests::site::LIMIT, |log| log.contains("heavy")).unwrap();
    assert_eq!(site.view().unwrap().lasting(), before.lasting());

    edit(&site, &text());
    site.lb.cli(&["reload"]).unwrap();
    site.lb.cli(&["backend", "drain", "web/b1"]).unwrap();
}

#[test]
fn what_cannot_change_while_the_daemon_runs_is_refused() {
    let site = site();
    let before = site.view().unwrap();
    let other_seed = SEED.replace('0', "f");
    edit(&site, &text().replace(SEED, &other_seed));
    let output = site.lb.try_cli(&["reload"]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stderr.contains("hash_seed") && output.stderr.contains("start it again"),
        "{}",
        output.stderr
    );
    assert!(!output.stderr.contains(&other_seed), "the seed is a secret");
    assert_eq!(site.view().unwrap().lasting(), before.lasting());
}
