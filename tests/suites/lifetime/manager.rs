//! What a service manager hears of the daemon: ready, reloaded, alive, stopping (sd_notify(3)).

use std::{fs, os::unix::net::UnixDatagram, time::Instant};

use lb_tests::{
    lb_config::LbConfig,
    process::Process,
    site::{LIMIT, Site},
    topology::World,
};
use lb_userspace::config::Forward;
use nix::sys::signal::Signal;

/// What a manager would have at the end of `NOTIFY_SOCKET`.
struct Listener(UnixDatagram);

impl Listener {
    /// Waits for a message with this line.
    fn wait(&self, line: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        let mut heard = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {line}, but {heard:?}");
            self.0.set_read_timeout(Some(left)).unwrap();
            let mut message = [0; 4096];
            let Ok(bytes) = self.0.recv(&mut message) else { continue };
            let text = String::from_utf8_lossy(&message[..bytes]).into_owned();
            if text.lines().any(|said| said == line) {
                return text;
            }
            heard.push(text);
        }
    }
}

#[test]
fn a_service_manager_hears_of_every_step() {
    let world = World::one_arm().prepared().build().unwrap();
    let config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    let mut site = Site::start(world, config).unwrap();
    site.lb.stop().unwrap();

    let folder = site.lb.config_path().parent().unwrap().to_owned();
    let place = folder.join("notify");
    let manager = Listener(UnixDatagram::bind(&place).unwrap());
    let mut command = site.world.lb.ns.entry().command(site.lb.binary());
    command
        .args(["run", "--interface", "eth0", "--name", site.lb.name(), "--config"])
        .arg(site.lb.config_path());
    command.env("NOTIFY_SOCKET", &place).env("WATCHDOG_USEC", "400000").env("LB_LOG_FORMAT", "json");
    let log = folder.join("managed.log");
    let mut daemon = Process::start("lb run, managed", command, &log).unwrap();

    let ready = manager.wait("READY=1");
    assert!(ready.contains("STATUS=1 services, 3 backends on eth0 ("), "{ready}");
    // Whoever was told can use it.
    site.view().unwrap();
    for _ in 0..3 {
        manager.wait("WATCHDOG=1");
    }
    daemon.signal(Signal::SIGHUP).unwrap();
    assert!(manager.wait("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.wait("READY=1");
    daemon.stop(LIMIT).unwrap();
    manager.wait("STOPPING=1");

    let log = fs::read_to_string(log).unwrap();
    for line in log.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(object["message"].is_string() && object["level"].is_string(), "{line}");
    }
    assert!(log.contains("SIGHUP"), "{log}");
}
