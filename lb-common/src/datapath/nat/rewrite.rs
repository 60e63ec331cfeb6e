//! New addresses and ports in a packet, and checksums that follow by the difference (RFC 1624).
//!
//! Addresses are read where they are needed and not kept: the stacks of a chain of BPF functions are 512 bytes together.

use super::super::{
    packet::{Cut, Packet},
    parse::{self, Network, Piece},
};
use crate::{
    abi::Reason,
    wire::{be16, checksum, ethernet, half, ipv4, ipv6, protocol, put, put_words, word, words},
};

/// One of the two that a packet is between.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

impl End {
    /// Where its address is in an IPv4 header, and in one of IPv6.
    const fn places(self) -> (usize, usize) {
        match self {
            Self::Source => (12, 8),
            Self::Destination => (16, 24),
        }
    }

    /// Where its port is in a transport header.
    const fn port(self) -> usize {
        match self {
            Self::Source => 0,
            Self::Destination => 2,
        }
    }
}

/// A packet that can be translated: TCP or UDP over either family, no fragment.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    /// Offset of the transport header.
    transport: usize,
    /// Bytes of the IP packet.
    pub length: u32,
    pub protocol: u8,
    pub is_v6: bool,
    /// A router on the way may cut it in pieces.
    pub may_be_fragmented: bool,
}

impl Seen {
    /// Reads the headers.
    #[inline(always)]
    pub(super) fn read<P: Packet>(packet: &P) -> Result<Self, Reason> {
        let header: &[u8; ethernet::HEADER] = packet.at(0).map_err(|Cut| Reason::Malformed)?;
        if be16(header, 12) == ethernet::IPV4 {
            let header: &[u8; ipv4::HEADER] = packet.at(ethernet::HEADER).map_err(|Cut| Reason::Malformed)?;
            let may_be_fragmented = be16(header, 6) & ipv4::DONT_FRAGMENT == 0;
            let network = parse::ipv4(packet, header)?;
            translatable(packet, &network, Piece::of_ipv4(header))?;
            let (transport, length, protocol) = (network.transport, network.length, network.protocol);
            Ok(Self { transport, length, protocol, is_v6: false, may_be_fragmented })
        } else {
            let header: &[u8; ipv6::HEADER] = packet.at(ethernet::HEADER).map_err(|Cut| Reason::Malformed)?;
            let mut network = parse::ipv6(packet, header)?;
            let end = ethernet::HEADER as u32 + network.length;
            let walked = parse::extensions(packet, network.protocol, network.transport as u32, end)?;
            (network.transport, network.protocol) = (walked.at as usize, walked.protocol);
            translatable(packet, &network, walked.piece)?;
            let (transport, length, protocol) = (network.transport, network.length, network.protocol);
            Ok(Self { transport, length, protocol, is_v6: true, may_be_fragmented: false })
        }
    }

    /// The address of an end, as words of memory; IPv4 in the first.
    #[inline(always)]
    pub(super) fn address<P: Packet>(&self, packet: &P, end: End) -> [u32; 4] {
        let (four, six) = end.places();
        if self.is_v6 {
            packet.at::<{ ipv6::HEADER }>(ethernet::HEADER).map_or([0; 4], |header| words(header, six))
        } else {
            let address = packet.at::<{ ipv4::HEADER }>(ethernet::HEADER).map_or(0, |h| word(h, four));
            [address, 0, 0, 0]
        }
    }

    /// The port of an end, as a word of memory.
    #[inline(always)]
    pub(super) fn port<P: Packet>(&self, packet: &P, end: End) -> u16 {
        packet.at::<4>(self.transport).map_or(0, |header| half(header, end.port()))
    }

    /// Writes a new address and port of one end; port 0 leaves the port as it is.
    #[inline(always)]
    pub(super) fn replace<P: Packet>(
        &self,
        packet: &mut P,
        end: End,
        address: &[u32; 4],
        port: u16,
    ) -> Result<(), Reason> {
        let sum = self.put_address(packet, end, address)?;
        if self.protocol == protocol::TCP {
            let room: &mut [u8; 18] = packet.at_mut(self.transport).map_err(|Cut| Reason::Malformed)?;
            let sum = put_port(room, end, port, sum);
            let check = checksum::update(half(room, 16), sum);
            put(room, 16, &check.to_ne_bytes());
        } else {
            let room: &mut [u8; 8] = packet.at_mut(self.transport).map_err(|Cut| Reason::Malformed)?;
            let sum = put_port(room, end, port, sum);
            let check = half(room, 6);
            // 0 is no checksum, and stays so; a sum that comes out as 0 is written in its other form (RFC 768).
            if check != 0 {
                let check = checksum::update(check, sum);
                put(room, 6, &(if check == 0 { u16::MAX } else { check }).to_ne_bytes());
            }
        }
        Ok(())
    }

    /// Writes an address, and what follows from it in the IP header; gives what it changes a sum by.
    #[inline(always)]
    fn put_address<P: Packet>(&self, packet: &mut P, end: End, to: &[u32; 4]) -> Result<u64, Reason> {
        let (four, six) = end.places();
        if self.is_v6 {
            let room: &mut [u8; ipv6::HEADER] =
                packet.at_mut(ethernet::HEADER).map_err(|Cut| Reason::Malformed)?;
            let mut sum = checksum::replace(0, word(room, six), to[0]);
            sum = checksum::replace(sum, word(room, six + 4), to[1]);
            sum = checksum::replace(sum, word(room, six + 8), to[2]);
            sum = checksum::replace(sum, word(room, six + 12), to[3]);
            put_words(room, six, *to);
            Ok(sum)
        } else {
            let room: &mut [u8; ipv4::HEADER] =
                packet.at_mut(ethernet::HEADER).map_err(|Cut| Reason::Malformed)?;
            let sum = checksum::replace(0, word(room, four), to[0]);
            let check = checksum::update(half(room, 10), sum);
            put(room, 10, &check.to_ne_bytes());
            put(room, four, &to[0].to_ne_bytes());
            Ok(sum)
        }
    }
}

/// Writes a port, unless it is 0; gives what it changes a sum by, added to `sum`.
#[inline(always)]
fn put_port<const N: usize>(room: &mut [u8; N], end: End, port: u16, sum: u64) -> u64 {
    if port == 0 {
        return sum;
    }
    // In its half of a word the old port leaves a 16-bit complement, the other half of ones adds nothing.
    let sum = checksum::replace(sum, u32::from(half(room, end.port())), u32::from(port));
    put(room, end.port(), &port.to_ne_bytes());
    sum
}

/// Refuses what has no ports, and fragments: only the first has.
#[inline(always)]
fn translatable<P: Packet, A>(packet: &P, network: &Network<A>, piece: Piece) -> Result<(), Reason> {
    if !parse::has_ports(network.protocol) || !piece.is_whole() {
        return Err(Reason::NotTranslatable);
    }
    parse::ports(packet, network).map(|_| ())
}
