//! Parsing: from bytes to what decisions need. Pure; touches nothing.

use super::{
    packet::{Cut, Packet},
    track::packet,
};
use crate::{
    abi::{Reason, Service, service_flags},
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
    Ok(Network {
        source: words(header, 8),
        destination: words(header, 24),
        protocol: header[6],
        transport: ethernet::HEADER + ipv6::HEADER,
        length,
        tos: (be16(header, 0) >> 4) as u8,
    })
}

/// Which part of a datagram an IP packet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece(u8);

impl Piece {
    /// All of it.
    pub(super) const WHOLE: Self = Self(0);
    /// The first fragment.
    pub(super) const FIRST: Self = Self(1);
    /// Any other fragment.
    pub(super) const LATER: Self = Self(2);

    /// By the IPv4 header.
    #[inline(always)]
    pub(super) fn of_ipv4(header: &[u8; ipv4::HEADER]) -> Self {
        Self::of(be16(header, 6) & ipv4::FRAGMENT, ipv4::OFFSET)
    }

    /// By flag and offset, of which `offset` is the mask.
    #[inline(always)]
    fn of(word: u16, offset: u16) -> Self {
        if word == 0 {
            Self::WHOLE
        } else if word & offset == 0 {
            Self::FIRST
        } else {
            Self::LATER
        }
    }

    /// Whether it is no fragment.
    #[inline(always)]
    pub(super) fn is_whole(self) -> bool {
        self.0 == 0
    }
}

/// Where the extension headers of an IPv6 packet lead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walked {
    /// What comes behind them.
    pub protocol: u8,
    /// Offset from the start of the frame.
    pub at: u32,
    /// Part of the datagram.
    pub piece: Piece,
}

/// Extension headers that are followed, at most; their bytes, at most.
const MOST_EXTENSIONS: u32 = 6;
const MOST_EXTENSION_BYTES: u32 = 512;

/// Follows the extension headers from `at` (RFC 8200 4, RFC 4302 2): hop-by-hop, routing, destination options,
/// authentication, fragment. Behind the header of a later fragment there is no header.
#[inline(always)]
pub(super) fn extensions<P: Packet>(packet: &P, first: u8, at: u32, end: u32) -> Result<Walked, Reason> {
    let (mut protocol, mut at, mut piece) = (first, at, Piece::WHOLE);
    let mut headers = 0;
    let most = at + MOST_EXTENSION_BYTES;
    while headers <= MOST_EXTENSIONS {
        if !matches!(protocol, 0 | 43 | 44 | 51 | 60) || piece == Piece::LATER {
            return Ok(Walked { protocol, at, piece });
        }
        let header = packet.at::<8>(at as usize).map_err(|Cut| Reason::Malformed)?;
        let length = u32::from(header[1]);
        at += match protocol {
            44 => {
                piece = Piece::of(be16(header, 2) & 0xfff9, 0xfff8);
                8
            }
            51 => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        if at > end {
            return Err(Reason::Malformed);
        }
        if at > most {
            return Err(Reason::ExtensionHeaders);
        }
        protocol = header[0];
        headers += 1;
    }
    Err(Reason::ExtensionHeaders)
}

/// Whether a protocol's header begins with ports.
#[inline(always)]
pub(super) fn has_ports(number: u8) -> bool {
    number == protocol::TCP || number == protocol::UDP
}

/// Whether nothing but TCP or UDP follows the IPv4 header (with or without options), and all of it.
#[inline(always)]
pub(super) fn is_plain4(header: &[u8; ipv4::HEADER]) -> bool {
    be16(header, 6) & ipv4::FRAGMENT == 0 && has_ports(header[9])
}

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
pub(super) fn kind<P: Packet, A>(packet: &P, service: &Service, network: &Network<A>) -> u8 {
    use crate::wire::tcp::{ACK, FIN, RST, SYN};
    if network.protocol != protocol::TCP {
        return packet::DATA;
    }
    let Ok(header) = packet.at::<14>(network.transport) else { return packet::DATA };
    let flags = header[13];
    if flags & (SYN | ACK) == SYN {
        packet::SYN
    } else if flags & (FIN | RST) != 0 {
        packet::CLOSE
    } else if service.flags & service_flags::RESET_LOST != 0 && flags & ACK != 0 {
        packet::RESETTABLE
    } else {
        packet::DATA
    }
}
