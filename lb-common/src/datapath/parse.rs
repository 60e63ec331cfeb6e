//! Parsing: from bytes to what decisions need. Pure; touches nothing.

use super::{
    packet::{Cut, Packet},
    track::packet,
};
use crate::{
    abi::Reason,
    wire::{be16, ethernet, ipv4, ipv6, protocol, word, words},
};

/// An address of either family: network-order words as the CPU loads them.
pub trait Address: Copy + Eq {
    /// The words that are hashed: the whole IPv4 address and 0, or the address folded for IPv6.
    fn words(self) -> [u32; 4];
    /// The part of the address that stands for one source: all of IPv4, the first 64 bits of IPv6.
    fn source_prefix(self) -> [u32; 2];
}

impl Address for u32 {
    #[inline(always)]
    fn words(self) -> [u32; 4] {
        [self, 0, 0, 0]
    }
    #[inline(always)]
    fn source_prefix(self) -> [u32; 2] {
        [self, 0]
    }
}

impl Address for [u32; 4] {
    #[inline(always)]
    fn words(self) -> [u32; 4] {
        self
    }
    #[inline(always)]
    fn source_prefix(self) -> [u32; 2] {
        [self[0], self[1]]
    }
}

/// What of the IP header is needed once the destination is known to be a VIP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network<A> {
    pub source: A,
    pub destination: A,
    pub protocol: u8,
    /// Offset of the transport header from the start of the frame.
    pub transport: usize,
    /// Bytes from the IP header to the end of the IP packet, as the header says.
    pub length: u32,
    /// TOS or traffic class.
    pub tos: u8,
}

/// The IPv4 header. Only for packets whose destination is a VIP: errors here are drops.
#[inline(always)]
pub(super) fn ipv4<P: Packet>(packet: &P, header: &[u8; ipv4::HEADER]) -> Result<Network<u32>, Reason> {
    let words_of_header = header[0] & 0x0f;
    let length = u32::from(be16(header, 2));
    let header_bytes = u32::from(words_of_header) * 4;
    let held = packet.length() as u32;
    if header[0] >> 4 != 4
        || words_of_header < 5
        || length < header_bytes
        || length + ethernet::HEADER as u32 > held
    {
        return Err(Reason::Malformed);
    }
    if be16(header, 6) & ipv4::FRAGMENT != 0 {
        return Err(Reason::Fragment);
    }
    Ok(Network {
        source: word(header, 12),
        destination: word(header, 16),
        protocol: header[9],
        // At most 14 + 60: the mask tells the verifier.
        transport: ethernet::HEADER + (header_bytes as usize & 0x3c),
        length,
        tos: header[1],
    })
}

/// The IPv6 header. Only for packets whose destination is a VIP.
#[inline(always)]
pub(super) fn ipv6<P: Packet>(packet: &P, header: &[u8; ipv6::HEADER]) -> Result<Network<[u32; 4]>, Reason> {
    let length = u32::from(be16(header, 4)) + ipv6::HEADER as u32;
    if header[0] >> 4 != 6 || length + ethernet::HEADER as u32 > packet.length() as u32 {
        return Err(Reason::Malformed);
    }
    if header[6] == FRAGMENT_HEADER {
        return Err(Reason::Fragment);
    }
    Ok(Network {
        source: words(header, 8),
        destination: words(header, 24),
        protocol: header[6],
        transport: ethernet::HEADER + ipv6::HEADER,
        length,
        tos: (be16(header, 0) >> 4) as u8,
    })
}

/// Next-header value of the fragment header (RFC 8200 4.5).
const FRAGMENT_HEADER: u8 = 44;

/// Source and destination port, in host byte order; none for protocols without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub source: u16,
    pub destination: u16,
}

impl Ports {
    /// Both in one word.
    #[inline(always)]
    pub(super) fn word(self) -> u32 {
        u32::from(self.source) << 16 | u32::from(self.destination)
    }
}

/// The ports of TCP and UDP. Other protocols have none: both are 0.
#[inline(always)]
pub(super) fn ports<P: Packet, A>(packet: &P, network: &Network<A>) -> Result<Ports, Reason> {
    let needed = match network.protocol {
        protocol::TCP => 20,
        protocol::UDP => 8,
        _ => return Ok(Ports { source: 0, destination: 0 }),
    };
    let behind_ip = network.length + ethernet::HEADER as u32 - network.transport as u32;
    if behind_ip < needed {
        return Err(Reason::Malformed);
    }
    let header: &[u8; 4] = packet.at(network.transport).map_err(|Cut| Reason::Malformed)?;
    Ok(Ports { source: be16(header, 0), destination: be16(header, 2) })
}

/// What a packet means for the flow it belongs to.
///
/// Called only for packets whose ports were read: a TCP header is whole then.
#[inline(always)]
pub(super) fn kind<P: Packet, A>(packet: &P, network: &Network<A>) -> u8 {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    if network.protocol != protocol::TCP {
        return packet::DATA;
    }
    let Ok(header) = packet.at::<14>(network.transport) else { return packet::DATA };
    let flags = header[13];
    if flags & (SYN | ACK) == SYN {
        packet::SYN
    } else if flags & (FIN | RST) != 0 {
        packet::CLOSE
    } else {
        packet::DATA
    }
}
