//! Readiness of backends: who is asked, how, how often, and what the answers add up to.
//!
//! [`Checker`] (`scheduler.rs`) runs every target on its own cadence (`cadence.rs`); one check is a [`Probe`]
//! (`probe.rs`, one file per kind: `tcp.rs`, `http.rs`, `grpc.rs`, `dns.rs`, `udp.rs`,
//! `exec.rs`; `tls.rs` for HTTPS) whose [`Outcome`] feeds the rise/fall rules of [`Streak`] (`state.rs`); `board.rs` keeps the statuses and the events that are still to be sent.
//!
//! A new kind of check is one file with a `Probe` and one line in `probe::for_check`.

use std::{
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

mod board;
mod cadence;
mod connect;
mod dns;
mod exec;
mod grpc;
mod http;
mod probe;
mod scheduler;
mod state;
mod tcp;
#[cfg(test)]
mod testing;
mod tls;
mod udp;

pub use probe::{Inconclusive, Probe, Progress, Verdict};
pub use scheduler::Checker;
pub use state::{HealthState, Outcome, Streak};

use crate::config::Health;

/// Names a target: one backend of one service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetKey {
    /// Name of the service.
    pub service: String,
    /// Name of the backend, unique in its service.
    pub backend: String,
}

/// What is checked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whose readiness this is.
    pub key: TargetKey,
    /// Where the check connects to.
    pub address: IpAddr,
    /// Port the check connects to, host byte order.
    pub port: u16,
    /// The check and its timing.
    pub health: Health,
    /// A status from before a restart of the daemon: rise and fall apply from there, instead of the first outcome
    /// deciding alone. Looked at only when the target is new to the checker.
    pub initial: Option<Status>,
}

impl Target {
    /// Address and port the check connects to.
    pub fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// What is known of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The state after the rise/fall rules.
    pub state: HealthState,
    /// Why, in words for an operator: the newest outcome that agrees with the state.
    pub reason: String,
    /// When the state was entered; a newer reason for the same state leaves it alone.
    pub since: SystemTime,
}

/// News of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whose readiness this is.
    pub key: TargetKey,
    /// The newest status. States in between are left out when the receiver is slow.
    pub status: Status,
    /// Whether this carries the first observation of the target by this checker. Such an event comes even when the
    /// observation did not change an adopted state, so that a caller can wait for a full round.
    pub first: bool,
}
