//! Finds what compiles the XDP programs, and makes the command that does it.
//!
//! The BPF target has no prebuilt `core`, so its compiler needs the sources of exactly its own `core`, and bpf-linker
//! needs an LLVM at least as new as the compiler's, because it reads the compiler's bitcode.
//! `cargo xtask` and `lb-userspace/build.rs` include this same file, so it uses nothing but `std`.

use std::cmp::Reverse;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The binaries of package `lb-ebpf`; the object of each is a file of that name in [`object_dir`].
pub(crate) const PROGRAMS: [&str; 4] = ["balancer", "agent", "harness", "bench"];

/// The BPF target: every host this project supports is little-endian.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Names the toolchain that compiles the XDP programs: a rustup toolchain, or the absolute path of a prefix.
pub(crate) const TOOLCHAIN_VAR: &str = "LB_EBPF_TOOLCHAIN";

/// Names the bpf-linker to use.
pub(crate) const LINKER_VAR: &str = "LB_BPF_LINKER";

/// What rustup calls the toolchain that most users have for unstable features.
pub(crate) const NIGHTLY: &str = "nightly";

/// The prefix of the distribution's toolchain, and the name of its compiler.
pub(crate) const DISTRIBUTION: &str = "/usr";

/// The first bpf-linker whose LLVM is the host's and which knows `allows-misaligned-mem-access`.
pub(crate) const MIN_LINKER: Version = Version(0, 13, 0);

/// The workspace's `rust-version`: cargo refuses to compile its members with less.
pub(crate) const MIN_RUSTC: Version = Version(1, 95, 0);

