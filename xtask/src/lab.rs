//! `cargo xtask lab …`: the laboratory's own command.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::build;
use crate::machine::Privileges;
use crate::process::become_command;
use crate::setup::{Need, set_up};
use crate::workspace::binary;

/// The verb: builds what `cargo xtask run` builds, and becomes the lab.
pub(crate) fn main(args: Vec<OsString>) -> Result<ExitCode> {
    let toolchain = set_up(Need::Run)?;
    build::programs(toolchain.as_ref())?;
    build::host(true)?;
    let mut command = Command::new(binary("lab", true)?);
    command.args(args);
    Privileges::now()?.require(&command)?;
    Err(become_command(&mut command))
}
