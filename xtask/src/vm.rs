//! What the suite `vm` needs: an emulator, other kernels, and the programs of other suites.
//!
//! Kernels are Debian's packages for virtual machines, unpacked into the tool cache and never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::apt;
use crate::ebpf_toolchain::Places;
use crate::machine::Machine;
use crate::process::{run_silently, say, shown};
use crate::suites::test_args;
use crate::workspace::{cargo, program, root};

/// The suite that this is for.
pub(crate) const SUITE: &str = "vm";

/// Programs that the suite calls, and the package of each.
const PROGRAMS: [(&str, &str); 5] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("xz", "xz-utils"),
    ("strip", "binutils"),
    ("ldd", "libc-bin"),
    ("ip", "iproute2"),
];

/// Suites whose programs run in the emulated machines.
const SUITES: [&str; 2] = ["packets", "random"];

/// A kernel: its name in the cache, how the names of its packages begin and end, and the release of Debian that has it,
/// if that is not the machine's own.
struct Kernel {
    name: &'static str,
    packages: (&'static str, &'static str),
    release: Option<&'static str>,
}

const KERNELS: [Kernel; 3] = [
    Kernel { name: "6.1", packages: ("linux-image-6.1.", "-cloud-amd64"), release: None },
    Kernel { name: "6.12", packages: ("linux-image-6.12.", "-cloud-amd64"), release: None },
    // Too old, which is what it is for. Debian 11.
    Kernel { name: "5.10", packages: ("linux-image-5.10.", "-cloud-amd64"), release: Some("bullseye") },
];

/// Gets what is missing; what to tell the suite, as variables of the environment.
pub(crate) fn set_up() -> Result<Vec<(&'static str, String)>> {
    let places = Places::from_env();
    let machine = Machine::look(&places)?;
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(name, _)| program(&places, name).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        if !machine.apt {
            bail!("the suite {SUITE} needs {}, and there is no apt to install them with", missing.join(", "));
        }
        apt::install(&machine, &missing, "an emulator for other kernels")?;
    }
    let cache = places.tool_cache.context("there is no folder for kernels: set HOME or XDG_CACHE_HOME")?;
    let kernels = cache.join("kernels");
    for kernel in &KERNELS {
        let folder = kernels.join(kernel.name);
        if !folder.is_dir() {
            if !machine.apt {
                bail!("the suite {SUITE} needs Debian's Linux {} in {}", kernel.name, folder.display());
            }
            unpack(kernel, &kernels)
                .with_context(|| format!("Linux {} for the suite {SUITE}", kernel.name))?;
        }
    }
    let programs = programs()?;
    Ok(vec![("LB_VM_KERNELS", kernels.display().to_string()), ("LB_VM_PROGRAMS", programs.join(":"))])
}

/// Downloads a kernel and unpacks it. What is there is whole: it gets its name last.
fn unpack(kernel: &Kernel, kernels: &Path) -> Result<()> {
    let work = kernels.join(format!("{}.new-{}", kernel.name, std::process::id()));
    let result = unpack_into(kernel, &work).and_then(|()| {
        fs::rename(work.join("kernel"), kernels.join(kernel.name)).context("giving the kernel its name")
    });
    let removed = fs::remove_dir_all(&work);
    result?;
    removed.with_context(|| format!("cannot remove {}", work.display()))
}

fn unpack_into(kernel: &Kernel, work: &Path) -> Result<()> {
    fs::create_dir_all(work).with_context(|| work.display().to_string())?;
    let options = match kernel.release {
        None => Vec::new(),
        Some(release) => other_release(release, work)?,
    };
    let package = match newest(kernel, &options)? {
        Some(package) => package,
        None => {
            // Lists that are out of date, or none at all.
            let mut update = Command::new("apt-get");
            run_silently(update.args(&options).args(["-q", "update"]))?;
            newest(kernel, &options)?.with_context(|| {
                format!("apt offers no package {}…{}", kernel.packages.0, kernel.packages.1)
            })?
        }
    };
    say(&format!("downloading {package} to boot it in an emulator; it is not installed"));
    let mut download = Command::new("apt-get");
    download.args(&options).args(["-q", "download", &package]).current_dir(work);
    run_silently(&mut download)?;
    let mut files = fs::read_dir(work)?.filter_map(Result::ok).map(|entry| entry.path());
    let file = files
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("`{}` left no package", shown(&download)))?;
    run_silently(Command::new("dpkg-deb").arg("-x").arg(&file).arg(work.join("kernel")))
}