/// Major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Version {
    /// The first `N.N.N` in `text`; what follows it (`-nightly`, a date) does not matter.
    pub(crate) fn find_in(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| {
            let mut parts = word.splitn(3, '.').map(|part| {
                let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
                part[..digits].parse().ok()
            });
            Some(Self(parts.next()??, parts.next()??, parts.next()??))
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Runs a program with one argument: its standard output, or why there is none.
pub(crate) type Ask = fn(&Path, &str) -> Result<String, String>;

/// The places to look in, so that tests can describe another machine.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// `LB_EBPF_TOOLCHAIN`, when set and not empty.
    pub(crate) toolchain: Option<String>,
    /// `LB_BPF_LINKER`, when set and not empty.
    pub(crate) linker: Option<PathBuf>,
    /// The directory of rustup's toolchains.
    pub(crate) rustup_toolchains: Option<PathBuf>,
    /// Where the distribution's toolchain is.
    pub(crate) distribution: PathBuf,
    /// The directory that set-up installs its own tools to.
    pub(crate) tool_cache: Option<PathBuf>,
    /// The directories of `PATH`.
    pub(crate) path: Vec<PathBuf>,
    /// How programs are asked for their version.
    pub(crate) ask: Ask,
}

impl Places {
    /// The places of this machine and this environment.
    pub(crate) fn from_env() -> Self {
        let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let home = var("HOME").map(PathBuf::from);
        let rustup_home =
            var("RUSTUP_HOME").map(PathBuf::from).or_else(|| Some(home.clone()?.join(".rustup")));
        Self {
            toolchain: var(TOOLCHAIN_VAR).and_then(|name| name.into_string().ok()),
            linker: var(LINKER_VAR).map(PathBuf::from),
            rustup_toolchains: rustup_home.map(|dir| dir.join("toolchains")),
            distribution: PathBuf::from(DISTRIBUTION),
            tool_cache: tool_cache(var("XDG_CACHE_HOME"), home.as_deref()),
            path: var("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
            ask,
        }
    }
}

impl Places {
    /// What is wrong with the toolchain or the linker that the environment names, if it names one that will not do.
    pub(crate) fn unusable_choice(&self) -> Option<String> {
        if let Some(name) = &self.toolchain {
            let (usable, lacks) = compilers(self);
            if usable.is_empty() {
                return Some(format!("{TOOLCHAIN_VAR}={name}: {}", lacks.join("; ")));
            }
        }
        let path = self.linker.as_ref()?;
        Linker::at(path, None, self.ask).err().map(|lack| format!("{LINKER_VAR}: {lack}"))
    }
}

/// `${XDG_CACHE_HOME:-$HOME/.cache}/lb-xtask`; a relative `XDG_CACHE_HOME` is ignored, as its specification says.
pub(crate) fn tool_cache(xdg_cache_home: Option<OsString>, home: Option<&Path>) -> Option<PathBuf> {
    let xdg = xdg_cache_home.map(PathBuf::from).filter(|dir| dir.is_absolute());
    Some(xdg.or_else(|| Some(home?.join(".cache")))?.join("lb-xtask"))
}

/// The root that a bpf-linker of this version and LLVM is installed to, below the tool cache.
pub(crate) fn linker_root(tool_cache: &Path, version: Version, llvm: u32) -> PathBuf {
    tool_cache.join(format!("bpf-linker-{version}-llvm-{llvm}"))
}

/// The version and LLVM in the name of a directory that [`linker_root`] made.
fn parse_linker_root(name: &str) -> Option<(Version, u32)> {
    let (version, llvm) = name.strip_prefix("bpf-linker-")?.split_once("-llvm-")?;
    Some((Version::find_in(version)?, llvm.parse().ok()?))
}

/// A cargo and a rustc with the sources of their own `core`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// What to call it: `nightly`, `/usr`, or what the environment named.
    pub(crate) name: String,
    /// The directory of its `bin` and `lib`.
    pub(crate) prefix: PathBuf,
    /// The version of rustc.
    pub(crate) version: Version,
    /// The major version of its LLVM.
    pub(crate) llvm: u32,
}

impl Compiler {
    /// The compiler under `prefix`, or what is wrong with it.
    pub(crate) fn at(name: &str, prefix: &Path, ask: Ask) -> Result<Self, String> {
        let rustc = prefix.join("bin/rustc");
        if !rustc.is_file() || !prefix.join("bin/cargo").is_file() {
            return Err(format!("{name}: no cargo and rustc in {}", prefix.join("bin").display()));
        }
        // Where rustup comes from the distribution, its proxies are /usr/bin/{cargo,rustc}.
        if fs::canonicalize(&rustc).is_ok_and(|real| real.file_name().is_some_and(|file| file == "rustup")) {
            return Err(format!("{name}: {} is rustup's proxy, not a compiler", rustc.display()));
        }
        if !prefix.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file() {
            return Err(format!("{name}: no rust-src (the sources of core)"));
        }
        let text = ask(&rustc, "-vV").map_err(|e| format!("{name}: {} -vV: {e}", rustc.display()))?;
        let (version, llvm) = parse_rustc(&text)
            .ok_or_else(|| format!("{name}: {} -vV names no release and LLVM version", rustc.display()))?;
        if version < MIN_RUSTC {
            return Err(format!("{name}: rustc is {version}, {MIN_RUSTC} or later is needed"));
        }
        Ok(Self { name: name.to_owned(), prefix: prefix.to_owned(), version, llvm })
    }
}

/// The release and the major version of LLVM in the answer of `rustc -vV`.
pub(crate) fn parse_rustc(text: &str) -> Option<(Version, u32)> {
    let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let release = Version::find_in(field("release:")?)?;
    let llvm = field("LLVM version:")?.trim().split('.').next()?.parse().ok()?;
    Some((release, llvm))
}

/// A bpf-linker that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
    pub(crate) version: Version,
    /// The major version of its LLVM where the name of its directory tells; bpf-linker itself does not say.
    pub(crate) llvm: Option<u32>,
}

impl Linker {
    fn at(path: &Path, llvm: Option<u32>, ask: Ask) -> Result<Self, String> {
        let text = ask(path, "--version").map_err(|e| format!("{} --version: {e}", path.display()))?;
        match Version::find_in(&text) {
            Some(version) if version >= MIN_LINKER => Ok(Self { path: path.to_owned(), version, llvm }),
            Some(version) => Err(format!("{} is {version}, {MIN_LINKER} or later is needed", path.display())),
            None => {
                let said = text.lines().next().unwrap_or_default();
                Err(format!("{} --version says {said:?}, which is no version", path.display()))
            }
        }
    }
}

