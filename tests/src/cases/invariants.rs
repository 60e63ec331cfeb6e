//! What must hold for any frame whatever, judged from the snapshot and by etherparse.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpOperation, ArpPacketSlice, EtherType, IpNumber, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader,
};
use lb_common::abi::{Outcome as Fate, Reason};
use lb_userspace::{
    config::{Forward, OnFailure, Ports},
    control::model::{Member, Snapshot},
};

use super::{
    agent,
    chain::{Lost, Part},
    expect,
    machine::{Code, Counter, Machine, Outcome, hex},
};

/// Why the outcome cannot be right, if it cannot.
pub type Wrong = Result<(), String>;

fn must(holds: bool, what: impl FnOnce() -> String) -> Wrong {
    if holds { Ok(()) } else { Err(what()) }
}

/// The destination of an IP packet with a whole fixed header, valid or not.
fn destination(frame: &[u8]) -> Option<IpAddr> {
    match ether_type(frame)? {
        EtherType::IPV4 => {
            let octets: [u8; 4] = *frame.get(30..34)?.first_chunk()?;
            Some(Ipv4Addr::from(octets).into())
        }
        EtherType::IPV6 => {
            let octets: [u8; 16] = *frame.get(38..54)?.first_chunk()?;
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

fn ether_type(frame: &[u8]) -> Option<EtherType> {
    frame.get(12..14)?.first_chunk().map(|b| EtherType(u16::from_be_bytes(*b)))
}

/// Whether the IP header is valid and the frame holds all that it promises, the fixed part of TCP and UDP included.
fn is_whole(frame: &[u8]) -> bool {
    expect::see(frame).is_some_and(|seen| {
        let least = match IpNumber(seen.protocol) {
            _ if seen.part == Part::Later => 0,
            IpNumber::TCP => 20,
            IpNumber::UDP => 8,
            _ => 0,
        };
        seen.length >= seen.transport
            && seen.length + 14 <= frame.len()
            && seen.length - seen.transport >= least
            && expect::flow(frame).is_some_and(|flow| flow.lost.is_none())
    })
}

/// The one thing that was counted.
enum Cause {
    Reason(Reason),
    Forwarded { counter: u32, bytes: u64 },
}

fn cause(outcome: &Outcome) -> Result<Cause, String> {
    let moved: Vec<(&Counter, &u64)> = outcome.moved.iter().collect();
    match moved[..] {
        [(Counter::Reason(reason), 1)] => Ok(Cause::Reason(*reason)),
        [(Counter::Packets(counter), 1), (Counter::Bytes(same), bytes)] if counter == same => {
            Ok(Cause::Forwarded { counter: *counter, bytes: *bytes })
        }
        _ => Err(format!("{} counters moved: {:?}", moved.len(), outcome.moved)),
    }
}

fn reason_fits(outcome: &Outcome, reason: Reason, frame: &[u8]) -> Wrong {
    let code = match reason.outcome() {
        Fate::Passed | Fate::Delivered => Code::Pass,
        Fate::Dropped => Code::Drop,
        Fate::Answered => Code::Transmit,
        Fate::Returned if outcome.code == Code::Redirect => Code::Redirect,
        Fate::Returned => Code::Transmit,
    };
    must(outcome.code == code, || format!("{} with verdict {:?}", reason.name(), outcome.code))?;
    let untouched = matches!(reason.outcome(), Fate::Passed | Fate::Dropped);
    must(!untouched || outcome.output == frame, || format!("{} changed the frame", reason.name()))
}

/// One or two VLAN tags behind the MAC addresses, if a frame has them and an EtherType behind them.
fn tags(frame: &[u8]) -> &[u8] {
    let is_tag = |at: usize| matches!(frame.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8]));
    let end = if !is_tag(12) || frame.len() < 20 {
        12
    } else if is_tag(16) {
        20
    } else {
        16
    };
    frame.get(12..end).unwrap_or_default()
}

/// Those tags, and the frame without them.
pub(super) fn split(frame: &[u8]) -> (&[u8], Vec<u8>) {
    (tags(frame), untagged(frame))
}

/// The frame without them.
fn untagged(frame: &[u8]) -> Vec<u8> {
    let tags = tags(frame).len();
    [&frame[..frame.len().min(12)], frame.get(12 + tags..).unwrap_or_default()].concat()
}

/// A balancer's outcome.
///
/// Tags are kept, whatever becomes of the frame; all else is as for the frame without them.
///
/// # Errors
/// What does not hold.
pub fn balancer(frame: &[u8], outcome: &Outcome, snapshot: &Snapshot, machine: &dyn Machine) -> Wrong {
    let tags = tags(frame);
    if tags.is_empty() {
        return balancer_untagged(frame, outcome, snapshot, machine);
    }
    must(outcome.output.get(12..12 + tags.len()) == Some(tags), || "the VLAN tags are not the same".into())?;
    let mut inner = outcome.clone();
    inner.output = untagged(&outcome.output);
    for (counter, moved) in &mut inner.moved {
        if matches!(counter, Counter::Bytes(_)) {
            *moved = moved.saturating_sub(tags.len() as u64);
        }
    }
    balancer_untagged(&untagged(frame), &inner, snapshot, machine)
}

fn balancer_untagged(frame: &[u8], outcome: &Outcome, snapshot: &Snapshot, machine: &dyn Machine) -> Wrong {
    let for_vip =
        destination(frame).is_some_and(|d| snapshot.services.iter().any(|s| s.addresses.contains(&d)));
    match cause(outcome)? {
        Cause::Reason(reason) => {
            reason_fits(outcome, reason, frame)?;
            match reason {
                Reason::NotIp => must(destination(frame).is_none(), || "not_ip, but it is".into()),
                Reason::NotService => must(!for_vip, || "not_service, but for a VIP".into()),
                Reason::ArpReply => arp_reply(&outcome.output, snapshot),
                Reason::ReplyByKernel => reply(frame, &outcome.output, snapshot),
                Reason::NeighbourReply => advertisement(&outcome.output, snapshot),
                Reason::EchoReply => {
                    must(for_vip, || "echo_reply of somebody who is no VIP".into())?;
                    echo_reply(frame, &outcome.output)
                }
                Reason::ConnectionReset => connection_reset(frame, &outcome.output, snapshot),
                Reason::TooBigTold | Reason::TooBigToSplit => {
                    too_big(frame, &outcome.output, reason, snapshot)
                }
                _ => {
                    must(for_vip, || format!("{} for somebody who is no VIP", reason.name()))?;
                    to_vip(frame, reason, snapshot)
                }
            }
        }
        Cause::Forwarded { counter, bytes } => {
            must(for_vip, || "forwarded, but for no VIP".into())?;
            must(bytes == frame.len() as u64, || format!("{bytes} bytes counted of {}", frame.len()))?;
            forwarded(frame, outcome, counter, snapshot, machine)
        }
    }
}

/// A packet for a VIP that was passed or dropped: for a reason that holds.
fn to_vip(frame: &[u8], reason: Reason, snapshot: &Snapshot) -> Wrong {
    let seen = expect::flow(frame);
    let service = seen.as_ref().and_then(|seen| expect::service(snapshot, seen));
    let member = seen.as_ref().zip(service).and_then(|(seen, s)| expect::member(snapshot, s, seen));
    let holds = match reason {
        Reason::Malformed => !is_whole(frame),
        Reason::Fragment => {
            service.is_none() && seen.is_some_and(|s| s.part != Part::Whole && expect::has_ports(&s))
        }
        Reason::ExtensionHeaders => seen.is_some_and(|s| s.lost == Some(Lost::TooMany)),
        // Neighbour discovery is the link's, even for a VIP of every protocol.
        Reason::NoSuchPort => {
            service.is_none() || seen.is_some_and(|seen| seen.protocol == IpNumber::IPV6_ICMP.0)
        }
        Reason::NoBackend => service
            .is_some_and(|s| member.is_none() || (s.on_failure == OnFailure::Reset && !has_host(frame))),
        Reason::NoNextHop => service.is_some() && member.is_none_or(|m| m.hop.is_none()),
        Reason::NotTranslatable => member.zip(seen).is_some_and(|(m, seen)| {
            let is_error = expect::see(frame).is_some_and(|own| !expect::has_ports(&own));
            m.forward == Forward::Nat && (is_error || !expect::has_ports(&seen) || seen.part != Part::Whole)
        }),
        Reason::TooBig => member.zip(seen).is_some_and(|(m, seen)| !fits(m, seen.length)),
        _ => false,
    };
    must(holds, || format!("{} does not hold", reason.name()))
}

fn fits(member: &Member, length: usize) -> bool {
    let outer = match (member.forward, member.address) {
        (Forward::L2 | Forward::Nat, _) => 0,
        (Forward::Ipip, IpAddr::V4(_)) => 20,
        (Forward::Ipip, IpAddr::V6(_)) => 40,
        // Room for four bytes and three candidates is kept.
        (Forward::Gue, IpAddr::V4(_)) => 20 + 8 + 4 + 4 + 3 * 4,
        (Forward::Gue, IpAddr::V6(_)) => 40 + 8 + 4 + 4 + 3 * 16,
    };
    // Lengths have 16 bits, whatever the link takes.
    member.hop.is_some_and(|hop| length + outer <= (hop.mtu as usize).min(65_535))
}

fn forwarded(
    frame: &[u8],
    outcome: &Outcome,
    counter: u32,
    snapshot: &Snapshot,
    machine: &dyn Machine,
) -> Wrong {
    must(is_whole(frame), || "forwarded, but no whole packet".into())?;
    let seen = expect::flow(frame).ok_or("forwarded, but etherparse finds no packet")?;
    let service = expect::service(snapshot, &seen).ok_or("forwarded, but no service has its port")?;
    let member = expect::member(snapshot, service, &seen).ok_or("forwarded, but its slot has no owner")?;
    let right = machine.counter(service.identity, member.identity);
    must(right == Some(counter), || format!("went to counter {counter} instead of {right:?}"))?;
    must(fits(member, seen.length), || "forwarded, but too big".into())?;
    let hop = member.hop.ok_or("forwarded, but without a next hop")?;
    let code = if hop.ifindex == super::cast::INGRESS { Code::Transmit } else { Code::Redirect };
    must(outcome.code == code, || format!("{:?} instead of {code:?}", outcome.code))?;
    must(outcome.ifindex.is_none_or(|i| i == hop.ifindex), || "the wrong interface".into())?;
    well_formed(&outcome.output, frame, member)?;
    let expected = expect::forwarded(snapshot, service, member, frame);
    must(outcome.output == expected, || {
        format!("left {} instead of {}", hex(&outcome.output), hex(&expected))
    })
}

/// The outer header, read by etherparse: whole, lengths and checksum right, and the packet as it came inside.
fn well_formed(output: &[u8], frame: &[u8], member: &Member) -> Wrong {
    let ip = output.get(14..).ok_or("less than an Ethernet header")?;
    let inner = match (member.forward, member.address) {
        (Forward::L2, _) => ip,
        // Everything that is not an address, a port or a checksum is compared below.
        (Forward::Nat, _) => return Ok(()),
        (Forward::Ipip | Forward::Gue, IpAddr::V4(_)) => {
            let (outer, inner) = Ipv4Header::from_slice(ip).map_err(|e| format!("outer header: {e}"))?;
            must(outer.calc_header_checksum() == outer.header_checksum, || "wrong outer checksum".into())?;
            must(usize::from(outer.total_len) <= ip.len(), || "the outer length is too long".into())?;
            inner
        }
        (Forward::Ipip | Forward::Gue, IpAddr::V6(_)) => {
            let (outer, inner) = Ipv6Header::from_slice(ip).map_err(|e| format!("outer header: {e}"))?;
            must(usize::from(outer.payload_length) <= inner.len(), || "the outer length is too long".into())?;
            inner
        }
    };
    let inner = if member.forward == Forward::Gue { datagram(inner)? } else { inner };
    must(inner == &frame[14..], || "the packet changed on its way".into())
}

/// What UDP and GUE hold, if their headers are whole.
fn datagram(payload: &[u8]) -> Result<&[u8], String> {
    let (udp, message) = UdpHeader::from_slice(payload).map_err(|e| format!("UDP: {e}"))?;
    must(usize::from(udp.length) <= payload.len(), || "the UDP length is too long".into())?;
    let words = message.first().map(|first| usize::from(first & 0x1f)).ok_or("no GUE header")?;
    message.get(4 + words * 4..).ok_or_else(|| "the GUE header is cut short".into())
}

/// The request with addresses exchanged, another type and a fresh TTL; its checksum right if the request's was.
fn echo_reply(frame: &[u8], output: &[u8]) -> Wrong {
    let asked = expect::see(frame).ok_or("an answer to no packet")?;
    let reply = expect::see(output).ok_or("the answer is no packet")?;
    must(asked.part == Part::Whole, || "an answer to a fragment".into())?;
    must((reply.source, reply.destination) == (asked.destination, asked.source), || {
        "wrong addresses".into()
    })?;
    must(output[..6] == frame[6..12] && output[6..12] == frame[..6], || "wrong MAC addresses".into())?;
    let (request, answer) =
        (&frame[14 + asked.transport..14 + asked.length], &output[14 + asked.transport..]);
    let types = if asked.source.is_ipv4() { (8, 0) } else { (128, 129) };
    must((request[0], answer[0]) == types, || "wrong types".into())?;
    must(request[1] == 0 && answer[1] == 0, || "wrong codes".into())?;
    must(answer.get(4..) == frame.get(14 + asked.transport + 4..), || "the body changed".into())?;
    let answer = &answer[..request.len()];
    let valid = |message: &[u8], from: IpAddr, to: IpAddr| match (from, to) {
        (IpAddr::V4(_), _) => ones(message, 0) == 0xffff,
        (from, to) => {
            let pseudo = [octets(from), octets(to)].concat();
            ones(message, 58 + message.len() as u32 + u32::from(ones(&pseudo, 0))) == 0xffff
        }
    };
    let (before, after) =
        (valid(request, asked.source, asked.destination), valid(answer, reply.source, reply.destination));
    must(before == after, || format!("checksum was right: {before}, is right: {after}"))
}

/// Whether a frame comes from one host and to one station.
fn has_host(frame: &[u8]) -> bool {
    let from = expect::see(frame).map(|seen| seen.source);
    frame[0] & 1 == 0
        && match from {
            Some(IpAddr::V4(from)) => from.octets()[0] != 0 && from.octets()[0] < 224,
            Some(IpAddr::V6(from)) => !from.is_multicast() && !from.is_unspecified(),
            None => false,
        }
}

/// RFC 9293 3.10.7.1, for a segment with ACK: addresses and ports exchanged, the sequence number that was acknowledged,
/// RST alone, and nothing behind it.
fn connection_reset(frame: &[u8], output: &[u8], snapshot: &Snapshot) -> Wrong {
    let asked = expect::see(frame).ok_or("an answer to no packet")?;
    let reply = expect::see(output).ok_or("the answer is no packet")?;
    let service = expect::service(snapshot, &asked).ok_or("a reset of no service")?;
    must(service.on_failure == OnFailure::Reset && has_host(frame), || "nobody wanted a reset".into())?;
    must((reply.source, reply.destination) == (asked.destination, asked.source), || {
        "wrong addresses".into()
    })?;
    must(output[..6] == frame[6..12] && output[6..12] == frame[..6], || "wrong MAC addresses".into())?;
    must(asked.protocol == IpNumber::TCP.0 && reply.protocol == IpNumber::TCP.0, || "not TCP".into())?;
    must(reply.length == reply.header + 20 && output.len() <= 74, || "more than a TCP header".into())?;
    let header = |frame: &[u8], at: usize| {
        TcpHeader::from_slice(&frame[14 + at..]).map(|(header, _)| header).map_err(|e| format!("TCP: {e}"))
    };
    let answer = header(output, reply.transport)?;
    // A data offset that is wrong is the endpoint's business.
    let segment = &frame[14 + asked.transport..];
    must(segment[13] & 0x17 == 0x10 || segment[13] & 0x17 == 0x12, || {
        "a reset for what is not in a connection".into()
    })?;
    let mut right = TcpHeader::new(asked.ports.1, asked.ports.0, 0, 0);
    right.sequence_number = u32::from_be_bytes([segment[8], segment[9], segment[10], segment[11]]);
    right.rst = true;
    right.checksum = match (reply.source, reply.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => right.calc_checksum_ipv4_raw(from.octets(), to.octets(), &[]),
        (IpAddr::V6(from), IpAddr::V6(to)) => right.calc_checksum_ipv6_raw(from.octets(), to.octets(), &[]),
        _ => return Err("addresses of two families".into()),
    }
    .map_err(|e| e.to_string())?;
    must(answer == right, || format!("{answer:?} instead of {right:?}"))
}

/// An error for the sender about its own packet, which does not fit the way to its backend: RFC 1191 4, RFC 4443 3.2.
fn too_big(frame: &[u8], output: &[u8], reason: Reason, snapshot: &Snapshot) -> Wrong {
    let asked = expect::see(frame).ok_or("an answer to no packet")?;
    let reply = expect::see(output).ok_or("the answer is no packet")?;
    let service = expect::service(snapshot, &asked).ok_or("too big for no service")?;
    let member = expect::member(snapshot, service, &asked).ok_or("too big for nobody")?;
    must(has_host(frame) && !fits(member, asked.length), || "too_big does not hold".into())?;
    must((reply.source, reply.destination) == (asked.destination, asked.source), || {
        "wrong addresses".into()
    })?;
    must(output[..6] == frame[6..12] && output[6..12] == frame[..6], || "wrong MAC addresses".into())?;
    let message = &output[14 + reply.header..];
    let mtu = u32::from_be_bytes([message[4], message[5], message[6], message[7]]) as usize;
    must(fits(member, mtu) && !fits(member, mtu + 1), || format!("told {mtu} bytes"))?;
    must(frame[14..].starts_with(&message[8..]), || "quotes something else".into())?;
    let may_split = asked.source.is_ipv4() && frame[20] & 0x40 == 0;
    must(may_split == (reason == Reason::TooBigToSplit), || "the wrong reason".into())?;
    match (reply.source, reply.destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            let (header, _) = Ipv4Header::from_slice(&output[14..]).map_err(|e| e.to_string())?;
            must(header.calc_header_checksum() == header.header_checksum, || "wrong IP checksum".into())?;
            must(asked.protocol != IpNumber::ICMP.0 && asked.part != Part::Later, || {
                "nobody is told".into()
            })?;
            must(message[..2] == [3, 4] && ones(message, 0) == 0xffff, || "no such message".into())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let slice = etherparse::Icmpv6Slice::from_slice(message).map_err(|e| e.to_string())?;
            must(asked.protocol != IpNumber::IPV6_ICMP.0, || "nobody is told".into())?;
            let valid = slice.is_checksum_valid(from.octets(), to.octets());
            must(message[..2] == [2, 0] && valid, || "no such message".into())
        }
        _ => Err("addresses of two families".into()),
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// The sum of RFC 1071.
fn ones(bytes: &[u8], start: u32) -> u16 {
    let word = |w: &[u8]| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0));
    let mut sum = bytes.chunks(2).map(word).fold(start, |sum, word| sum + word);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// What a backend behind NAT answered, translated.
fn reply(frame: &[u8], output: &[u8], snapshot: &Snapshot) -> Wrong {
    let seen = expect::see(frame).ok_or("an answer, but no packet")?;
    let belongs = snapshot.services.iter().find_map(|service| {
        let member = service.members.iter().flatten().find(|m| {
            m.forward == Forward::Nat
                && m.address == seen.source
                && (service.ports == Ports::Any || m.port == Some(seen.ports.0) || m.port.is_none())
        })?;
        let vip = service.addresses.iter().find(|vip| vip.is_ipv4() == seen.source.is_ipv4())?;
        let port = match (&service.ports, member.port) {
            (Ports::Ranges(ranges), Some(_)) => *ranges.first()?.start(),
            (Ports::Ranges(ranges), None) if ranges.iter().all(|r| !r.contains(&seen.ports.0)) => {
                return None;
            }
            _ => seen.ports.0,
        };
        Some((*vip, port))
    });
    let (vip, port) = belongs.ok_or("an answer, but of no backend")?;
    let ends = expect::Ends { source: vip, ports: (port, seen.ports.1), ..expect::Ends::of(&seen) };
    let expected = expect::translated(frame, &ends);
    must(output == expected, || format!("left {} instead of {}", hex(output), hex(&expected)))
}

fn is_vip(snapshot: &Snapshot, address: IpAddr) -> bool {
    snapshot.services.iter().any(|s| s.addresses.contains(&address))
}

fn arp_reply(output: &[u8], snapshot: &Snapshot) -> Wrong {
    let arp = ArpPacketSlice::from_slice(output.get(14..).ok_or("less than an Ethernet header")?)
        .map_err(|e| format!("ARP answer: {e}"))?;
    must(arp.operation() == ArpOperation::REPLY, || "the ARP answer is no reply".into())?;
    let sender: [u8; 4] = arp.sender_protocol_addr().try_into().map_err(|_| "ARP answer: no IPv4 address")?;
    must(is_vip(snapshot, Ipv4Addr::from(sender).into()), || "ARP answer for no VIP".into())?;
    must(output[6..12] == *arp.sender_hw_addr(), || "the ARP answer comes from somebody else".into())
}

fn advertisement(output: &[u8], snapshot: &Snapshot) -> Wrong {
    let (header, message) = Ipv6Header::from_slice(output.get(14..).ok_or("less than an Ethernet header")?)
        .map_err(|e| e.to_string())?;
    let message =
        message.get(..usize::from(header.payload_length)).ok_or("the advertisement is cut short")?;
    let slice = etherparse::Icmpv6Slice::from_slice(message).map_err(|e| e.to_string())?;
    let valid = slice.is_checksum_valid(header.source, header.destination);
    must(valid, || "the advertisement has a wrong checksum".into())?;
    must(is_vip(snapshot, header.source_addr().into()), || "an advertisement for no VIP".into())?;
    must(message.get(8..24) == Some(&header.source[..]), || "an advertisement of somebody else".into())
}

/// An agent's outcome.
///
/// # Errors
/// What does not hold.
pub fn agent(frame: &[u8], outcome: &Outcome) -> Wrong {
    let Cause::Reason(reason) = cause(outcome)? else { return Err("the agent forwards nothing".into()) };
    reason_fits(outcome, reason, frame)?;
    match reason {
        Reason::NotTunnel | Reason::MalformedTunnel | Reason::UnknownTunnelSource => Ok(()),
        Reason::Decapsulated | Reason::SecondChance | Reason::Stranded => {
            decapsulated(frame, &outcome.output)
        }
        Reason::HandedOn => handed_on(frame, &outcome.output),
        _ => Err(format!("{} is no reason of the agent", reason.name())),
    }
}

/// To a peer, from where it was sent to, with nothing changed behind the outer header but the place in the list.
fn handed_on(frame: &[u8], output: &[u8]) -> Wrong {
    let (before, after) = expect::see(frame).zip(expect::see(output)).ok_or("handed on, but no packet")?;
    must(after.source == before.destination, || "handed on in somebody else's name".into())?;
    must(agent::PEERS.iter().any(|(peer, _)| *peer == after.destination), || "handed on to no peer".into())?;
    if let (EtherType::IPV4, Ok((header, _))) =
        (ether_type(output).unwrap_or(EtherType(0)), Ipv4Header::from_slice(&output[14..]))
    {
        must(header.calc_header_checksum() == header.header_checksum, || "wrong outer checksum".into())?;
    }
    let place = 14 + after.header + 8 + 4 + 1;
    must(output[place] > frame[place], || "the place in the list did not go up".into())?;
    must(output[14 + after.header..place] == frame[14 + before.header..place], || {
        "the headers changed".into()
    })?;
    must(output[place + 1..] == frame[place + 1..], || "the packet changed on its way".into())
}

fn decapsulated(frame: &[u8], output: &[u8]) -> Wrong {
    let outer = expect::see(frame).ok_or("decapsulated, but no packet")?;
    must(
        agent::believes(outer.source) || agent::PEERS.iter().any(|(peer, _)| *peer == outer.source),
        || format!("{} is believed", outer.source),
    )?;
    let inner = expect::see(output).ok_or("what was taken out is no packet")?;
    must(agent::VIPS.contains(&inner.destination), || format!("{} is no VIP", inner.destination))?;
    let held = &frame[14 + outer.header..];
    let held = if outer.protocol == IpNumber::UDP.0 { datagram(held)? } else { held };
    let headers = frame.len() - 14 - held.len();
    must(inner.header <= inner.length && inner.length + headers <= outer.length, || {
        "the inner packet is not whole".into()
    })?;
    must(output[14..] == *held, || "the packet changed on its way".into())?;
    must(output[..12] == frame[..12], || "the MAC addresses changed".into())
}
