//! Packages by apt, on the machines that have it.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::machine::Machine;
use crate::process::{run, say};

/// Whether apt's lists know the package; they are fetched first where there are none and we may.
pub(crate) fn offers(machine: &Machine, package: &str) -> Result<bool> {
    if machine.root && !has_lists(Path::new("/var/lib/apt/lists")) {
        update()?;
    }
    let output = Command::new("apt-cache").args(["show", "--no-all-versions", package]).output()?;
    Ok(output.status.success() && !output.stdout.is_empty())
}

/// Installs packages, or says the command that does.
pub(crate) fn install(machine: &Machine, packages: &[&str], why: &str) -> Result<()> {
    let names = packages.join(" ");
    if !machine.root {
        bail!("{why}: run `sudo apt-get install --no-install-recommends {names}` and try again");
    }
    if !has_lists(Path::new("/var/lib/apt/lists")) {
        update()?;
    }
    say(&format!("{why}: installing {names}"));
    if try_install(packages).is_err() {
        say("that failed; lists that are out of date name files that are gone, so once more with new ones");
        update()?;
        try_install(packages)?;
    }
    Ok(())
}

fn try_install(packages: &[&str]) -> Result<()> {
    // --no-remove: if anything of the user's stands in the way, it stays and we fail.
    run(apt_get().args(["install", "--yes", "--no-remove", "--no-install-recommends"]).args(packages))
}

fn update() -> Result<()> {
    say("fetching apt's lists of packages");
    run(apt_get().arg("update"))
}

/// apt-get that asks nothing and waits for another one to end; its output goes to stderr like all our progress.
fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300"])
        .stdout(std::io::stderr());
    command
}

/// Unpacks packages, and those that they need and that are not installed, into a directory; nothing is installed.
pub(crate) fn unpack(machine: &Machine, packages: &[&str], root: &Path) -> Result<()> {
    if !machine.apt || !machine.root {
        bail!("packages come from apt only, as root");
    }
    if !has_lists(Path::new("/var/lib/apt/lists")) {
        update()?;
    }
    let archives = root.with_extension("archives");
    std::fs::create_dir_all(archives.join("partial"))?;
    std::fs::create_dir_all(root)?;
    say(&format!("downloading {} (not installed, only unpacked)", packages.join(" ")));
    let download = || {
        let mut command = apt_get();
        command.args(["install", "--download-only", "--yes", "--no-install-recommends", "-o"]);
        run(command.arg(format!("Dir::Cache::archives={}", archives.display())).args(packages))
    };
    if download().is_err() {
        update()?;
        download()?;
    }
    for entry in archives.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(root))?;
        }
    }
    Ok(())
}

/// Whether a list of packages lies there: a fresh container image has none.
fn has_lists(dir: &Path) -> bool {
    let Ok(entries) = dir.read_dir() else { return false };
    entries.filter_map(Result::ok).any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

#[cfg(test)]
mod tests {
    use super::install;
    use crate::machine::Machine;

    #[test]
    fn who_may_not_install_is_told_the_command() {
        let machine = Machine { root: false, apt: true, rustup: false, nightly: false };
        let told = install(&machine, &["ethtool", "curl"], "not found").unwrap_err().to_string();
        assert!(told.contains("`sudo apt-get install --no-install-recommends ethtool curl`"), "{told}");
    }
}
