//! Tests of the search for a toolchain, on machines described by a directory: a program is a file with what it says.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Places, Version, find, leaks, linker_root, parse_linker_root, parse_rustc, tool_cache};

const STABLE: &str =
    "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8";
const NIGHTLY: &str = "rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 23.0.1-rust";
const OLD: &str = "rustc 1.85.0\nrelease: 1.85.0\nLLVM version: 19.1.7";

/// A machine below a directory of its own, which goes with it.
struct World(PathBuf);

impl World {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("lbt-{}-toolchain-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, path: &str, content: &str) -> &Self {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// A complete compiler below `prefix`, its rustc saying `says`.
    fn compiler(&self, prefix: &str, says: &str) -> &Self {
        self.file(&format!("{prefix}/bin/cargo"), "")
            .file(&format!("{prefix}/bin/rustc"), says)
            .file(&format!("{prefix}/lib/rustlib/src/rust/library/core/Cargo.toml"), "")
    }

    fn nightly(&self, says: &str) -> &Self {
        self.compiler(&format!("rustup/nightly-{}-unknown-linux-gnu", std::env::consts::ARCH), says)
    }

    fn cached_linker(&self, name: &str, says: &str) -> &Self {
        self.file(&format!("cache/{name}/bin/bpf-linker"), says)
    }

    fn places(&self) -> Places {
        Places {
            toolchain: None,
            linker: None,
            rustup_toolchains: Some(self.0.join("rustup")),
            distribution: self.0.join("usr"),
            tool_cache: Some(self.0.join("cache")),
            path: vec![self.0.join("empty"), self.0.join("path")],
            ask: |program, _| fs::read_to_string(program).map_err(|e| e.to_string()),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A directory that stays behind is not what the test is about.
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn versions_are_found_in_what_programs_say() {
    assert_eq!(Version::find_in("bpf-linker 0.13.0"), Some(Version(0, 13, 0)));
    assert_eq!(Version::find_in("rustc 1.97.0-nightly (abc 2026-05-19)"), Some(Version(1, 97, 0)));
    assert_eq!(Version::find_in("0.13.0-rc.1"), Some(Version(0, 13, 0)));
    assert_eq!(Version::find_in("true (GNU coreutils) 9.1"), None);
    assert_eq!(Version::find_in(""), None);
    assert!(Version(0, 9, 15) < Version(0, 13, 0), "compared by number, not by letters");
}

#[test]
fn rustc_tells_its_release_and_llvm() {
    assert_eq!(parse_rustc(STABLE), Some((Version(1, 96, 0), 22)));
    assert_eq!(parse_rustc(NIGHTLY), Some((Version(1, 97, 0), 23)));
    assert_eq!(parse_rustc("release: 1.96.0\nLLVM version: unknown"), None);
    assert_eq!(parse_rustc("rustc 1.96.0"), None, "the short answer names no LLVM");
}

#[test]
fn the_tool_cache_follows_xdg() {
    let home = Some(Path::new("/home/u"));
    assert_eq!(tool_cache(None, home), Some(PathBuf::from("/home/u/.cache/lb-xtask")));
    assert_eq!(tool_cache(Some(OsString::from("/c")), home), Some(PathBuf::from("/c/lb-xtask")));
    assert_eq!(tool_cache(Some(OsString::from("c")), home), Some(PathBuf::from("/home/u/.cache/lb-xtask")));
    assert_eq!(tool_cache(None, None), None);
}

#[test]
fn the_name_of_a_linkers_root_reads_back() {
    let root = linker_root(Path::new("/c"), Version(0, 13, 0), 22);
    assert_eq!(root, Path::new("/c/bpf-linker-0.13.0-llvm-22"));
    assert_eq!(parse_linker_root("bpf-linker-0.13.0-llvm-22"), Some((Version(0, 13, 0), 22)));
    assert_eq!(parse_linker_root("bpf-linker-0.13.0"), None);
    assert_eq!(parse_linker_root("cargo-binstall"), None);
}

#[test]
fn nightly_comes_before_the_distribution() {
    let world = World::new();
    world
        .nightly(NIGHTLY)
        .compiler("usr", STABLE)
        .cached_linker("bpf-linker-0.13.0-llvm-23", "bpf-linker 0.13.0");
    let found = find(&world.places()).unwrap();
    assert_eq!((found.compiler.name.as_str(), found.compiler.llvm), ("nightly", 23));
    assert_eq!(found.linker.llvm, Some(23));
}

#[test]
fn a_dated_nightly_is_not_nightly() {
    let world = World::new();
    let arch = std::env::consts::ARCH;
    world.compiler(&format!("rustup/nightly-2026-01-01-{arch}-unknown-linux-gnu"), NIGHTLY);
    world.cached_linker("bpf-linker-0.13.0-llvm-23", "bpf-linker 0.13.0");
    let lacks = find(&world.places()).unwrap_err().to_string();
    assert!(lacks.contains("nightly: rustup has no such toolchain"), "{lacks}");
    let named = Places { toolchain: Some("nightly-2026-01-01".into()), ..world.places() };
    assert_eq!(find(&named).unwrap().compiler.name, "nightly-2026-01-01");
}

#[test]
fn a_nightly_whose_bitcode_no_linker_reads_gives_way_to_the_distribution() {
    let world = World::new();
    world
        .nightly(NIGHTLY)
        .compiler("usr", STABLE)
        .cached_linker("bpf-linker-0.13.0-llvm-22", "bpf-linker 0.13.0");
    let found = find(&world.places()).unwrap();
    assert_eq!(found.compiler.prefix, world.0.join("usr"));
    assert_eq!(found.linker.llvm, Some(22));
}

#[test]
fn a_compiler_without_sources_or_too_old_is_passed_over_with_the_reason() {
    let world = World::new();
    world.nightly(OLD).file("usr/bin/cargo", "").file("usr/bin/rustc", STABLE);
    world.cached_linker("bpf-linker-0.13.0-llvm-22", "bpf-linker 0.13.0");
    let lacks = find(&world.places()).unwrap_err().to_string();
    assert!(lacks.contains("nightly: rustc is 1.85.0, 1.95.0 or later is needed"), "{lacks}");
    assert!(lacks.contains("no rust-src"), "{lacks}");
}

#[test]
fn the_nearest_llvm_and_then_the_newest_linker_is_taken() {
    let world = World::new();
    world.compiler("usr", STABLE);
    for (name, says) in [
        ("bpf-linker-0.14.0-llvm-23", "bpf-linker 0.14.0"),
        ("bpf-linker-0.13.0-llvm-22", "bpf-linker 0.13.0"),
        ("bpf-linker-0.13.2-llvm-22", "bpf-linker 0.13.2"),
        ("bpf-linker-0.13.0-llvm-21", "bpf-linker 0.13.0"),
    ] {
        world.cached_linker(name, says);
    }
    let linker = find(&world.places()).unwrap().linker;
    assert_eq!((linker.version, linker.llvm), (Version(0, 13, 2), Some(22)));
}

#[test]
fn a_cached_linker_that_does_not_run_is_passed_over() {
    let world = World::new();
    world.compiler("usr", STABLE).cached_linker("bpf-linker-0.13.0-llvm-22", "no such library");
    world.file("path/bpf-linker", "bpf-linker 0.15.1");
    let linker = find(&world.places()).unwrap().linker;
    assert_eq!((linker.path, linker.llvm), (world.0.join("path/bpf-linker"), None));
}

#[test]
fn an_old_linker_in_path_is_refused_by_number() {
    let world = World::new();
    world.compiler("usr", STABLE).file("path/bpf-linker", "bpf-linker 0.9.15");
    let lacks = find(&world.places()).unwrap_err().to_string();
    assert!(lacks.contains("is 0.9.15, 0.13.0 or later is needed"), "{lacks}");
}

#[test]
fn what_the_environment_names_has_no_substitute() {
    let world = World::new();
    world.compiler("usr", STABLE).compiler("opt", STABLE);
    world.cached_linker("bpf-linker-0.13.0-llvm-22", "bpf-linker 0.13.0");
    let missing = Places { linker: Some(world.0.join("none")), ..world.places() };
    assert!(find(&missing).unwrap_err().to_string().contains("LB_BPF_LINKER"));
    let missing = Places { toolchain: Some("mine".into()), ..world.places() };
    assert_eq!(find(&missing).unwrap_err().to_string(), "mine: rustup has no such toolchain");
    let prefix = world.0.join("opt");
    let named = Places { toolchain: prefix.to_str().map(str::to_owned), ..world.places() };
    assert_eq!(find(&named).unwrap().compiler.prefix, prefix);
}

#[test]
fn a_choice_of_the_environments_that_will_not_do_is_told_before_anything_is_installed() {
    let world = World::new();
    world.compiler("usr", STABLE).file("path/bpf-linker", "bpf-linker 0.13.0").file("true", "true 9.1");
    assert_eq!(world.places().unusable_choice(), None, "nothing is chosen");
    let places = Places { linker: Some(world.0.join("true")), ..world.places() };
    assert!(places.unusable_choice().unwrap().starts_with("LB_BPF_LINKER: "));
    let places = Places { linker: Some(world.0.join("path/bpf-linker")), ..world.places() };
    assert_eq!(places.unusable_choice(), None);
    let places = Places { toolchain: Some("mine".into()), ..world.places() };
    assert!(places.unusable_choice().unwrap().starts_with("LB_EBPF_TOOLCHAIN=mine: "));
}

#[test]
fn the_outer_cargos_variables_stay_out_and_the_users_network_stays_in() {
    for name in
        ["CARGO", "CARGO_ENCODED_RUSTFLAGS", "CARGO_PKG_NAME", "RUSTFLAGS", "RUSTC_WRAPPER", "OUT_DIR"]
    {
        assert!(leaks(name), "{name}");
    }
    for name in ["RUSTUP_TOOLCHAIN", "CARGO_PROFILE_RELEASE_LTO", "CARGO_BUILD_TARGET", "LD_LIBRARY_PATH"] {
        assert!(leaks(name), "{name}");
    }
    for name in
        ["CARGO_HOME", "CARGO_HTTP_PROXY", "CARGO_MAKEFLAGS", "PATH", "HOME", "RUSTUP_HOME", "RUST_LOG"]
    {
        assert!(!leaks(name), "{name}");
    }
}
