//! What a frame must look like after the datapath, and which member it must go to: worked out a second time from the
//! snapshot, by etherparse and by the description of the hash, so that no code of the datapath judges itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::chain::{self, End, Lost, Part, part};
use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, UdpHeader,
    checksum::Sum16BitWords,
};
use lb_common::abi::slot;
use lb_userspace::{
    config::{Affinity, Forward, Ports, Protocol},
    control::model::{Hop, Member, Service, Snapshot},
    quic::ConnectionIds,
};

/// What the cases read of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol, behind extension headers.
    pub protocol: u8,
    /// Part of its datagram.
    pub part: Part,
    /// Why there is no protocol, if extension headers lead nowhere.
    pub lost: Option<Lost>,
    /// Where the transport header is, from the IP header on.
    pub transport: usize,
    /// TOS or traffic class.
    pub tos: u8,
    /// Length of the IP packet as its header says.
    pub length: usize,
    /// Bytes of its header.
    pub header: usize,
    /// Source and destination port of TCP and UDP; 0 for everything else, and where the frame ends before them.
    pub ports: (u16, u16),
    /// What follows an UDP header, as far as the frame goes, at most 40 bytes of it.
    pub datagram: ([u8; 40], usize),
}

/// Reads the IP packet in a frame; `None` where etherparse finds none.
pub fn see(frame: &[u8]) -> Option<Seen> {
    let (ethernet, packet) = Ethernet2Header::from_slice(frame).ok()?;
    let mut seen = match ethernet.ether_type {
        EtherType::IPV4 => {
            let (header, _) = Ipv4Header::from_slice(packet).ok()?;
            Seen {
                source: Ipv4Addr::from(header.source).into(),
                destination: Ipv4Addr::from(header.destination).into(),
                protocol: header.protocol.0,
                tos: header.dscp.value() << 2 | header.ecn.value(),
                length: usize::from(header.total_len),
                header: header.header_len(),
                part: part(u16::from_be_bytes([packet[6], packet[7]]), 0x2000, 0x1fff),
                lost: None,
                transport: header.header_len(),
                ports: (0, 0),
                datagram: ([0; 40], 0),
            }
        }
        EtherType::IPV6 => {
            let (header, _) = Ipv6Header::from_slice(packet).ok()?;
            let length = usize::from(header.payload_length) + Ipv6Header::LEN;
            let end = chain::follow(packet, length);
            let here = End { protocol: header.next_header.0, at: Ipv6Header::LEN, part: Part::Whole };
            let reached = end.unwrap_or(here);
            Seen {
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                protocol: reached.protocol,
                tos: header.traffic_class,
                length,
                header: Ipv6Header::LEN,
                part: reached.part,
                lost: end.err(),
                transport: reached.at,
                ports: (0, 0),
                datagram: ([0; 40], 0),
            }
        }
        _ => return None,
    };
    if [IpNumber::TCP.0, IpNumber::UDP.0].contains(&seen.protocol)
        && seen.part != Part::Later
        && let Some(&[a, b, c, d]) = packet.get(seen.transport..).and_then(|p| p.first_chunk())
    {
        seen.ports = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    }
    if seen.protocol == IpNumber::UDP.0
        && let Some(payload) = packet.get(seen.transport + UdpHeader::LEN..)
    {
        let length = payload.len().min(40);
        seen.datagram.0[..length].copy_from_slice(&payload[..length]);
        seen.datagram.1 = length;
    }
    Some(seen)
}

/// The packet as its flow has it: an ICMP error about a packet from its destination belongs to the flow that it quotes,
/// anything else to its own.
pub fn flow(frame: &[u8]) -> Option<Seen> {
    let seen = see(frame)?;
    let message = frame.get(14 + seen.transport..(14 + seen.length).min(frame.len())).unwrap_or_default();
    // Each in its own family: the other's is a protocol like any.
    let own = if seen.source.is_ipv4() { IpNumber::ICMP } else { IpNumber::IPV6_ICMP };
    let is_error = match message {
        [kind, _, _, _, _, _, _, _, ..] if seen.source.is_ipv4() => [3, 11, 12].contains(kind),
        [kind, _, _, _, _, _, _, _, ..] => (1..=4).contains(kind),
        _ => false,
    };
    if seen.part != Part::Whole || seen.lost.is_some() || IpNumber(seen.protocol) != own || !is_error {
        return Some(seen);
    }
    let broken = Seen { lost: Some(Lost::Short), ..seen };
    // What follows the packet in its frame is not looked at, but for a quote that no header fits in.
    let quote = &message[8..];
    Some(quoted(seen, quote).unwrap_or(broken))
}

