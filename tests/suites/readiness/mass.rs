//! Many backends that fail at once, and checks by a command and by a datagram.

use std::fs;

use lb_tests::{check, cleanup::Folder, site::Site, topology::World, view::View};
use lb_userspace::config::Forward;

use crate::scene::config;

/// A site whose checks run a command: a backend is failed while a file with its name lies in the folder. `keys` go into
/// `[service.health]`, and b3 says sorry if `sorry`.
fn site(keys: &str, sorry: bool) -> (Site, Folder) {
    let folder = Folder::new("marks").unwrap();
    let world = World::one_arm().prepared().build().unwrap();
    let text = config(&world, Forward::L2).to_toml().unwrap();
    let script = format!("test ! -e {}/$LB_BACKEND || {{ echo marked; exit 2; }}", folder.path().display());
    let command = format!("type = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\n{keys}");
    let path = text.lines().find(|line| line.starts_with("path = ")).unwrap();
    let text = text.replace("type = \"http\"", &command).replace(path, "");
    let third = "name = \"b3\"\n";
    let text = if sorry { text.replace(third, &format!("{third}sorry = true\n")) } else { text };
    (Site::start_text(world, Vec::new(), &text, &["--interface", "eth0"]).unwrap(), folder)
}

fn mark(folder: &Folder, backends: &[&str], failed: bool) {
    for backend in backends {
        let path = folder.path().join(backend);
        if failed { fs::write(path, "").unwrap() } else { fs::remove_file(path).unwrap() }
    }
}

fn mode(view: &View) -> &str {
    view.service("web")["mode"].as_str().unwrap()
}

/// Everybody is answered, by these alone.
fn answered_by(site: &Site, names: &[&str]) {
    let report = site.spread(150, 150, site.vip4(80)).unwrap();
    match names {
        // One alone has no spread.
        [name] => {
            check::steady(&report, 150).unwrap();
            assert!(report.owners().values().all(|owner| owner == name), "{report:?}");
        }
        names => check::balanced(&report, 150, names).unwrap(),
    }
}

fn warns(site: &Site, words: &str) {
    let warnings = site.view().unwrap().0["warnings"].to_string();
    assert!(warnings.contains(words), "{words:?} is not in {warnings}");
}

#[test]
fn a_command_decides_and_its_words_are_shown() {
    let (site, folder) = site("min_ready = 3", false);
    mark(&folder, &["b2"], true);
    site.wait("b2 to be failed", |view| view.state("web/b2") == "failed").unwrap();
    let view = site.view().unwrap();
    assert_eq!(view.backend("web/b2")["reason"], "/bin/sh ended with exit status: 2: marked");
    assert_eq!((mode(&view), &view.service("web")["ready"]), ("normal", &2.into()));
    warns(&site, "expected at least 3 (min_ready)");
    answered_by(&site, &["b1", "b3"]);
}

#[test]
fn below_the_threshold_everybody_takes_traffic_until_enough_are_ready() {
    let (site, folder) = site("panic_below = 50", false);
    mark(&folder, &["b1", "b2"], true);
    site.wait("the panic", |view| mode(view) == "panic").unwrap();
    site.wait("both to be failed", |view| {
        ["web/b1", "web/b2"].iter().all(|name| view.state(name) == "failed" && view.slots(name) > 0)
    })
    .unwrap();
    warns(&site, "only 1 of 3 backends are ready, fewer than 50 % (panic_below)");
    // Their servers are alive: only the check was wrong.
    answered_by(&site, &["b1", "b2", "b3"]);
    mark(&folder, &["b1"], false);
    site.wait("the end of the panic", |view| mode(view) == "normal").unwrap();
    answered_by(&site, &["b1", "b3"]);
}

#[test]
fn no_more_than_the_share_leaves() {
    let (site, folder) = site("max_ejected = 34", false);
    mark(&folder, &["b1"], true);
    site.wait("b1 to leave", |view| view.slots("web/b1") == 0).unwrap();
    mark(&folder, &["b2"], true);
    site.wait("b2 to be failed", |view| view.state("web/b2") == "failed").unwrap();
    let view = site.view().unwrap();
    assert_eq!((mode(&view), view.slots("web/b1")), ("limited", 0));
    assert!(view.slots("web/b2") > 0);
    warns(&site, "(max_ejected)");
    answered_by(&site, &["b2", "b3"]);
}

#[test]
fn those_who_say_sorry_are_there_when_nobody_else_is() {
    let (site, folder) = site("", true);
    assert_eq!(site.view().unwrap().slots("web/b3"), 0);
    answered_by(&site, &["b1", "b2"]);
    mark(&folder, &["b1", "b2"], true);
    site.wait("b3 to say sorry", |view| mode(view) == "sorry").unwrap();
    answered_by(&site, &["b3"]);
    warns(&site, "those with sorry = true take traffic");
    mark(&folder, &["b1", "b2"], false);
    site.wait("the end of it", |view| mode(view) == "normal" && view.is_settled()).unwrap();
    answered_by(&site, &["b1", "b2"]);
}
