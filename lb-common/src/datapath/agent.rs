//! The agent's way of a packet: out of the tunnel, if it is one of ours.

use super::{gue, packet::Packet, verdict::Verdict};
use crate::{
    abi::{Peer, Reason},
    wire::{Mac, be16, ethernet, ipv4, ipv6, protocol, put, word, words},
};

/// What an agent was told.
pub trait AgentTables<P: Packet> {
    /// Whether a balancer of ours tunnels from this IPv4 address.
    fn knows_source4(&self, address: u32) -> bool;
    /// Whether a balancer of ours tunnels from this IPv6 address.
    fn knows_source6(&self, address: [u32; 4]) -> bool;
    /// Whether this is a VIP of ours; IPv4 as `::ffff:a.b.c.d`.
    fn knows_vip(&self, address: [u32; 4]) -> bool;
    /// Destination port of GUE.
    fn gue_port(&self) -> u16;
    /// The way to another backend; IPv4 as `::ffff:a.b.c.d`.
    fn peer(&self, address: [u32; 4]) -> Option<&Peer>;
    /// Whether this host has the connection of a TCP packet over IPv4 whose headers are at `ip` and `tcp`, and whole.
    fn knows4(&self, packet: &mut P, ip: usize, tcp: usize) -> bool;
    /// The same over IPv6.
    fn knows6(&self, packet: &mut P, ip: usize, tcp: usize) -> bool;
}

/// An IPv4 address as IPv6 has it (RFC 4291 2.5.5.2).
#[inline(always)]
pub fn mapped(address: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), address]
}

/// Whether an IPv6 destination would be taken for an IPv4 VIP in the table: no such packet is for us, or for anybody
/// (RFC 4942 2.2).
#[inline(always)]
fn is_mapped(address: [u32; 4]) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == 0xffff_u32.to_be()
}

/// Takes an IPIP or GUE packet for a VIP of ours out of its tunnel, for all four pairs of families.
///
/// Tunnels that are not for our VIPs pass as they came: they are somebody else's. `ingress` is the interface that the
/// packet came in by.
#[inline(always)]
pub fn decapsulate<P: Packet, T: AgentTables<P>>(packet: &mut P, tables: &T, ingress: u32) -> Verdict {
    let Ok(header) = packet.at::<{ ethernet::HEADER }>(0) else { return Verdict::pass(Reason::NotTunnel) };
    match be16(header, 12) {
        ethernet::IPV4 => from_ipv4(packet, tables, ingress),
        ethernet::IPV6 => from_ipv6(packet, tables, ingress),
        _ => Verdict::pass(Reason::NotTunnel),
    }
}

/// Whether this protocol number stands for an IP packet.
#[inline(always)]
pub(super) fn is_ip(number: u8) -> bool {
    number == protocol::IPV4 || number == protocol::IPV6
}

#[inline(always)]
fn from_ipv4<P: Packet, T: AgentTables<P>>(packet: &mut P, tables: &T, ingress: u32) -> Verdict {
    let Ok(outer) = packet.at::<{ ipv4::HEADER }>(ethernet::HEADER) else {
        return Verdict::pass(Reason::NotTunnel);
    };
    let inner = outer[9];
    if !is_ip(inner) && inner != protocol::UDP {
        return Verdict::pass(Reason::NotTunnel);
    }
    // Our balancers send neither options nor fragments.
    if outer[0] != 0x45 || be16(outer, 6) & ipv4::FRAGMENT != 0 {
        return Verdict::pass(Reason::NotTunnel);
    }
    let held = u32::from(be16(outer, 2)).wrapping_sub(ipv4::HEADER as u32);
    let source = word(outer, 12);
    if inner == protocol::UDP {
        return gue::out_of_ipv4(packet, tables, source, held, ingress);
    }
    match inner_of(packet, tables, inner, ethernet::HEADER + ipv4::HEADER, held) {
        Ok(()) if !tables.knows_source4(source) => Verdict::drop(Reason::UnknownTunnelSource),
        Ok(()) => unwrap::<P, { ipv4::HEADER }>(packet, inner),
        Err(verdict) => verdict,
    }
}

