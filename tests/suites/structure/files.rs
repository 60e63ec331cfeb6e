//! Files: how long, how they begin, what they must not name, where `unsafe` may stand.

use super::{
    rust,
    workspace::{File, files, files_with, nothing_wrong},
};

/// A file that is longer should be two.
const MOST_LINES: usize = 600;

/// The only files with `unsafe`, and why it cannot be had without. Keep it short.
const UNSAFE: &[(&str, &str)] = &[
    ("lb-common/src/abi/pod.rs", "aya::Pod is an unsafe trait"),
    ("lb-ebpf/src/agent/maps.rs", "values of maps are behind pointers"),
    ("lb-ebpf/src/agent/sockets.rs", "helpers take pointers"),
    ("lb-ebpf/src/atomic.rs", "compare-and-swap on values of maps"),
    ("lb-ebpf/src/balancer/fib.rs", "a value of a map is behind a pointer, and a helper"),
    ("lb-ebpf/src/balancer/maps.rs", "values of maps are behind pointers, and helpers"),
    ("lb-ebpf/src/balancer/ways.rs", "the context that the caller passed"),
    ("lb-ebpf/src/bench/plain.rs", "values of maps are behind pointers, and helpers"),
    ("lb-ebpf/src/bench/source.rs", "a value of a map, and a tail call"),
    ("lb-ebpf/src/bench/wire.rs", "a value of a map, and a helper"),
    ("lb-ebpf/src/harness/flood.rs", "values of maps are behind pointers, and helpers"),
    ("lb-ebpf/src/lib.rs", "the attributes that place the licence"),
    ("lb-ebpf/src/packet.rs", "packets are behind pointers"),
    ("lb-ebpf/src/verdict.rs", "a helper"),
    ("lb-userspace/src/agent/root_tests/packets.rs", "packet sockets"),
    ("lb-userspace/src/dataplane/census.rs", "mapped memory as atomic words"),
    ("lb-userspace/src/dataplane/grace.rs", "system calls"),
    ("lb-userspace/src/dataplane/host.rs", "memory as atomic words"),
    ("lb-userspace/src/dataplane/region.rs", "mapped memory"),
    ("lb-userspace/src/dataplane/sweep.rs", "mapped memory as atomic words"),
    ("lb-userspace/src/dataplane/unlink.rs", "system calls"),
    ("lb-userspace/src/net/announce/multicast.rs", "an ioctl"),
    ("lb-userspace/src/net/announce/socket.rs", "packet sockets"),
    ("lb-userspace/src/net/root_tests/xdp.rs", "system calls"),
    ("tests/src/netdev.rs", "ioctls"),
    ("tests/src/netns.rs", "namespaces of threads"),
    ("tests/src/tap.rs", "packet sockets"),
    ("tests/src/xdp_pass.rs", "system calls"),
];

/// Hosts of package registries, in two halves, so that this file does not name them either.
const REGISTRIES: [[&str; 2]; 9] = [
    ["crates", ".io"],
    ["pypi", ".org"],
    ["python", "hosted.org"],
    ["npm", "js."],
    ["ruby", "gems.org"],
    ["deb.", "debian.org"],
    ["archive.", "ubuntu.com"],
    ["docker", ".io"],
    ["proxy.", "golang.org"],
];

/// Where developers have their files, likewise.
const PLACES: [[&str; 2]; 3] = [["/ho", "me/"], ["/ro", "ot/"], ["/wo", "rk/"]];

/// The home of nobody, in tests of how paths are made.
const NOBODY: [&str; 2] = ["/ho", "me/u"];

#[test]
fn no_file_of_code_is_too_long() {
    let long = |file: &File| {
        let lines = file.text.lines().count();
        (lines > MOST_LINES).then(|| format!("{}: {lines} lines, at most {MOST_LINES}: divide it", file.path))
    };
    nothing_wrong(&files_with(".rs").iter().filter_map(long).collect::<Vec<_>>());
}

#[test]
fn every_file_of_code_says_what_it_is() {
    let silent = |file: &File| {
        let mut lines = file.text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("#!["));
        let words = lines.next().and_then(|line| line.strip_prefix("//!")).unwrap_or_default();
        words.trim().is_empty().then(|| format!("{}: begin it with `//! What it is.`", file.path))
    };
    nothing_wrong(&files_with(".rs").iter().filter_map(silent).collect::<Vec<_>>());
}

#[test]
fn unsafe_stands_only_where_the_list_says() {
    let mut complaints = Vec::new();
    let mut left: Vec<&str> = UNSAFE.iter().map(|(path, _)| *path).collect();
    for file in files_with(".rs") {
        if !rust::tokens(&rust::code(&file.text)).contains(&"unsafe") {
            continue;
        }
        match left.iter().position(|path| *path == file.path) {
            Some(at) => drop(left.remove(at)),
            None => complaints
                .push(format!("{}: do without `unsafe`, or add it to the list with a reason", file.path)),
        }
    }
    complaints.extend(left.iter().map(|path| format!("{path}: is on the list and has no `unsafe`")));
    nothing_wrong(&complaints);
}

#[test]
fn no_file_names_a_registry_or_a_developers_place() {
    let nobody = NOBODY.concat();
    let mut complaints = Vec::new();
    // cargo itself writes the name of a registry into its lock file.
    for file in files().iter().filter(|file| file.path != "Cargo.lock") {
        for name in REGISTRIES.iter().chain(&PLACES).map(|halves| halves.concat()) {
            let mut lines = file.text.lines().enumerate();
            let found = lines.find(|(_, line)| {
                let line = line.replace(&format!("{nobody}\""), "").replace(&format!("{nobody}/"), "");
                line.contains(&name)
            });
            if let Some((line, _)) = found {
                complaints.push(format!("{}:{}: names {name}", file.path, line + 1));
            }
        }
    }
    nothing_wrong(&complaints);
}
