//! Packets with VLAN tags (IEEE 802.1Q-2022 9): one, or two for provider bridges.
//!
//! The rest of the datapath sees a frame without tags: MAC addresses and tags change places, and the start of the
//! frame is taken to be behind the tags ([`Packet::skip`]). Whoever makes room before the frame takes along what is
//! out of sight. Afterwards they change places again, whatever happened in between. A packet that passes is therefore
//! bit by bit as it came, and one that is forwarded or answered keeps its tags.

use super::{
    packet::Packet,
    verdict::Verdict,
    way::{Way, Ways, announces},
};
use crate::{
    abi::Reason,
    wire::{Mac, be16, ethernet, put, word},
};

/// Bytes of the MAC addresses before the first tag.
const MACS: usize = 12;
/// Bytes of a tag: EtherType and tag control information.
const TAG: usize = 4;

/// The way of a tagged packet. A detour leaves its tags out of sight.
#[inline(always)]
pub(super) fn take<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T) -> Verdict {
    // A tag in a tag in a tag is nobody's: one round only.
    if packet.skipped() != 0 || !hide(packet) {
        return Verdict::pass(Reason::NotIp);
    }
    let verdict = decided(packet, tables);
    if verdict.way().is_none() {
        show(packet);
    }
    verdict
}

/// Who takes a packet whose tags are out of sight. What other tags may follow are nobody's.
#[inline(always)]
fn decided<P: Packet, T: Ways<P>>(packet: &P, tables: &T) -> Verdict {
    let Some(globals) = tables.globals() else { return Verdict::pass(Reason::NotConfigured) };
    let Ok(header) = packet.at::<{ ethernet::HEADER }>(0) else { return Verdict::pass(Reason::NotIp) };
    match be16(header, 12) {
        ethernet::IPV4 => Verdict::detour(Way::Odd4, 0),
        ethernet::IPV6 => Verdict::detour(Way::Odd6, 0),
        ethernet::ARP if announces(globals) => Verdict::detour(Way::Announce, 0),
        _ => Verdict::pass(Reason::NotIp),
    }
}

/// Whether this EtherType says that a tag follows.
#[inline(always)]
pub(super) fn is_tag(ethertype: u16) -> bool {
    ethertype == ethernet::VLAN || ethertype == ethernet::PROVIDER_VLAN
}

/// Tags before the MAC addresses, and out of sight. False, and nothing is changed, if the frame is too short.
#[inline(always)]
fn hide<P: Packet>(packet: &mut P) -> bool {
    let Ok(start) = packet.at_mut::<{ MACS + 2 * TAG }>(0) else { return false };
    let (first, second) = (word(start, MACS), word(start, MACS + TAG));
    let is_double = is_tag(be16(start, MACS + TAG));
    let (destination, source) = (Mac::read(start, 0), Mac::read(start, 6));
    put(start, 0, &first.to_ne_bytes());
    if is_double {
        put(start, TAG, &second.to_ne_bytes());
        destination.put(start, 2 * TAG);
        source.put(start, 2 * TAG + 6);
        packet.skip(2 * TAG);
    } else {
        destination.put(start, TAG);
        source.put(start, TAG + 6);
        packet.skip(TAG);
    }
    true
}

/// MAC addresses to the front, tags behind them. The answer is no verdict of anybody.
#[inline(always)]
pub(super) fn show<P: Packet>(packet: &mut P) -> Verdict {
    let is_double = packet.skipped() == 2 * TAG;
    packet.skip(0);
    if let Ok(start) = packet.at_mut::<{ MACS + 2 * TAG }>(0) {
        let (first, second) = (word(start, 0), word(start, TAG));
        if is_double {
            let (destination, source) = (Mac::read(start, 2 * TAG), Mac::read(start, 2 * TAG + 6));
            destination.put(start, 0);
            source.put(start, 6);
            put(start, MACS + TAG, &second.to_ne_bytes());
        } else {
            let (destination, source) = (Mac::read(start, TAG), Mac::read(start, TAG + 6));
            destination.put(start, 0);
            source.put(start, 6);
        }
        put(start, MACS, &first.to_ne_bytes());
    }
    Verdict::pass(Reason::NotIp)
}
