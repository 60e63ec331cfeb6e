//! Answers to "who has this VIP": ARP (RFC 826) and neighbour discovery (RFC 4861).
//!
//! Only with `announce = "arp"`, only for VIPs; everything else passes to the kernel as it came.

use super::{lookup, packet::Packet, tables::Tables, verdict::Verdict};
use crate::{
    abi::{Globals, Reason},
    wire::{Mac, be16, checksum, ethernet, ipv6, protocol, put, put_words, word, words},
};

/// Ethernet and ARP header for IPv4 over Ethernet.
const ARP_FRAME: usize = ethernet::HEADER + 28;
/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4, operation request.
const ARP_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];

/// An ARP or ICMPv6 packet: answered if it asks for a VIP.
#[inline(always)]
pub(super) fn answer<P: Packet, T: Tables>(packet: &mut P, tables: &T, ingress: u32) -> Verdict {
    let Some(globals) = tables.globals() else { return Verdict::pass(Reason::NotConfigured) };
    let Ok(header) = packet.at::<{ ethernet::HEADER }>(0) else { return Verdict::pass(Reason::NotIp) };
    if be16(header, 12) == ethernet::ARP {
        return arp(packet, tables, globals, ingress);
    }
    let Ok(header) = packet.at::<{ ipv6::HEADER }>(ethernet::HEADER) else {
        return Verdict::pass(Reason::NotIp);
    };
    let for_a_vip = lookup::vip6(tables, globals, words(header, 24)).is_some();
    let otherwise = if for_a_vip { Reason::NoSuchPort } else { Reason::NotService };
    neighbour(packet, tables, globals, ingress, otherwise)
}

/// An ARP packet: a request for a VIP is answered in place.
#[inline(always)]
fn arp<P: Packet, T: Tables>(packet: &mut P, tables: &T, globals: &Globals, ingress: u32) -> Verdict {
    let Ok(frame) = packet.at_mut::<ARP_FRAME>(0) else { return Verdict::pass(Reason::NotIp) };
    let is_request = word(frame, 14) == u32::from_ne_bytes([0, 1, 8, 0])
        && word(frame, 18)
            == u32::from_ne_bytes([ARP_REQUEST[4], ARP_REQUEST[5], ARP_REQUEST[6], ARP_REQUEST[7]]);
    let target = word(frame, 38);
    // A sender that claims the VIP itself (gratuitous ARP, a second balancer) asks nothing.
    if !is_request || word(frame, 28) == target || lookup::vip4(tables, globals, target).is_none() {
        return Verdict::pass(Reason::NotIp);
    }
    let Some(mac) = tables.interface_mac(ingress) else { return Verdict::pass(Reason::NotIp) };
    let mac = Mac::new(mac);
    let sender = Mac::read(frame, 22);
    let sender_address = word(frame, 28);
    sender.put(frame, 0);
    mac.put(frame, 6);
    put(frame, 20, &[0, 2]);
    mac.put(frame, 22);
    put(frame, 28, &target.to_ne_bytes());
    sender.put(frame, 32);
    put(frame, 38, &sender_address.to_ne_bytes());
    Verdict::answer(Reason::ArpReply)
}

/// ICMPv6 type of a neighbour solicitation (RFC 4861 4.3).
const SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement (RFC 4861 4.4).
const ADVERTISEMENT: u8 = 136;
/// Solicitation without options, as duplicate address detection sends it.
const BARE: usize = 24;
/// Solicitation or advertisement with one link-layer address option.
const WITH_OPTION: usize = 32;
const ICMP_AT: usize = ethernet::HEADER + ipv6::HEADER;

/// Whether this ICMPv6 message is of neighbour discovery: solicitation and advertisement of routers and neighbours,
/// redirect (RFC 4861 4, types 133 to 137).
#[inline(always)]
pub(super) fn is_discovery<P: Packet>(packet: &P) -> bool {
    packet.at::<1>(ICMP_AT).is_ok_and(|kind| (133..=137).contains(&kind[0]))
}

