//! Connection IDs that name the server (QUIC-LB, draft-ietf-quic-load-balancers): which server one names.
//!
//! A connection ID that a server chose is a first byte (three bits that say by which configuration, five that may say
//! its length), a server ID and a nonce, both of a length that the configuration fixes. Without a key they stand there
//! as they are. With a key they are one AES block, if they are 16 bytes together, or else two halves that four rounds
//! of a Feistel network mix.
//!
//! What a client chose for its first packets names nobody: then the table decides by the flow, and from the server's
//! answer on the client uses what the server chose.

use super::{
    Address, balance,
    balance::Flow,
    encapsulate::{INNER_IPV4, INNER_IPV6},
    lookup,
    packet::{Cut, Packet},
    parse::{self, Network},
    tables::Tables,
    verdict::Verdict,
    way::{Way, Ways},
};
use crate::{
    abi::{QuicConfig, Reason, quic_config},
    wire::{be16, ethernet, ipv4, ipv6, protocol, word, words},
};

/// No payload begins behind this: Ethernet, the longest IP header with what may follow it, and UDP.
const FARTHEST: usize = 0x3ff;
/// Bytes of a UDP header.
pub(super) const UDP_HEADER: u32 = 8;

/// Bytes of a half are ten at most, since server ID and nonce are 19 at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Half {
    /// The first eight bytes.
    high: u64,
    /// The other two.
    low: u16,
}

impl Half {
    #[inline(always)]
    fn of(bytes: &[u8; 10]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j] = *bytes;
        Self { high: u64::from_be_bytes([a, b, c, d, e, f, g, h]), low: u16::from_be_bytes([i, j]) }
    }

    #[inline(always)]
    fn and(self, mask: Self) -> Self {
        Self { high: self.high & mask.high, low: self.low & mask.low }
    }

    /// This half, exclusive or the encryption of the other in round `round`; `sizes` are the bytes in all and the mask of
    /// this half.
    #[inline(always)]
    fn mixed<T: Tables>(
        self,
        other: Self,
        round: u32,
        sizes: (u32, Self),
        tables: &T,
        config: &QuicConfig,
    ) -> Self {
        let (length, mask) = sizes;
        let block =
            [(other.high >> 32) as u32, other.high as u32, u32::from(other.low) << 16, length << 8 | round];
        let out = tables.encrypt(config, block);
        let high = u64::from(out[0]) << 32 | u64::from(out[1]);
        Self { high: self.high ^ high, low: self.low ^ (out[2] >> 16) as u16 }.and(mask)
    }
}

/// The first `bits` bits of a half, at most 80.
#[inline(always)]
fn first(bits: u32) -> Half {
    let high = if bits >= 64 { u64::MAX } else { !(u64::MAX >> (bits & 63)) };
    let low = if bits > 64 { !(0xffff_u32 >> ((bits - 64) & 31)) as u16 } else { 0 };
    Half { high, low }
}

/// Where a connection ID is, and how long it is at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    at: usize,
    length: u32,
}

/// The destination's connection ID in a datagram whose payload begins at `at` (RFC 8999 5.1 and 5.2).
#[inline(always)]
fn place<P: Packet>(packet: &P, at: usize) -> Result<Place, Cut> {
    // Two bytes: of a comparison with the end for one, the verifier learns nothing.
    let first: &[u8; 2] = packet.at(at)?;
    if first[0] & 0x80 == 0 {
        // A short header does not say how long the ID is.
        return Ok(Place { at: at + 1, length: 20 });
    }
    let header: &[u8; 6] = packet.at(at)?;
    Ok(Place { at: at + 6, length: u32::from(header[5]) })
}

/// In [`Flow::named`], which is 0 for packets that were not asked; a server ID has 16 bits.
pub(super) const ASKED: u32 = 1 << 16;

/// Reads the connection ID of a datagram whose payload begins at `payload`. The packet goes on with that and, in the
/// lower 16 bits, the number of the server, 1 to 65,535, or 0 for none.
#[inline(always)]
pub(super) fn read<P: Packet, T: Tables>(packet: &P, tables: &T, payload: u32) -> Verdict {
    let Ok(header) = packet.at::<{ ethernet::HEADER }>(0) else { return Verdict::drop(Reason::BadTable) };
    let way = if be16(header, 12) == ethernet::IPV4 { Way::Server4 } else { Way::Server6 };
    Verdict::detour(way, payload << 16 | named(packet, tables, payload))
}

/// Sends an IPv4 datagram on; `said` is what [`read`] found.
#[inline(always)]
pub(super) fn send4<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T, said: u32, ingress: u32) -> Verdict {
    let Some(globals) = tables.globals() else { return Verdict::pass(Reason::NotConfigured) };
    let Ok(header) = packet.at::<{ ipv4::HEADER }>(ethernet::HEADER) else {
        return Verdict::drop(Reason::BadTable);
    };
    let Some(vip) = lookup::vip4(tables, globals, word(header, 16)) else {
        return Verdict::drop(Reason::BadTable);
    };
    match parse::ipv4(packet, header) {
        Ok(network) => {
            balance::to_service(packet, tables, globals, vip, asked(network, said), INNER_IPV4, ingress)
        }
        Err(reason) => Verdict::drop(reason),
    }
}

