//! Where this workspace and its products are, and the cargo that builds the host's part.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::ebpf_toolchain::{self, Places, Toolchain, target_dir_of};

/// The members that are built for the host, as arguments of cargo. Always the same choice, since cargo unites the
/// features of what is chosen: with another choice it would compile the dependencies again.
pub(crate) const HOST_MEMBERS: [&str; 3] = ["--workspace", "--exclude", "lb-ebpf"];

/// The top of the workspace.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// The target directory, known by this program lying in it.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot find out where this program is")?;
    Ok(target_dir_of(&own, root()))
}

/// The path of a program of the workspace, built or not.
pub(crate) fn binary(name: &str, release: bool) -> Result<PathBuf> {
    Ok(target_dir()?.join(if release { "release" } else { "debug" }).join(name))
}

/// The cargo that runs us.
pub(crate) fn host_cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// `cargo VERB` at the top of the workspace, for the host.
pub(crate) fn cargo(verb: &str) -> Command {
    let mut command = Command::new(host_cargo());
    command.current_dir(root()).arg(verb);
    command
}

/// `cargo VERB` for the XDP programs.
pub(crate) fn ebpf_cargo(toolchain: &Toolchain, verb: &str) -> Result<Command> {
    Ok(ebpf_toolchain::cargo(toolchain, root(), &target_dir()?, env::consts::ARCH, verb))
}

/// The first file of this name in `PATH` or where system programs are, which an ordinary user's `PATH` leaves out.
pub(crate) fn program(places: &Places, name: &str) -> Option<PathBuf> {
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    places.path.iter().chain(&system).map(|dir| dir.join(name)).find(|path| path.is_file())
}