/// An ICMPv6 packet: a solicitation for a VIP becomes an advertisement; everything else passes, for the reason
/// `otherwise`.
#[inline(always)]
fn neighbour<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    globals: &Globals,
    ingress: u32,
    otherwise: Reason,
) -> Verdict {
    let Ok(frame) = packet.at::<{ ICMP_AT + BARE }>(0) else { return Verdict::pass(otherwise) };
    let length = usize::from(be16(frame, 18));
    let target = words(frame, 62);
    // RFC 4861 7.1.1: hop limit 255, code 0, at least 24 bytes, a valid checksum.
    if frame[20] != protocol::ICMPV6
        || frame[21] != 255
        || frame[54] != SOLICITATION
        || frame[55] != 0
        || lookup::vip6(tables, globals, target).is_none()
        || !solicitation_is_whole(packet, length)
    {
        return Verdict::pass(otherwise);
    }
    let Some(mac) = tables.interface_mac(ingress) else { return Verdict::pass(otherwise) };
    let Ok(frame) = packet.at::<{ ICMP_AT + BARE }>(0) else { return Verdict::pass(otherwise) };
    let asker = words(frame, 22);
    let asker_mac = Mac::read(frame, 6);
    // The reply always carries our link-layer address: a bare solicitation is eight bytes too short for it.
    if length == BARE && packet.grow::<{ WITH_OPTION - BARE }>().is_err() {
        return Verdict::drop(Reason::NoHeadroom);
    }
    let Ok(frame) = packet.at_mut::<{ ICMP_AT + WITH_OPTION }>(0) else {
        return Verdict::drop(Reason::BadTable);
    };
    write_advertisement(frame, target, Mac::new(mac), asker, asker_mac);
    Verdict::answer(Reason::NeighbourReply)
}

/// Length and checksum, for the two forms that hosts send.
#[inline(always)]
fn solicitation_is_whole<P: Packet>(packet: &P, length: usize) -> bool {
    // The sum covers source, destination and message, which lie side by side; `frame` starts at the source address.
    let sum = if length == BARE {
        let Ok(bytes) = packet.at::<{ 32 + BARE }>(22) else { return false };
        checksum::add(checksum::pseudo6(BARE as u16, protocol::ICMPV6), bytes)
    } else if length == WITH_OPTION {
        let Ok(bytes) = packet.at::<{ 32 + WITH_OPTION }>(22) else { return false };
        checksum::add(checksum::pseudo6(WITH_OPTION as u16, protocol::ICMPV6), bytes)
    } else {
        return false;
    };
    checksum::fold(sum) == 0xffff
}

#[inline(always)]
fn write_advertisement(
    frame: &mut [u8; ICMP_AT + WITH_OPTION],
    target: [u32; 4],
    mac: Mac,
    asker: [u32; 4],
    asker_mac: Mac,
) {
    // An asker without an address (duplicate address detection) is answered through all-nodes (RFC 4861 7.2.4).
    let unspecified = asker == [0; 4];
    let to = if unspecified { [0xff02_0000_u32.to_be(), 0, 0, 1u32.to_be()] } else { asker };
    let to_mac = if unspecified { Mac::new([0x33, 0x33, 0, 0, 0, 1]) } else { asker_mac };
    to_mac.put(frame, 0);
    mac.put(frame, 6);
    put(frame, 12, &ethernet::IPV6.to_be_bytes());
    put(frame, 14, &[0x60, 0, 0, 0]);
    put(frame, 18, &(WITH_OPTION as u16).to_be_bytes());
    put(frame, 20, &[protocol::ICMPV6, 255]);
    put_words(frame, 22, target);
    put_words(frame, 38, to);
    put(frame, 54, &[ADVERTISEMENT, 0, 0, 0]);
    // Flags: solicited unless the asker has no address, override.
    put(frame, 58, &[if unspecified { 0x20 } else { 0x60 }, 0, 0, 0]);
    put_words(frame, 62, target);
    put(frame, 78, &[2, 1]);
    mac.put(frame, 80);
    if let Some(covered) = frame.last_chunk::<{ 32 + WITH_OPTION }>() {
        let sum = checksum::add(checksum::pseudo6(WITH_OPTION as u16, protocol::ICMPV6), covered);
        put(frame, 56, &checksum::finish(sum).to_be_bytes());
    }
}
