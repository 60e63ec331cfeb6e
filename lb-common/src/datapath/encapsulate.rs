//! Apply: write the way to the backend into the packet.

use super::{
    gue,
    packet::{Cut, Packet},
    verdict::Verdict,
    way::Way,
};
use crate::{
    abi::{Backend, Reason, backend_flags, forward},
    wire::{checksum, ethernet, gue as gue_wire, ipv4, ipv6, protocol, put, put_words},
};

/// What encapsulation needs to know of the inner packet.
#[derive(Clone, Copy)]
pub(super) struct Inner {
    /// Bytes of the IP packet.
    pub length: u32,
    /// TOS or traffic class, carried to the outer header (RFC 2983, RFC 6040 normal mode).
    pub tos: u8,
    /// [`protocol::IPV4`] or [`protocol::IPV6`].
    pub protocol: u8,
    /// Low bits become the outer flow label, so that the way and the backend can spread load (RFC 6438).
    pub hash: u32,
    /// Source and destination port of TCP and UDP, else 0: tells the flows of one hash apart where UDP is outside.
    pub ports: u32,
}

/// TTL or hop limit of outer headers.
pub(super) const OUTER_TTL: u8 = 64;

/// Sends the packet to `backend`; `others` may have its connection.
#[inline(always)]
pub(super) fn forward<P: Packet>(
    packet: &mut P,
    backend: &Backend,
    inner: Inner,
    others: Option<[&Backend; gue_wire::CANDIDATES]>,
    ingress: u32,
) -> Verdict {
    if backend.flags & backend_flags::RESOLVED == 0 {
        return Verdict::drop(Reason::NoNextHop);
    }
    let bytes = packet.wire_length() as u32;
    let written = match backend.forward {
        forward::L2 => l2(packet, backend, inner),
        forward::IPIP4 => ipip4(packet, backend, inner),
        forward::IPIP6 => ipip6(packet, backend, inner),
        forward::GUE4 => gue::in_ipv4(packet, backend, inner, others),
        forward::GUE6 => gue::in_ipv6(packet, backend, inner, others),
        _ => Err(Reason::BadTable),
    };
    match written {
        Ok(()) => Verdict::forward(backend.ifindex, ingress, backend.counter, bytes),
        Err(reason) => refused(backend, reason),
    }
}

/// Of a packet that was not sent. Who sent one that is too big is told.
#[inline(always)]
pub(super) fn refused(backend: &Backend, reason: Reason) -> Verdict {
    if reason != Reason::TooBig {
        return Verdict::drop(reason);
    }
    Verdict::detour(Way::TooBig, u32::from(backend.mtu).saturating_sub(overhead(backend.forward)))
}

/// Bytes of outer headers, with room for all that may be in them.
#[inline(always)]
fn overhead(forward: u8) -> u32 {
    let bytes = match forward {
        forward::IPIP4 => ipv4::HEADER,
        forward::IPIP6 => ipv6::HEADER,
        forward::GUE4 => gue_wire::OUTER4 + gue_wire::LIST4,
        forward::GUE6 => gue_wire::OUTER6 + gue_wire::LIST6,
        _ => 0,
    };
    bytes as u32
}

/// Whether an IP packet of `length` bytes fits the way to the backend.
#[inline(always)]
pub(super) fn fits(backend: &Backend, length: u32) -> Result<(), Reason> {
    if length > u32::from(backend.mtu) { Err(Reason::TooBig) } else { Ok(()) }
}

/// New MAC addresses, nothing else.
#[inline(always)]
fn l2<P: Packet>(packet: &mut P, backend: &Backend, inner: Inner) -> Result<(), Reason> {
    fits(backend, inner.length)?;
    let room: &mut [u8; 12] = packet.at_mut(0).map_err(|Cut| Reason::BadTable)?;
    put_macs(room, backend.macs);
    Ok(())
}

/// The backend's MAC address and that of the interface that it is reached by.
#[inline(always)]
pub(super) fn put_macs<const N: usize>(room: &mut [u8; N], macs: [u32; 3]) {
    put(room, 0, &macs[0].to_ne_bytes());
    put(room, 4, &macs[1].to_ne_bytes());
    put(room, 8, &macs[2].to_ne_bytes());
}

/// An IPv4 header in front (RFC 2003, RFC 4213).
#[inline(always)]
fn ipip4<P: Packet>(packet: &mut P, backend: &Backend, inner: Inner) -> Result<(), Reason> {
    let length = inner.length + ipv4::HEADER as u32;
    fits(backend, length)?;
    packet.grow::<{ ipv4::HEADER }>().map_err(|Cut| Reason::NoHeadroom)?;
    let room: &mut [u8; ethernet::HEADER + ipv4::HEADER] =
        packet.at_mut(0).map_err(|Cut| Reason::BadTable)?;
    let ttl_protocol = u16::from_be_bytes([OUTER_TTL, inner.protocol]);
    let sum = backend.outer_sum + length + u32::from(inner.tos) + u32::from(ttl_protocol);
    put_macs(room, backend.macs);
    put(room, 12, &ethernet::IPV4.to_be_bytes());
    put(room, 14, &[0x45, inner.tos]);
    put(room, 16, &(length as u16).to_be_bytes());
    // Identification 0 is allowed for a datagram that is never fragmented (RFC 6864 4.1).
    put(room, 18, &0u16.to_be_bytes());
    put(room, 20, &ipv4::DONT_FRAGMENT.to_be_bytes());
    put(room, 22, &ttl_protocol.to_be_bytes());
    put(room, 24, &checksum::finish(sum).to_be_bytes());
    put(room, 26, &backend.source[0].to_ne_bytes());
    put(room, 30, &backend.address[0].to_ne_bytes());
    Ok(())
}

/// An IPv6 header in front (RFC 2473), without the encapsulation-limit option.
#[inline(always)]
fn ipip6<P: Packet>(packet: &mut P, backend: &Backend, inner: Inner) -> Result<(), Reason> {
    let length = inner.length + ipv6::HEADER as u32;
    fits(backend, length)?;
    packet.grow::<{ ipv6::HEADER }>().map_err(|Cut| Reason::NoHeadroom)?;
    let room: &mut [u8; ethernet::HEADER + ipv6::HEADER] =
        packet.at_mut(0).map_err(|Cut| Reason::BadTable)?;
    let first = 6 << 28 | u32::from(inner.tos) << 20 | inner.hash & 0xf_ffff;
    put_macs(room, backend.macs);
    put(room, 12, &ethernet::IPV6.to_be_bytes());
    put(room, 14, &first.to_be_bytes());
    put(room, 18, &(inner.length as u16).to_be_bytes());
    put(room, 20, &[inner.protocol, OUTER_TTL]);
    put_words(room, 22, backend.source);
    put_words(room, 38, backend.address);
    Ok(())
}

/// The inner protocol number for an IPv4 packet.
pub(super) const INNER_IPV4: u8 = protocol::IPV4;
/// The inner protocol number for an IPv6 packet.
pub(super) const INNER_IPV6: u8 = protocol::IPV6;
