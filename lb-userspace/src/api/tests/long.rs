//! Changes that take long: clients that leave, daemons that stop, crowds.

use std::{io::Write, os::unix::net::UnixStream, sync::mpsc::Receiver, time::Duration};

use serde_json::{Value, json};

use super::{parse, with_body};
use crate::api::fake::{FakeControl, TestDaemon};

/// A bound for a broken server, far above what a working one needs.
const LIMIT: Duration = Duration::from_secs(20);

/// Sends a reload and does not wait for its answer.
fn reload(daemon: &TestDaemon) -> UnixStream {
    let mut stream = UnixStream::connect(&daemon.socket).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(with_body("POST", "/v1/reload", "").as_bytes()).unwrap();
    stream
}

fn wait(event: &Receiver<()>) {
    event.recv_timeout(LIMIT).unwrap();
}

#[test]
fn a_change_runs_to_its_end_when_the_client_goes_away() {
    let (control, watch) = FakeControl::holding();
    let daemon = TestDaemon::start(control);
    let stream = reload(&daemon);
    wait(&watch.came);
    drop(stream);
    // The server has noticed that the client left once it answers the next one, whose connection came later.
    daemon.client().get("/healthz").unwrap();
    daemon.control.let_through(1);
    wait(&watch.ended);
}

#[test]
fn an_open_request_is_answered_before_the_daemon_stops() {
    let (control, watch) = FakeControl::holding();
    let mut daemon = TestDaemon::start(control);
    let mut stream = reload(&daemon);
    wait(&watch.came);
    daemon.tell_to_stop();
    daemon.control.let_through(1);
    let (status, _, body) = parse(&mut stream);
    assert_eq!((status, &body["message"]), (200, &json!("reload")));
    daemon.stop();
    assert!(UnixStream::connect(&daemon.socket).is_err());
}

#[test]
fn a_crowd_of_changes_is_told_to_come_back() {
    let (control, watch) = FakeControl::holding();
    let daemon = TestDaemon::start(control);
    let mut crowd: Vec<UnixStream> = (0..64).map(|_| reload(&daemon)).collect();
    crowd.iter().for_each(|_| wait(&watch.came));
    // Its place among the connections is free again; its change still waits.
    drop(crowd.pop());
    let (status, _, body): (u16, String, Value) = parse(&mut reload(&daemon));
    assert_eq!((status, &body["type"]), (503, &json!("urn:lb:problem:unavailable")), "{body}");
    daemon.control.let_through(64);
    for mut stream in crowd {
        assert_eq!(parse(&mut stream).0, 200);
    }
    for _ in 0..64 {
        wait(&watch.ended);
    }
    daemon.control.let_through(1);
    assert_eq!(parse(&mut reload(&daemon)).0, 200, "there is room again");
}