/// What compiles and links the XDP programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: Linker,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compiler, linker } = self;
        write!(f, "rustc {} of {} (LLVM {}), ", compiler.version, compiler.name, compiler.llvm)?;
        write!(f, "bpf-linker {} ({})", linker.version, linker.path.display())
    }
}

/// Why there is no toolchain: what was looked at, and what each lacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) Vec<String>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// The directory of a rustup toolchain. rustup itself is not asked: it takes longer than all the rest of the search.
pub(crate) fn rustup_prefix(places: &Places, name: &str) -> Option<PathBuf> {
    let toolchains = places.rustup_toolchains.as_ref()?;
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let with_host = format!("{name}-{}-unknown-linux", env::consts::ARCH);
    let found = fs::read_dir(toolchains).ok()?.filter_map(Result::ok).find(|entry| {
        let entry = entry.file_name();
        entry == *name || entry.to_string_lossy().starts_with(&with_host)
    })?;
    Some(found.path())
}

/// The compilers of this machine that could compile for BPF, best first, and what the others lack.
pub(crate) fn compilers(places: &Places) -> (Vec<Compiler>, Vec<String>) {
    let in_rustup = |name: &str| match rustup_prefix(places, name) {
        Some(prefix) => Compiler::at(name, &prefix, places.ask),
        None => Err(format!("{name}: rustup has no such toolchain")),
    };
    let tried = match places.toolchain.as_deref() {
        // What is named has no substitute.
        Some(prefix) if prefix.starts_with('/') => vec![Compiler::at(prefix, Path::new(prefix), places.ask)],
        Some(name) => vec![in_rustup(name)],
        None => vec![in_rustup(NIGHTLY), Compiler::at(DISTRIBUTION, &places.distribution, places.ask)],
    };
    let mut usable = Vec::new();
    let mut lacks = Vec::new();
    for compiler in tried {
        match compiler {
            Ok(compiler) => usable.push(compiler),
            Err(lack) => lacks.push(lack),
        }
    }
    (usable, lacks)
}

/// The bpf-linker for a compiler whose LLVM is `llvm`, or why there is none.
pub(crate) fn find_linker(places: &Places, llvm: u32) -> Result<Linker, Vec<String>> {
    if let Some(path) = &places.linker {
        return Linker::at(path, None, places.ask).map_err(|lack| vec![format!("{LINKER_VAR}: {lack}")]);
    }
    let mut lacks = Vec::new();
    let in_path = places.path.iter().map(|dir| dir.join("bpf-linker")).find(|path| path.is_file());
    let cached = cached_linkers(places, llvm).into_iter().map(|(llvm, path)| (Some(llvm), path));
    for (llvm, path) in cached.chain(in_path.map(|path| (None, path))) {
        match Linker::at(&path, llvm, places.ask) {
            Ok(linker) => return Ok(linker),
            Err(lack) => lacks.push(lack),
        }
    }
    if lacks.is_empty() {
        lacks.push(format!("no bpf-linker with LLVM {llvm} or later in the tool cache, and none in PATH"));
    }
    Err(lacks)
}

/// The linkers of the tool cache that can read the bitcode of LLVM `llvm`: the nearest LLVM first, then the newest.
fn cached_linkers(places: &Places, llvm: u32) -> Vec<(u32, PathBuf)> {
    let entries = places.tool_cache.as_ref().and_then(|cache| fs::read_dir(cache).ok());
    let mut found: Vec<(u32, Reverse<Version>, PathBuf)> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let (version, its_llvm) = parse_linker_root(entry.file_name().to_str()?)?;
            let path = entry.path().join("bin/bpf-linker");
            (version >= MIN_LINKER && its_llvm >= llvm && path.is_file()).then_some((
                its_llvm,
                Reverse(version),
                path,
            ))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(llvm, _, path)| (llvm, path)).collect()
}