/// The same of IPv6.
#[inline(always)]
pub(super) fn send6<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T, said: u32, ingress: u32) -> Verdict {
    let Some(globals) = tables.globals() else { return Verdict::pass(Reason::NotConfigured) };
    let Ok(header) = packet.at::<{ ipv6::HEADER }>(ethernet::HEADER) else {
        return Verdict::drop(Reason::BadTable);
    };
    let Some(vip) = lookup::vip6(tables, globals, words(header, 24)) else {
        return Verdict::drop(Reason::BadTable);
    };
    match parse::ipv6(packet, header) {
        Ok(network) => {
            balance::to_service(packet, tables, globals, vip, asked(network, said), INNER_IPV6, ingress)
        }
        Err(reason) => Verdict::drop(reason),
    }
}

/// The flow of a datagram whose headers were followed before.
#[inline(always)]
fn asked<A: Address>(mut network: Network<A>, said: u32) -> Flow<A> {
    network.protocol = protocol::UDP;
    network.transport = ((said >> 16) as usize & FARTHEST).wrapping_sub(UDP_HEADER as usize) & FARTHEST;
    Flow { named: ASKED | said & 0xffff, ..Flow::of(network) }
}

/// The number of the server; 0: none.
#[inline(always)]
fn named<P: Packet, T: Tables>(packet: &P, tables: &T, payload: u32) -> u32 {
    // The mask tells the verifier.
    let payload = payload as usize & FARTHEST;
    let Some(globals) = tables.globals() else { return 0 };
    let Some(codepoint) = codepoint(packet, payload) else { return 0 };
    let Some(config) = tables.quic(globals.quic_base.wrapping_add(codepoint)) else { return 0 };
    match server_id(packet, tables, payload, config) {
        Some(server) if server <= 0xffff => server as u32,
        _ => 0,
    }
}

/// By which configuration the connection ID in this payload was made; 7 is by none.
#[inline(always)]
fn codepoint<P: Packet>(packet: &P, payload: usize) -> Option<u32> {
    let place = place(packet, payload).ok()?;
    let first: &[u8; 2] = packet.at(place.at).ok()?;
    let codepoint = u32::from(first[0] >> 5);
    (codepoint != u32::from(quic_config::UNROUTABLE) && place.length != 0).then_some(codepoint)
}

/// The server ID in the connection ID of this payload, as a number; `None` where it cannot have been made by this
/// configuration.
#[inline(always)]
fn server_id<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    payload: usize,
    config: &QuicConfig,
) -> Option<u64> {
    let place = place(packet, payload).ok()?;
    let (server, nonce) = (u32::from(config.server_id) & 15, u32::from(config.nonce) & 31);
    let length = server + nonce;
    // Also what no configuration holds, so that the verifier knows it.
    if config.state == quic_config::NONE || server == 0 || server > 8 || length > 19 || place.length <= length
    {
        return None;
    }
    let at = place.at + 1;
    let id = if config.state == quic_config::PLAIN {
        Half::of(packet.at(at).ok()?).high
    } else if length == 16 {
        let bytes: &[u8; 16] = packet.at(at).ok()?;
        let word = |i: usize| u32::from_be_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let plain = tables.decrypt(config, [word(0), word(4), word(8), word(12)]);
        u64::from(plain[0]) << 32 | u64::from(plain[1])
    } else {
        four_rounds(packet, tables, at, (server, nonce), config)?
    };
    Some(id >> (64 - 8 * server))
}

/// The first eight bytes of server ID and nonce.
///
/// Both halves are read whole: what a QUIC packet has behind its connection ID (16 bytes of authentication at least)
/// is longer than what is read too much.
#[inline(always)]
fn four_rounds<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    at: usize,
    (server, nonce): (u32, u32),
    config: &QuicConfig,
) -> Option<u64> {
    let length = server + nonce;
    // With an odd length the byte in the middle belongs to both, half and half.
    let odd = length & 1;
    let whole = length >> 1;
    let left_mask = first(4 * length);
    let right_mask = {
        let mask = first(8 * (whole + odd));
        if odd == 1 { Half { high: mask.high & (u64::MAX >> 4), low: mask.low } } else { mask }
    };
    let left = Half::of(packet.at(at).ok()?).and(left_mask);
    let right = Half::of(packet.at(at + (whole as usize & 15)).ok()?).and(right_mask);
    let left = left.mixed(right, 4, (length, left_mask), tables, config);
    let right = right.mixed(left, 3, (length, right_mask), tables, config);
    let left = left.mixed(right, 2, (length, left_mask), tables, config);
    if server <= nonce {
        return Some(left.high);
    }
    // The server ID is longer than a half.
    let right = right.mixed(left, 1, (length, right_mask), tables, config);
    Some(left.high | right.high >> ((8 * whole) & 63))
}
