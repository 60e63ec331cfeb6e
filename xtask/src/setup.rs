//! `cargo xtask setup`: finds what the other verbs need, and installs what is missing.
//!
//! Nothing of the user's is changed: no default toolchain, nothing in `~/.cargo/bin`, no update of a toolchain that
//! is there. Tools of ours go to the tool cache; packages only come from apt, and only as root.

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Result, anyhow, bail};

use crate::apt;
use crate::build::objects_are_given;
use crate::ebpf_toolchain::{
    Compiler, DISTRIBUTION, NIGHTLY, Places, Toolchain, compilers, find, find_linker,
};
use crate::linker;
use crate::machine::{Machine, Road, check_platform};
use crate::process::{run_silently, say};
use crate::workspace::{host_cargo, program};

/// What a verb needs; each need includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// The toolchain of the XDP programs.
    Build,
    /// The programs that the lab and the suites call.
    Run,
    /// rustfmt and clippy.
    Test,
}

/// What the lab and the suites call, and the package of each.
const RUNTIME: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("bpftool", "bpftool"),
    ("tcpdump", "tcpdump"),
    ("curl", "curl"),
    ("nft", "nftables"),
];

/// The compiler that Debian packages for its browsers, newer than its own, with its sources.
const PACKAGED: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm"];

