//! Second chance: a packet in mid-connection that came to the wrong backend goes on to the next candidate.
//!
//! A balancer that knows nothing of a connection (fresh, or reached because routers changed their minds) names the
//! backends that may have it, in private data of the GUE header. Each agent asks its own host. Whoever has the
//! connection keeps the packet; else it goes to the next candidate that is a peer with a known way, and the place in
//! the list goes up by at least one: a packet is handed on at most [`gue::CANDIDATES`] times. When the list is at its
//! end the packet is taken out where it is, and the kernel's reset tells the client.

use super::{
    agent::{AgentTables, mapped},
    packet::Packet,
    verdict::Verdict,
};
use crate::{
    abi::{Peer, Reason},
    wire::{be16, checksum, ethernet, gue, ipv4, ipv6, protocol, put, put_words, word, words},
};

/// Bytes of a TCP header without options.
const TCP: usize = 20;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// Whether the packet at `at`, of IPv4 if `inner` says so, is one in the middle of a TCP connection that this host does
/// not have. Its IP header is whole.
#[inline(always)]
fn is_strange<P: Packet, T: AgentTables<P>>(packet: &mut P, tables: &T, inner: u8, at: usize) -> bool {
    let tcp = if inner == protocol::IPV4 {
        let Ok(header) = packet.at::<{ ipv4::HEADER }>(at) else { return false };
        // A later fragment has no ports: it goes where the slot says.
        if header[9] != protocol::TCP || be16(header, 6) & ipv4::FRAGMENT != 0 {
            return false;
        }
        at + ((usize::from(header[0]) * 4) & 0x3c)
    } else {
        let Ok(header) = packet.at::<{ ipv6::HEADER }>(at) else { return false };
        if header[6] != protocol::TCP {
            return false;
        }
        at + ipv6::HEADER
    };
    let Ok(header) = packet.at::<TCP>(tcp) else { return false };
    if header[13] & (SYN | ACK) == SYN {
        return false;
    }
    if inner == protocol::IPV4 { !tables.knows4(packet, at, tcp) } else { !tables.knows6(packet, at, tcp) }
}

/// The place of the next candidate, if this is a list of candidates.
#[inline(always)]
fn place<const N: usize>(list: &[u8; N]) -> Option<usize> {
    let [kind, place] = be16(list, 0).to_be_bytes();
    (kind == gue::CANDIDATE_LIST).then(|| usize::from(place))
}

/// Under which reason to take the packet out here.
#[inline(always)]
fn known(place: usize) -> Reason {
    if place == 0 { Reason::Decapsulated } else { Reason::SecondChance }
}

/// Whether an IP packet of `length` bytes can go to the peer.
#[inline(always)]
fn fits(peer: &Peer, length: u32) -> bool {
    peer.ifindex != 0 && length <= peer.mtu
}

#[inline(always)]
fn put_macs<const N: usize>(room: &mut [u8; N], peer: &Peer) {
    put(room, 0, &peer.macs[0].to_ne_bytes());
    put(room, 4, &peer.macs[1].to_ne_bytes());
    put(room, 8, &peer.macs[2].to_ne_bytes());
}

/// The reason to take a packet in GUE in IPv4 out here, or the verdict if it was handed on.
#[inline(always)]
pub(super) fn take4<P: Packet, T: AgentTables<P>>(
    packet: &mut P,
    tables: &T,
    inner: u8,
    ingress: u32,
) -> Result<Reason, Verdict> {
    const AT: usize = ethernet::HEADER + gue::OUTER4;
    let Ok(list) = packet.at::<{ gue::LIST }>(AT) else { return Ok(Reason::Decapsulated) };
    let Some(next) = place(list) else { return Ok(Reason::Decapsulated) };
    if !is_strange(packet, tables, inner, AT + gue::LIST4) {
        return Ok(known(next));
    }
    let mut i = 0;
    while i < gue::CANDIDATES {
        let Ok(address) = packet.at::<4>(AT + gue::LIST + i * 4) else { break };
        let candidate = word(address, 0);
        i += 1;
        if i > next
            && let Some(peer) = tables.peer(mapped(candidate))
            && hand_on4(packet, peer, candidate, i as u8)
        {
            return Err(Verdict::returned(peer.ifindex, ingress, Reason::HandedOn));
        }
    }
    Ok(Reason::Stranded)
}

/// Rewrites the outer IPv4 header: from this host to the peer, whose place was the one before `next`.
#[inline(always)]
fn hand_on4<P: Packet>(packet: &mut P, peer: &Peer, candidate: u32, next: u8) -> bool {
    const PLACE: usize = ethernet::HEADER + gue::OUTER4 + 1;
    let Ok(room) = packet.at_mut::<{ PLACE + 1 }>(0) else { return false };
    if !fits(peer, u32::from(be16(room, 16))) {
        return false;
    }
    put_macs(room, peer);
    let here = word(room, 30);
    put(room, 24, &0u16.to_be_bytes());
    put(room, 26, &here.to_ne_bytes());
    put(room, 30, &candidate.to_ne_bytes());
    let mut sum = 0;
    let mut at = ethernet::HEADER;
    while at < ethernet::HEADER + ipv4::HEADER {
        sum += u32::from(be16(room, at));
        at += 2;
    }
    put(room, 24, &checksum::finish(sum).to_be_bytes());
    put(room, PLACE, &[next]);
    true
}

/// The same for GUE in IPv6.
#[inline(always)]
pub(super) fn take6<P: Packet, T: AgentTables<P>>(
    packet: &mut P,
    tables: &T,
    inner: u8,
    ingress: u32,
) -> Result<Reason, Verdict> {
    const AT: usize = ethernet::HEADER + gue::OUTER6;
    let Ok(list) = packet.at::<{ gue::LIST }>(AT) else { return Ok(Reason::Decapsulated) };
    let Some(next) = place(list) else { return Ok(Reason::Decapsulated) };
    if !is_strange(packet, tables, inner, AT + gue::LIST6) {
        return Ok(known(next));
    }
    let mut i = 0;
    while i < gue::CANDIDATES {
        let Ok(address) = packet.at::<16>(AT + gue::LIST + i * 16) else { break };
        let candidate = words(address, 0);
        i += 1;
        if i > next
            && let Some(peer) = tables.peer(candidate)
            && hand_on6(packet, peer, candidate, i as u8)
        {
            return Err(Verdict::returned(peer.ifindex, ingress, Reason::HandedOn));
        }
    }
    Ok(Reason::Stranded)
}

/// Rewrites the outer IPv6 header; UDP carries no checksum.
#[inline(always)]
fn hand_on6<P: Packet>(packet: &mut P, peer: &Peer, candidate: [u32; 4], next: u8) -> bool {
    const PLACE: usize = ethernet::HEADER + gue::OUTER6 + 1;
    let Ok(room) = packet.at_mut::<{ PLACE + 1 }>(0) else { return false };
    if !fits(peer, u32::from(be16(room, 18)) + ipv6::HEADER as u32) {
        return false;
    }
    put_macs(room, peer);
    let here = words(room, 38);
    put_words(room, 22, here);
    put_words(room, 38, candidate);
    put(room, PLACE, &[next]);
    true
}
