//! Generic UDP Encapsulation (draft-ietf-intarea-gue-09): IP packets in UDP, in IPv4 or IPv6, put in and taken out.
//!
//! Headers are variant 0 without extension fields. UDP carries no checksum, also in IPv6, as RFC 6935 section 5 allows
//! for tunnels: the packet inside has checksums of its own, and what RFC 6936 section 3 fears of a corrupted address is
//! met by the agent, which takes nothing out that is not from a balancer and for a VIP.

use super::{
    agent::{AgentTables, inner_of, is_ip, mapped, take_off, unwrap},
    chance,
    encapsulate::{Inner, OUTER_TTL, fits, put_macs},
    packet::{Cut, Packet},
    verdict::Verdict,
};
use crate::{
    abi::{Backend, Reason},
    wire::{be16, checksum, ethernet, gue, ipv4, ipv6, protocol, put, put_words, udp},
};

/// Bytes of UDP and GUE header.
const UDP_GUE: usize = udp::HEADER + gue::HEADER;

/// The source port tells flows apart, for whoever spreads load by ports: routers, and the backend's queues. It is
/// dynamic (49,152 and above), and equal for all packets of a flow.
#[inline(always)]
fn source_port(inner: Inner) -> u16 {
    0xc000 | ((inner.hash ^ inner.ports).wrapping_mul(0x9e37_79b1) >> 18) as u16
}

/// UDP and GUE header at `at`, with `list` bytes of private data behind them.
#[inline(always)]
fn put_udp<const N: usize>(room: &mut [u8; N], at: usize, backend: &Backend, inner: Inner, list: u32) {
    let length = inner.length + UDP_GUE as u32 + list;
    put(room, at, &source_port(inner).to_be_bytes());
    put(room, at + 2, &backend.port.to_be_bytes());
    // No checksum.
    put(room, at + 4, &(length << 16).to_be_bytes());
    put(room, at + 8, &[(list / 4) as u8, inner.protocol, 0, 0]);
}

/// IPv4, UDP and GUE header in front.
#[inline(always)]
pub(super) fn in_ipv4<P: Packet>(
    packet: &mut P,
    backend: &Backend,
    inner: Inner,
    others: Option<[&Backend; gue::CANDIDATES]>,
) -> Result<(), Reason> {
    // Room for candidates is kept, whether they are there or not: they may be, later in the same connection.
    fits(backend, inner.length + (gue::OUTER4 + gue::LIST4) as u32)?;
    let list = if let Some(others) = others {
        packet.grow::<{ gue::OUTER4 + gue::LIST4 }>().map_err(|Cut| Reason::NoHeadroom)?;
        list4(packet, others)?;
        gue::LIST4 as u32
    } else {
        packet.grow::<{ gue::OUTER4 }>().map_err(|Cut| Reason::NoHeadroom)?;
        0
    };
    let room: &mut [u8; ethernet::HEADER + gue::OUTER4] = packet.at_mut(0).map_err(|Cut| Reason::BadTable)?;
    let length = inner.length + gue::OUTER4 as u32 + list;
    let ttl_protocol = u16::from_be_bytes([OUTER_TTL, protocol::UDP]);
    let sum = backend.outer_sum + length + u32::from(inner.tos) + u32::from(ttl_protocol);
    put_macs(room, backend.macs);
    put(room, 12, &ethernet::IPV4.to_be_bytes());
    put(room, 14, &[0x45, inner.tos]);
    put(room, 16, &(length as u16).to_be_bytes());
    // Identification 0: never fragmented (RFC 6864 4.1).
    put(room, 18, &u32::from(ipv4::DONT_FRAGMENT).to_be_bytes());
    put(room, 22, &ttl_protocol.to_be_bytes());
    put(room, 24, &checksum::finish(sum).to_be_bytes());
    put(room, 26, &backend.source[0].to_ne_bytes());
    put(room, 30, &backend.address[0].to_ne_bytes());
    put_udp(room, ethernet::HEADER + ipv4::HEADER, backend, inner, list);
    Ok(())
}

/// IPv6, UDP and GUE header in front.
#[inline(always)]
pub(super) fn in_ipv6<P: Packet>(
    packet: &mut P,
    backend: &Backend,
    inner: Inner,
    others: Option<[&Backend; gue::CANDIDATES]>,
) -> Result<(), Reason> {
    fits(backend, inner.length + (gue::OUTER6 + gue::LIST6) as u32)?;
    let list = if let Some(others) = others {
        packet.grow::<{ gue::OUTER6 + gue::LIST6 }>().map_err(|Cut| Reason::NoHeadroom)?;
        list6(packet, others)?;
        gue::LIST6 as u32
    } else {
        packet.grow::<{ gue::OUTER6 }>().map_err(|Cut| Reason::NoHeadroom)?;
        0
    };
    let room: &mut [u8; ethernet::HEADER + gue::OUTER6] = packet.at_mut(0).map_err(|Cut| Reason::BadTable)?;
    let first = 6 << 28 | u32::from(inner.tos) << 20 | inner.hash & 0xf_ffff;
    put_macs(room, backend.macs);
    put(room, 12, &ethernet::IPV6.to_be_bytes());
    put(room, 14, &first.to_be_bytes());
    put(room, 18, &((inner.length + UDP_GUE as u32 + list) as u16).to_be_bytes());
    put(room, 20, &[protocol::UDP, OUTER_TTL]);
    put_words(room, 22, backend.source);
    put_words(room, 38, backend.address);
    put_udp(room, ethernet::HEADER + ipv6::HEADER, backend, inner, list);
    Ok(())
}

