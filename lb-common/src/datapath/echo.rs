//! Echo requests of ICMP and ICMPv6 (RFC 792, RFC 4443 4) to a VIP, answered in place.

use super::{packet::Packet, parse::Network, verdict::Verdict};
use crate::{
    abi::Reason,
    wire::{Mac, be16, checksum, ethernet, half, ipv4, ipv6, protocol, put, put_words, word, words},
};

/// Bytes of an ICMP header.
const HEADER: usize = 8;
/// Echo request and reply of ICMP (RFC 792).
const REQUEST4: u8 = 8;
const REPLY4: u8 = 0;
/// Echo request and reply of ICMPv6 (RFC 4443 4).
const REQUEST6: u8 = 128;
const REPLY6: u8 = 129;
/// TTL and hop limit of answers.
const TTL: u8 = 64;
/// No ICMP header that is answered begins behind this.
const FARTHEST: usize = 0x3ff;

/// Whether this is an echo request that may be answered: whole, and from one host, not from a group or from nobody.
#[inline(always)]
pub(super) fn is_echo4<P: Packet>(packet: &P, network: &Network<u32>) -> bool {
    let first = network.source.to_ne_bytes()[0];
    first != 0 && first < 224 && is_echo(packet, network, REQUEST4)
}

/// The same for ICMPv6.
#[inline(always)]
pub(super) fn is_echo6<P: Packet>(packet: &P, network: &Network<[u32; 4]>) -> bool {
    let first = network.source[0].to_ne_bytes()[0];
    first != 0xff && network.source != [0; 4] && is_echo(packet, network, REQUEST6)
}

#[inline(always)]
fn is_echo<P: Packet, A>(packet: &P, network: &Network<A>, request: u8) -> bool {
    let ends = network.length + ethernet::HEADER as u32;
    // What came to a group of stations is answered by none of them (RFC 1122 3.2.2.6).
    packet.at::<1>(0).is_ok_and(|mac| mac[0] & 1 == 0)
        && network.transport as u32 + HEADER as u32 <= ends
        && packet.at::<2>(network.transport & FARTHEST).is_ok_and(|kind| kind[0] == request && kind[1] == 0)
}

/// Turns the echo request whose ICMP header is at `transport` into its reply.
///
/// All changes of sums are those of RFC 1624: a request with a wrong checksum gets a reply with a wrong one.
#[inline(always)]
pub(super) fn answer<P: Packet>(packet: &mut P, transport: u32) -> Verdict {
    let Ok(header) = packet.at_mut::<{ ethernet::HEADER }>(0) else { return Verdict::drop(Reason::BadTable) };
    let (here, there) = (Mac::read(header, 0), Mac::read(header, 6));
    there.put(header, 0);
    here.put(header, 6);
    let is_ipv4 = be16(header, 12) == ethernet::IPV4;
    let turned = if is_ipv4 { turn4(packet) } else { turn6(packet) };
    let Ok(message) = packet.at_mut::<4>(transport as usize & FARTHEST) else {
        return Verdict::drop(Reason::BadTable);
    };
    let (old, new) = if is_ipv4 { (REQUEST4, REPLY4) } else { (REQUEST6, REPLY6) };
    put(message, 0, &[new]);
    let sum = checksum::replace(0, half_of(old, 0), half_of(new, 0));
    put_sum(message, 2, sum);
    if turned { Verdict::answer(Reason::EchoReply) } else { Verdict::drop(Reason::BadTable) }
}

/// Addresses change places, which no checksum notices; the TTL is new.
#[inline(always)]
fn turn4<P: Packet>(packet: &mut P) -> bool {
    let Ok(header) = packet.at_mut::<{ ipv4::HEADER }>(ethernet::HEADER) else { return false };
    let (source, destination) = (word(header, 12), word(header, 16));
    let sum = checksum::replace(0, half_of(header[8], protocol::ICMP), half_of(TTL, protocol::ICMP));
    put(header, 8, &[TTL]);
    put_sum(header, 10, sum);
    put(header, 12, &destination.to_ne_bytes());
    put(header, 16, &source.to_ne_bytes());
    true
}

/// Two bytes as a word of memory.
#[inline(always)]
fn half_of(first: u8, second: u8) -> u32 {
    u32::from(u16::from_ne_bytes([first, second]))
}

/// Updates the checksum at `at`.
#[inline(always)]
fn put_sum<const N: usize>(room: &mut [u8; N], at: usize, sum: u64) {
    let check = checksum::update(half(room, at), sum);
    put(room, at, &check.to_ne_bytes());
}

#[inline(always)]
fn turn6<P: Packet>(packet: &mut P) -> bool {
    let Ok(header) = packet.at_mut::<{ ipv6::HEADER }>(ethernet::HEADER) else { return false };
    let (source, destination) = (words(header, 8), words(header, 24));
    put(header, 7, &[TTL]);
    put_words(header, 8, destination);
    put_words(header, 24, source);
    true
}
