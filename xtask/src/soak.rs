//! `cargo xtask soak …`: long-lived connections through what may happen to a balancer.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::build;
use crate::machine::Privileges;
use crate::process::become_command;
use crate::setup::{Need, set_up};
use crate::workspace::binary;

/// The verb: builds what the suites build, and becomes the lab's soak. Its last line of output is the outcome.
pub(crate) fn main(args: Vec<OsString>) -> Result<ExitCode> {
    let toolchain = set_up(Need::Run)?;
    build::programs(toolchain.as_ref())?;
    build::host(false)?;
    let mut command = Command::new(binary("lab", false)?);
    command.arg("soak").args(args);
    Privileges::now()?.require(&command)?;
    Err(become_command(&mut command))
}
