//! ICMP and ICMPv6 errors to a VIP: they go to the backend whose connection they are about.
//!
//! A router or a client that cannot take an answer of a backend tells its source, which is the VIP, and quotes how the
//! answer began (RFC 792, RFC 4443 2.4). What is quoted was on its way from the VIP to the client: read backwards it
//! names the flow. Path MTU discovery (RFC 1191, RFC 8201) works only if the backend of that flow hears of it.
//!
//! Eight bytes behind the quoted IP header are enough, which is what RFC 792 promises. An error touches its flow as any
//! packet in mid-connection does; the rate limit is that of whoever sent the error.

use super::{
    Address,
    balance::{self, Flow},
    encapsulate::{INNER_IPV4, INNER_IPV6},
    limit,
    lookup::{self, Vip},
    packet::{Cut, Packet},
    parse::{self, Network, Piece, Ports},
    quic, track,
    verdict::Verdict,
    way::Ways,
};
use crate::{
    abi::{Globals, Reason},
    wire::{be16, ethernet, ipv4, ipv6, protocol, word, words},
};

/// Bytes of an ICMP header, behind which the quote begins.
const HEADER: usize = 8;
/// No ICMP header begins behind this.
const FARTHEST: usize = 0x3ff;

/// Whether this is an error: unreachable, time exceeded or parameter problem (RFC 792). Source quench is not believed
/// any more (RFC 6633), and redirects are for the link.
#[inline(always)]
pub(super) fn is_error4<P: Packet>(packet: &P, network: &Network<u32>) -> bool {
    matches!(kind(packet, network), 3 | 11 | 12)
}

/// The same of ICMPv6: unreachable, too big, time exceeded, parameter problem (RFC 4443 3).
#[inline(always)]
pub(super) fn is_error6<P: Packet>(packet: &P, network: &Network<[u32; 4]>) -> bool {
    matches!(kind(packet, network), 1..=4)
}

/// The type of a message whose header is whole; else one that is no error in either protocol.
#[inline(always)]
fn kind<P: Packet, A>(packet: &P, network: &Network<A>) -> u8 {
    if !holds(network, network.transport + HEADER) {
        return 0;
    }
    // Two bytes: of a comparison with the end for one, the verifier learns nothing.
    packet.at::<2>(network.transport & FARTHEST).map_or(0, |kind| kind[0])
}

/// Whether the packet goes on until `end` of its frame.
#[inline(always)]
fn holds<A>(network: &Network<A>, end: usize) -> bool {
    end as u32 <= network.length + ethernet::HEADER as u32
}

/// Sends the ICMP error whose header is at `transport` to the backend that has the flow.
#[inline(always)]
pub(super) fn send4<P: Packet, T: Ways<P>>(
    packet: &mut P,
    tables: &T,
    transport: u32,
    ingress: u32,
) -> Verdict {
    let Some(globals) = tables.globals() else { return Verdict::pass(Reason::NotConfigured) };
    let Ok(header) = packet.at::<{ ipv4::HEADER }>(ethernet::HEADER) else {
        return Verdict::drop(Reason::BadTable);
    };
    let Some(vip) = lookup::vip4(tables, globals, word(header, 16)) else {
        return Verdict::drop(Reason::BadTable);
    };
    let mut network = match parse::ipv4(packet, header) {
        Ok(network) => network,
        Err(reason) => return Verdict::drop(reason),
    };
    let sender = network.source;
    let quoted = (transport as usize & FARTHEST) + HEADER;
    if !holds(&network, quoted + ipv4::HEADER) {
        return Verdict::drop(Reason::Malformed);
    }
    let Ok(inner) = packet.at::<{ ipv4::HEADER }>(quoted) else { return Verdict::drop(Reason::Malformed) };
    if inner[0] >> 4 != 4 || inner[0] & 0x0f < 5 {
        return Verdict::drop(Reason::Malformed);
    }
    let mut piece = Piece::WHOLE;
    if word(inner, 12) == network.destination {
        network.source = word(inner, 16);
        network.protocol = inner[9];
        network.transport = quoted + (usize::from(inner[0] & 0x0f) << 2);
        piece = Piece::of_ipv4(inner);
    }
    send(packet, tables, globals, vip, Flow::of(network), piece, sender, INNER_IPV4, ingress)
}

