//! The table of test suites. Adding a suite is adding a line.

use crate::workspace::HOST_MEMBERS;

/// How a suite is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `cargo fmt --check`; counts as one.
    Format,
    /// clippy on what runs on the host; counts as one.
    Clippy,
    /// clippy on the XDP programs with their own compiler; counts as one.
    EbpfClippy,
    /// Each element is the arguments of one `cargo test`, whose tests are counted.
    Tests(&'static [&'static [&'static str]]),
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suite {
    /// What `--suite` takes.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Makes namespaces or loads programs.
    pub(crate) needs_root: bool,
    /// One line for `--list`.
    pub(crate) about: &'static str,
}

/// Every suite, in the order of running: the quick and the basic first.
#[rustfmt::skip]
pub(crate) const SUITES: &[Suite] = &[
    suite("fmt", Kind::Format, false, "the code is formatted as rustfmt.toml says"),
    suite("clippy", Kind::Clippy, false, "the lints of the workspace, on everything that runs on the host"),
    suite("clippy-ebpf", Kind::EbpfClippy, false, "the same lints on the XDP programs, as compiled for BPF"),
    suite("unit", Kind::Tests(&[&["--lib", "--bins"], &["--doc"]]), false, "tests beside the code, properties and doc examples"),
    suite("structure", Kind::Tests(&[&["--test", "structure"]]), false, "who depends on whom, lengths of files, what the documents say of the code"),
    suite("packets", Kind::Tests(&[&["--test", "packets"]]), true, "the table of packet cases, on the host and in the loaded programs"),
    suite("random", Kind::Tests(&[&["--test", "random"]]), true, "a million generated and bent packets, on the host and in the loaded programs"),
    suite("budgets", Kind::Tests(&[&["--test", "budgets"]]), true, "what the programs cost the verifier and take of the stack, against tests/budgets.toml"),
    suite("laboratory", Kind::Tests(&[&["--test", "laboratory"]]), true, "the laboratory itself: namespaces, demo servers, clients, and that nothing is left behind"),
    suite("balancing", Kind::Tests(&[&["--test", "balancing"]]), true, "real sockets through the balancer in every mode: all answered, affinity kept, load spread"),
    suite("readiness", Kind::Tests(&[&["--test", "readiness"]]), true, "backends that are not ready, refuse or hang, and come back"),
    suite("scaling", Kind::Tests(&[&["--test", "scaling"]]), true, "backends that come, go and change, and how little that moves"),
    suite("connections", Kind::Tests(&[&["--test", "connections"]]), true, "live connections through drains, additions, reweighting and restarts"),
    suite("soak", Kind::Tests(&[&["--test", "soak"]]), true, "many live connections through random scale events, restarts and floods, in small"),
    suite("lifetime", Kind::Tests(&[&["--test", "lifetime"]]), true, "starts, stops, kills and takeovers, and starts that are refused"),
    suite("passing", Kind::Tests(&[&["--test", "passing"]]), true, "what is not for a service leaves the balancer bit by bit as it came"),
    suite("vm", Kind::Tests(&[&["--test", "vm"]]), true, "emulated Debian kernels, with real VLAN devices, bonds and tunnels"),
    suite("limits", Kind::Tests(&[&["--test", "limits"]]), true, "packet rates per source, measured where packets arrive"),
];

const fn suite(name: &'static str, kind: Kind, needs_root: bool, about: &'static str) -> Suite {
    Suite { name, kind, needs_root, about }
}

/// The arguments of `cargo test`, all of them, for one element of [`Kind::Tests`].
pub(crate) fn test_args(of_suite: &[&'static str]) -> Vec<&'static str> {
    HOST_MEMBERS.iter().chain(&["--no-fail-fast"]).chain(of_suite).copied().collect()
}

/// The suites of these names, in the order of the table; no name: all of them.
pub(crate) fn choose(names: &[String]) -> Result<Vec<&'static Suite>, String> {
    let known = |name: &String| SUITES.iter().any(|suite| suite.name == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all = SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>().join(", ");
        return Err(format!("there is no suite `{unknown}`; there are {all}"));
    }
    let chosen = |suite: &&Suite| names.is_empty() || names.iter().any(|name| name == suite.name);
    Ok(SUITES.iter().filter(chosen).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::{Kind, SUITES, choose, test_args};
    use crate::workspace::root;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = SUITES.iter().map(|suite| suite.name).collect();
        assert_eq!(names.len(), SUITES.len());
    }

    #[test]
    fn suites_are_chosen_by_name_in_the_order_of_the_table() {
        let names = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            choose(&wanted).map(|chosen| chosen.iter().map(|suite| suite.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), SUITES.len());
        assert_eq!(names(&["unit", "fmt", "unit"]).unwrap(), ["fmt", "unit"]);
        let refused = names(&["fmt", "units"]).unwrap_err();
        assert!(refused.contains("`units`") && refused.contains("unit,"), "{refused}");
    }

    #[test]
    fn every_test_command_chooses_the_same_members() {
        assert_eq!(test_args(&["--lib"])[..3], ["--workspace", "--exclude", "lb-ebpf"]);
    }

    /// A file of tests that no suite runs would be silent for ever.
    #[test]
    fn every_file_of_tests_is_in_a_suite() {
        let run: BTreeSet<&str> = SUITES
            .iter()
            .filter_map(|suite| if let Kind::Tests(commands) = suite.kind { Some(commands) } else { None })
            .flatten()
            .filter_map(|args| args.iter().position(|arg| *arg == "--test").map(|at| args[at + 1]))
            .collect();
        let dirs = ["tests/suites", "tests/tests", "lb-common/tests", "lb-userspace/tests", "xtask/tests"];
        let left_out: Vec<String> = dirs
            .iter()
            .flat_map(|dir| names_in(&root().join(dir)))
            .filter(|name| !run.contains(name.as_str()))
            .collect();
        assert!(left_out.is_empty(), "add a line to SUITES for {left_out:?}");
    }

    /// The test targets that files of a directory make, by cargo's rules for `tests/`.
    fn names_in(dir: &Path) -> Vec<String> {
        let Ok(entries) = dir.read_dir() else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        let targets = paths
            .filter(|path| path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").is_file());
        targets.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    }
}
