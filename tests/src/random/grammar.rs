//! The layers that sentences are put together from. Each makes what a correct sender might, odd but true: lengths and
//! checksums are right until [`super::bend`] makes them lie.

use std::net::IpAddr;

use super::{scene::family_of, source::Random};
use crate::packet::{Family, HERE, ROUTER};

/// An Ethernet type and what follows it.
#[derive(Clone, Debug)]
pub struct Packet {
    /// EtherType.
    pub ether_type: u16,
    /// Behind the Ethernet header.
    pub bytes: Vec<u8>,
}

/// Sums 16-bit words as RFC 1071 does, without the final complement.
fn sum(bytes: &[u8], start: u32) -> u32 {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0)));
    words.fold(start, |sum, word| sum + word)
}

/// Checksum of RFC 1071 over what was summed.
fn fold(mut sum: u32) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// Writes the checksum over the pseudo header and the segment to offset `at` of it.
fn seal(segment: &mut [u8], at: usize, source: IpAddr, destination: IpAddr, protocol: u8) {
    segment[at..at + 2].fill(0);
    let pseudo = sum(&octets(source), 0) + sum(&octets(destination), 0) + u32::from(protocol);
    let checksum = fold(sum(segment, pseudo + segment.len() as u32));
    // UDP has no checksum 0 (RFC 768); for the others all ones are as good.
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// How much a packet carries: little, mostly.
pub fn payload(random: &mut Random) -> Vec<u8> {
    let length = match random.below(20) {
        0..12 => random.below(64),
        12..17 => random.below(600),
        // Around what links take.
        17 => 1300 + random.below(220),
        18 => 1440 + random.below(40),
        _ => random.below(2600),
    };
    random.bytes(length)
}

/// A TCP segment.
pub fn tcp(random: &mut Random, from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let flags = random.one_of(&[0x02, 0x10, 0x18, 0x10, 0x11, 0x04, 0x12, 0x14, 0x00, 0xff]);
    let options: &[u8] = match random.below(3) {
        0 => &[],
        1 => &[2, 4, 5, 0xb4],
        _ => &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7],
    };
    let mut segment = Vec::with_capacity(20 + options.len() + payload.len());
    segment.extend(from.1.to_be_bytes());
    segment.extend(to.1.to_be_bytes());
    segment.extend(random.bytes(8));
    segment.extend([(5 + options.len() as u8 / 4) << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    segment.extend(options);
    segment.extend(payload);
    seal(&mut segment, 16, from.0, to.0, 6);
    segment
}

/// A UDP datagram.
pub fn udp(random: &mut Random, from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::with_capacity(8 + payload.len());
    segment.extend(from.1.to_be_bytes());
    segment.extend(to.1.to_be_bytes());
    segment.extend((8 + payload.len() as u16).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    if !random.once_in(10) {
        seal(&mut segment, 6, from.0, to.0, 17);
    }
    segment
}

/// An ICMP or ICMPv6 message: type, code, the word behind the checksum, body.
pub fn icmp(from: IpAddr, to: IpAddr, head: (u8, u8), word: [u8; 4], body: &[u8]) -> (u8, Vec<u8>) {
    let mut message = [&[head.0, head.1, 0, 0][..], &word, body].concat();
    match from {
        IpAddr::V4(_) => {
            let checksum = fold(sum(&message, 0));
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
            (1, message)
        }
        IpAddr::V6(_) => {
            seal(&mut message, 2, from, to, 58);
            (58, message)
        }
    }
}

/// An IP packet of the addresses' family, with options or extension headers now and then.
pub fn ip(random: &mut Random, from: IpAddr, to: IpAddr, protocol: u8, body: &[u8]) -> Packet {
    match family_of(to) {
        Family::V4 => ipv4(random, from, to, protocol, body, (0x4000, None)),
        Family::V6 => {
            let (next, chain) = extensions(random, protocol);
            ipv6(random, from, to, next, &[&chain, body].concat())
        }
    }
}

/// Fragments of an IP packet, in any order, some lost and some doubled.
pub fn fragments(random: &mut Random, from: IpAddr, to: IpAddr, protocol: u8, body: &[u8]) -> Vec<Packet> {
    let identification = random.next() as u32;
    // Eight bytes at least; the last may be shorter.
    let piece = (body.len() / (1 + random.below(4))).next_multiple_of(8).max(8);
    let count = body.len().div_ceil(piece);
    let mut all: Vec<Packet> = Vec::new();
    for (i, bytes) in body.chunks(piece).enumerate() {
        let offset_and_more = (i * piece / 8, i + 1 < count);
        all.push(fragment(random, (from, to), (protocol, identification), offset_and_more, bytes));
    }
    for i in (1..all.len()).rev() {
        let other = random.below(i + 1);
        all.swap(i, other);
    }
    if random.once_in(4) {
        all.truncate(1 + random.below(all.len()));
    }
    if random.once_in(4) && !all.is_empty() {
        all.push(all[random.below(all.len())].clone());
    }
    all
}

fn fragment(
    random: &mut Random,
    (from, to): (IpAddr, IpAddr),
    (protocol, identification): (u8, u32),
    (offset, more): (usize, bool),
    bytes: &[u8],
) -> Packet {
    let word = (offset as u16) << 3 | u16::from(more);
    match family_of(to) {
        Family::V4 => {
            let word = u16::from(more) << 13 | offset as u16;
            ipv4(random, from, to, protocol, bytes, (word, Some(identification as u16)))
        }
        Family::V6 => {
            let mut header = vec![protocol, 0];
            header.extend(word.to_be_bytes());
            header.extend(identification.to_be_bytes());
            ipv6(random, from, to, 44, &[&header, bytes].concat())
        }
    }
}

fn ipv4(
    random: &mut Random,
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    body: &[u8],
    (fragment, identification): (u16, Option<u16>),
) -> Packet {
    let options = if random.once_in(8) { ipv4_options(random) } else { Vec::new() };
    let fragment = if fragment == 0x4000 && random.once_in(3) { 0 } else { fragment };
    let identification = identification.unwrap_or_else(|| random.half());
    let mut header = vec![0x45 + options.len() as u8 / 4, tos(random)];
    header.extend((20 + options.len() as u16 + body.len() as u16).to_be_bytes());
    header.extend(identification.to_be_bytes());
    header.extend(fragment.to_be_bytes());
    header.extend([hops(random), protocol, 0, 0]);
    header.extend(octets(from));
    header.extend(octets(to));
    header.extend(options);
    let checksum = fold(sum(&header, 0));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    Packet { ether_type: 0x0800, bytes: [&header, body].concat() }
}

/// Options: padding, record route, timestamp, source routes, router alert, an unknown one.
fn ipv4_options(random: &mut Random) -> Vec<u8> {
    let mut options: Vec<u8> = match random.below(7) {
        0 => vec![1; 4],
        1 => vec![7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        2 => vec![68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        3 => vec![131, 7, 4, 203, 0, 113, 9, 0],
        4 => vec![148, 4, 0, 0],
        5 => vec![0; 40],
        _ => random.bytes(40),
    };
    options.truncate(4 * (1 + random.below(10)));
    options.resize(options.len().next_multiple_of(4), 0);
    options
}

fn ipv6(random: &mut Random, from: IpAddr, to: IpAddr, next: u8, body: &[u8]) -> Packet {
    let first = 6u32 << 28 | u32::from(tos(random)) << 20 | (random.next() as u32 & 0xf_ffff);
    let mut bytes = first.to_be_bytes().to_vec();
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend([next, hops(random)]);
    bytes.extend(octets(from));
    bytes.extend(octets(to));
    bytes.extend(body);
    Packet { ether_type: 0x86dd, bytes }
}

/// A chain of extension headers before `protocol`: what the IPv6 header names, and the headers.
fn extensions(random: &mut Random, protocol: u8) -> (u8, Vec<u8>) {
    let count = random.one_of(&[0, 0, 0, 0, 0, 1, 1, 2, 3, 9]);
    let mut next = protocol;
    let mut chain: Vec<u8> = Vec::new();
    for _ in 0..count {
        // Hop-by-hop options, routing, destination options, fragment, authentication, no next header, mobility.
        let number = random.one_of(&[0, 43, 60, 60, 44, 51, 59, 135]);
        let mut header = vec![next, 0];
        match number {
            // An atomic fragment (RFC 6946).
            44 => header.extend([0, 0, 0, 0, 0, 7]),
            // Its length counts words of four bytes, less two (RFC 4302).
            51 => {
                header[1] = 4;
                header.extend([0; 22]);
            }
            _ => {
                header[1] = random.one_of(&[0, 0, 0, 1, 2, 10]);
                // One option that fills the rest (PadN).
                let rest = 6 + 8 * usize::from(header[1]);
                header.extend([1, rest as u8 - 2]);
                header.resize(8 + 8 * usize::from(header[1]), 0);
            }
        }
        header.extend(&chain);
        chain = header;
        next = number;
    }
    (next, chain)
}

fn hops(random: &mut Random) -> u8 {
    random.one_of(&[64, 63, 64, 128, 255, 2, 1, 1, 0])
}

fn tos(random: &mut Random) -> u8 {
    if random.once_in(4) { random.byte() } else { 0 }
}

/// The frame of a packet: to us, tagged now and then, with the padding of short frames and what a link may leave
/// behind a packet.
pub fn ethernet(random: &mut Random, packet: &Packet) -> Vec<u8> {
    let mut frame = HERE.to_vec();
    if random.once_in(20) {
        frame = random.one_of(&[[0xff; 6], [0x01, 0, 0x5e, 0, 0, 1], [0x02, 9, 9, 9, 9, 9]]).to_vec();
    }
    frame.extend(ROUTER);
    for _ in 0..random.one_of(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3]) {
        frame.extend(random.one_of(&[[0x81, 0x00], [0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]]));
        frame.extend(random.one_of(&[7u16, 0x0064, 0x8fff, 0]).to_be_bytes());
    }
    frame.extend(packet.ether_type.to_be_bytes());
    frame.extend(&packet.bytes);
    if frame.len() < 60 && random.once_in(2) {
        frame.resize(60, 0);
    }
    if random.once_in(30) {
        let more = random.below(20);
        frame.extend(random.bytes(more));
    }
    frame
}