/// The flow that an error quotes; `None` if the quote ends too early or is no IP packet of its family.
fn quoted(error: Seen, quote: &[u8]) -> Option<Seen> {
    let is_ipv4 = error.destination.is_ipv4();
    let (least, version) = if is_ipv4 { (20, 4) } else { (40, 6) };
    if quote.len() < least || quote[0] >> 4 != version || (is_ipv4 && quote[0] & 15 < 5) {
        return None;
    }
    let address = |at: usize| -> IpAddr {
        if is_ipv4 {
            let octets: [u8; 4] = *quote[at..].first_chunk().expect("a whole header");
            octets.into()
        } else {
            let octets: [u8; 16] = *quote[at..].first_chunk().expect("a whole header");
            octets.into()
        }
    };
    let (source, destination) = if is_ipv4 { (address(12), address(16)) } else { (address(8), address(24)) };
    if source != error.destination {
        return Some(error);
    }
    let mut seen = Seen { source: destination, datagram: ([0; 40], 0), ..error };
    let at = if is_ipv4 {
        seen.protocol = quote[9];
        seen.part = part(u16::from_be_bytes([quote[6], quote[7]]), 0x2000, 0x1fff);
        usize::from(quote[0] & 15) * 4
    } else {
        match chain::follow(quote, quote.len()) {
            Ok(end) => {
                seen.protocol = end.protocol;
                seen.part = end.part;
                end.at
            }
            Err(lost) => return Some(Seen { lost: Some(lost), ..seen }),
        }
    };
    if has_ports(&seen) && seen.part != Part::Later {
        let &[a, b, c, d] = quote.get(at..)?.first_chunk()?;
        seen.ports = (u16::from_be_bytes([c, d]), u16::from_be_bytes([a, b]));
        // Its flow is known, whatever follows.
        seen.part = Part::Whole;
    }
    Some(seen)
}

/// The service that a packet is for, by a search through the snapshot.
pub fn service<'s>(snapshot: &'s Snapshot, seen: &Seen) -> Option<&'s Service> {
    let here = |s: &&Service| s.addresses.contains(&seen.destination);
    let exact = |s: &&Service| {
        takes(s.protocol, seen.protocol)
            && matches!(&s.ports, Ports::Ranges(ranges) if ranges.iter().any(|r| r.contains(&seen.ports.1)))
    };
    let any_port = |s: &&Service| takes(s.protocol, seen.protocol) && s.ports == Ports::Any;
    let anything = |s: &&Service| s.protocol == Protocol::Both && s.ports == Ports::Any;
    let find = |how: &dyn Fn(&&Service) -> bool| {
        snapshot.services.iter().map(|s| &**s).filter(here).find(|s| how(s))
    };
    let whole = || find(&exact).or_else(|| find(&any_port)).or_else(|| find(&anything));
    if seen.part == Part::Whole || !has_ports(seen) {
        return whole();
    }
    if seen.part == Part::First {
        whole()?;
    }
    // The only one of this protocol here takes all fragments, if it needs no ports.
    let mut taking =
        snapshot.services.iter().map(|s| &**s).filter(here).filter(|s| takes(s.protocol, seen.protocol));
    let only = taking.next().filter(|_| taking.next().is_none())?;
    (!matches!(only.affinity, Affinity::Flow | Affinity::Quic)).then_some(only)
}

/// Whether the protocol's header begins with ports.
pub fn has_ports(seen: &Seen) -> bool {
    [IpNumber::TCP.0, IpNumber::UDP.0].contains(&seen.protocol)
}

fn takes(configured: Protocol, number: u8) -> bool {
    match configured {
        Protocol::Tcp => number == IpNumber::TCP.0,
        Protocol::Udp => number == IpNumber::UDP.0,
        Protocol::Both => [IpNumber::TCP.0, IpNumber::UDP.0].contains(&number),
    }
}

