//! Other kernels: the oldest that is supported, the next that Debian ships, and one that is refused, each emulated.
//!
//! `cargo xtask test --suite vm` gets the emulator and the kernels and says in the environment where they are.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_tests::{
    binaries,
    vm::{Image, Job, Report, boot},
};

/// Folder with an unpacked kernel for each of [`KERNELS`].
const KERNELS_VAR: &str = "LB_VM_KERNELS";
/// Paths of the suites' own programs, with colons in between.
const PROGRAMS_VAR: &str = "LB_VM_PROGRAMS";
/// A machine that is emulated by a busy one.
const LIMIT: Duration = Duration::from_secs(420);
/// What the worlds are made of, and what the kernel outside may lack.
const MODULES: [&str; 8] = ["veth", "bridge", "8021q", "bonding", "ipip", "sit", "ip6_tunnel", "dummy"];

/// What is run in a kernel that is supported. The packet cases first: if they fail the rest need not be looked at.
fn jobs() -> Vec<Job> {
    let mut jobs = vec![
        Job::new("packets", &["/suites/packets", "--exact", "kernel_rows"]),
        Job::new("random", &["/suites/random", "--exact", "host_and_kernel_agree_and_every_invariant_holds"]),
    ];
    let scenes = ["agent", "ipv4-in-ipv4", "ipv6-in-ipv4", "ipv4-in-ipv6", "ipv6-in-ipv6", "bond", "vlan"];
    jobs.extend(scenes.map(|scene| Job::new(scene, &["/init", scene])));
    jobs
}

fn told(variable: &str) -> Result<PathBuf> {
    let value = env::var_os(variable).with_context(|| {
        format!("{variable} is not set; run `cargo xtask test --suite vm`, which sets it")
    })?;
    Ok(value.into())
}

/// Boots a kernel and runs these jobs.
fn run(kernel: &str, jobs: &[Job]) -> Result<Report> {
    let kernel = told(KERNELS_VAR)?.join(kernel);
    let mut image = Image::new(&kernel, &MODULES, &binaries::guest()?)?;
    image.program(&binaries::lb()?, "/usr/bin/lb")?;
    image.program(&binaries::lab()?, "/usr/bin/lab")?;
    image.program(&found("ip")?, "/usr/sbin/ip")?;
    for program in env::split_paths(&told(PROGRAMS_VAR)?) {
        let name = program.file_name().context("a program without a name")?.to_string_lossy().into_owned();
        let name = name.split_once('-').map_or(name.as_str(), |(name, _)| name);
        image.program(&program, &format!("/suites/{name}"))?;
    }
    boot(image, jobs, LIMIT)
}

fn found(program: &str) -> Result<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Path::new);
    let path = folders.iter().map(|folder| folder.join(program)).find(|path| path.is_file());
    path.with_context(|| format!("there is no program {program}"))
}

/// A kernel that is booted once for all of its tests.
struct Kernel {
    name: &'static str,
    report: OnceLock<Result<Report, String>>,
}

static LINUX_6_1: Kernel = Kernel { name: "6.1", report: OnceLock::new() };
static LINUX_6_12: Kernel = Kernel { name: "6.12", report: OnceLock::new() };

impl Kernel {
    fn passes(&self, job: &str) {
        let report = self.report.get_or_init(|| run(self.name, &jobs()).map_err(|e| format!("{e:#}")));
        let report = report.as_ref().unwrap_or_else(|error| panic!("Linux {}: {error}", self.name));
        let result = report.get(job).unwrap_or_else(|| panic!("Linux {}: no job {job}", self.name));
        assert_eq!(result.status, 0, "Linux {}, {job}:\n{}", self.name, result.output);
    }
}

/// The tests of a kernel that is supported.
macro_rules! supported {
    ($module:ident, $kernel:ident) => {
        mod $module {
            use super::$kernel;

            #[test]
            fn every_packet_case_holds() {
                $kernel.passes("packets");
            }
            #[test]
            fn random_packets_find_nothing() {
                $kernel.passes("random");
            }
            #[test]
            fn daemon_and_agent_balance_real_connections() {
                $kernel.passes("agent");
            }
            #[test]
            fn kernel_takes_ipv4_out_of_ipv4() {
                $kernel.passes("ipv4-in-ipv4");
            }
            #[test]
            fn kernel_takes_ipv6_out_of_ipv4() {
                $kernel.passes("ipv6-in-ipv4");
            }
            #[test]
            fn kernel_takes_ipv4_out_of_ipv6() {
                $kernel.passes("ipv4-in-ipv6");
            }
            #[test]
            fn kernel_takes_ipv6_out_of_ipv6() {
                $kernel.passes("ipv6-in-ipv6");
            }
            #[test]
            fn a_bond_balances_through_the_failure_of_a_port() {
                $kernel.passes("bond");
            }
            #[test]
            fn a_vlan_device_balances() {
                $kernel.passes("vlan");
            }
        }
    };
}

supported!(linux_6_1, LINUX_6_1);
supported!(linux_6_12, LINUX_6_12);

#[test]
fn linux_5_10_is_refused_with_the_reason() {
    let report =
        run("5.10", &[Job::new("refused", &["/init", "refused"])]).unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!(report["refused"].status, 0, "{}", report["refused"].output);
}
