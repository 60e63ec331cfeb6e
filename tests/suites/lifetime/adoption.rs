//! A new daemon goes on from what the kernel has, and believes nothing before it has looked everywhere.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use lb_tests::{
    backend::Backend,
    check,
    lb_config::{Health, LbConfig},
    netns::Entry,
    site::Site,
    topology::World,
};
use lb_userspace::config::Forward;

use crate::pinned::generation;

/// Port that only checks ask.
const CHECKS: u16 = 8081;

/// A server for health checks that can be told to keep silent.
struct Checked {
    silent: Arc<Mutex<bool>>,
    /// Checks that have come.
    asked: Arc<AtomicUsize>,
}

impl Checked {
    fn start(ns: &Entry) -> Self {
        let listener = ns.run(|| Ok(TcpListener::bind(("0.0.0.0", CHECKS))?)).unwrap();
        let checked = Self { silent: Arc::default(), asked: Arc::default() };
        let (silent, asked) = (Arc::clone(&checked.silent), Arc::clone(&checked.asked));
        // It ends with the test program; its namespace ends before.
        thread::spawn(move || {
            let mut unanswered: Vec<TcpStream> = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                asked.fetch_add(1, Ordering::Relaxed);
                if *silent.lock().unwrap() {
                    unanswered.push(stream);
                } else {
                    unanswered.clear();
                    answer(&mut stream);
                }
            }
        });
        checked
    }

    fn set_silent(&self, silent: bool) {
        *self.silent.lock().unwrap() = silent;
    }
}

/// Reads a request to its end and answers it. A check that has given up is no matter.
fn answer(stream: &mut TcpStream) {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(length) if length > 0 => request.extend_from_slice(&buffer[..length]),
            _ => return,
        }
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

#[test]
fn nothing_changes_before_every_backend_has_been_asked() {
    let world = World::one_arm().prepared().build().unwrap();
    let checked: Vec<_> = world.backends.iter().map(|host| Checked::start(&host.ns.entry())).collect();
    let mut config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    let every = "3s".to_owned();
    config.services[0].health =
        Health { port: CHECKS, interval: every.clone(), timeout: every, fall: 3, ..Health::default() };
    let mut site = Site::start(world, config).unwrap();
    let owners = |site: &Site| {
        let report = site.spread(100, 100, site.vip4(80)).unwrap();
        check::steady(&report, 100).unwrap();
        report.owners()
    };
    let before = owners(&site);
    let in_force = generation(&site.lb.pins());

    site.lb.kill().unwrap();
    let asked: Vec<_> = checked.iter().map(|c| c.asked.load(Ordering::Relaxed)).collect();
    checked.iter().for_each(|c| c.set_silent(true));
    let all_asked = || checked.iter().zip(&asked).all(|(c, n)| c.asked.load(Ordering::Relaxed) > *n);
    site.lb.start_again_until("ask every backend", all_asked).unwrap();
    // Nobody has answered yet, so nothing is known.
    assert_eq!(generation(&site.lb.pins()), in_force);
    assert_eq!(owners(&site), before);

    // The first round ends without an answer. One late answer is not `fall`: everybody stays in service.
    site.lb.wait_up().unwrap();
    assert_eq!(owners(&site), before);
    let view = site.view().unwrap();
    assert!(view.is_settled(), "{:#}", view.0);
    checked.iter().for_each(|c| c.set_silent(false));
    assert!(view.generation() >= u64::from(in_force));
}

#[test]
fn a_failed_backend_stays_out() {
    let world = World::one_arm().prepared().build().unwrap();
    let mut config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    // Longer than this test: only somebody who knows nothing would take a first good answer for enough.
    config.services[0].health = Health { rise: 100, fall: 1, ..Health::default() };
    let mut site = Site::start(world, config).unwrap();
    site.servers[2].kill().unwrap();
    site.wait("b3 to have failed", |view| view.state("web/b3") == "failed").unwrap();
    let before = site.view().unwrap();
    site.lb.kill().unwrap();
    site.servers[2] = Backend::start(&site.world.backends[2], site.folder.path()).unwrap();

    site.lb.start_again().unwrap();
    let after = site.view().unwrap();
    assert_eq!((after.state("web/b3"), after.slots("web/b3")), ("failed", 0), "{:#}", after.0);
    assert_eq!(after.service("web")["installed_digest"], before.service("web")["installed_digest"]);
    let since = |view: &lb_tests::view::View| view.backend("web/b3")["since"].clone();
    assert_eq!(since(&after), since(&before), "it is as long out as it was");
    let report = site.spread(100, 100, site.vip4(80)).unwrap();
    check::balanced(&report, 100, &["b1", "b2"]).unwrap();
}

#[test]
fn an_edit_made_while_no_daemon_ran_is_in_force_after_the_start() {
    let world = World::one_arm().prepared().build().unwrap();
    let config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    let mut site = Site::start(world, config).unwrap();
    let in_force = generation(&site.lb.pins());
    site.lb.stop().unwrap();
    let path = site.lb.config_path();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("weight = 100", "weight = 300", 1)).unwrap();
    let report = site.spread(300, 300, site.vip4(80)).unwrap();
    check::balanced(&report, 300, &["b1", "b2", "b3"]).unwrap();

    site.lb.start_again().unwrap();
    assert!(generation(&site.lb.pins()) > in_force);
    let report = site.spread(300, 300, site.vip4(80)).unwrap();
    check::steady(&report, 300).unwrap();
    check::by_weight(&report.clients_per_backend(), &[("b1", 3), ("b2", 1), ("b3", 1)]).unwrap();
}

#[test]
fn a_file_that_is_wrong_leaves_the_datapath_as_it_is() {
    let world = World::one_arm().prepared().build().unwrap();
    let config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    let mut site = Site::start(world, config).unwrap();
    let in_force = generation(&site.lb.pins());
    site.lb.stop().unwrap();
    let path = site.lb.config_path();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("forward = \"l2\"", "forward = \"l3\"")).unwrap();
    let error = format!("{:#}", site.lb.start_again().unwrap_err());
    assert!(error.contains("l3") && error.contains("lb.toml:"), "{error}");
    assert_eq!(generation(&site.lb.pins()), in_force);
    let report = site.spread(300, 300, site.vip4(80)).unwrap();
    check::balanced(&report, 300, &["b1", "b2", "b3"]).unwrap();

    std::fs::write(&path, text).unwrap();
    site.lb.start_again().unwrap();
    site.wait_settled().unwrap();
}
