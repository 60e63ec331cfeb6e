//! The balancer's way of a packet, from the first byte to the verdict.

use super::{
    Address, announce,
    encapsulate::{self, INNER_IPV4, INNER_IPV6, Inner},
    limit,
    lookup::{self, Vip},
    packet::Packet,
    parse::{self, Network},
    tagged,
    verdict::Verdict,
    way::{self, Way, Ways, announces},
};
use crate::{
    abi::{Globals, Reason, slot},
    wire::{be16, ethernet, ipv4, ipv6, protocol, word, words},
};

/// What to do with a packet that came in by interface `ingress`; the packet is rewritten if it is forwarded.
///
/// A packet that is not for a service is passed exactly as it came.
#[inline(always)]
pub fn balance<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T, ingress: u32) -> Verdict {
    let verdict = by_type(packet, tables, ingress, true);
    if verdict.way().is_none() {
        return verdict;
    }
    way::follow(packet, tables, verdict, ingress)
}

/// The straight run for a frame whose tags are out of sight: what other tags may follow are nobody's.
#[inline(always)]
pub(super) fn untagged<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T, ingress: u32) -> Verdict {
    by_type(packet, tables, ingress, false)
}

#[inline(always)]
fn by_type<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T, ingress: u32, may_be_tagged: bool) -> Verdict {
    let Some(globals) = tables.globals() else { return Verdict::pass(Reason::NotConfigured) };
    let Ok(header) = packet.at::<{ ethernet::HEADER }>(0) else { return Verdict::pass(Reason::NotIp) };
    match be16(header, 12) {
        ethernet::IPV4 => from_ipv4(packet, tables, globals, ingress),
        ethernet::IPV6 => from_ipv6(packet, tables, globals, ingress),
        ethernet::ARP if announces(globals) => Verdict::detour(Way::Announce, 0),
        tag if may_be_tagged && tagged::is_tag(tag) => Verdict::detour(Way::Tagged, 0),
        _ => Verdict::pass(Reason::NotIp),
    }
}

#[inline(always)]
fn from_ipv4<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T, globals: &Globals, ingress: u32) -> Verdict {
    let Ok(header) = packet.at::<{ ipv4::HEADER }>(ethernet::HEADER) else {
        return Verdict::pass(Reason::NotIp);
    };
    let Some(vip) = lookup::vip4(tables, globals, word(header, 16)) else {
        return Verdict::pass(Reason::NotService);
    };
    match parse::ipv4(packet, header) {
        Ok(network) => to_service(packet, tables, globals, vip, &network, INNER_IPV4, ingress),
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
        return Verdict::pass(Reason::NotService);
    };
    match parse::ipv6(packet, header) {
        // Neighbour discovery belongs to the link; other ICMPv6 is for a service or not, as ICMP is.
        Ok(network) if network.protocol == protocol::ICMPV6 && announce::is_discovery(packet) => {
            if announces(globals) {
                Verdict::detour(Way::Announce, 0)
            } else {
                Verdict::pass(Reason::NoSuchPort)
            }
        }
        Ok(network) => to_service(packet, tables, globals, vip, &network, INNER_IPV6, ingress),
        Err(reason) => Verdict::drop(reason),
    }
}

/// A packet whose destination is a VIP: service, limit, slot, backend, forward.
#[inline(always)]
fn to_service<P: Packet, T: Ways<P>, A: Address>(
    packet: &mut P,
    tables: &T,
    globals: &Globals,
    vip: Vip,
    network: &Network<A>,
    inner: u8,
    ingress: u32,
) -> Verdict {
    let ports = match parse::ports(packet, network) {
        Ok(ports) => ports,
        Err(reason) => return Verdict::drop(reason),
    };
    let service = match lookup::service(tables, globals, vip, network.protocol, ports.destination) {
        Ok(service) => service,
        Err(Reason::NoSuchPort) => return Verdict::pass(Reason::NoSuchPort),
        Err(reason) => return Verdict::drop(reason),
    };
    if service.limit_cost != 0 && !tables.admits(globals, service, limit::source_word(network.source)) {
        return Verdict::drop(Reason::RateLimited);
    }
    let hash = lookup::affinity_hash(globals, service, network, ports);
    let slot = match lookup::slot(tables, service, hash) {
        Ok(slot) => slot,
        Err(reason) => return Verdict::drop(reason),
    };
    let member = if slot.is_decided(service) {
        slot.value & slot::MEMBER
    } else {
        tables.track(globals, service, lookup::query(packet, globals, service, network, ports, slot))
    };
    let backend = match lookup::member(tables, service, member) {
        Ok(backend) => backend,
        Err(reason) => return Verdict::drop(reason),
    };
    let inner = Inner {
        length: network.length,
        tos: network.tos,
        protocol: inner,
        hash: hash as u32,
        ports: ports.word(),
    };
    encapsulate::forward(packet, backend, inner, ingress)
}
