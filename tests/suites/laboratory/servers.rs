//! The demo server answers what its documentation says.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use lb_tests::{
    backend::Backend,
    cleanup::Folder,
    netns::Namespace,
    traffic::{Answer, Datagrams, LongLived, http_get, http_put},
    wait::wait_for,
};
use sha2::{Digest, Sha256};

const LIMIT: Duration = Duration::from_secs(20);
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Local to `lo` as a part of 127/8, and not loopback once it is an address of its own below.
const OWN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);

struct Site {
    server: Backend,
    folder: Folder,
    ns: Namespace,
}

fn site(arguments: &[&str]) -> Site {
    let (ns, folder) = (Namespace::new("server").unwrap(), Folder::new("logs").unwrap());
    let mut command = ns.command("ip");
    command.args(["address", "add", &format!("{OWN}/32"), "dev", "lo"]);
    assert!(command.status().unwrap().success());
    let server = Backend::start_with(&ns, "b7", folder.path(), arguments).unwrap();
    Site { server, folder, ns }
}

impl Site {
    fn get(&self, path: &str) -> Answer {
        http_get(&self.ns.entry(), LOCALHOST, (LOCALHOST, 80).into(), path, LIMIT).unwrap()
    }
}

#[test]
fn root_is_the_name_on_both_ports_and_in_both_families() {
    let site = site(&[]);
    for target in ["127.0.0.1:80", "127.0.0.1:8080", "[::1]:80", "[::1]:8080", "198.51.100.11:80"] {
        let target: SocketAddr = target.parse().unwrap();
        let source = if target.is_ipv4() { LOCALHOST } else { "::1".parse().unwrap() };
        let answer = http_get(&site.ns.entry(), source, target, "/", LIMIT).unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"b7\n"[..]), "{target}");
    }
    assert_eq!(site.get("/no/such/thing").status, 404);
}

#[test]
fn readiness_is_switched_from_the_backend_only() {
    let site = site(&[]);
    assert_eq!(site.get("/ready").status, 200);
    site.server.set_ready(false).unwrap();
    assert_eq!(site.get("/ready").status, 503);
    assert_eq!(site.get("/").status, 200, "it keeps answering");

    let from_outside = http_get(&site.ns.entry(), OWN.into(), (OWN, 80).into(), "/ready/on", LIMIT).unwrap();
    assert_eq!(from_outside.status, 403);
    assert_eq!(site.get("/ready").status, 503);
    site.server.set_ready(true).unwrap();
    assert_eq!(site.get("/ready").status, 200);
    assert_eq!(site.get("/ready/perhaps").status, 404);
}

#[test]
fn it_can_start_unready() {
    assert_eq!(site(&["--not-ready"]).get("/ready").status, 503);
}

#[test]
fn bytes_follow_the_pattern_at_every_length() {
    let site = site(&[]);
    for length in [0, 1, 250, 251, 15_999, 16_000, 16_001, 100_003] {
        let answer = site.get(&format!("/bytes/{length}"));
        let expected: Vec<u8> = (0..length).map(lb_tests::server::pattern).collect();
        assert!(answer.status == 200 && answer.body == expected, "{length}");
    }
}

#[test]
fn an_upload_is_counted_and_hashed() {
    let site = site(&[]);
    let body: Vec<u8> = (0..200_001).map(lb_tests::server::pattern).collect();
    let hash = hex::encode(Sha256::digest(&body));
    let answer = http_put(&site.ns.entry(), LOCALHOST, (LOCALHOST, 80).into(), body, LIMIT).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(report, serde_json::json!({ "name": "b7", "bytes": 200_001, "sha256": hash }));
}

#[test]
fn lines_and_datagrams_come_back_behind_the_name() {
    let site = site(&[]);
    let entry = site.ns.entry();
    for host in ["127.0.0.1", "::1"] {
        let host: IpAddr = host.parse().unwrap();
        let mut lines = LongLived::open(&entry, (host, 0).into(), (host, 9000).into(), LIMIT).unwrap();
        assert_eq!(lines.ask("a line").unwrap(), "b7");
        let datagrams = Datagrams::open(&entry, (host, 0).into(), (host, 7).into(), LIMIT).unwrap();
        assert_eq!(datagrams.ask(b"").unwrap(), "b7");
        assert_eq!(datagrams.ask(&[0, 255, 10]).unwrap(), "b7");
    }
}

#[test]
fn a_given_source_port_is_used() {
    let site = site(&[]);
    let source = SocketAddr::new(LOCALHOST, 31_001);
    let lines = LongLived::open(&site.ns.entry(), source, (LOCALHOST, 9000).into(), LIMIT).unwrap();
    assert_eq!(lines.source().unwrap(), source);
}

#[test]
fn stopping_finishes_what_is_open() {
    let mut site = site(&[]);
    let entry = site.ns.entry();
    let answer = std::thread::scope(|scope| {
        let slow = scope.spawn(|| http_get(&entry, LOCALHOST, (LOCALHOST, 80).into(), "/slow/700", LIMIT));
        let under_way = || {
            let stats: serde_json::Value = serde_json::from_slice(&site.get("/stats").body).unwrap();
            stats["requests"] == 1
        };
        wait_for("the request to be under way", LIMIT, under_way).unwrap();
        site.server.stop().unwrap();
        slow.join().unwrap()
    });
    assert_eq!(answer.unwrap().text(), "b7");
    let refused = http_get(&entry, LOCALHOST, (LOCALHOST, 80).into(), "/", LIMIT).unwrap_err();
    assert!(format!("{refused:#}").contains("refused"), "{refused:#}");
}

#[test]
fn killing_resets_and_a_new_one_takes_over() {
    let mut site = site(&[]);
    let entry = site.ns.entry();
    let mut lines = LongLived::open(&entry, (LOCALHOST, 0).into(), (LOCALHOST, 9000).into(), LIMIT).unwrap();
    lines.ask("before").unwrap();
    site.server.kill().unwrap();
    assert!(lines.ask("after").is_err());
    site.server = Backend::start_with(&site.ns, "b8", site.folder.path(), &[]).unwrap();
    assert_eq!(site.get("/").text(), "b8");
}

#[test]
fn a_frozen_server_accepts_and_keeps_silent() {
    let mut site = site(&[]);
    let entry = site.ns.entry();
    site.server.freeze().unwrap();
    let short = Duration::from_millis(300);
    let late = http_get(&entry, LOCALHOST, (LOCALHOST, 80).into(), "/", short).unwrap_err();
    assert!(format!("{late:#}").contains("no answer within"), "{late:#}");
    site.server.thaw().unwrap();
    assert_eq!(site.get("/").text(), "b7");
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let site = site(&[]);
    let error = Backend::start_with(&site.ns, "b9", site.folder.path(), &["--http", "8081", "--udp", "8"])
        .unwrap_err();
    assert!(format!("{error:#}").contains("TCP port 9000"), "{error:#}");
}