/// The first compiler that has a linker. Nothing is installed or changed.
pub(crate) fn find(places: &Places) -> Result<Toolchain, Missing> {
    let (compilers, mut lacks) = compilers(places);
    for compiler in compilers {
        match find_linker(places, compiler.llvm) {
            Ok(linker) => return Ok(Toolchain { compiler, linker }),
            Err(more) => lacks.extend(more),
        }
    }
    lacks.dedup();
    Err(Missing(lacks))
}

/// Where the objects are once [`cargo`]'s `build` has run.
pub(crate) fn object_dir(target_dir: &Path) -> PathBuf {
    target_dir.join("ebpf").join(TARGET).join("release")
}

/// `cargo VERB` for the programs of `lb-ebpf`, with a clean environment; the caller may add arguments.
///
/// `target_dir` is the workspace's target directory. The programs get one directory below it for every profile and
/// for clippy, for in a directory of their own each would compile `core` afresh. `arch` is the host's, in Rust's words.
pub(crate) fn cargo(
    toolchain: &Toolchain,
    root: &Path,
    target_dir: &Path,
    arch: &str,
    verb: &str,
) -> Command {
    let bin = toolchain.compiler.prefix.join("bin");
    // As `cargo clippy`, cargo would take the first cargo-clippy in PATH: rustup's, which is another compiler's.
    let mut command = Command::new(bin.join(if verb == "clippy" { "cargo-clippy" } else { "cargo" }));
    command.current_dir(root);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(leaks) {
            command.env_remove(name);
        }
    }
    command
        .env("CARGO", bin.join("cargo"))
        .env("RUSTC", bin.join("rustc"))
        // -Zbuild-std and the features that the programs use are unstable; only this cargo is told to allow them.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(arch).join("\x1f"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker.path)
        .args([verb, "--package", "lb-ebpf", "--bins", "--release", "--locked"])
        .args(["-Zbuild-std=core", "--target", TARGET, "--target-dir"])
        .arg(target_dir.join("ebpf"));
    command
}

/// The flags of every crate in a program, `core` included.
fn rustflags(arch: &str) -> Vec<String> {
    vec![
        // What aya-ebpf selects the registers of the traced machine by.
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        // BTF is made of the debug information.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // 32-bit registers and atomics that return a value: Linux 5.12 and later.
        "-Ctarget-cpu=v3".to_owned(),
        // A header field is one load instead of one per byte. It also joins accesses to the stack, which the
        // verifier wants aligned: what is put together on the stack needs aligned fields. To the linker, because
        // it makes the machine code; rustc would take it too, with a warning that cannot be silenced.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned(),
    ]
}

/// Whether a variable belongs to the cargo that runs us, or would make other objects than everyone else's.
fn leaks(name: &str) -> bool {
    const OURS_TO_KEEP: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_MAKEFLAGS", // the job server: without it two cargos compile with twice the processors
        "CARGO_BUILD_JOBS",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_TERM_",
    ];
    const EXACT: [&str; 9] = [
        "CARGO",
        "HOST",
        "TARGET",
        "OUT_DIR",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "NUM_JOBS",
        "LD_LIBRARY_PATH",
    ];
    let prefixed = ["CARGO_", "RUSTC", "RUSTDOC", "RUSTFLAGS", "CLIPPY_", "DEP_", "RUSTUP_TOOLCHAIN"];
    EXACT.contains(&name)
        || prefixed.iter().any(|prefix| name.starts_with(prefix))
            && !OURS_TO_KEEP.iter().any(|keep| name.starts_with(keep))
}

/// [`Ask`] for real programs. Cargo's LD_LIBRARY_PATH would give them another toolchain's libraries.
fn ask(program: &Path, argument: &str) -> Result<String, String> {
    let mut command = Command::new(program);
    let output = command.arg(argument).env_remove("LD_LIBRARY_PATH").output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}", output.status, stderr.lines().next().unwrap_or("no message")))
}

/// The target directory that `path` is in, wherever configuration put it; cargo marks it with a file.
pub(crate) fn target_dir_of(path: &Path, root: &Path) -> PathBuf {
    let marked = path.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    marked.map_or_else(|| root.join("target"), Path::to_owned)
}

#[cfg(test)]
#[path = "ebpf_toolchain_tests.rs"]
mod tests;
