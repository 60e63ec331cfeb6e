//! Rare ways: what few packets need is kept off the way of the many.
//!
//! [`super::balance`] decides what nearly every packet needs in one straight run of code. For anything else it calls
//! [`Ways::way`]. On the host that is a function call like any other; in XDP each way is a global BPF function, which
//! the verifier checks once and by itself, and which costs the fast way nothing but a branch. A way starts from the
//! packet again: it gets nothing but the packet, the interface and the tables, and its verdict is counted by the one
//! caller that counts all of them.

use super::{announce, packet::Packet, tables::Tables, tagged, verdict::Verdict};
use crate::abi::Globals;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// ARP and neighbour discovery: answers for VIPs.
    Announce,
    /// A VLAN tag, or two, before the packet.
    Tagged,
}

/// The tables of a program that has the rare ways for packets of kind `P`.
pub trait Ways<P: Packet>: Tables {
    /// Takes the packet from here.
    fn way(&self, packet: &mut P, way: Way, ingress: u32) -> Verdict {
        take(packet, self, way, ingress)
    }
}

/// The way itself, for whoever provides [`Ways`].
#[inline(always)]
pub fn take<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T, way: Way, ingress: u32) -> Verdict {
    match way {
        Way::Announce => announce::answer(packet, tables, ingress),
        Way::Tagged => tagged::take(packet, tables, ingress),
    }
}

/// Whether answers for VIPs are wanted.
#[inline(always)]
pub(super) fn announces(globals: &Globals) -> bool {
    globals.flags & crate::abi::globals_flags::ANNOUNCE != 0
}