/// The verb: everything, and a line on what there is.
pub(crate) fn main() -> Result<ExitCode> {
    match set_up(Need::Test)? {
        Some(toolchain) => println!("set up: {toolchain}"),
        None => {
            println!("set up: the objects of the XDP programs are given, no toolchain is needed for them");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes sure of what `need` says. Fast and silent where nothing is missing. No toolchain: the objects are given.
pub(crate) fn set_up(need: Need) -> Result<Option<Toolchain>> {
    check_platform(env::consts::OS, env::consts::ARCH)?;
    let places = Places::from_env();
    let machine = Machine::look(&places)?;
    let toolchain = if objects_are_given() { None } else { Some(toolchain(&places, &machine)?) };
    if need >= Need::Run {
        runtime(&places, &machine);
    }
    if need >= Need::Test {
        host_components(&machine);
        if let Some(toolchain) = &toolchain {
            ebpf_clippy(&machine, &toolchain.compiler);
        }
    }
    Ok(toolchain)
}

/// The toolchain of the XDP programs, installed if need be.
fn toolchain(places: &Places, machine: &Machine) -> Result<Toolchain> {
    let missing = match find(places) {
        Ok(toolchain) => return Ok(toolchain),
        Err(missing) => missing,
    };
    if let Some(named) = places.unusable_choice() {
        // Whoever chose wants that one and no other; nothing is installed in its place.
        bail!("the XDP programs cannot be compiled as the environment wants: {named}");
    }
    say(&format!("the XDP programs cannot be compiled yet: {missing}"));
    let mut failures = Vec::new();
    // What is there first: a compiler may lack nothing but a linker.
    let (usable, _) = compilers(places);
    let roads = if places.toolchain.is_some() { Vec::new() } else { machine.roads(&usable) };
    for compiler in usable {
        match with_linker(places, machine, compiler) {
            Ok(toolchain) => return Ok(toolchain),
            Err(error) => failures.push(error),
        }
    }
    for road in roads {
        if let Some(error) = failures.last() {
            say(&format!("{error:#}; trying another way"));
        }
        let found = take(road, places, machine).and_then(|compiler| with_linker(places, machine, compiler));
        match found {
            Ok(toolchain) => return Ok(toolchain),
            Err(error) => failures.push(error),
        }
    }
    // Last, because it takes longest: where there is no LLVM to build bpf-linker against.
    let newest = compilers(places).0.into_iter().max_by_key(|compiler| compiler.version);
    if let Some(compiler) = newest {
        match linker::install_prebuilt(places, &compiler) {
            Ok(()) => return find(places).map_err(|missing| anyhow!("{missing}")),
            Err(error) => failures.push(error),
        }
    }
    if failures.is_empty() {
        bail!(
            "there is no compiler for the XDP programs ({missing}) and nothing to get one with: install rustup, or \
             a rustc with its rust-src"
        );
    }
    let failures: Vec<String> = failures.iter().map(|error| format!("{error:#}")).collect();
    bail!("there is no way to compile the XDP programs: {}", failures.join("; "))
}

/// The compiler with a linker for it, installed if need be.
fn with_linker(places: &Places, machine: &Machine, compiler: Compiler) -> Result<Toolchain> {
    let linker = match find_linker(places, compiler.llvm) {
        Ok(linker) => linker,
        Err(_) => {
            linker::install(places, machine, compiler.llvm)?;
            find_linker(places, compiler.llvm).map_err(|lacks| anyhow!("{}", lacks.join("; ")))?
        }
    };
    Ok(Toolchain { compiler, linker })
}

/// Gets a compiler by a road.
fn take(road: Road, places: &Places, machine: &Machine) -> Result<Compiler> {
    let mut rustup = Command::new("rustup");
    let name = match road {
        Road::InstallNightly => {
            say("downloading Rust nightly with the sources of core, by rustup (some minutes, once)");
            rustup.args([
                "toolchain",
                "install",
                "nightly",
                "--profile",
                "minimal",
                "--component",
                "rust-src",
            ]);
            rustup.arg("--no-self-update");
            NIGHTLY
        }
        Road::AddSource => {
            say("downloading the sources of core for the nightly that is there, by rustup");
            rustup.args(["component", "add", "rust-src", "--toolchain", NIGHTLY]);
            NIGHTLY
        }
        Road::Distribution => {
            if !apt::offers(machine, PACKAGED[0])? {
                bail!("apt offers no {}, which a Rust without rustup would come from", PACKAGED[0]);
            }
            apt::install(machine, &PACKAGED, "Rust with the sources of core, from the distribution")?;
            DISTRIBUTION
        }
    };
    if road != Road::Distribution {
        run_silently(&mut rustup).map_err(|error| anyhow!("rustup could not do it: {error:#}"))?;
    }
    let (usable, lacks) = compilers(places);
    let found = usable.into_iter().find(|compiler| compiler.name == name);
    found.ok_or_else(|| anyhow!("{name} is installed and still does not do: {}", lacks.join("; ")))
}

/// The programs of the lab and the suites. What cannot be installed is a line, not an error: each is for something,
/// and what needs it says so.
fn runtime(places: &Places, machine: &Machine) {
    let missing: Vec<_> = RUNTIME.iter().filter(|(name, _)| program(places, name).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let names = missing.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    if !machine.apt {
        say(&format!("missing, and the lab and the suites call them: {names}"));
    } else if let Err(error) = apt::install(machine, &packages, &format!("{names} not found")) {
        say(&format!("{error:#}"));
    }
}

/// rustfmt and clippy for the host's compiler. Without them their suites fail, with cargo's own words.
fn host_components(machine: &Machine) {
    let lacks = |name: &str| !host_cargo().with_file_name(name).is_file();
    let rustfmt = lacks("cargo-fmt").then_some(("rustfmt", "rustfmt-web"));
    let clippy = lacks("cargo-clippy").then_some(("clippy", "rust-web-clippy"));
    let missing: Vec<_> = rustfmt.into_iter().chain(clippy).collect();
    if missing.is_empty() || !host_cargo().is_absolute() {
        return;
    }
    let result = if host_cargo().starts_with("/usr/bin") {
        let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
        apt::install(machine, &packages, "rustfmt and clippy check the code")
    } else {
        let components = missing.iter().map(|(component, _)| *component);
        say("adding rustfmt and clippy to the toolchain in use, by rustup");
        run_silently(Command::new("rustup").args(["component", "add"]).args(components))
    };
    if let Err(error) = result {
        say(&format!("{error:#}"));
    }
}

/// clippy of the compiler of the XDP programs. Without it their suite counts as skipped.
fn ebpf_clippy(machine: &Machine, compiler: &Compiler) {
    if has_clippy(compiler) {
        return;
    }
    let result = if compiler.name == DISTRIBUTION {
        if !machine.apt || !machine.root {
            return;
        }
        apt::install(machine, &["rust-web-clippy"], "clippy for the XDP programs")
    } else {
        say("adding clippy to the toolchain of the XDP programs, by rustup");
        run_silently(Command::new("rustup").args([
            "component",
            "add",
            "clippy",
            "--toolchain",
            &compiler.name,
        ]))
    };
    if let Err(error) = result {
        say(&format!("{error:#}"));
    }
}

/// Whether the compiler has its clippy beside it.
pub(crate) fn has_clippy(compiler: &Compiler) -> bool {
    compiler.prefix.join("bin/cargo-clippy").is_file()
}
