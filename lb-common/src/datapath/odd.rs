//! Packets for a VIP that are not plain TCP or UDP: fragments, IPv6 extension headers, ICMP, any other protocol; and
//! whatever comes in a VLAN.
//!
//! What the straight run assumes is found out here: where the transport header is, and whether there is one. After that everything is as for any other packet.
//!
//! **Fragments.** Only the first fragment of a datagram has ports. Where all ports of a VIP and protocol belong to one
//! service whose affinity needs no port, user space says so in the port table, and every fragment goes by addresses
//! alone: in any order, without state. The port of a first fragment is looked up all the same, so nothing is reached
//! by fragments that is not reached without. Other fragments of TCP and UDP are dropped.

use super::{
    Address, announce, balance,
    balance::Flow,
    echo,
    encapsulate::{INNER_IPV4, INNER_IPV6},
    lookup::{self, Vip},
    packet::Packet,
    parse::{self, Piece},
    quoted, track,
    verdict::Verdict,
    way::{Way, Ways, announces},
};
use crate::{
    abi::{Globals, Reason, Service},
    wire::{ethernet, ipv4, ipv6, protocol, word, words},
};

/// An IPv4 packet.
#[inline(always)]
pub(super) fn take4<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T, ingress: u32) -> Verdict {
    let Some(globals) = tables.globals() else { return Verdict::pass(Reason::NotConfigured) };
    let Ok(header) = packet.at::<{ ipv4::HEADER }>(ethernet::HEADER) else {
        return Verdict::pass(Reason::NotIp);
    };
    let Some(vip) = lookup::vip4(tables, globals, word(header, 16)) else {
        return balance::not_service(globals);
    };
    let piece = Piece::of_ipv4(header);
    let network = match parse::ipv4(packet, header) {
        Ok(network) => network,
        Err(reason) => return Verdict::drop(reason),
    };
    let flow = Flow::of(network);
    if piece.is_whole()
        && network.protocol == protocol::ICMP
        && echo::is_echo4(packet, &network)
        && lookup::service(tables, globals, vip, protocol::ICMP, 0).is_err()
    {
        return Verdict::detour(Way::Echo, network.transport as u32);
    }
    if piece.is_whole() && network.protocol == protocol::ICMP && quoted::is_error4(packet, &network) {
        return Verdict::detour(Way::Quoted4, network.transport as u32);
    }
    send(packet, tables, globals, vip, flow, piece, INNER_IPV4, ingress)
}

/// An IPv6 packet.
#[inline(always)]
pub(super) fn take6<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T, ingress: u32) -> Verdict {
    let Some(globals) = tables.globals() else { return Verdict::pass(Reason::NotConfigured) };
    let Ok(header) = packet.at::<{ ipv6::HEADER }>(ethernet::HEADER) else {
        return Verdict::pass(Reason::NotIp);
    };
    let Some(vip) = lookup::vip6(tables, globals, words(header, 24)) else {
        if header[6] == protocol::ICMPV6 && announces(globals) {
            return Verdict::detour(Way::Announce, 0);
        }
        return balance::not_service(globals);
    };
    let mut network = match parse::ipv6(packet, header) {
        Ok(network) => network,
        Err(reason) => return Verdict::drop(reason),
    };
    // Neighbour discovery belongs to the link; other ICMPv6 is for a service or not, as ICMP is.
    if network.protocol == protocol::ICMPV6 && announce::is_discovery(packet) {
        return if announces(globals) {
            Verdict::detour(Way::Announce, 0)
        } else {
            Verdict::pass(Reason::NoSuchPort)
        };
    }
    let end = ethernet::HEADER as u32 + network.length;
    let walked = match parse::extensions(packet, network.protocol, network.transport as u32, end) {
        Ok(walked) => walked,
        Err(reason) => return Verdict::drop(reason),
    };
    network.protocol = walked.protocol;
    network.transport = walked.at as usize;
    let flow = Flow::of(network);
    if walked.piece.is_whole()
        && network.protocol == protocol::ICMPV6
        && echo::is_echo6(packet, &network)
        && lookup::service(tables, globals, vip, protocol::ICMPV6, 0).is_err()
    {
        return Verdict::detour(Way::Echo, network.transport as u32);
    }
    if walked.piece.is_whole() && network.protocol == protocol::ICMPV6 && quoted::is_error6(packet, &network)
    {
        return Verdict::detour(Way::Quoted6, network.transport as u32);
    }
    send(packet, tables, globals, vip, flow, walked.piece, INNER_IPV6, ingress)
}

/// To the service, as the straight run does.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "inlined; a struct of them would have to live on the BPF stack"
)]
fn send<P: Packet, T: Ways<P>, A: Address>(
    packet: &mut P,
    tables: &T,
    globals: &Globals,
    vip: Vip,
    mut flow: Flow<A>,
    piece: Piece,
    inner: u8,
    ingress: u32,
) -> Verdict {
    let number = flow.network.protocol;
    let service = if parse::has_ports(number) && !piece.is_whole() {
        fragmented(packet, tables, globals, vip, &flow, piece)
    } else {
        if parse::has_ports(number) {
            flow.ports = match parse::ports(packet, &flow.network) {
                Ok(ports) => ports,
                Err(reason) => return Verdict::drop(reason),
            };
        }
        lookup::service(tables, globals, vip, number, flow.ports.destination)
    };
    let service = match service {
        Ok(service) => service,
        Err(Reason::NoSuchPort) => return Verdict::pass(Reason::NoSuchPort),
        Err(reason) => return Verdict::drop(reason),
    };
    // Here and not when it is needed: what it is read from need not be remembered until then.
    flow.kind =
        if piece.is_whole() { parse::kind(packet, service, &flow.network) } else { track::packet::DATA };
    balance::deliver(packet, tables, globals, service, &flow, inner, ingress)
}

/// The service of a fragment of TCP or UDP; its flow is that of the addresses alone.
#[inline(always)]
fn fragmented<'t, P: Packet, T: Ways<P>, A: Address>(
    packet: &P,
    tables: &'t T,
    globals: &Globals,
    vip: Vip,
    flow: &Flow<A>,
    piece: Piece,
) -> Result<&'t Service, Reason> {
    let number = flow.network.protocol;
    if piece == Piece::FIRST {
        // A port that is closed stays closed.
        let ports = parse::ports(packet, &flow.network)?;
        lookup::service(tables, globals, vip, number, ports.destination)?;
    }
    lookup::fragments(tables, globals, vip, number)
}
