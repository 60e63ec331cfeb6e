//! Where the programs under test are.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The `lb` binary: `LB_BIN`, else beside this program.
///
/// # Errors
/// When there is none; the message says how to build it.
pub fn lb() -> Result<PathBuf> {
    find("lb", "LB_BIN", "cargo build -p lb-userspace")
}

/// The `lab` binary: `LAB_BIN`, else beside this program.
///
/// # Errors
/// When there is none; the message says how to build it.
pub fn lab() -> Result<PathBuf> {
    find("lab", "LAB_BIN", "cargo build -p lb-tests")
}

/// The `lab-guest` binary: `LAB_GUEST_BIN`, else beside this program.
///
/// # Errors
/// When there is none; the message says how to build it.
pub fn guest() -> Result<PathBuf> {
    find("lab-guest", "LAB_GUEST_BIN", "cargo build -p lb-tests")
}

fn find(name: &str, variable: &str, build: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable).map(PathBuf::from) {
        if is_file(&path) {
            return path.canonicalize().with_context(|| format!("{variable}={}", path.display()));
        }
        bail!("{variable}={} is not a file; unset it or build the program: {build}", path.display());
    }
    let exe = env::current_exe().context("where this program itself is")?;
    // A test runs from target/<profile>/deps, a binary from target/<profile>.
    let folder = exe.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).unwrap_or(Path::new("/"));
    let path = folder.join(name);
    if !is_file(&path) {
        bail!("found no program `{name}` in {}; build it with `{build}` or set {variable}", folder.display());
    }
    Ok(path)
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_the_command_that_builds_it() {
        let error =
            find("no-such-program", "LBT_UNSET_VARIABLE", "cargo build -p x").unwrap_err().to_string();
        assert!(error.contains("cargo build -p x") && error.contains("LBT_UNSET_VARIABLE"), "{error}");
    }
}
