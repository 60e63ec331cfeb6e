//! What this machine is and allows, and which roads to a BPF compiler it therefore has.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::ebpf_toolchain::{Compiler, DISTRIBUTION, NIGHTLY, Places, rustup_prefix};
use crate::process::shown;
use crate::workspace::program;

/// What of the machine decides how the missing is got.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// Root by number: may install packages.
    pub(crate) root: bool,
    /// Packages come from apt.
    pub(crate) apt: bool,
    /// There is a rustup.
    pub(crate) rustup: bool,
    /// rustup has a toolchain `nightly`, complete or not.
    pub(crate) nightly: bool,
}

impl Machine {
    /// This machine.
    pub(crate) fn look(places: &Places) -> Result<Self> {
        Ok(Self {
            root: Privileges::now()?.root,
            apt: program(places, "apt-get").is_some(),
            rustup: program(places, "rustup").is_some(),
            nightly: rustup_prefix(places, NIGHTLY).is_some(),
        })
    }

    /// The ways to a BPF compiler other than those that are `usable` already, in the order to try them.
    pub(crate) fn roads(&self, usable: &[Compiler]) -> Vec<Road> {
        let is_usable = |name: &str| usable.iter().any(|compiler| compiler.name == name);
        let by_rustup = if self.nightly { Road::AddSource } else { Road::InstallNightly };
        let mut roads = Vec::new();
        if self.rustup && !is_usable(NIGHTLY) {
            roads.push(by_rustup);
        }
        if self.apt && !is_usable(DISTRIBUTION) {
            roads.push(Road::Distribution);
        }
        roads
    }
}

/// A way to a compiler with the sources of its `core`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Road {
    /// Have rustup install the toolchain `nightly` beside the others.
    InstallNightly,
    /// Have rustup add rust-src to the `nightly` that is there, without updating it.
    AddSource,
    /// The compiler and sources that Debian packages for building its browsers.
    Distribution,
}

/// Refuses a machine that the XDP programs are not for.
pub(crate) fn check_platform(os: &str, arch: &str) -> Result<()> {
    if os != "linux" {
        bail!("this system is {os}; lb is made of XDP programs, which exist on Linux only");
    }
    if arch != "x86_64" {
        bail!("this machine is {arch}; lb is made and tested for x86_64 only");
    }
    Ok(())
}

/// What the kernel lets this process do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Privileges {
    /// The effective user is number 0.
    pub(crate) root: bool,
    /// The capabilities that namespaces and XDP need and this process lacks.
    pub(crate) lacks: Vec<&'static str>,
}

impl Privileges {
    /// Those of this process.
    pub(crate) fn now() -> Result<Self> {
        let path = "/proc/self/status";
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        Self::parse(&text).with_context(|| format!("{path} names no effective user and capabilities"))
    }

    /// From the text of `/proc/PID/status`: `Uid:` real, effective, …; `CapEff:` a mask in hexadecimal.
    fn parse(status: &str) -> Option<Self> {
        /// Numbers from capabilities(7).
        const NEEDED: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
        let user: u32 = field("Uid:")?.split_whitespace().nth(1)?.parse().ok()?;
        let mask = u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?;
        let lacks = NEEDED.iter().filter(|(_, bit)| mask >> bit & 1 == 0).map(|(name, _)| *name).collect();
        Some(Self { root: user == 0, lacks })
    }

    /// Why namespaces and XDP are out of reach, if they are.
    pub(crate) fn refusal(&self) -> Option<String> {
        match (self.root, self.lacks.is_empty()) {
            (_, true) => None,
            (false, false) => Some("needs root".to_owned()),
            (true, false) => Some(format!("root here lacks {} (a container?)", self.lacks.join(" and "))),
        }
    }

    /// An error that says how to run `command`, unless this process may.
    pub(crate) fn require(&self, command: &Command) -> Result<()> {
        match self.refusal() {
            None => Ok(()),
            Some(why) if self.root => bail!("namespaces and XDP are out of reach: {why}"),
            Some(_) => bail!("namespaces and XDP need root; all is built, so: sudo -E {}", shown(command)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use crate::ebpf_toolchain::{Compiler, Version};

    use super::{Machine, Privileges, Road, check_platform};

    const BARE: Machine = Machine { root: false, apt: false, rustup: false, nightly: false };

    #[test]
    fn rustup_comes_before_the_distribution() {
        let most_users = Machine { apt: true, rustup: true, ..BARE };
        assert_eq!(most_users.roads(&[]), [Road::InstallNightly, Road::Distribution]);
    }

    #[test]
    fn a_nightly_that_is_there_is_not_updated() {
        let has_nightly = Machine { rustup: true, nightly: true, ..BARE };
        assert_eq!(has_nightly.roads(&[]), [Road::AddSource]);
    }

    #[test]
    fn a_machine_has_the_roads_it_has_tools_for() {
        assert_eq!(Machine { apt: true, root: true, ..BARE }.roads(&[]), [Road::Distribution]);
        assert_eq!(Machine { nightly: true, ..BARE }.roads(&[]), [], "a toolchain without its rustup");
    }

    #[test]
    fn a_compiler_that_is_usable_is_not_got_again() {
        let all = Machine { root: true, apt: true, rustup: true, nightly: true };
        let usable = |name: &str| Compiler {
            name: name.to_owned(),
            prefix: PathBuf::from("/p"),
            version: Version(1, 96, 0),
            llvm: 22,
        };
        assert_eq!(all.roads(&[usable("/usr")]), [Road::AddSource]);
        assert_eq!(all.roads(&[usable("nightly")]), [Road::Distribution]);
        assert_eq!(all.roads(&[usable("nightly"), usable("/usr")]), []);
    }

    #[test]
    fn other_platforms_are_refused_by_name() {
        assert!(check_platform("linux", "x86_64").is_ok());
        assert!(check_platform("macos", "x86_64").unwrap_err().to_string().contains("macos"));
        assert!(check_platform("linux", "riscv64").unwrap_err().to_string().contains("riscv64"));
    }

    #[test]
    fn privileges_are_read_from_the_kernels_words() {
        let root = "Name:\tx\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n";
        assert_eq!(Privileges::parse(root), Some(Privileges { root: true, lacks: vec![] }));
        let container = "Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\n";
        let lacks = vec!["CAP_NET_ADMIN", "CAP_SYS_ADMIN"];
        assert_eq!(Privileges::parse(container), Some(Privileges { root: true, lacks }));
        let by_sudo = "Uid:\t1000\t0\t0\t0\nCapEff:\t000001ffffffffff\n";
        assert!(Privileges::parse(by_sudo).unwrap().root, "the effective user counts");
        assert_eq!(Privileges::parse("Uid:\t0\t0\t0\t0\n"), None);
    }

    #[test]
    fn who_may_not_is_told_the_command() {
        let mut command = Command::new("/x/lab");
        command.args(["run", "--exit"]);
        let user = Privileges { root: false, lacks: vec!["CAP_SYS_ADMIN"] };
        let told = user.require(&command).unwrap_err().to_string();
        assert!(told.ends_with("sudo -E /x/lab run --exit"), "{told}");
        let contained = Privileges { root: true, lacks: vec!["CAP_SYS_ADMIN"] };
        assert!(contained.require(&command).unwrap_err().to_string().contains("CAP_SYS_ADMIN"));
        assert!(Privileges { root: true, lacks: vec![] }.require(&command).is_ok());
    }
}
