//! The balancer's way of a packet, from the first byte to the verdict.

use super::{
    Address,
    encapsulate::{self, INNER_IPV4, INNER_IPV6, Inner},
    limit,
    lookup::{self, Slot, Vip},
    packet::Packet,
    parse::{self, Network, Ports},
    quic, tagged, track,
    verdict::Verdict,
    way::{self, Way, Ways, announces},
};
use crate::{
    abi::{Globals, Reason, Service, affinity, forward, globals_flags, slot},
    wire::{be16, ethernet, ipv4, ipv6, protocol, word, words},
};

/// What to do with a packet that came in by interface `ingress`; the packet is rewritten if it is forwarded.
///
/// A packet that is not for a service is passed exactly as it came.
#[inline(always)]
pub fn balance<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T, ingress: u32) -> Verdict {
    let verdict = tables.straight(packet, ingress);
    if verdict.way().is_none() {
        return verdict;
    }
    way::follow(packet, tables, verdict, ingress)
}

/// What nearly every packet needs, in one straight run, for whoever provides [`Ways`]; a detour where that is not enough.
#[inline(always)]
pub fn straight<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T, ingress: u32) -> Verdict {
    let Some(globals) = tables.globals() else { return Verdict::pass(Reason::NotConfigured) };
    let Ok(header) = packet.at::<{ ethernet::HEADER }>(0) else { return Verdict::pass(Reason::NotIp) };
    match be16(header, 12) {
        ethernet::IPV4 => from_ipv4(packet, tables, globals, ingress),
        ethernet::IPV6 => from_ipv6(packet, tables, globals, ingress),
        ethernet::ARP if announces(globals) => Verdict::detour(Way::Announce, 0),
        tag if tagged::is_tag(tag) => Verdict::detour(Way::Tagged, 0),
        _ => Verdict::pass(Reason::NotIp),
    }
}

#[inline(always)]
fn from_ipv4<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T, globals: &Globals, ingress: u32) -> Verdict {
    let Ok(header) = packet.at::<{ ipv4::HEADER }>(ethernet::HEADER) else {
        return Verdict::pass(Reason::NotIp);
    };
    let Some(vip) = lookup::vip4(tables, globals, word(header, 16)) else {
        return not_service(globals);
    };
    if !parse::is_plain4(header) {
        return Verdict::detour(Way::Odd4, 0);
    }
    match parse::ipv4(packet, header) {
        Ok(network) => to_service(packet, tables, globals, vip, Flow::of(network), INNER_IPV4, ingress),
        Err(reason) => Verdict::drop(reason),
    }
}

#[inline(always)]
fn from_ipv6<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T, globals: &Globals, ingress: u32) -> Verdict {
    let Ok(header) = packet.at::<{ ipv6::HEADER }>(ethernet::HEADER) else {
        return Verdict::pass(Reason::NotIp);
    };
    let Some(vip) = lookup::vip6(tables, globals, words(header, 24)) else {
        if header[6] == protocol::ICMPV6 && announces(globals) {
            return Verdict::detour(Way::Announce, 0);
        }
        return not_service(globals);
    };
    if !parse::has_ports(header[6]) {
        return Verdict::detour(Way::Odd6, 0);
    }
    match parse::ipv6(packet, header) {
        Ok(network) => to_service(packet, tables, globals, vip, Flow::of(network), INNER_IPV6, ingress),
        Err(reason) => Verdict::drop(reason),
    }
}

/// A packet for nobody that we know: perhaps it comes from somebody whom we know.
#[inline(always)]
pub(super) fn not_service(globals: &Globals) -> Verdict {
    if globals.flags & globals_flags::REPLIES != 0 {
        return Verdict::detour(Way::Reply, 0);
    }
    Verdict::pass(Reason::NotService)
}

