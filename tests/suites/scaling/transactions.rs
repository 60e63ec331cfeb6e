//! Changes as transactions: planned, recorded, taken back, confirmed; two authors at a time, and a daemon that is killed
//! in the middle.

use std::{fs, path::PathBuf, thread};

use lb_tests::{
    lb_config::LbConfig,
    lb_process::has_xdp,
    site::{LIMIT, Site},
    topology::World,
    view::View,
    wait::wait_for,
};
use lb_userspace::config::Forward;
use serde_json::{Value, json};

fn site() -> Site {
    let world = World::one_arm().prepared().build().unwrap();
    let config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    Site::start(world, config).unwrap()
}

fn file(site: &Site) -> String {
    fs::read_to_string(site.lb.config_path()).unwrap()
}

fn json_of(site: &Site, arguments: &[&str]) -> Value {
    let text = site.lb.cli(&[arguments, &["--json"]].concat()).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn records(site: &Site) -> Vec<Value> {
    json_of(site, &["history"])["history"].as_array().unwrap().clone()
}

fn weight(view: &View) -> &Value {
    &view.backend("web/b1")["weight"]
}

fn refused(site: &Site, arguments: &[&str], words: &[&str]) {
    let output = site.lb.try_cli(arguments).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", output.stderr);
    for word in words {
        assert!(output.stderr.contains(word), "{arguments:?} does not say {word:?}: {}", output.stderr);
    }
}

#[test]
fn a_plan_changes_nothing_and_what_it_says_comes_true() {
    let site = site();
    let (before, text) = (site.view().unwrap().lasting(), file(&site));
    let slots = site.view().unwrap().slots("web/b3");
    for (what, protected) in [("drain", true), ("remove", false)] {
        let plan = json_of(&site, &["backend", what, "web/b3", "--plan"]);
        let moved = plan["slots_moved"].as_u64().unwrap();
        assert!(moved >= slots && moved < slots + slots / 4, "{plan:#}");
        let web = &plan["services"][0];
        assert_eq!(web["slots_at_risk"] == 0, protected, "{plan:#}");
        assert_eq!((site.view().unwrap().lasting(), file(&site)), (before.clone(), text.clone()));
    }
    let add = json_of(&site, &["backend", "add", "web/b9", "--address", "198.51.100.14", "--plan"]);
    assert_eq!(add["slots_moved"], 0, "it gets nothing before its first check: {add:#}");
    assert!(add["slots_moved_when_ready"].as_u64().unwrap() > 3_000, "{add:#}");
    assert_eq!(records(&site).len(), 1);

    let planned = json_of(&site, &["backend", "remove", "web/b3", "--plan"]);
    let done = json_of(&site, &["backend", "remove", "web/b3"]);
    assert_eq!(done["slots_moved"], planned["slots_moved"]);
    let nothing = site.lb.cli(&["plan"]).unwrap();
    assert!(nothing.starts_with("nothing would change"), "{nothing}");
}

#[test]
fn every_state_is_recorded_and_can_be_brought_back() {
    let site = site();
    let original = file(&site);
    site.lb.cli(&["backend", "set", "web/b1", "--weight", "7", "--reason", "slow disk"]).unwrap();
    site.lb.cli(&["service", "add", "api", "--address", "192.0.2.77", "--port", "443"]).unwrap();
    site.lb.cli(&["backend", "drain", "b2", "--all-services"]).unwrap();
    let history = records(&site);
    assert_eq!(history.len(), 4);
    assert_eq!((&history[0]["author"]["via"], &history[1]["author"]["uid"]), (&json!("start"), &json!(0)));
    assert_eq!(
        (&history[1]["reason"], &history[2]["message"]),
        (&json!("slow disk"), &json!("added service api"))
    );
    let diff = site.lb.cli(&["diff", "1"]).unwrap();
    assert!(diff.contains("+weight = 7") && diff.contains("+name = \"api\""), "{diff}");
    assert!(!diff.contains(lb_tests::site::SEED), "the seed is a secret: {diff}");

    site.lb.cli(&["rollback"]).unwrap();
    assert_eq!(site.view().unwrap().state("web/b2"), "ready");
    assert_eq!(site.view().unwrap().service("api")["name"], "api");
    site.lb.cli(&["rollback", "1"]).unwrap();
    assert_eq!(file(&site), original, "byte for byte");
    assert_eq!(weight(&site.view().unwrap()), 100);
    assert_eq!(records(&site).len(), 6, "going back is a change as well");
    assert_eq!(site.lb.try_cli(&["rollback", "99"]).unwrap().status.code(), Some(4));

    let edited = original.replace("weight = 100", "weight = 9");
    fs::write(site.lb.config_path(), format!("{edited}# by hand\n")).unwrap();
    refused(&site, &["rollback"], &["was edited", "lb diff", "lb apply"]);
    assert!(site.lb.cli(&["diff"]).unwrap().contains("+# by hand"));
    assert_eq!(json_of(&site, &["history"])["edited"], true);
}

#[test]
fn what_nobody_confirms_comes_back_and_what_somebody_confirms_stays() {
    let mut site = site();
    let original = file(&site);
    site.lb.cli(&["backend", "set", "web/b1", "--weight", "7", "--confirm", "1s"]).unwrap();
    fs::write(site.lb.config_path(), format!("{}# by hand\n", file(&site))).unwrap();
    site.wait("the weight to come back", |view| weight(view) == 100).unwrap();
    wait_for("the file to come back", LIMIT, || file(&site) == original).unwrap();
    let aside = PathBuf::from(format!("{}.not-applied", site.lb.config_path().display()));
    assert!(fs::read_to_string(aside).unwrap().ends_with("# by hand\n"));
    let last = records(&site).pop().unwrap();
    assert_eq!(last["author"]["via"], "timer");

    site.lb.cli(&["backend", "set", "web/b1", "--weight", "8", "--confirm", "1h"]).unwrap();
    refused(&site, &["backend", "drain", "web/b2"], &["waits to be confirmed", "lb confirm", "lb rollback"]);
    site.lb.stop().unwrap();
    site.lb.start_again().unwrap();
    refused(&site, &["backend", "drain", "web/b2"], &["waits to be confirmed"]);
    site.lb.cli(&["confirm"]).unwrap();
    refused(&site, &["confirm"], &["no change waits"]);
    site.lb.cli(&["backend", "drain", "web/b2"]).unwrap();
    assert_eq!(weight(&site.view().unwrap()), 8);

    site.lb.cli(&["backend", "set", "web/b1", "--weight", "9", "--confirm", "1h"]).unwrap();
    site.lb.cli(&["rollback"]).unwrap();
    assert_eq!(weight(&site.view().unwrap()), 8);
    refused(&site, &["confirm"], &["no change waits"]);
}

#[test]
fn of_two_authors_none_loses_anything() {
    let site = site();
    // At once: one after the other, and all of them.
    thread::scope(|scope| {
        for backend in ["web/b1", "web/b2"] {
            let site = &site;
            scope.spawn(move || {
                for weight in 1..=8 {
                    let weight = weight.to_string();
                    site.lb.cli(&["backend", "set", backend, "--weight", &weight]).unwrap();
                }
            });
        }
    });
    assert_eq!(records(&site).len(), 17);
    assert_eq!(file(&site).matches("weight = 8").count(), 2, "{}", file(&site));

    // From the same beginning: the second is told.
    let copy = PathBuf::from(format!("{}.mine", site.lb.config_path().display()));
    let copy = copy.to_str().unwrap();
    let base = records(&site).pop().unwrap()["digest"].as_str().unwrap().to_owned();
    fs::write(copy, file(&site).replacen("weight = 8", "weight = 20", 1)).unwrap();
    site.lb.cli(&["backend", "drain", "web/b3"]).unwrap();
    refused(&site, &["apply", copy, "--base", &base], &["somebody else", "read it again"]);
    assert_eq!(site.view().unwrap().state("web/b3"), "draining");
    let base = records(&site).pop().unwrap()["digest"].as_str().unwrap().to_owned();
    fs::write(copy, file(&site).replacen("weight = 8", "weight = 20", 1)).unwrap();
    site.lb.cli(&["apply", copy, "--base", &base]).unwrap();
    assert!(file(&site).contains("weight = 20"));
}

/// The steps themselves are tested one by one beside the code; here is a real process that ends wherever it is.
#[test]
fn a_daemon_killed_in_the_middle_of_a_change_leaves_the_old_or_the_new_state() {
    let mut site = site();
    for round in 0..3_u64 {
        let new = round + 10;
        let old = weight(&site.view().unwrap()).as_u64().unwrap();
        let path = format!("/var/lib/lb/{}.journal", site.lb.name());
        let socket = site.lb.socket();
        let change = thread::spawn(move || {
            let client = lb_userspace::api::Client::new("", Some(socket));
            let patch = json!({ "weight": new });
            let path = "/v1/services/web/backends/b1";
            client.call(&hyper::Method::PATCH, path, Some(&patch)).is_ok()
        });
        // Some are killed as soon as the journal is there, some when it is gone again, or the answer.
        if round < 2 {
            let gone = || change.is_finished();
            wait_for("the journal", LIMIT, || fs::metadata(&path).is_ok() || gone()).unwrap();
        }
        if round == 1 {
            wait_for("its end", LIMIT, || fs::metadata(&path).is_err() || change.is_finished()).unwrap();
        }
        site.lb.kill().unwrap();
        let answered = change.join().unwrap();
        site.lb.start_again().unwrap();
        let found = weight(&site.view().unwrap()).as_u64().unwrap();
        assert!(found == new || found == old && !answered, "round {round}: {found}, answered {answered}");
        assert!(file(&site).contains(&format!("weight = {found}")) || found == 100, "{}", file(&site));
        let last = records(&site).pop().unwrap();
        let digest = lb_userspace::config::Digest::of(&file(&site)).to_string();
        assert_eq!(last["digest"], digest, "the history ends with what is in force");
        assert!(fs::metadata(&path).is_err(), "the journal is gone");
        site.wait_settled().unwrap();
    }
    let report = site.spread(90, 90, site.vip4(80)).unwrap();
    assert_eq!(report.failed, 0, "{report:?}");
}

#[test]
fn an_interface_that_is_taken_out_is_detached() {
    let world = World::two_arm().prepared().build().unwrap();
    let mut config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    let first = world.lb.interface.clone();
    let second = "to-b1".to_owned();
    config.daemon.interfaces = vec![first.clone(), second.clone()];
    let mut site = Site::start_with(world, config, &[]).unwrap();
    let ns = site.world.lb.ns.entry();
    let attached = |device: &str| has_xdp(&ns, device).unwrap();
    assert!(attached(&first) && attached(&second));
    let both = format!("\"{first}\", \"{second}\"");
    let without = file(&site).replace(&format!(", \"{second}\""), "");
    assert_ne!(without, file(&site), "{both} is in {}", file(&site));
    let original = file(&site);
    fs::write(site.lb.config_path(), &without).unwrap();
    site.lb.cli(&["apply"]).unwrap();
    assert!(attached(&first) && !attached(&second));
    assert_eq!(site.view().unwrap().0["interfaces"].as_array().unwrap().len(), 1);
    refused(&site, &["rollback"], &["interfaces cannot be added", "start it again"]);

    // The same for a daemon that finds it so when it starts.
    site.lb.stop().unwrap();
    fs::write(site.lb.config_path(), &original).unwrap();
    site.lb.start_again().unwrap();
    assert!(attached(&second));
    site.lb.stop().unwrap();
    fs::write(site.lb.config_path(), &without).unwrap();
    site.lb.start_again().unwrap();
    assert!(attached(&first) && !attached(&second));
}
