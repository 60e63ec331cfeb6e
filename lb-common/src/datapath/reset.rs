//! A reset in the name of a backend that is gone, so that the client of a lost connection connects anew at once.
//!
//! RFC 9293 3.10.7.1: whoever gets a segment with ACK for a connection that does not exist answers with a segment of
//! RST alone, whose sequence number is the acknowledgement that came. Segments without ACK never come here, and a reset
//! is never answered.

use super::{packet::Packet, verdict::Verdict};
use crate::{
    abi::Reason,
    wire::{Mac, be16, checksum, ethernet, ipv4, ipv6, protocol, put, put_words, tcp, word, words},
};

/// No TCP header that is answered begins behind this.
const FARTHEST: usize = 0x3ff;
/// TTL and hop limit of answers.
const TTL: u8 = 64;
/// Bytes of a frame on the wire, without its checksum, at least.
const SHORTEST: usize = 60;
/// Bytes that an IPv4 answer is shorter than that.
const PADDING: usize = SHORTEST - END4;
const END4: usize = ethernet::HEADER + ipv4::HEADER + tcp::HEADER;
const END6: usize = ethernet::HEADER + ipv6::HEADER + tcp::HEADER;

/// What the answer takes from the segment, as words of memory.
#[derive(Clone, Copy)]
struct Segment {
    ports: u32,
    acknowledgement: u32,
}

/// Turns the packet whose TCP header is at `transport` into the answer.
#[inline(always)]
pub(super) fn answer<P: Packet>(packet: &mut P, transport: u32) -> Verdict {
    let Ok(header) = packet.at::<{ tcp::HEADER }>(transport as usize & FARTHEST) else {
        return Verdict::drop(Reason::BadTable);
    };
    let segment = Segment { ports: word(header, 0), acknowledgement: word(header, 8) };
    packet.look_again();
    let Ok(header) = packet.at_mut::<{ ethernet::HEADER }>(0) else { return Verdict::drop(Reason::BadTable) };
    let (here, there) = (Mac::read(header, 0), Mac::read(header, 6));
    // What came to a group of stations is answered by none of them (RFC 1122 3.2.2.6).
    if header[0] & 1 != 0 {
        return Verdict::drop(Reason::NoBackend);
    }
    let is_ipv4 = be16(header, 12) == ethernet::IPV4;
    packet.look_again();
    let answered = if is_ipv4 { answer4(packet, segment) } else { answer6(packet, segment) };
    packet.look_again();
    let Ok(header) = packet.at_mut::<{ ethernet::HEADER }>(0) else { return Verdict::drop(Reason::BadTable) };
    if !answered {
        return Verdict::drop(Reason::NoBackend);
    }
    there.put(header, 0);
    here.put(header, 6);
    Verdict::answer(Reason::ConnectionReset)
}

/// False, and the packet as it was, if its source is nobody or a group.
#[inline(always)]
fn answer4<P: Packet>(packet: &mut P, segment: Segment) -> bool {
    let Ok(header) = packet.at::<{ ipv4::HEADER }>(ethernet::HEADER) else { return false };
    let (client, vip) = (word(header, 12), word(header, 16));
    let first = client.to_ne_bytes()[0];
    if first == 0 || first >= 224 {
        return false;
    }
    if packet.length() > SHORTEST {
        packet.truncate(SHORTEST);
    }
    packet.look_again();
    if let Ok(padding) = packet.at_mut::<PADDING>(END4) {
        *padding = [0; PADDING];
    }
    let Ok(header) = packet.at_mut::<{ ipv4::HEADER }>(ethernet::HEADER) else { return false };
    put(header, 0, &[0x45, 0]);
    put(header, 2, &((ipv4::HEADER + tcp::HEADER) as u16).to_be_bytes());
    put(header, 4, &[0, 0]);
    put(header, 6, &ipv4::DONT_FRAGMENT.to_be_bytes());
    put(header, 8, &[TTL, protocol::TCP, 0, 0]);
    put(header, 12, &vip.to_ne_bytes());
    put(header, 16, &client.to_ne_bytes());
    let sum = checksum::finish(checksum::add(0, header));
    put(header, 10, &sum.to_be_bytes());
    let addresses = checksum::add(checksum::add(0, &vip.to_ne_bytes()), &client.to_ne_bytes());
    let Ok(header) = packet.at_mut::<{ tcp::HEADER }>(ethernet::HEADER + ipv4::HEADER) else { return false };
    write(header, segment, addresses);
    true
}

/// The same of IPv6.
#[inline(always)]
fn answer6<P: Packet>(packet: &mut P, segment: Segment) -> bool {
    let Ok(header) = packet.at::<{ ipv6::HEADER }>(ethernet::HEADER) else { return false };
    let (client, vip) = (words(header, 8), words(header, 24));
    if client[0].to_ne_bytes()[0] == 0xff || client == [0; 4] {
        return false;
    }
    if packet.length() > END6 {
        packet.truncate(END6);
    }
    packet.look_again();
    let Ok(header) = packet.at_mut::<{ ipv6::HEADER }>(ethernet::HEADER) else { return false };
    put(header, 0, &[0x60, 0, 0, 0]);
    put(header, 4, &(tcp::HEADER as u16).to_be_bytes());
    put(header, 6, &[protocol::TCP, TTL]);
    put_words(header, 8, vip);
    put_words(header, 24, client);
    let mut addresses = 0;
    let mut i = 0;
    while i < 4 {
        addresses = checksum::add(addresses, &vip[i].to_ne_bytes());
        addresses = checksum::add(addresses, &client[i].to_ne_bytes());
        i += 1;
    }
    let Ok(header) = packet.at_mut::<{ tcp::HEADER }>(ethernet::HEADER + ipv6::HEADER) else { return false };
    write(header, segment, addresses);
    true
}

/// The TCP header of the answer; `addresses` is their sum.
#[inline(always)]
fn write(header: &mut [u8; tcp::HEADER], segment: Segment, addresses: u32) {
    put(header, 0, &segment.ports.rotate_left(16).to_ne_bytes());
    put(header, 4, &segment.acknowledgement.to_ne_bytes());
    put(header, 8, &[0; 4]);
    put(header, 12, &[5 << 4, tcp::RST, 0, 0]);
    put(header, 16, &[0; 4]);
    // The pseudo-headers of both families have the same sum (RFC 9293 3.1, RFC 8200 8.1).
    let sum = checksum::add(addresses + checksum::pseudo6(tcp::HEADER as u16, protocol::TCP), header);
    put(header, 16, &checksum::finish(sum).to_be_bytes());
}
