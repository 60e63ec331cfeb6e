//! How floors and `plain` change frames.

use aya_ebpf::bindings::xdp_action;
use lb_common::{
    datapath::Packet as _,
    wire::{Mac, ethernet, ipv4, put, word},
};
use lb_ebpf::packet::Frame;

/// Where a packet goes.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Real {
    /// Source and destination of the outer header, as in memory.
    source: u32,
    destination: u32,
    mac: [u8; 8],
}

impl Real {
    pub(crate) const fn new(source: [u8; 4], destination: [u8; 4], mac: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = mac;
        Self {
            source: u32::from_ne_bytes(source),
            destination: u32::from_ne_bytes(destination),
            mac: [a, b, c, d, e, f, 0, 0],
        }
    }
}

/// Folds a sum of words.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// New MAC addresses: the backend's, and the one that the frame came to.
#[inline(always)]
fn turn<const N: usize>(room: &mut [u8; N], real: &Real, here: Mac) {
    put(room, 0, &word(&real.mac, 0).to_ne_bytes());
    put(room, 4, &(word(&real.mac, 4) as u16).to_ne_bytes());
    here.put(room, 6);
}

/// An IPv4 header in front.
#[inline(always)]
pub(crate) fn ipip(frame: &mut Frame, real: &Real) -> u32 {
    let Ok(header) = frame.at::<{ ethernet::HEADER }>(0) else { return xdp_action::XDP_DROP };
    let here = Mac::read(header, 0);
    let protocol = if crate::source::is(header, ethernet::IPV6) { 41 } else { 4 };
    if frame.grow::<{ ipv4::HEADER }>().is_err() {
        return xdp_action::XDP_DROP;
    }
    let length = (frame.length() - ethernet::HEADER) as u16;
    let Ok(room) = frame.at_mut::<34>(0) else { return xdp_action::XDP_DROP };
    turn(room, real, here);
    put(room, 12, &ethernet::IPV4.to_be_bytes());
    put(room, 14, &[0x45, 0]);
    put(room, 16, &length.to_be_bytes());
    put(room, 18, &0u16.to_be_bytes());
    put(room, 20, &ipv4::DONT_FRAGMENT.to_be_bytes());
    let ttl = u16::from_be_bytes([64, protocol]);
    put(room, 22, &ttl.to_be_bytes());
    let constant = 0x4500u16.to_be() as u64 + ipv4::DONT_FRAGMENT.to_be() as u64;
    let sum = constant
        + u64::from(ttl.to_be())
        + u64::from(length.to_be())
        + u64::from(real.source)
        + u64::from(real.destination);
    put(room, 24, &(!fold(sum)).to_ne_bytes());
    put(room, 26, &real.source.to_ne_bytes());
    put(room, 30, &real.destination.to_ne_bytes());
    xdp_action::XDP_TX
}

/// New MAC addresses.
#[inline(always)]
pub(crate) fn l2(frame: &mut Frame, real: &Real) -> u32 {
    let Ok(room) = frame.at_mut::<{ ethernet::HEADER }>(0) else { return xdp_action::XDP_DROP };
    let here = Mac::read(room, 0);
    turn(room, real, here);
    xdp_action::XDP_TX
}

/// Another IPv4 destination and TCP port 8080, checksums updated. For IPv4 without options and TCP only.
#[inline(always)]
pub(crate) fn nat(frame: &mut Frame, real: &Real) -> u32 {
    let Ok(room) = frame.at_mut::<54>(0) else { return xdp_action::XDP_DROP };
    let here = Mac::read(room, 0);
    turn(room, real, here);
    let port = 8080u16.to_be();
    let (old, old_port) = (word(room, 30), word(room, 36) as u16);
    let difference = u64::from(!old) + u64::from(real.destination);
    let ip_sum = u64::from(!(word(room, 24) as u16)) + difference;
    let tcp_sum = u64::from(!(word(room, 50) as u16)) + difference + u64::from(!old_port) + u64::from(port);
    put(room, 24, &(!fold(ip_sum)).to_ne_bytes());
    put(room, 50, &(!fold(tcp_sum)).to_ne_bytes());
    put(room, 30, &real.destination.to_ne_bytes());
    put(room, 36, &port.to_ne_bytes());
    xdp_action::XDP_TX
}
