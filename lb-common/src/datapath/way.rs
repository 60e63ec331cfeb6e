//! Rare ways: what few packets need is kept off the way of the many.
//!
//! [`super::balance`] decides what nearly every packet needs in one straight run of code. For anything else that run
//! ends with [`Verdict::detour`], and [`follow`] calls the way that it names. On the host that is a function call like
//! any other; in XDP each way is a global BPF function, which the verifier checks once and by itself, and which costs
//! the fast way nothing but a branch. A way starts from the packet again: it gets nothing but the packet, one number
//! and the tables. It may end with a detour of its own: ways follow each other and do not nest, because the stacks of
//! a chain of BPF functions are 512 bytes together. The verdict is counted by the one caller that counts all of them.

use super::{
    announce,
    balance::straight,
    echo,
    nat::{self, Route, Wanted},
    odd,
    packet::Packet,
    quic, quoted, reset,
    tables::Tables,
    tagged, too_big,
    verdict::Verdict,
};
use crate::abi::Globals;

macro_rules! ways {
    ($( $(#[$doc:meta])* $name:ident = $number:literal; )*) => {
        /// Which one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Way { $( $(#[$doc])* $name = $number, )* }

        impl Way {
            /// The way with this number.
            #[inline(always)]
            pub fn from_number(number: u32) -> Option<Self> {
                match number { $( $number => Some(Self::$name), )* _ => None }
            }
        }
    };
}

ways! {
    /// ARP and neighbour discovery: answers for VIPs.
    Announce = 1;
    /// A VLAN tag, or two, before the packet.
    Tagged = 2;
    /// Tags that were out of sight go back to their place.
    Show = 3;
    /// An IPv4 packet, if it is for a VIP: any that is not plain TCP or UDP, or is tagged.
    Odd4 = 4;
    /// The same of IPv6.
    Odd6 = 5;
    /// An echo request; the argument is where its ICMP header is.
    Echo = 6;
    /// Perhaps an answer of a backend behind NAT.
    Reply = 7;
    /// To a backend behind NAT; the argument is its element of `BACKENDS`.
    Translate = 8;
    /// A TCP segment of a connection whose backend is gone; the argument is where its TCP header is.
    Reset = 9;
    /// Which server a QUIC connection ID names; the argument is where the datagram's payload begins.
    Named = 10;
    /// An IPv4 datagram after that; the argument is what was found.
    Server4 = 11;
    /// The same of IPv6.
    Server6 = 12;
    /// An ICMP error about a packet from a VIP; the argument is where its ICMP header is.
    Quoted4 = 13;
    /// The same of ICMPv6.
    Quoted6 = 14;
    /// A packet that does not fit the way to its backend; the argument is how long it may be.
    TooBig = 15;
}

/// The tables of a program that has the rare ways for packets of kind `P`.
pub trait Ways<P: Packet>: Tables {
    /// What nearly every packet needs: [`straight`].
    fn straight(&self, packet: &mut P, ingress: u32) -> Verdict {
        straight(packet, self, ingress)
    }

    /// Takes the packet from here; `argument` is what the detour said.
    fn way(&self, packet: &mut P, way: Way, argument: u32, ingress: u32) -> Verdict {
        take(packet, self, way, argument, ingress)
    }

    /// Asks the kernel's routing tables.
    fn route(&self, packet: &mut P, wanted: &Wanted, ingress: u32) -> Route;
}

/// The most detours of one packet: tags, what it is, whom it names, to whom it goes then, translation, and that it is
/// too big for that.
const DETOURS: u32 = 6;

/// Follows detours until there is a verdict.
#[inline(always)]
pub(super) fn follow<P: Packet, T: Ways<P>>(
    packet: &mut P,
    tables: &T,
    first: Verdict,
    ingress: u32,
) -> Verdict {
    // Through one opaque word: with a copy of what follows for every place that a detour begins at, the compiler leaves
    // registers undefined that the verifier then sees read.
    let mut verdict = Verdict::from_bits(core::hint::black_box(first.to_bits()), 0);
    let mut detours = 0;
    while let Some(way) = verdict.way() {
        if detours == DETOURS {
            verdict = Verdict::drop(crate::abi::Reason::BadTable);
            break;
        }
        verdict = tables.way(packet, way, verdict.argument(), ingress);
        detours += 1;
    }
    if packet.skipped() != 0 {
        // It shows tags and decides nothing.
        let _ = tables.way(packet, Way::Show, 0, ingress);
    }
    verdict
}

/// The way itself, for whoever provides [`Ways`].
#[inline(always)]
pub fn take<P: Packet, T: Ways<P>>(
    packet: &mut P,
    tables: &T,
    way: Way,
    argument: u32,
    ingress: u32,
) -> Verdict {
    match way {
        Way::Announce => announce::answer(packet, tables, ingress),
        Way::Tagged => tagged::take(packet, tables),
        Way::Show => tagged::show(packet),
        Way::Odd4 => odd::take4(packet, tables, ingress),
        Way::Odd6 => odd::take6(packet, tables, ingress),
        Way::Echo => echo::answer(packet, argument),
        Way::Reply => nat::reply(packet, tables, ingress),
        Way::Translate => nat::to_backend(packet, tables, argument, ingress),
        Way::Reset => reset::answer(packet, argument),
        Way::Named => quic::read(packet, tables, argument),
        Way::Server4 => quic::send4(packet, tables, argument, ingress),
        Way::Server6 => quic::send6(packet, tables, argument, ingress),
        Way::Quoted4 => quoted::send4(packet, tables, argument, ingress),
        Way::Quoted6 => quoted::send6(packet, tables, argument, ingress),
        Way::TooBig => too_big::answer(packet, tables, argument),
    }
}

/// Whether answers for VIPs are wanted.
#[inline(always)]
pub(super) fn announces(globals: &Globals) -> bool {
    globals.flags & crate::abi::globals_flags::ANNOUNCE != 0
}
