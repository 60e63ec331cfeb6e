//! Puts the objects of the XDP programs into `OUT_DIR`, where the library embeds them from.
//!
//! They come from `LB_EBPF_OBJECT_DIR`, or are built here. Nothing is installed: that is `cargo xtask`'s business.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[expect(dead_code, reason = "shared with xtask, which needs more of it")]
#[path = "../xtask/src/ebpf_toolchain.rs"]
mod ebpf_toolchain;

use ebpf_toolchain::{LINKER_VAR, PROGRAMS, Places, TOOLCHAIN_VAR, cargo, find, object_dir, target_dir_of};

/// Names a directory with objects that are already built.
const OBJECT_DIR_VAR: &str = "LB_EBPF_OBJECT_DIR";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={}", message.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let root = dir_var("CARGO_MANIFEST_DIR")?.join("..");
    let out = dir_var("OUT_DIR")?;
    for var in [OBJECT_DIR_VAR, TOOLCHAIN_VAR, LINKER_VAR, "XDG_CACHE_HOME", "RUSTUP_HOME"] {
        println!("cargo::rerun-if-env-changed={var}");
    }
    let objects = match env::var_os(OBJECT_DIR_VAR).filter(|dir| !dir.is_empty()) {
        Some(dir) => {
            println!("cargo::rerun-if-changed={}", PathBuf::from(&dir).display());
            PathBuf::from(dir)
        }
        None => build(&root, &out)?,
    };
    for program in PROGRAMS {
        let object = objects.join(program);
        fs::copy(&object, out.join(program))
            .map_err(|e| format!("no object of XDP program {program} at {}: {e}", object.display()))?;
    }
    Ok(())
}

/// Builds the programs and says where their objects are.
fn build(root: &Path, out: &Path) -> Result<PathBuf, String> {
    for source in [
        "lb-ebpf/src",
        "lb-ebpf/Cargo.toml",
        "lb-common/src",
        "lb-common/Cargo.toml",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let toolchain = find(&Places::from_env()).map_err(|missing| {
        format!(
            "the XDP programs cannot be compiled yet: run `cargo xtask build`, which sets up what is missing ({missing})"
        )
    })?;
    // A package manager that replaces either of the two replaces the objects.
    println!("cargo::rerun-if-changed={}", toolchain.linker.path.display());
    println!("cargo::rerun-if-changed={}", toolchain.compiler.prefix.join("bin/rustc").display());
    let arch = env::var("CARGO_CFG_TARGET_ARCH").map_err(|e| format!("CARGO_CFG_TARGET_ARCH: {e}"))?;
    let target_dir = target_dir_of(out, root);
    let output = cargo(&toolchain, root, &target_dir, &arch, "build")
        .output()
        .map_err(|e| format!("cannot run the cargo of {}: {e}", toolchain.compiler.name))?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        return Err(format!(
            "the XDP programs do not build with {toolchain}; the compiler's words are below"
        ));
    }
    Ok(object_dir(&target_dir))
}

fn dir_var(name: &str) -> Result<PathBuf, String> {
    env::var_os(name)
        .map(PathBuf::from)
        .ok_or_else(|| format!("{name} is not set: this runs under cargo only"))
}