/// Plain TCP or UDP to a VIP: ports and service.
#[inline(always)]
pub(super) fn to_service<P: Packet, T: Ways<P>, A: Address>(
    packet: &mut P,
    tables: &T,
    globals: &Globals,
    vip: Vip,
    mut flow: Flow<A>,
    inner: u8,
    ingress: u32,
) -> Verdict {
    flow.ports = match parse::ports(packet, &flow.network) {
        Ok(ports) => ports,
        Err(reason) => return Verdict::drop(reason),
    };
    let service = match lookup::service(tables, globals, vip, flow.network.protocol, flow.ports.destination) {
        Ok(service) => service,
        Err(Reason::NoSuchPort) => return Verdict::pass(Reason::NoSuchPort),
        Err(reason) => return Verdict::drop(reason),
    };
    deliver(packet, tables, globals, service, &flow, inner, ingress)
}

/// A packet and its flow.
#[derive(Clone, Copy)]
pub(super) struct Flow<A> {
    /// The packet.
    pub network: Network<A>,
    /// The flow's ports; 0 where it has none.
    pub ports: Ports,
    /// [`super::track::packet`], or [`Flow::UNREAD`].
    pub kind: u8,
    /// What [`Way::Named`] said of its connection ID; 0 = that was not asked.
    pub named: u32,
}

impl<A: Copy> Flow<A> {
    /// Read when it is needed, which it rarely is.
    pub(super) const UNREAD: u8 = u8::MAX;

    /// The packet's own; its ports are still to be read.
    #[inline(always)]
    pub(super) fn of(network: Network<A>) -> Self {
        let ports = Ports { source: 0, destination: 0 };
        Self { network, ports, kind: Self::UNREAD, named: 0 }
    }
}

/// A packet of a service: limit, slot, backend, forward.
#[inline(always)]
pub(super) fn deliver<P: Packet, T: Ways<P>, A: Address>(
    packet: &mut P,
    tables: &T,
    globals: &Globals,
    service: &Service,
    flow: &Flow<A>,
    inner: u8,
    ingress: u32,
) -> Verdict {
    let network = &flow.network;
    if flow.named == 0 && service.affinity == affinity::QUIC {
        return Verdict::detour(Way::Named, network.transport as u32 + quic::UDP_HEADER);
    }
    if service.limit_cost != 0 && !tables.admits(globals, service, limit::source_word(network.source)) {
        return Verdict::drop(Reason::RateLimited);
    }
    admitted(packet, tables, globals, service, flow, inner, ingress)
}

/// The same, within its limit.
#[inline(always)]
pub(super) fn admitted<P: Packet, T: Ways<P>, A: Address>(
    packet: &mut P,
    tables: &T,
    globals: &Globals,
    service: &Service,
    flow: &Flow<A>,
    inner: u8,
    ingress: u32,
) -> Verdict {
    let (network, ports) = (&flow.network, flow.ports);
    let hash = lookup::affinity_hash(globals, service, network, ports);
    let named = lookup::server(tables, globals, service, flow.named);
    let is_named = named != slot::EMPTY;
    let slot = match lookup::slot(tables, service, hash) {
        Ok(slot) => slot,
        // Who is named needs no slot.
        Err(_) if is_named => Slot::NOBODY,
        Err(reason) => return Verdict::drop(reason),
    };
    let member = if is_named {
        named
    } else if slot.is_decided(service) {
        slot.value & slot::MEMBER
    } else {
        let kind =
            if flow.kind == Flow::<A>::UNREAD { parse::kind(packet, service, network) } else { flow.kind };
        tables.track(globals, service, lookup::query(globals, service, network, ports, slot, kind))
    };
    if member & track::LOST != 0 {
        return Verdict::detour(Way::Reset, network.transport as u32);
    }
    let backend = match lookup::member(tables, service, member) {
        Ok(backend) => backend,
        Err(reason) => return Verdict::drop(reason),
    };
    if matches!(backend.forward, forward::NAT4 | forward::NAT6) {
        return Verdict::detour(Way::Translate, service.backend_base.wrapping_add(u32::from(member)));
    }
    let inner = Inner {
        length: network.length,
        tos: network.tos,
        protocol: inner,
        hash: hash as u32,
        ports: ports.word(),
    };
    let others = lookup::others(tables, service, network.protocol, slot, member, backend);
    encapsulate::forward(packet, backend, inner, others, ingress)
}