#[inline(always)]
fn from_ipv6<P: Packet, T: AgentTables<P>>(packet: &mut P, tables: &T, ingress: u32) -> Verdict {
    let Ok(outer) = packet.at::<{ ipv6::HEADER }>(ethernet::HEADER) else {
        return Verdict::pass(Reason::NotTunnel);
    };
    let inner = outer[6];
    if outer[0] >> 4 != 6 || (!is_ip(inner) && inner != protocol::UDP) {
        return Verdict::pass(Reason::NotTunnel);
    }
    let held = u32::from(be16(outer, 4));
    let source = words(outer, 8);
    if inner == protocol::UDP {
        return gue::out_of_ipv6(packet, tables, source, held, ingress);
    }
    match inner_of(packet, tables, inner, ethernet::HEADER + ipv6::HEADER, held) {
        Ok(()) if !tables.knows_source6(source) => Verdict::drop(Reason::UnknownTunnelSource),
        Ok(()) => unwrap::<P, { ipv6::HEADER }>(packet, inner),
        Err(verdict) => verdict,
    }
}

/// Whether the inner packet at `at` is whole and for a VIP of ours; `held` is how much the outer header says it holds.
#[inline(always)]
pub(super) fn inner_of<P: Packet, T: AgentTables<P>>(
    packet: &P,
    tables: &T,
    inner: u8,
    at: usize,
    held: u32,
) -> Result<(), Verdict> {
    // Opaque, or the compiler adds `at` to a packet pointer in 32 bits, which the verifier refuses.
    let available = (core::hint::black_box(packet.length()) as u32).wrapping_sub(at as u32);
    let (vip, version, header, length) = if inner == protocol::IPV4 {
        let Ok(header) = packet.at::<{ ipv4::HEADER }>(at) else {
            return Err(Verdict::pass(Reason::NotTunnel));
        };
        let bytes = u32::from(header[0] & 0x0f) * 4;
        (mapped(word(header, 16)), header[0] >> 4 == 4, bytes, u32::from(be16(header, 2)))
    } else {
        let Ok(header) = packet.at::<{ ipv6::HEADER }>(at) else {
            return Err(Verdict::pass(Reason::NotTunnel));
        };
        let bytes = ipv6::HEADER as u32;
        if is_mapped(words(header, 24)) {
            return Err(Verdict::pass(Reason::NotTunnel));
        }
        (words(header, 24), header[0] >> 4 == 6, bytes, u32::from(be16(header, 4)) + bytes)
    };
    if !tables.knows_vip(vip) {
        return Err(Verdict::pass(Reason::NotTunnel));
    }
    if !version || header < ipv4::HEADER as u32 || length < header || length > held || held > available {
        return Err(Verdict::drop(Reason::MalformedTunnel));
    }
    Ok(())
}

/// Takes `N` bytes of outer header out; the Ethernet header moves up and gets the inner EtherType.
#[inline(always)]
pub(super) fn unwrap<P: Packet, const N: usize>(packet: &mut P, inner: u8) -> Verdict {
    take_off::<P, N>(packet, inner, Reason::Decapsulated)
}

/// The same, counted as something else.
#[inline(always)]
pub(super) fn take_off<P: Packet, const N: usize>(packet: &mut P, inner: u8, reason: Reason) -> Verdict {
    let Ok(header) = packet.at::<12>(0) else { return Verdict::drop(Reason::MalformedTunnel) };
    let (destination, source) = (Mac::read(header, 0), Mac::read(header, 6));
    if packet.shrink::<N>().is_err() {
        return Verdict::drop(Reason::MalformedTunnel);
    }
    let Ok(header) = packet.at_mut::<{ ethernet::HEADER }>(0) else {
        return Verdict::drop(Reason::MalformedTunnel);
    };
    let ethertype = if inner == protocol::IPV4 { ethernet::IPV4 } else { ethernet::IPV6 };
    destination.put(header, 0);
    source.put(header, 6);
    put(header, 12, &ethertype.to_be_bytes());
    Verdict::pass(reason)
}
