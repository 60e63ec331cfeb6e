//! `cargo xtask bench …`: the benchmark's own program, optimised.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::build::{self, OBJECT_DIR_VAR};
use crate::ebpf_toolchain::object_dir;
use crate::machine::Privileges;
use crate::process::become_command;
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
    command.args(args);
    Privileges::now()?.require(&command)?;
    Err(become_command(&mut command))
}
