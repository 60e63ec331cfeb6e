//! Getting a bpf-linker into the tool cache.
//!
//! bpf-linker is tied to one LLVM: its own must be at least the compiler's. It is either built against the LLVM of
//! the distribution, or taken as the project's prebuilt program, which has the newest LLVM inside.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::apt;
use crate::ebpf_toolchain::{Compiler, MIN_LINKER, Places, linker_root};
use crate::machine::Machine;
use crate::process::{run, say};
use crate::workspace::{self, host_cargo, program};

/// The LLVM inside the prebuilt bpf-linker, which is also the newest that its source can be built against.
const NEWEST_LLVM: u32 = 23;

/// The cargo-binstall to compile where there is none; it wants Rust 1.96.1.
const BINSTALL: &str = "1.26.2";

/// Installs a bpf-linker that reads the bitcode of LLVM `llvm`, or says why it cannot.
pub(crate) fn install(places: &Places, machine: &Machine, llvm: u32) -> Result<()> {
    let cache = tool_cache(places)?;
    if llvm > NEWEST_LLVM {
        bail!("rustc has LLVM {llvm}, newer than bpf-linker {MIN_LINKER} knows ({NEWEST_LLVM})");
    }
    if let Some(with) = development_files(llvm) {
        return from_source(places, cache, with);
    }
    if let Some(binstall) = program(places, "cargo-binstall") {
        match prebuilt(&binstall, cache) {
            Ok(()) => return Ok(()),
            Err(error) => say(&format!("no prebuilt bpf-linker: {error:#}")),
        }
    }
    if machine.apt {
        for with in llvm..=NEWEST_LLVM {
            let package = format!("llvm-{with}-dev");
            if apt::offers(machine, &package)? {
                apt::install(machine, &[&package], &format!("bpf-linker is built against LLVM {with}"))?;
                return from_source(places, cache, with);
            }
        }
    }
    bail!("no bpf-linker with LLVM {llvm} or later, and no LLVM {llvm} to build one against")
}

/// Downloads the prebuilt bpf-linker with a cargo-binstall of our own, which has to be compiled first: by `compiler`,
/// for it may be newer than the one that compiles the host's part.
pub(crate) fn install_prebuilt(places: &Places, compiler: &Compiler) -> Result<()> {
    let cache = tool_cache(places)?;
    let root = cache.join(format!("cargo-binstall-{BINSTALL}"));
    let binstall = root.join("bin/cargo-binstall");
    if !binstall.is_file() {
        say("compiling cargo-binstall, which downloads bpf-linker (some minutes, once)");
        let package = format!("cargo-binstall@{BINSTALL}");
        let bin = compiler.prefix.join("bin");
        let mut command = cargo_install(places, &bin.join("cargo"), &package, &root)?;
        command.env("CARGO_PROFILE_DEV_DEBUG", "0");
        // It is used once: unoptimised, and without its own git and resolver of names, it compiles much sooner.
        command.args([
            "--debug",
            "--no-default-features",
            "--features",
            "static,rustls,fancy-no-backtrace,zstd-thin",
        ]);
        run(command.env("RUSTC", bin.join("rustc")))?;
    }
    prebuilt(&binstall, cache).context("no prebuilt bpf-linker")
}

fn tool_cache(places: &Places) -> Result<&Path> {
    places.tool_cache.as_deref().context("neither XDG_CACHE_HOME nor HOME says where to install tools")
}

/// The lowest LLVM, from `llvm` up, whose development files are where Debian and Ubuntu put them.
fn development_files(llvm: u32) -> Option<u32> {
    (llvm..=NEWEST_LLVM).find(|with| {
        let prefix = prefix(*with);
        prefix.join("bin/llvm-config").is_file() && prefix.join("include/llvm-c/Core.h").is_file()
    })
}

fn prefix(llvm: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{llvm}"))
}

fn from_source(places: &Places, cache: &Path, llvm: u32) -> Result<()> {
    say(&format!("building bpf-linker {MIN_LINKER} against LLVM {llvm} (one to four minutes, once)"));
    let package = format!("bpf-linker@{MIN_LINKER}");
    let root = linker_root(cache, MIN_LINKER, llvm);
    let mut command = cargo_install(places, &host_cargo(), &package, &root)?;
    command.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
    run(command.env("LLVM_PREFIX", prefix(llvm)))
}

/// `cargo install` to a root of our own.
fn cargo_install(places: &Places, cargo: &Path, package: &str, root: &Path) -> Result<Command> {
    // Cargo would advise to add the directory to PATH, which nobody needs to do.
    let path = places.path.iter().cloned().chain([root.join("bin")]);
    let mut command = Command::new(cargo);
    // --force: what cannot run any more, since its LLVM has gone, still counts as installed.
    command
        .args(["install", package, "--locked", "--force", "--root"])
        .arg(root)
        .env("PATH", env::join_paths(path)?);
    away(&mut command);
    Ok(command)
}

fn prebuilt(binstall: &Path, cache: &Path) -> Result<()> {
    say(&format!("downloading bpf-linker {MIN_LINKER}"));
    let mut command = Command::new(binstall);
    command
        .args([&format!("bpf-linker@{MIN_LINKER}"), "--no-confirm", "--log-level", "error", "--root"])
        .arg(linker_root(cache, MIN_LINKER, NEWEST_LLVM))
        // Only what the project itself publishes, and no report to anybody.
        .args(["--disable-strategies", "quick-install,compile"])
        .env("BINSTALL_DISABLE_TELEMETRY", "true")
        .stdout(std::io::stderr());
    run(away(&mut command))
}

/// Runs a command where neither this workspace's configuration nor the flags of its developer apply.
fn away(command: &mut Command) -> &mut Command {
    let outside = workspace::root().parent().unwrap_or(Path::new("/"));
    command
        .current_dir(outside)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
}
