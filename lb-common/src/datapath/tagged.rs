//! Packets with VLAN tags (IEEE 802.1Q-2022 9): one, or two for provider bridges.
//!
//! The rest of the datapath sees a frame without tags: the MAC addresses are moved up to the last EtherType, the start
//! of the frame is taken to be there ([`Packet::skip`]), and afterwards MAC addresses and tags are put back, whatever
//! happened in between. A packet that passes is therefore bit by bit as it came, and one that is forwarded or answered
//! keeps its tags.

use super::{balance, packet::Packet, verdict::Verdict, way::Ways};
use crate::{
    abi::Reason,
    wire::{Mac, be16, ethernet, put, word},
};

/// Bytes of the MAC addresses before the first tag.
const MACS: usize = 12;
/// Bytes of a tag: EtherType and tag control information.
const TAG: usize = 4;

/// The way of a tagged packet.
#[inline(always)]
pub(super) fn take<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T, ingress: u32) -> Verdict {
    // A tag in a tag in a tag is nobody's: one round only.
    if packet.skipped() != 0 {
        return Verdict::pass(Reason::NotIp);
    }
    let Ok(start) = packet.at::<{ MACS + 2 * TAG }>(0) else { return Verdict::pass(Reason::NotIp) };
    let (first, second) = (word(start, MACS), word(start, MACS + TAG));
    let tags = if is_tag(be16(start, MACS + TAG)) { 2 * TAG } else { TAG };
    let (destination, source) = (Mac::read(start, 0), Mac::read(start, 6));
    packet.skip(tags);
    if !put_macs(packet, destination, source) {
        packet.skip(0);
        return Verdict::pass(Reason::NotIp);
    }
    let verdict = balance::untagged(packet, tables, ingress);
    restore(packet, tags, first, second);
    verdict
}

/// Whether this EtherType says that a tag follows.
#[inline(always)]
pub(super) fn is_tag(ethertype: u16) -> bool {
    ethertype == ethernet::VLAN || ethertype == ethernet::PROVIDER_VLAN
}

#[inline(always)]
fn put_macs<P: Packet>(packet: &mut P, destination: Mac, source: Mac) -> bool {
    let Ok(start) = packet.at_mut::<MACS>(0) else { return false };
    destination.put(start, 0);
    source.put(start, 6);
    true
}

/// MAC addresses to the front, tags behind them.
#[inline(always)]
fn restore<P: Packet>(packet: &mut P, tags: usize, first: u32, second: u32) {
    let Ok(start) = packet.at::<MACS>(0) else { return };
    let (destination, source) = (Mac::read(start, 0), Mac::read(start, 6));
    packet.skip(0);
    if !put_macs(packet, destination, source) {
        return;
    }
    if let Ok(room) = packet.at_mut::<TAG>(MACS) {
        put(room, 0, &first.to_ne_bytes());
    }
    if tags == 2 * TAG
        && let Ok(room) = packet.at_mut::<TAG>(MACS + TAG)
    {
        put(room, 0, &second.to_ne_bytes());
    }
}
