//! `cargo xtask bench …`: the benchmark's own program, optimised.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::apt;
use crate::build::{self, OBJECT_DIR_VAR};
use crate::ebpf_toolchain::{Places, object_dir};
use crate::machine::{Machine, Privileges};
use crate::process::{become_command, say};
use crate::setup::{Need, set_up};
use crate::workspace::{binary, target_dir};

/// The verb: builds what `cargo xtask run` builds, and becomes the benchmark.
pub(crate) fn main(args: Vec<OsString>) -> Result<ExitCode> {
    let toolchain = set_up(Need::Run)?;
    build::programs(toolchain.as_ref())?;
    build::host(true)?;
    let objects = match env::var_os(OBJECT_DIR_VAR).filter(|dir| !dir.is_empty()) {
        Some(given) => PathBuf::from(given),
        None => object_dir(&target_dir()?),
    };
    let mut command = Command::new(binary("bench", true)?);
    command.arg("--object").arg(objects.join("bench"));
    if let Some(peers) = peers(&args)? {
        command.arg("--peers").arg(peers);
    }
    command.args(args);
    Privileges::now()?.require(&command)?;
    Err(become_command(&mut command))
}

/// Balancers of the distribution that ours is compared with, and what of them must be there.
const PEERS: [&str; 3] = ["haproxy", "nginx", "libnginx-mod-stream"];
const NEEDED: [&str; 3] =
    ["usr/sbin/haproxy", "usr/sbin/nginx", "usr/lib/nginx/modules/ngx_stream_module.so"];

/// Where these packages are unpacked. They are not installed: that would start them on this machine. Without them the
/// benchmark says which cases it lacks and why.
fn peers(args: &[OsString]) -> Result<Option<PathBuf>> {
    let names_suites = args.iter().any(|arg| arg.to_string_lossy().starts_with("--suite"));
    let wants_wire = !names_suites || args.iter().any(|arg| arg.to_string_lossy().ends_with("wire"));
    if !wants_wire || args.iter().any(|arg| arg == "--list" || arg == "--help") {
        return Ok(None);
    }
    let root = target_dir()?.join("bench").join("peers");
    if !NEEDED.iter().all(|path| root.join(path).is_file()) {
        let machine = Machine::look(&Places::from_env())?;
        if let Err(error) = apt::unpack(&machine, &PEERS, &root) {
            say(&format!("HAProxy and nginx, which the wire suite compares with, cannot be got: {error:#}"));
        }
    }
    Ok(Some(root))
}
