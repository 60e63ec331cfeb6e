//! What becomes of a packet and why.

use super::way::Way;
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

/// Values of [`Verdict::code`].
pub mod code {
    /// [`super::Action::Pass`].
    pub const PASS: u32 = 0;
    /// [`super::Action::Drop`].
    pub const DROP: u32 = 1;
    /// [`super::Action::Transmit`].
    pub const TRANSMIT: u32 = 2;
    /// [`super::Action::Redirect`].
    pub const REDIRECT: u32 = 3;
}

/// Bits of a detour's `counted`: the way, and above it the bytes out of sight.
const WAY: u32 = 0xff;
const HIDDEN: u32 = 8;

/// Action and cause, or the way that will find them.
///
/// Flat, with every field always set: an enum's payload is undefined in its other variants, the compiler copies such
/// values around when ways meet, and the verifier refuses to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    code: u32,
    egress: u32,
    counted: u32,
    bytes: u32,
    is_forwarded: bool,
}

impl Verdict {
    #[inline(always)]
    fn because(code: u32, reason: Reason) -> Self {
        Self { code, egress: 0, counted: reason as u32, bytes: 0, is_forwarded: false }
    }

    /// The kernel gets it, unchanged.
    #[inline(always)]
    pub fn pass(reason: Reason) -> Self {
        Self::because(code::PASS, reason)
    }

    /// Dropped.
    #[inline(always)]
    pub fn drop(reason: Reason) -> Self {
        Self::because(code::DROP, reason)
    }

    /// Answered by ourselves, out of the same interface.
    #[inline(always)]
    pub fn answer(reason: Reason) -> Self {
        Self::because(code::TRANSMIT, reason)
    }

    /// Sent by interface `egress` for this reason, after it came by `ingress`.
    #[inline(always)]
    pub fn returned(egress: u32, ingress: u32, reason: Reason) -> Self {
        let code = if egress == ingress { code::TRANSMIT } else { code::REDIRECT };
        Self { egress, ..Self::because(code, reason) }
    }

    /// Sent to a backend by interface `egress`, after it came by `ingress` with `bytes` bytes.
    #[inline(always)]
    pub fn forward(egress: u32, ingress: u32, counter: u32, bytes: u32) -> Self {
        let code = if egress == ingress { code::TRANSMIT } else { code::REDIRECT };
        Self { code, egress, counted: counter, bytes, is_forwarded: true }
    }

    /// Not decided here: `way` takes the packet on. `argument` (31 bits) is for that way.
    #[inline(always)]
    pub fn detour(way: Way, argument: u32) -> Self {
        Self { code: code::PASS, egress: argument, counted: way as u32, bytes: 0, is_forwarded: true }
    }

    /// The way that takes the packet on, if this is no verdict yet.
    #[inline(always)]
    pub fn way(self) -> Option<Way> {
        if self.is_forwarded && self.code == code::PASS { Way::from_number(self.counted & WAY) } else { None }
    }

    /// What the way is told.
    #[inline(always)]
    pub fn argument(self) -> u32 {
        self.egress
    }

    /// The same detour, of a frame with so many bytes out of sight (0, 4 or 8).
    #[inline(always)]
    pub fn hiding(self, skipped: usize) -> Self {
        if self.way().is_none() {
            return self;
        }
        Self { counted: self.counted & WAY | (skipped as u32) << HIDDEN, ..self }
    }

    /// Bytes out of sight at a detour.
    #[inline(always)]
    pub fn hidden(self) -> usize {
        (self.counted >> HIDDEN) as usize & 0xc
    }

    /// What to do.
    pub fn action(self) -> Action {
        match self.code {
            code::PASS => Action::Pass,
            code::DROP => Action::Drop,
            code::TRANSMIT => Action::Transmit,
            _ => Action::Redirect(self.egress),
        }
    }

    /// What to count.
    pub fn cause(self) -> Cause {
        if self.is_forwarded {
            Cause::Forwarded { counter: self.counted, bytes: self.bytes }
        } else {
            Cause::Reason(Reason::from_number(self.counted as u16).unwrap_or(Reason::BadTable))
        }
    }

    /// [`code`].
    #[inline(always)]
    pub fn code(self) -> u32 {
        self.code
    }

    /// Interface to leave by; meaningless unless the code is [`code::REDIRECT`].
    #[inline(always)]
    pub fn egress(self) -> u32 {
        self.egress
    }

    /// Whether a backend got it: then [`Verdict::counted`] is an element of `COUNTERS`, else of `REASONS`.
    #[inline(always)]
    pub fn is_forwarded(self) -> bool {
        self.is_forwarded
    }

    /// The element that is counted.
    #[inline(always)]
    pub fn counted(self) -> u32 {
        self.counted
    }

    /// Bytes to count if it was forwarded.
    #[inline(always)]
    pub fn bytes(self) -> u32 {
        self.bytes
    }

    /// One word, for the way between BPF functions; [`Verdict::from_bits`] reads it back.
    ///
    /// `code(2) | forwarded(1) | what is counted(30) | interface(31)`, from the highest bit. Interface indices are
    /// positive `int`s in the kernel, and counters are as many as backends.
    #[inline(always)]
    pub fn to_bits(self) -> u64 {
        u64::from(self.code) << 62
            | u64::from(self.is_forwarded) << 61
            | u64::from(self.counted & 0x3fff_ffff) << 31
            | u64::from(self.egress & 0x7fff_ffff)
    }

    /// The verdict of such a word, for a frame that came with `bytes` bytes.
    #[inline(always)]
    pub fn from_bits(bits: u64, bytes: u32) -> Self {
        Self {
            code: (bits >> 62) as u32,
            egress: bits as u32 & 0x7fff_ffff,
            counted: (bits >> 31) as u32 & 0x3fff_ffff,
            bytes,
            is_forwarded: bits >> 61 & 1 == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Cause, Verdict, Way};
    use crate::abi::Reason;

    #[test]
    fn a_detour_survives_too() {
        for skipped in [0, 4, 8] {
            let detour = Verdict::detour(Way::Announce, 0x7fff_ffff).hiding(skipped);
            let back = Verdict::from_bits(detour.to_bits(), 1514);
            assert_eq!(back.way(), Some(Way::Announce));
            assert_eq!((back.argument(), back.hidden()), (0x7fff_ffff, skipped));
        }
        assert_eq!(Verdict::pass(Reason::NotIp).way(), None);
        assert_eq!(Verdict::forward(7, 7, 1, 60).way(), None);
    }

    #[test]
    fn every_verdict_survives_the_way_between_functions() {
        let counters = [0, 1, (1 << 30) - 1];
        let egress = [1, 7, i32::MAX as u32];
        let forwarded =
            counters.iter().flat_map(|c| egress.iter().map(|e| Verdict::forward(*e, 7, *c, 1514)));
        for verdict in forwarded {
            assert_eq!(Verdict::from_bits(verdict.to_bits(), 1514), verdict);
        }
        for reason in Reason::ALL {
            for verdict in [Verdict::pass(*reason), Verdict::drop(*reason), Verdict::answer(*reason)] {
                let back = Verdict::from_bits(verdict.to_bits(), 0);
                assert_eq!((back.action(), back.cause()), (verdict.action(), Cause::Reason(*reason)));
            }
        }
        assert_eq!(Verdict::forward(7, 7, 1, 60).action(), Action::Transmit);
        assert_eq!(Verdict::forward(8, 7, 1, 60).action(), Action::Redirect(8));
    }
}
