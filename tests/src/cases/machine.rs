//! What runs a frame: the pipeline on the host or the program in the kernel, seen through one trait.

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::Result;
use lb_common::{
    abi::Reason,
    datapath::{Action, Cause},
};

/// A counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// An element of `REASONS`.
    Reason(Reason),
    /// Packets of an element of `COUNTERS`.
    Packets(u32),
    /// Bytes of an element of `COUNTERS`.
    Bytes(u32),
}

/// By how much each counter moved; what stood still is absent.
pub type Ledger = BTreeMap<Counter, u64>;

/// What a program returned, as the kernel numbers it (`enum xdp_action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// XDP_DROP.
    Drop,
    /// XDP_PASS.
    Pass,
    /// XDP_TX.
    Transmit,
    /// XDP_REDIRECT.
    Redirect,
    /// Something that no program of ours returns.
    Other(u32),
}

impl From<u32> for Code {
    fn from(value: u32) -> Self {
        match value {
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Transmit,
            4 => Self::Redirect,
            other => Self::Other(other),
        }
    }
}

impl From<Action> for Code {
    fn from(action: Action) -> Self {
        match action {
            Action::Drop => Self::Drop,
            Action::Pass => Self::Pass,
            Action::Transmit => Self::Transmit,
            Action::Redirect(_) => Self::Redirect,
        }
    }
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the program returned.
    pub code: Code,
    /// The interface of a redirect; the kernel does not say it.
    pub ifindex: Option<u32>,
    /// The frame as the program left it.
    pub output: Vec<u8>,
    /// What it counted.
    pub moved: Ledger,
}

impl Outcome {
    /// Whether verdict, bytes or counters differ. Only the host says where a redirect goes.
    pub fn differs(&self, other: &Self) -> bool {
        (self.code, &self.output, &self.moved) != (other.code, &other.output, &other.moved)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, counters {:?}, {}", self.code, self.moved, hex(&self.output))
    }
}

/// A frame in the form that errors print.
pub fn hex(frame: &[u8]) -> String {
    let hex = hex::encode(frame);
    format!("{} bytes {hex}", frame.len())
}

/// A datapath with one world installed.
pub trait Machine {
    /// Forgets what earlier frames left behind (rate limits), not the counters.
    fn reset(&mut self);
    /// Runs one frame with this much headroom.
    ///
    /// # Errors
    /// When the kernel refuses to run it.
    fn run(&mut self, frame: &[u8], headroom: usize) -> Result<Outcome>;
    /// The same without a look at the counters, where that takes time: `moved` may be empty.
    ///
    /// # Errors
    /// When the kernel refuses to run it.
    fn run_uncounted(&mut self, frame: &[u8], headroom: usize) -> Result<Outcome> {
        self.run(frame, headroom)
    }
    /// What counters moved by since they were looked at last; nothing where [`Machine::run_uncounted`] looks at them.
    ///
    /// # Errors
    /// When they cannot be read.
    fn counted(&mut self) -> Result<Ledger> {
        Ok(Ledger::new())
    }
    /// The least headroom that frames can be run with.
    fn least_headroom(&self) -> usize;
    /// Moves the clock, where it can be moved.
    fn pass_time(&mut self, pause: Duration);
    /// The element of `COUNTERS` of a member, by the digests of its names.
    fn counter(&self, service: u64, member: u64) -> Option<u32>;
}

/// What the ledger of a verdict must be, for a frame of this length.
pub fn ledger(cause: Cause) -> Ledger {
    match cause {
        Cause::Forwarded { counter, bytes } => {
            Ledger::from([(Counter::Packets(counter), 1), (Counter::Bytes(counter), u64::from(bytes))])
        }
        Cause::Reason(reason) => Ledger::from([(Counter::Reason(reason), 1)]),
    }
}