/// The member that a QUIC connection ID names, read by what servers make them with.
fn named<'s>(snapshot: &Snapshot, service: &'s Service, seen: &Seen) -> Option<&'s Member> {
    if service.affinity != Affinity::Quic {
        return None;
    }
    let datagram = seen.datagram.0.get(..seen.datagram.1)?;
    let (id, longest) = match datagram.first()? & 0x80 {
        0 => (datagram.get(1..)?, 20),
        _ => (datagram.get(6..)?, usize::from(*datagram.get(5)?)),
    };
    let codepoint = id.first()? >> 5;
    let config = snapshot.quic.iter().find(|config| config.codepoint == codepoint)?;
    let (server, nonce) = (usize::from(config.server_id_bytes), usize::from(config.nonce_bytes));
    let length = server + nonce;
    // What the datapath reads in one piece must be in the frame: any packet with this ID is longer.
    let read = match (config.key, length) {
        (None, _) => 10,
        (_, 16) => 16,
        _ => length / 2 + 10,
    };
    if longest <= length || id.len() < 1 + read {
        return None;
    }
    let ids = ConnectionIds::new(codepoint, server, nonce, config.key.map(|key| key.0)).ok()?;
    let server = ids.server_of(&id[..=length])?;
    let number = server.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let number = u16::try_from(number).ok()?;
    service.members.iter().flatten().find(|member| member.alive && member.server_id == Some(number))
}

/// The member that a packet names, or else the owner of its slot, if the slot has one.
pub fn member<'s>(snapshot: &Snapshot, service: &'s Service, seen: &Seen) -> Option<&'s Member> {
    if let Some(member) = named(snapshot, service, seen) {
        return Some(member);
    }
    let high = affinity_hash(snapshot.key, service.affinity, seen) >> 32;
    let slot = (high * service.table.len() as u64) >> 32;
    let index = service.table.get(slot as usize)? & slot::MEMBER;
    service.members.get(usize::from(index))?.as_ref()
}