/// The list of candidates, the first being the next.
#[inline(always)]
fn list4<P: Packet>(packet: &mut P, others: [&Backend; gue::CANDIDATES]) -> Result<(), Reason> {
    let room: &mut [u8; gue::LIST4] =
        packet.at_mut(ethernet::HEADER + gue::OUTER4).map_err(|Cut| Reason::BadTable)?;
    put(room, 0, &[gue::CANDIDATE_LIST, 0, 0, 0]);
    put(room, 4, &others[0].address[0].to_ne_bytes());
    put(room, 8, &others[1].address[0].to_ne_bytes());
    put(room, 12, &others[2].address[0].to_ne_bytes());
    Ok(())
}

/// The same of IPv6.
#[inline(always)]
fn list6<P: Packet>(packet: &mut P, others: [&Backend; gue::CANDIDATES]) -> Result<(), Reason> {
    let room: &mut [u8; gue::LIST6] =
        packet.at_mut(ethernet::HEADER + gue::OUTER6).map_err(|Cut| Reason::BadTable)?;
    put(room, 0, &[gue::CANDIDATE_LIST, 0, 0, 0]);
    put_words(room, 4, others[0].address);
    put_words(room, 20, others[1].address);
    put_words(room, 36, others[2].address);
    Ok(())
}

/// What of a GUE header matters.
struct Header {
    /// Protocol number of the packet inside.
    inner: u8,
    /// Words behind the first four bytes.
    words: u8,
    /// Length of the datagram, as UDP has it.
    length: u32,
}

/// The header at `at`, if our balancers might have sent it: to the agent's port, data, of a packet, without flags.
#[inline(always)]
fn header<P: Packet, T: AgentTables<P>>(packet: &P, tables: &T, at: usize) -> Option<Header> {
    let header = packet.at::<UDP_GUE>(at).ok()?;
    let is_ours = be16(header, 2) == tables.gue_port()
        && header[8] & gue::KIND == 0
        && is_ip(header[9])
        && be16(header, 10) == 0;
    is_ours.then(|| Header {
        inner: header[9],
        words: header[8] & gue::WORDS,
        length: u32::from(be16(header, 4)),
    })
}

/// Takes the packet out of UDP in IPv4 from `source`, whose payload has `held` bytes.
#[inline(always)]
pub(super) fn out_of_ipv4<P: Packet, T: AgentTables<P>>(
    packet: &mut P,
    tables: &T,
    source: u32,
    held: u32,
    ingress: u32,
) -> Verdict {
    const AT: usize = ethernet::HEADER + ipv4::HEADER;
    const LISTED: usize = gue::OUTER4 + gue::LIST4;
    let Some(header) = header(packet, tables, AT) else { return Verdict::pass(Reason::NotTunnel) };
    let outer = if header.words == 0 {
        gue::OUTER4
    } else if usize::from(header.words) * 4 == gue::LIST4 {
        LISTED
    } else {
        return Verdict::pass(Reason::NotTunnel);
    };
    match whole(packet, tables, &header, ethernet::HEADER + outer, held, AT) {
        // A peer hands on what came to it from a balancer.
        Ok(())
            if outer == LISTED && (tables.knows_source4(source) || tables.peer(mapped(source)).is_some()) =>
        {
            match chance::take4(packet, tables, header.inner, ingress) {
                Ok(reason) => {
                    packet.look_again();
                    take_off::<P, LISTED>(packet, header.inner, reason)
                }
                Err(handed_on) => handed_on,
            }
        }
        Ok(()) if outer == LISTED || !tables.knows_source4(source) => {
            Verdict::drop(Reason::UnknownTunnelSource)
        }
        Ok(()) => unwrap::<P, { gue::OUTER4 }>(packet, header.inner),
        Err(verdict) => verdict,
    }
}

/// The same of IPv6.
#[inline(always)]
pub(super) fn out_of_ipv6<P: Packet, T: AgentTables<P>>(
    packet: &mut P,
    tables: &T,
    source: [u32; 4],
    held: u32,
    ingress: u32,
) -> Verdict {
    const AT: usize = ethernet::HEADER + ipv6::HEADER;
    const LISTED: usize = gue::OUTER6 + gue::LIST6;
    let Some(header) = header(packet, tables, AT) else { return Verdict::pass(Reason::NotTunnel) };
    let outer = if header.words == 0 {
        gue::OUTER6
    } else if usize::from(header.words) * 4 == gue::LIST6 {
        LISTED
    } else {
        return Verdict::pass(Reason::NotTunnel);
    };
    match whole(packet, tables, &header, ethernet::HEADER + outer, held, AT) {
        // A peer hands on what came to it from a balancer.
        Ok(()) if outer == LISTED && (tables.knows_source6(source) || tables.peer(source).is_some()) => {
            match chance::take6(packet, tables, header.inner, ingress) {
                Ok(reason) => {
                    packet.look_again();
                    take_off::<P, LISTED>(packet, header.inner, reason)
                }
                Err(handed_on) => handed_on,
            }
        }
        Ok(()) if outer == LISTED || !tables.knows_source6(source) => {
            Verdict::drop(Reason::UnknownTunnelSource)
        }
        Ok(()) => unwrap::<P, { gue::OUTER6 }>(packet, header.inner),
        Err(verdict) => verdict,
    }
}

/// Whether the packet inside is at `at`, whole and for a VIP of ours; the UDP header is at `udp`.
#[inline(always)]
fn whole<P: Packet, T: AgentTables<P>>(
    packet: &P,
    tables: &T,
    header: &Header,
    at: usize,
    held: u32,
    udp: usize,
) -> Result<(), Verdict> {
    inner_of(packet, tables, header.inner, at, held.wrapping_sub((at - udp) as u32))?;
    if header.length == held { Ok(()) } else { Err(Verdict::drop(Reason::MalformedTunnel)) }
}
