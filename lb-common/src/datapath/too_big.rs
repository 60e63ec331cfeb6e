//! Packets that do not fit the way to their backend: whoever sent them is told how long they may be (RFC 1191 4,
//! RFC 4443 3.2).
//!
//! The router that the sender believes to be there is this balancer, in front of a tunnel. It speaks for the VIP, which
//! the sender knows. An IPv4 packet that may be fragmented is answered like one that may not, because XDP cannot split
//! it; it is counted apart.
//!
//! Nobody is told about ICMP, about a later fragment of IPv4 or from a group (RFC 1122 3.2.2, RFC 4443 2.4), nor more
//! often than [`COST`] allows.

use super::{
    limit,
    packet::{Cut, Packet},
    parse,
    tables::Tables,
    verdict::Verdict,
};
use crate::{
    abi::{Globals, Reason},
    wire::{Mac, be16, checksum, ethernet, ipv4, ipv6, protocol, put, put_words, word, words},
};

/// Bytes of an ICMP header.
const HEADER: usize = 8;
/// Bytes quoted of an IPv4 packet: the longest header, and the eight behind it that RFC 792 wants.
const QUOTE4: usize = 60 + 8;
/// Bytes quoted of an IPv6 packet. RFC 4443 2.4 wants what fits 1,280 bytes in all; what a host needs to find the
/// connection is in the first of them, and an answer must not be a way to multiply what is sent in somebody's name.
const QUOTE6: usize = 240;
const ROOM4: usize = ipv4::HEADER + HEADER;
const ROOM6: usize = ipv6::HEADER + HEADER;
/// TTL and hop limit.
const TTL: u8 = 64;
/// Internetwork control (RFC 1812 4.3.2.5).
const TOS: u8 = 0xc0;
/// A source is told 64 times at once and then once in eight kernel ticks (RFC 1812 4.3.2.8, RFC 4443 2.4).
const COST: u32 = 8 << limit::UNITS_PER_TICK_BITS;
const TOLERANCE: u32 = 63 * COST;
/// The key of these accounts, beside those of services.
const ACCOUNT: u32 = u32::MAX;

/// Tells the sender that packets may have `mtu` bytes.
#[inline(always)]
pub(super) fn answer<P: Packet, T: Tables>(packet: &mut P, tables: &T, mtu: u32) -> Verdict {
    let Some(globals) = tables.globals() else { return Verdict::pass(Reason::NotConfigured) };
    let Ok(header) = packet.at::<{ ethernet::HEADER }>(0) else { return Verdict::drop(Reason::BadTable) };
    if header[0] & 1 != 0 {
        return Verdict::drop(Reason::TooBig);
    }
    let told = if be16(header, 12) == ethernet::IPV4 {
        answer4(packet, tables, globals, mtu)
    } else {
        answer6(packet, tables, globals, mtu)
    };
    match told {
        Reason::TooBig => Verdict::drop(Reason::TooBig),
        reason => Verdict::answer(reason),
    }
}

#[inline(always)]
fn may_tell<T: Tables>(tables: &T, globals: &Globals, source: u64) -> bool {
    let now = limit::coarse_time(tables.jiffies());
    limit::within(
        tables,
        globals,
        now,
        limit::Rate { account: ACCOUNT, cost: COST, tolerance: TOLERANCE },
        source,
    )
}

