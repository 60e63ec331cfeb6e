//! The first process: mounts, modules, jobs, end.

use std::{
    ffi::CStr,
    fs::{self, File},
    process::Command,
};

use anyhow::{Context as _, Result};
use lb_tests::vm::{BEGIN, DONE, END, JOBS, Job, MODULES};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};

/// Never returns: without a first process a kernel panics.
pub(crate) fn run() -> ! {
    match jobs() {
        Ok(()) => println!("{DONE}"),
        Err(error) => println!("the machine cannot be set up: {error:#}"),
    }
    // What fails here ends in a panic, which ends the machine as well.
    let _ = reboot(RebootMode::RB_POWER_OFF);
    std::process::exit(1)
}

fn jobs() -> Result<()> {
    let mounts = [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("bpf", "/sys/fs/bpf"),
    ];
    for (kind, place) in mounts {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mounting {place}"))?;
    }
    let mut modules: Vec<_> = fs::read_dir(MODULES)?.collect::<Result<_, _>>()?;
    modules.sort_by_key(fs::DirEntry::file_name);
    for module in modules {
        let file = File::open(module.path())?;
        finit_module(&file, <&CStr>::default(), ModuleInitFlags::empty())
            .with_context(|| format!("module {}", module.path().display()))?;
    }
    for line in fs::read_to_string(JOBS).context("no jobs")?.lines() {
        let Some(job) = Job::from_line(line) else { continue };
        println!("{BEGIN} {}", job.name);
        let status = status(&job);
        println!("\n{END} {} {status}", job.name);
    }
    Ok(())
}

fn status(job: &Job) -> i32 {
    let mut command = Command::new(&job.command[0]);
    command
        .args(&job.command[1..])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LB_REQUIRE_ROOT", "1")
        .env("LB_BIN", "/usr/bin/lb")
        .env("LAB_BIN", "/usr/bin/lab")
        .env("LB_TEST_PACKETS", "8000");
    match command.status() {
        Ok(status) => status.code().unwrap_or(-1),
        Err(error) => {
            println!("{}: {error}", job.command[0]);
            -1
        }
    }
}
