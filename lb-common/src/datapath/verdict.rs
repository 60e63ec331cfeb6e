//! What becomes of a packet and why.

use crate::abi::Reason;

/// What the program returns to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the kernel's stack.
    Pass,
    /// Gone.
    Drop,
    /// Out of the interface it came in by.
    Transmit,
    /// Out of another interface.
    Redirect(u32),
}

/// What is counted: exactly one thing per packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Forwarded to a backend.
    Forwarded {
        /// Element of `COUNTERS`.
        counter: u32,
        /// Bytes of the frame as it came.
        bytes: u32,
    },
    /// Anything else.
    Reason(Reason),
}

/// Action and cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What to do.
    pub action: Action,
    /// What to count.
    pub cause: Cause,
}

impl Verdict {
    /// The kernel gets it, unchanged.
    #[inline(always)]
    pub fn pass(reason: Reason) -> Self {
        Self { action: Action::Pass, cause: Cause::Reason(reason) }
    }

    /// Dropped.
    #[inline(always)]
    pub fn drop(reason: Reason) -> Self {
        Self { action: Action::Drop, cause: Cause::Reason(reason) }
    }

    /// Answered by ourselves, out of the same interface.
    #[inline(always)]
    pub fn answer(reason: Reason) -> Self {
        Self { action: Action::Transmit, cause: Cause::Reason(reason) }
    }
}