/// The same of ICMPv6.
#[inline(always)]
pub(super) fn send6<P: Packet, T: Ways<P>>(
    packet: &mut P,
    tables: &T,
    transport: u32,
    ingress: u32,
) -> Verdict {
    let Some(globals) = tables.globals() else { return Verdict::pass(Reason::NotConfigured) };
    let Ok(header) = packet.at::<{ ipv6::HEADER }>(ethernet::HEADER) else {
        return Verdict::drop(Reason::BadTable);
    };
    let Some(vip) = lookup::vip6(tables, globals, words(header, 24)) else {
        return Verdict::drop(Reason::BadTable);
    };
    let mut network = match parse::ipv6(packet, header) {
        Ok(network) => network,
        Err(reason) => return Verdict::drop(reason),
    };
    network.protocol = protocol::ICMPV6;
    let sender = network.source;
    let quoted = (transport as usize & FARTHEST) + HEADER;
    if !holds(&network, quoted + ipv6::HEADER) {
        return Verdict::drop(Reason::Malformed);
    }
    let Ok(inner) = packet.at::<{ ipv6::HEADER }>(quoted) else { return Verdict::drop(Reason::Malformed) };
    if inner[0] >> 4 != 6 {
        return Verdict::drop(Reason::Malformed);
    }
    let mut piece = Piece::WHOLE;
    if words(inner, 8) == network.destination {
        network.source = words(inner, 24);
        let end = network.length + ethernet::HEADER as u32;
        match parse::extensions(packet, inner[6], (quoted + ipv6::HEADER) as u32, end) {
            Ok(walked) => {
                network.protocol = walked.protocol;
                network.transport = walked.at as usize;
                piece = walked.piece;
            }
            Err(reason) => return Verdict::drop(reason),
        }
    }
    send(packet, tables, globals, vip, Flow::of(network), piece, sender, INNER_IPV6, ingress)
}

/// To the service of the flow, as any packet of it.
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
    sender: A,
    inner: u8,
    ingress: u32,
) -> Verdict {
    let number = flow.network.protocol;
    let service = if parse::has_ports(number) && piece == Piece::LATER {
        lookup::fragments(tables, globals, vip, number)
    } else {
        if parse::has_ports(number) {
            flow.ports = match ports(packet, &flow.network) {
                Ok(ports) => ports,
                Err(Cut) => return Verdict::drop(Reason::Malformed),
            };
        }
        lookup::service(tables, globals, vip, number, flow.ports.destination)
    };
    let service = match service {
        Ok(service) => service,
        Err(Reason::NoSuchPort) => return Verdict::pass(Reason::NoSuchPort),
        Err(reason) => return Verdict::drop(reason),
    };
    if service.limit_cost != 0 && !tables.admits(globals, service, limit::source_word(sender)) {
        return Verdict::drop(Reason::RateLimited);
    }
    flow.kind = track::packet::DATA;
    // A quoted answer has the connection ID of the client.
    flow.named = quic::ASKED;
    balance::admitted(packet, tables, globals, service, &flow, inner, ingress)
}

/// The ports of what is quoted, seen from the client: it was the answer's destination.
#[inline(always)]
fn ports<P: Packet, A>(packet: &P, network: &Network<A>) -> Result<Ports, Cut> {
    if !holds(network, network.transport + 4) {
        return Err(Cut);
    }
    let header: &[u8; 4] = packet.at(network.transport)?;
    Ok(Ports { source: be16(header, 2), destination: be16(header, 0) })
}