/// The affinity hash as `lb_common::hash` describes it: pairs of words are mixed in one after the other.
pub fn affinity_hash(key: [u64; 4], affinity: Affinity, seen: &Seen) -> u64 {
    let words = |address: IpAddr| -> Vec<u32> {
        let bytes = match address {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        bytes.chunks_exact(4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    let destination = |word: u32| if affinity == Affinity::Source { 0 } else { word };
    let mut pairs: Vec<(u32, u32)> =
        words(seen.source).into_iter().zip(words(seen.destination).into_iter().map(destination)).collect();
    if matches!(affinity, Affinity::Flow | Affinity::Quic) {
        let (source, destination) = seen.ports;
        pairs.push((u32::from(source) << 16 | u32::from(destination), u32::from(seen.protocol)));
    }
    let state = pairs.into_iter().fold(key[0] ^ 0x534c_4f54, |state, (x, y)| {
        let mixed = (state ^ (u64::from(x) << 32 | u64::from(y))).wrapping_mul(key[1] | 1);
        mixed ^ mixed >> 32
    });
    let z = (state ^ key[2]).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// The frame as it must leave towards `member` of `service`. The input must be an IP packet.
pub fn forwarded(snapshot: &Snapshot, service: &Service, member: &Member, input: &[u8]) -> Vec<u8> {
    let hop = member.hop.expect("a member that takes packets has a next hop");
    let mut seen = flow(input).expect("a packet that is forwarded can be read");
    if seen.part != Part::Whole {
        // Fragments of a datagram go one way: no port counts.
        seen.ports = (0, 0);
    }
    match (member.forward, member.address, hop.source) {
        (Forward::L2, ..) => [&hop.dmac[..], &hop.smac, &input[12..]].concat(),
        (Forward::Ipip, IpAddr::V4(to), IpAddr::V4(from)) => {
            let inner = inner_protocol(&seen);
            let mut outer =
                Ipv4Header::new(0, 64, inner, from.octets(), to.octets()).expect("no payload yet");
            outer.set_payload_len(seen.length).expect("the outer packet fits 16 bits");
            // DSCP and ECN are carried over (RFC 2983, RFC 6040).
            outer.dscp = etherparse::IpDscp::try_new(seen.tos >> 2).expect("six bits");
            outer.ecn = etherparse::IpEcn::try_new(seen.tos & 3).expect("two bits");
            outer.header_checksum = outer.calc_header_checksum();
            wrapped(&hop, EtherType::IPV4, &outer.to_bytes(), input)
        }
        (Forward::Ipip, IpAddr::V6(to), IpAddr::V6(from)) => {
            let hash = affinity_hash(snapshot.key, service.affinity, &seen);
            let outer = Ipv6Header {
                traffic_class: seen.tos,
                flow_label: Ipv6FlowLabel::try_new(hash as u32 & 0xf_ffff).expect("20 bits"),
                payload_length: u16::try_from(seen.length).expect("the outer packet fits 16 bits"),
                next_header: inner_protocol(&seen),
                hop_limit: 64,
                source: from.octets(),
                destination: to.octets(),
            };
            wrapped(&hop, EtherType::IPV6, &outer.to_bytes(), input)
        }
        (Forward::Gue, IpAddr::V4(to), IpAddr::V4(from)) => {
            let payload = gue(snapshot, service, member, &seen);
            let mut outer =
                Ipv4Header::new(0, 64, IpNumber::UDP, from.octets(), to.octets()).expect("no payload yet");
            outer.set_payload_len(payload.len() + seen.length).expect("the outer packet fits 16 bits");
            outer.dscp = etherparse::IpDscp::try_new(seen.tos >> 2).expect("six bits");
            outer.ecn = etherparse::IpEcn::try_new(seen.tos & 3).expect("two bits");
            outer.header_checksum = outer.calc_header_checksum();
            wrapped(&hop, EtherType::IPV4, &[&outer.to_bytes()[..], &payload].concat(), input)
        }
        (Forward::Gue, IpAddr::V6(to), IpAddr::V6(from)) => {
            let payload = gue(snapshot, service, member, &seen);
            let hash = affinity_hash(snapshot.key, service.affinity, &seen);
            let outer = Ipv6Header {
                traffic_class: seen.tos,
                flow_label: Ipv6FlowLabel::try_new(hash as u32 & 0xf_ffff).expect("20 bits"),
                payload_length: u16::try_from(payload.len() + seen.length).expect("16 bits"),
                next_header: IpNumber::UDP,
                hop_limit: 64,
                source: from.octets(),
                destination: to.octets(),
            };
            wrapped(&hop, EtherType::IPV6, &[&outer.to_bytes()[..], &payload].concat(), input)
        }
        (Forward::Nat, to, _) => {
            let port = member.port.unwrap_or(seen.ports.1);
            let ends = Ends { ports: (seen.ports.0, port), destination: to, ..Ends::of(&seen) };
            [&hop.dmac[..], &hop.smac, &translated(input, &ends)[12..]].concat()
        }
        (Forward::Ipip | Forward::Gue, ..) => panic!("source and address of a member are of one family"),
    }
}

/// UDP and GUE header of a packet: no checksum, variant 0, no flags.
fn gue(snapshot: &Snapshot, service: &Service, member: &Member, seen: &Seen) -> Vec<u8> {
    let hash = affinity_hash(snapshot.key, service.affinity, seen) as u32;
    let ports = u32::from(seen.ports.0) << 16 | u32::from(seen.ports.1);
    let source_port = 0xc000 | ((hash ^ ports).wrapping_mul(0x9e37_79b1) >> 18) as u16;
    let list =
        if seen.protocol == IpNumber::TCP.0 { list(service, member, seen, snapshot) } else { Vec::new() };
    let length = u16::try_from(UdpHeader::LEN + 4 + list.len() + seen.length).expect("16 bits");
    let udp = UdpHeader { source_port, destination_port: member.gue_port, length, checksum: 0 };
    let words = u8::try_from(list.len() / 4).expect("five bits");
    [&udp.to_bytes()[..], &[words, inner_protocol(seen).0, 0, 0], &list].concat()
}

/// Private data that names the candidates of the packet's slot; a place without one names the backend itself.
fn list(service: &Service, member: &Member, seen: &Seen, snapshot: &Snapshot) -> Vec<u8> {
    let Some(candidates) = &service.candidates else { return Vec::new() };
    let high = affinity_hash(snapshot.key, service.affinity, seen) >> 32;
    let word = candidates[((high * candidates.len() as u64) >> 32) as usize];
    let mut list = vec![1, 0, 0, 0];
    for place in 0..3 {
        let index = (word >> (place * 16)) as u16;
        let named = service.members.get(usize::from(index)).and_then(Option::as_ref);
        match named.map_or(member.address, |named| named.address) {
            IpAddr::V4(a) => list.extend(a.octets()),
            IpAddr::V6(a) => list.extend(a.octets()),
        }
    }
    list
}

/// Both ends of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source and destination port.
    pub ports: (u16, u16),
}

impl Ends {
    /// As a packet has them.
    pub fn of(seen: &Seen) -> Self {
        Self { source: seen.source, destination: seen.destination, ports: seen.ports }
    }
}

/// The frame with other ends. Its checksums are as right or as wrong as they were: they differ by what the whole sums,
/// worked out by etherparse before and after, differ by.
pub fn translated(input: &[u8], ends: &Ends) -> Vec<u8> {
    let seen = see(input).expect("a packet that is translated can be read");
    let mut output = input.to_vec();
    match (ends.source, ends.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            output[26..30].copy_from_slice(&from.octets());
            output[30..34].copy_from_slice(&to.octets());
            let whole = |frame: &[u8]| {
                let header = [&frame[14..24], &[0, 0], &frame[26..14 + seen.header]].concat();
                Sum16BitWords::new().add_slice(&header).ones_complement().to_be()
            };
            let field = adapted(&input[24..26], whole(input), whole(&output));
            output[24..26].copy_from_slice(&field.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            output[22..38].copy_from_slice(&from.octets());
            output[38..54].copy_from_slice(&to.octets());
        }
        _ => panic!("both ends are of one family"),
    }
    let transport = 14 + seen.transport;
    output[transport..transport + 2].copy_from_slice(&ends.ports.0.to_be_bytes());
    output[transport + 2..transport + 4].copy_from_slice(&ends.ports.1.to_be_bytes());
    let is_tcp = seen.protocol == IpNumber::TCP.0;
    let at = transport + if is_tcp { 16 } else { 6 };
    if !is_tcp && input[at..at + 2] == [0, 0] {
        return output;
    }
    let end = 14 + seen.length;
    let whole = |frame: &[u8], addresses: std::ops::Range<usize>| {
        let segment = [&frame[transport..at], &[0, 0], &frame[at + 2..end]].concat();
        let length = (end - transport) as u16;
        Sum16BitWords::new()
            .add_slice(&frame[addresses])
            .add_2bytes([0, seen.protocol])
            .add_2bytes(length.to_be_bytes())
            .add_slice(&segment)
            .ones_complement()
            .to_be()
    };
    let addresses = if seen.source.is_ipv4() { 26..34 } else { 22..54 };
    let field = adapted(&input[at..at + 2], whole(input, addresses.clone()), whole(&output, addresses));
    let field = if !is_tcp && field == 0 { u16::MAX } else { field };
    output[at..at + 2].copy_from_slice(&field.to_be_bytes());
    output
}

/// A checksum field after the right one changed from `before` to `after`: numbers modulo 65,535, of which 0 is written
/// as 0.
fn adapted(field: &[u8], before: u16, after: u16) -> u16 {
    let field = u32::from(u16::from_be_bytes([field[0], field[1]]));
    ((field + u32::from(after) + 0xffff - u32::from(before)) % 0xffff) as u16
}

fn inner_protocol(seen: &Seen) -> IpNumber {
    if seen.destination.is_ipv4() { IpNumber::IPV4 } else { IpNumber::IPV6 }
}

fn wrapped(hop: &Hop, ether_type: EtherType, outer: &[u8], input: &[u8]) -> Vec<u8> {
    let ethernet = Ethernet2Header { destination: hop.dmac, source: hop.smac, ether_type };
    [&ethernet.to_bytes()[..], outer, &input[14..]].concat()
}

/// An IPv6 address of one host, for cases that need more than the cast.
pub fn in_network(network: Ipv6Addr, host: u16) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(network) & !0xffff | u128::from(host))
}