/// What was counted: [`Reason::TooBig`] if nobody is told.
#[inline(always)]
fn answer4<P: Packet, T: Tables>(packet: &mut P, tables: &T, globals: &Globals, mtu: u32) -> Reason {
    let Ok(header) = packet.at::<{ ipv4::HEADER }>(ethernet::HEADER) else { return Reason::TooBig };
    let (source, vip) = (word(header, 12), word(header, 16));
    let fragment = be16(header, 6);
    let first = source.to_ne_bytes()[0];
    let is_mute = first == 0 || first >= 224 || header[9] == protocol::ICMP || fragment & ipv4::OFFSET != 0;
    if is_mute || packet.length() < ethernet::HEADER + QUOTE4 {
        return Reason::TooBig;
    }
    if !may_tell(tables, globals, limit::source_word(source)) {
        return Reason::TooBig;
    }
    let reason = if fragment & ipv4::DONT_FRAGMENT == 0 { Reason::TooBigToSplit } else { Reason::TooBigTold };
    if make_room::<ROOM4, QUOTE4, P>(packet).is_err() {
        return Reason::TooBig;
    }
    let Ok(room) = packet.at_mut::<{ ROOM4 + ethernet::HEADER }>(0) else { return Reason::TooBig };
    put(room, 12, &ethernet::IPV4.to_be_bytes());
    put(room, 14, &[0x45, TOS]);
    put(room, 16, &((ROOM4 + QUOTE4) as u16).to_be_bytes());
    put(room, 18, &u32::from(ipv4::DONT_FRAGMENT).to_be_bytes());
    put(room, 22, &[TTL, protocol::ICMP, 0, 0]);
    put(room, 26, &vip.to_ne_bytes());
    put(room, 30, &source.to_ne_bytes());
    put(room, 34, &[3, 4, 0, 0]);
    put(room, 38, &mtu.to_be_bytes());
    let Ok(header) = packet.at_mut::<{ ipv4::HEADER }>(ethernet::HEADER) else { return Reason::TooBig };
    let sum = checksum::finish(checksum::add(0, header));
    put(header, 10, &sum.to_be_bytes());
    let Ok(message) = packet.at_mut::<{ HEADER + QUOTE4 }>(ethernet::HEADER + ipv4::HEADER) else {
        return Reason::TooBig;
    };
    let sum = checksum::finish(checksum::add(0, message));
    put(message, 2, &sum.to_be_bytes());
    reason
}

/// The same of IPv6.
#[inline(always)]
fn answer6<P: Packet, T: Tables>(packet: &mut P, tables: &T, globals: &Globals, mtu: u32) -> Reason {
    let Ok(header) = packet.at::<{ ipv6::HEADER }>(ethernet::HEADER) else { return Reason::TooBig };
    let (source, vip) = (words(header, 8), words(header, 24));
    if source[0].to_ne_bytes()[0] == 0xff || source == [0; 4] || packet.length() < ethernet::HEADER + QUOTE6 {
        return Reason::TooBig;
    }
    let end = packet.length() as u32;
    match parse::extensions(packet, header[6], (ethernet::HEADER + ipv6::HEADER) as u32, end) {
        Ok(walked) if walked.protocol != protocol::ICMPV6 => {}
        _ => return Reason::TooBig,
    }
    if !may_tell(tables, globals, limit::source_word(source)) {
        return Reason::TooBig;
    }
    if make_room::<ROOM6, QUOTE6, P>(packet).is_err() {
        return Reason::TooBig;
    }
    let Ok(room) = packet.at_mut::<{ ROOM6 + ethernet::HEADER }>(0) else { return Reason::TooBig };
    const LENGTH: u16 = (HEADER + QUOTE6) as u16;
    put(room, 12, &ethernet::IPV6.to_be_bytes());
    put(room, 14, &(6 << 28 | u32::from(TOS) << 20).to_be_bytes());
    put(room, 18, &LENGTH.to_be_bytes());
    put(room, 20, &[protocol::ICMPV6, TTL]);
    put_words(room, 22, vip);
    put_words(room, 38, source);
    put(room, 54, &[2, 0, 0, 0]);
    put(room, 58, &mtu.to_be_bytes());
    let mut sum = checksum::pseudo6(LENGTH, protocol::ICMPV6);
    let mut i = 0;
    while i < 4 {
        sum = checksum::add(checksum::add(sum, &vip[i].to_ne_bytes()), &source[i].to_ne_bytes());
        i += 1;
    }
    let Ok(message) = packet.at_mut::<{ HEADER + QUOTE6 }>(ethernet::HEADER + ipv6::HEADER) else {
        return Reason::TooBig;
    };
    let sum = checksum::finish(checksum::add(sum, message));
    put(message, 2, &sum.to_be_bytes());
    Reason::TooBigTold
}

/// Room for `ROOM` bytes behind the Ethernet header, which goes back where the frame came from, and `QUOTE` bytes of the
/// packet behind them. Without effect where the driver left too little headroom.
#[inline(always)]
fn make_room<const ROOM: usize, const QUOTE: usize, P: Packet>(packet: &mut P) -> Result<(), Cut> {
    let header = packet.at::<{ ethernet::HEADER }>(0)?;
    let (here, there) = (Mac::read(header, 0), Mac::read(header, 6));
    packet.grow::<ROOM>()?;
    if packet.length() > ethernet::HEADER + ROOM + QUOTE {
        packet.truncate(ethernet::HEADER + ROOM + QUOTE);
    }
    packet.look_again();
    let header = packet.at_mut::<{ ethernet::HEADER }>(0)?;
    there.put(header, 0);
    here.put(header, 6);
    Ok(())
}
