//! Booting an image, and reading from the console what its jobs came to.

use std::{collections::BTreeMap, process::Command, time::Duration};

use anyhow::{Context as _, bail};

use super::{BEGIN, DONE, END, Image, Job};
use crate::process::Process;

/// What a job came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Result {
    /// Its exit status; -1 after a signal.
    pub status: i32,
    /// What it wrote, and what the kernel wrote meanwhile.
    pub output: String,
}

/// What the jobs came to, by their names.
pub type Report = BTreeMap<String, Result>;

/// Boots the image in an emulator, without network and without a disk, and waits until it switches itself off.
///
/// # Errors
/// When it does not come to the end of its jobs within `limit`; the message has the end of its console.
pub fn boot(image: Image, jobs: &[Job], limit: Duration) -> anyhow::Result<Report> {
    let (kernel, image, folder) = image.finish(jobs)?;
    let mut command = Command::new("qemu-system-x86_64");
    // Emulated, not virtual: the same on every machine, whether or not it lets us use its processor's means.
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536"]);
    command.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-nic", "none", "-no-reboot"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(image);
    // A kernel that panics ends at once; `quiet` leaves its warnings and errors.
    command.args(["-append", "console=ttyS0 quiet panic=-1"]);
    command.stdin(std::process::Stdio::null());
    let log = folder.path().join("console");
    let mut machine = Process::start("the emulated machine", command, &log)?;
    let ended = machine.wait(limit);
    let console = std::fs::read(&log).context("reading the console")?;
    let console = String::from_utf8_lossy(&console).replace('\r', "");
    match ended {
        Ok(_) if console.lines().any(|line| line == DONE) => Ok(read(&console)),
        Ok(status) => bail!("the machine ended ({status}) before its jobs did:\n{}", tail(&console)),
        Err(error) => bail!("{error:#}:\n{}", tail(&console)),
    }
}

fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

fn read(console: &str) -> Report {
    let mut report = Report::new();
    let mut name = None;
    let mut output = String::new();
    for line in console.lines() {
        if let Some(begun) = line.strip_prefix(BEGIN) {
            name = Some(begun.trim().to_owned());
            output.clear();
        } else if let Some(end) = line.strip_prefix(END) {
            let status = end.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(-1);
            if let Some(name) = name.take() {
                report.insert(name, Result { status, output: std::mem::take(&mut output) });
            }
        } else {
            output.push_str(line);
            output.push('\n');
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn the_console_is_taken_apart() {
        let report = read("noise\n@@begin a\none\ntwo\n@@end a 0\n@@begin b c\n@@end b c -1\n@@begin lost\n");
        assert_eq!(report.len(), 2, "{report:?}");
        assert_eq!((report["a"].status, report["a"].output.as_str()), (0, "one\ntwo\n"));
        assert_eq!(report["b c"].status, -1);
    }
}
