//! `cargo xtask run`: the laboratory, or with an interface, `lb` on it.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::build;
use crate::machine::Privileges;
use crate::process::become_command;
use crate::setup::{Need, set_up};
use crate::workspace::binary;

/// The verb: builds as whoever calls it, and becomes the program if it may.
pub(crate) fn main(args: Vec<OsString>) -> Result<ExitCode> {
    let toolchain = set_up(Need::Run)?;
    build::programs(toolchain.as_ref())?;
    build::host(true)?;
    let (program, args) = what_to_run(args);
    let mut command = Command::new(binary(program, true)?);
    command.args(args);
    Privileges::now()?.require(&command)?;
    Err(become_command(&mut command))
}

/// The program and its arguments: an interface means `lb`, everything else is the laboratory's.
fn what_to_run(args: Vec<OsString>) -> (&'static str, Vec<OsString>) {
    let mut on_interface = false;
    let mut passed = vec![OsString::from("run")];
    for arg in args {
        let text = arg.to_str().unwrap_or_default();
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("--interface" | "--iface", None) => passed.push("--interface".into()),
            ("--interface" | "--iface", Some(value)) => passed.push(format!("--interface={value}").into()),
            _ => {
                passed.push(arg);
                continue;
            }
        }
        on_interface = true;
    }
    (if on_interface { "lb" } else { "lab" }, passed)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::what_to_run;

    fn chosen(line: &str) -> (&'static str, String) {
        let (program, args) = what_to_run(line.split_whitespace().map(OsString::from).collect());
        (program, args.join(" ".as_ref()).into_string().unwrap())
    }

    #[test]
    fn without_an_interface_everything_goes_to_the_lab() {
        assert_eq!(chosen(""), ("lab", "run".into()));
        assert_eq!(chosen("--requests 3000 --exit"), ("lab", "run --requests 3000 --exit".into()));
        assert_eq!(chosen("--interfaces 3"), ("lab", "run --interfaces 3".into()));
    }

    #[test]
    fn an_interface_means_lb_under_either_name() {
        let want = "run --interface eth1 --config f.toml --detach-on-exit";
        assert_eq!(chosen("--interface eth1 --config f.toml --detach-on-exit"), ("lb", want.into()));
        assert_eq!(chosen("--iface eth1 --config f.toml --detach-on-exit"), ("lb", want.into()));
        assert_eq!(chosen("--config f --iface=eth1"), ("lb", "run --config f --interface=eth1".into()));
    }
}
