//! What can go wrong between user space and the datapath, in words for operators.

use std::{io, path::PathBuf};

use aya::{EbpfError, programs::ProgramError};

/// See the messages.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// bpffs is not mounted.
    #[error(
        "no BPF file system at {path}: mount it with `mount -t bpf bpf {path}` (`ip netns exec` hides it: use `nsenter --net=/run/netns/NAME`)"
    )]
    NoBpffs {
        /// Where it was looked for.
        path: &'static str,
    },
    /// Pins of another version.
    #[error(
        "instance {name:?} has maps of ABI {found}, this version has ABI v{expected} and takes over maps from v{oldest} on: keep the version that made them, or run `{detach}` and start again (until then packets are not balanced; remembered flows and counters are lost, so connections whose slot has changed its owner break)"
    )]
    OtherAbi {
        /// Instance.
        name: String,
        /// Directory found.
        found: String,
        /// Our version.
        expected: u32,
        /// The oldest version whose maps are taken over.
        oldest: u32,
        /// What removes them.
        detach: String,
    },
    /// Some maps of a running datapath are gone.
    #[error(
        "instance {name:?} is attached but has only {found} of its {expected} maps: somebody removed pins; run `{detach}` and start again"
    )]
    Incomplete {
        /// Instance.
        name: String,
        /// Maps found.
        found: usize,
        /// Maps expected.
        expected: usize,
        /// What removes them.
        detach: String,
    },
    /// A pinned map that this version did not make.
    #[error(
        "{path} is not a map of this version: found {found}, expected {expected}: remove it with `{detach}`"
    )]
    ForeignMap {
        /// Pin.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
        /// What removes it.
        detach: String,
    },
    /// More VIPs than the pinned map of an agent holds.
    #[error(
        "{vips} VIPs do not fit the agent's map, which was made for {room}: run `{detach}` and start again (packets for the VIPs are not taken out of their tunnels in between)"
    )]
    Full {
        /// VIPs wanted.
        vips: usize,
        /// VIPs that fit.
        room: u32,
        /// What removes the map.
        detach: String,
    },
    /// Adopted records that cannot be.
    #[error(
        "the pinned maps contradict themselves: something else wrote to them; run `lb detach` and start again"
    )]
    Contradiction,
    /// A pin cannot be made or removed.
    #[error("{path}: {error}")]
    Pin {
        /// Pin.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A map operation failed.
    #[error("map {name}: {error}")]
    Map {
        /// Map.
        name: &'static str,
        /// Why.
        error: String,
    },
    /// The embedded object lacks something: a bug of the build.
    #[error("the built object has no {what}: this is a fault of the build; run `cargo xtask build` again")]
    Object {
        /// What is missing.
        what: &'static str,
    },
    /// No permission for bpf(2).
    #[error(
        "no permission to load BPF programs: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    Permission,
    /// The kernel refused the object or the program.
    #[error("the kernel refused the program: {0}")]
    Refused(String),
    /// Kernel older than supported.
    #[error(
        "Linux {release} is too old: at least 6.1 is needed (atomic operations and program features of the datapath)"
    )]
    OldKernel {
        /// What uname says.
        release: String,
    },
    /// The tick rate could not be found.
    #[error("cannot tell the kernel's tick rate: measured {measured:.1} ticks per second")]
    Clock {
        /// Measured rate.
        measured: f64,
    },
    /// No such interface.
    #[error("interface {interface:?} does not exist (there are: {known})")]
    NoInterface {
        /// Wanted.
        interface: String,
        /// Existing ones.
        known: String,
    },
    /// Somebody else's program is attached.
    #[error(
        "interface {interface:?} already has an XDP program that is not ours ({owner}): remove it with `ip link set dev {interface} xdp off` (or its own tool) and start again"
    )]
    Occupied {
        /// Interface.
        interface: String,
        /// Id and name of the program.
        owner: String,
    },
    /// Attaching failed in every allowed mode.
    #[error("cannot attach to {interface:?}: {error}")]
    Attach {
        /// Interface.
        interface: String,
        /// Why, per mode.
        error: String,
    },
}

impl DataplaneError {
    #[expect(clippy::needless_pass_by_value, reason = "made for `map_err`")]
    pub(super) fn from_load(error: EbpfError) -> Self {
        Self::with_permission(&error, chain(&error))
    }

    #[expect(clippy::needless_pass_by_value, reason = "made for `map_err`")]
    pub(super) fn from_program(error: ProgramError) -> Self {
        Self::with_permission(&error, chain(&error))
    }

    fn with_permission(error: &(dyn std::error::Error + 'static), text: String) -> Self {
        let mut cause = Some(error);
        while let Some(e) = cause {
            if e.downcast_ref::<io::Error>().is_some_and(|e| e.raw_os_error() == Some(libc::EPERM)) {
                return Self::Permission;
            }
            cause = e.source();
        }
        Self::Refused(text)
    }
}

/// The error with its causes; verifier logs are cut to their last lines, which say what was refused.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts = Vec::new();
    let mut cause = Some(error);
    while let Some(e) = cause {
        let text = e.to_string();
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        let tail = lines.len().saturating_sub(12);
        let text = lines[tail..].join("\n");
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        cause = e.source();
    }
    texts.join(": ")
}
