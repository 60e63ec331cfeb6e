//! What can go wrong between the daemon and the kernel's network configuration.

use std::io;

use thiserror::Error;

/// An error of this module: names the object, what was found and, where there is one, the fix.
#[derive(Debug, Error)]
pub enum NetError {
    /// No interface of that name in this network namespace.
    #[error("interface {name} does not exist; interfaces here: {existing}")]
    NoSuchInterface {
        /// The name that was asked for.
        name: String,
        /// Names that do exist, comma separated, or "none".
        existing: String,
    },
    /// The interface has no Ethernet address (loopback, tunnels).
    #[error("interface {name} ({kind}) has no Ethernet address; use an Ethernet interface")]
    NotEthernet {
        /// Name of the interface.
        name: String,
        /// Its kind in words.
        kind: String,
    },
    /// A socket could not be made or has failed.
    #[error("{what}: {source}")]
    Socket {
        /// What was attempted.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("the kernel refused to {what}: {source}")]
    Refused {
        /// The request, as an infinitive: "list interfaces".
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No answer in time.
    #[error("no answer from the kernel within {seconds} s to the request to {what}")]
    Timeout {
        /// The request, as an infinitive.
        what: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The netlink connection ended under the request.
    #[error("the netlink connection closed during the request to {what}")]
    Closed {
        /// The request, as an infinitive.
        what: String,
    },
    /// The list of loaded BPF programs could not be read.
    #[error("cannot read the list of loaded BPF programs (needs CAP_SYS_ADMIN): {0}")]
    Programs(#[from] aya::programs::ProgramError),
}

impl NetError {
    pub(super) fn socket(what: impl Into<String>, source: io::Error) -> Self {
        Self::Socket { what: what.into(), source }
    }

    /// The error number with which the kernel refused; `None` for every other failure.
    pub(super) fn refusal(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
