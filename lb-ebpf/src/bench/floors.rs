//! Floors: a part of a balancer's work and nothing else.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{
    datapath::Packet as _,
    wire::{Mac, ethernet},
};
use lb_ebpf::packet::Frame;

use crate::rewrite::{self, Real};

/// Lets everything through: what the kernel's way of running a program costs.
#[xdp]
pub(crate) fn pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Sends everything back as it is: the zero of all net figures.
#[xdp]
pub(crate) fn transmit(_context: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Exchanges the MAC addresses.
#[xdp]
pub(crate) fn swap(context: XdpContext) -> u32 {
    let mut frame = Frame::new(&context);
    let Ok(header) = frame.at_mut::<{ ethernet::HEADER }>(0) else { return xdp_action::XDP_DROP };
    let (to, from) = (Mac::read(header, 0), Mac::read(header, 6));
    from.put(header, 0);
    to.put(header, 6);
    xdp_action::XDP_TX
}

/// Puts the same IPv4 header before everything, with its length and checksum.
#[xdp]
pub(crate) fn encapsulate(context: XdpContext) -> u32 {
    const REAL: Real = Real::new([198, 51, 100, 2], [198, 51, 100, 18], [2, 0xbb, 0, 0, 0, 9]);
    let mut frame = Frame::new(&context);
    rewrite::ipip(&mut frame, &REAL)
}
