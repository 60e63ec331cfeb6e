//! `cargo xtask build`: set-up, the XDP programs, then the host's part, which embeds them.

use std::env;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::ebpf_toolchain::{PROGRAMS, Toolchain, object_dir};
use crate::process::{run, say};
use crate::setup::{Need, set_up};
use crate::workspace::{HOST_MEMBERS, binary, cargo, ebpf_cargo, target_dir};

/// Names a directory with objects that are already built; `lb-userspace/build.rs` takes them from there.
pub(crate) const OBJECT_DIR_VAR: &str = "LB_EBPF_OBJECT_DIR";

/// The verb.
pub(crate) fn main(release: bool) -> Result<ExitCode> {
    let toolchain = set_up(Need::Build)?;
    programs(toolchain.as_ref())?;
    host(release)?;
    println!("lb: {}", binary("lb", release)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Whether the objects of the XDP programs are given, so that no BPF toolchain is needed.
pub(crate) fn objects_are_given() -> bool {
    env::var_os(OBJECT_DIR_VAR).is_some_and(|dir| !dir.is_empty())
}

/// Builds the XDP programs. The build script of lb-userspace would do it too, but silently; after this it has
/// nothing left to do. No toolchain: the objects are given.
pub(crate) fn programs(toolchain: Option<&Toolchain>) -> Result<()> {
    let Some(toolchain) = toolchain else { return Ok(()) };
    let objects = object_dir(&target_dir()?);
    if !PROGRAMS.iter().all(|program| objects.join(program).is_file()) {
        say("compiling the XDP programs and the core library for them (a minute or two, once)");
    }
    run(&mut ebpf_cargo(toolchain, "build")?).context("the XDP programs do not build")
}

/// Builds the host's part: all of it, so that every verb finds what another has built.
pub(crate) fn host(release: bool) -> Result<()> {
    let mut command = cargo("build");
    command.args(HOST_MEMBERS).args(["--exclude", "xtask", "--bins"]);
    if release {
        if !binary("lb", true)?.is_file() {
            say("compiling lb and the lab, optimised (some minutes, once)");
        }
        command.arg("--release");
    }
    run(&mut command)
}
