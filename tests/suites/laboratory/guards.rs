//! Namespaces and what is in them are gone when their guards are, however that comes about.

use std::{
    io::{BufRead, BufReader},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use lb_tests::{
    cleanup::{NETNS_DIR, PREFIX, namespaces_of, sweep},
    netns::{Entry, Namespace},
    process::output_of,
    wait::wait_for,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const LIMIT: Duration = Duration::from_secs(20);

fn path(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

#[test]
fn a_namespace_has_only_lo_and_it_is_up() {
    let ns = Namespace::new("solo").unwrap();
    let mut command = ns.command("ip");
    command.args(["-brief", "link"]);
    let links = output_of(command, LIMIT).unwrap();
    assert_eq!(links.lines().count(), 1, "{links}");
    assert!(links.starts_with("lo ") && links.contains(",UP,"), "{links}");
}

#[test]
fn a_dropped_namespace_is_gone_with_the_processes_in_it() {
    let ns = Namespace::new("drop").unwrap();
    let name = ns.name().to_owned();
    let mut inhabitant = ns.command("sleep").arg("1000").spawn().unwrap();
    assert!(path(&name).exists());
    drop(ns);
    assert!(!path(&name).exists());
    assert!(!inhabitant.wait().unwrap().success(), "it was killed");
}

#[test]
fn a_panic_removes_the_namespace() {
    let mut name = String::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let ns = Namespace::new("panic").unwrap();
        ns.name().clone_into(&mut name);
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert!(name.starts_with(PREFIX) && !path(&name).exists(), "{name}");
}

#[test]
fn a_panic_inside_is_passed_on() {
    let ns = Namespace::new("inside").unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| ns.run::<()>(|| panic!("on purpose"))));
    assert_eq!(panicked.unwrap_err().downcast_ref::<&str>(), Some(&"on purpose"));
}

#[test]
fn the_calling_thread_stays_outside() {
    let of_this_thread = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let before = of_this_thread();
    let ns = Namespace::new("outside").unwrap();
    let inside = ns.run(|| Ok(std::fs::read_link("/proc/thread-self/ns/net")?)).unwrap();
    assert_ne!(inside, before);
    assert_eq!(of_this_thread(), before);
}

#[test]
fn a_command_sees_the_mounts_of_the_machine() {
    // `ip netns exec` would give it others, without the BPF file system.
    let ns = Namespace::new("mounts").unwrap();
    let mounts = |mut command: Command| {
        command.arg("/proc/self/ns/mnt");
        output_of(command, LIMIT).unwrap()
    };
    assert_eq!(mounts(ns.command("readlink")), mounts(Command::new("readlink")));
}

#[test]
fn an_entry_opens_what_another_process_has_made() {
    let ns = Namespace::new("entry").unwrap();
    let here = ns.run(|| Ok(std::fs::read_link("/proc/thread-self/ns/net")?)).unwrap();
    let entry = Entry::open(ns.name()).unwrap();
    assert_eq!(entry.run(|| Ok(std::fs::read_link("/proc/thread-self/ns/net")?)).unwrap(), here);
    assert!(Entry::open("lbt-0-0-nobody").unwrap_err().to_string().contains("lbt-0-0-nobody"));
}

/// A process of its own that holds two namespaces, with something running in one of them.
fn holder() -> (Child, BufReader<impl std::io::Read>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["hold", "--namespaces", "2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    assert_eq!(namespaces_of(child.id()).len(), 2);
    (child, output)
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

#[test]
fn signals_remove_everything_before_the_process_ends() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let (mut child, _output) = holder();
        send(&child, signal);
        let status = child.wait().unwrap();
        assert_eq!(namespaces_of(child.id()), [""; 0], "{signal}");
        assert_eq!(status.code(), Some(128 + signal as i32));
    }
}

#[test]
fn what_a_killed_process_left_is_swept_and_what_lives_is_not() {
    let alive = Namespace::new("alive").unwrap();
    let (mut child, _output) = holder();
    let names = namespaces_of(child.id());
    send(&child, Signal::SIGKILL);
    child.wait().unwrap();
    // Another process that starts now may sweep as well, hence no look at what ours returns.
    sweep();
    wait_for("the left-overs to go", LIMIT, || namespaces_of(child.id()).is_empty()).unwrap();
    assert_eq!(names.len(), 2);
    assert!(path(alive.name()).exists());
}