/// The newest package of this kernel that apt knows.
fn newest(kernel: &Kernel, options: &[String]) -> Result<Option<String>> {
    let output = Command::new("apt-cache").args(options).args(["pkgnames", kernel.packages.0]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let fits = |name: &&str| {
        let middle =
            name.strip_prefix(kernel.packages.0).and_then(|rest| rest.strip_suffix(kernel.packages.1));
        middle.is_some_and(|middle| !middle.contains("-rt"))
    };
    Ok(text.lines().map(str::trim).filter(fits).max_by_key(|name| numbers(name)).map(str::to_owned))
}

/// The numbers in a name, for comparison: 6.1.9 comes before 6.1.10.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
}

/// Options that make apt look at another release on the mirror that the machine uses, with lists of its own in `work`.
fn other_release(release: &str, work: &Path) -> Result<Vec<String>> {
    let (mirror, key) = mirror().context("no mirror of Debian in apt's sources")?;
    let lists = work.join("lists");
    fs::create_dir_all(lists.join("partial"))?;
    let sources = work.join("other.list");
    fs::write(&sources, format!("deb {key}{mirror} {release} main\n"))?;
    let mut options = Vec::new();
    for (name, value) in [
        ("Dir::Etc::sourcelist", sources.display().to_string()),
        ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
        ("Dir::State::lists", lists.display().to_string()),
        // Otherwise the machine's own lists, which these options hide, would be forgotten.
        ("Dir::Cache::pkgcache", work.join("pkgcache.bin").display().to_string()),
        ("Dir::Cache::srcpkgcache", work.join("srcpkgcache.bin").display().to_string()),
    ] {
        options.extend(["-o".to_owned(), format!("{name}={value}")]);
    }
    Ok(options)
}

/// Where the machine gets Debian from, and how it names the key, both as `sources.list` has them.
fn mirror() -> Option<(String, String)> {
    let folder = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().filter_map(Result::ok);
    let files: Vec<PathBuf> =
        folder.map(|entry| entry.path()).chain([PathBuf::from("/etc/apt/sources.list")]).collect();
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).find_map(|text| mirror_in(&text))
}

fn mirror_in(text: &str) -> Option<(String, String)> {
    let is_debian = |url: &&str| url.starts_with("http") && url.trim_end_matches('/').ends_with("/debian");
    for paragraph in text.split("\n\n") {
        let field = |name: &str| {
            let line = paragraph.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim)
        };
        if let Some(url) = field("URIs:").and_then(|urls| urls.split_whitespace().find(is_debian)) {
            let key = field("Signed-By:").map_or_else(String::new, |key| format!("[signed-by={key}] "));
            return Some((url.to_owned(), key));
        }
    }
    let line = text.lines().find_map(|line| line.strip_prefix("deb "))?;
    line.split_whitespace().find(is_debian).map(|url| (url.to_owned(), String::new()))
}

/// The paths of the test programs of [`SUITES`], built.
fn programs() -> Result<Vec<String>> {
    let args: Vec<&str> = SUITES.iter().flat_map(|name| ["--test", *name]).collect();
    let mut command = cargo("test");
    command.args(test_args(&[])).args(args).args(["--no-run", "--message-format=json"]);
    let output = command.stderr(std::process::Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("`{}` failed ({})", shown(&command), output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let path = |name: &&str| {
        let of_suite = format!("\"kind\":[\"test\"],\"crate_types\":[\"bin\"],\"name\":\"{name}\"");
        let line = text.lines().find(|line| line.contains(&of_suite))?;
        let rest = line.split_once("\"executable\":\"")?.1;
        let path = root().join(rest.split_once('"')?.0);
        Some(path.display().to_string())
    };
    SUITES
        .iter()
        .map(|name| path(name).with_context(|| format!("cargo does not say where the suite {name} is")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{mirror_in, numbers};

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("linux-image-6.1.0-9-cloud-amd64") < numbers("linux-image-6.1.0-10-cloud-amd64"));
    }

    #[test]
    fn the_mirror_is_found_in_either_form() {
        let paragraphs = "Types: deb\nURIs: http://mirror.example/security\nSuites: x\n\n\
                          Types: deb\nURIs: http://mirror.example/debian\nSuites: y\nSigned-By: /usr/share/key\n";
        let found = mirror_in(paragraphs);
        let expected = ("http://mirror.example/debian".to_owned(), "[signed-by=/usr/share/key] ".to_owned());
        assert_eq!(found, Some(expected));
        let line = "# deb cdrom\ndeb https://mirror.example/debian/ stable main\n";
        assert_eq!(mirror_in(line), Some(("https://mirror.example/debian/".to_owned(), String::new())));
        assert_eq!(mirror_in("deb https://mirror.example/ubuntu noble main"), None);
    }
}
