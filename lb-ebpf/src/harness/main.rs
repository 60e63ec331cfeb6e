//! Programs of the test laboratory; not part of `lb`.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the entry points get their contexts by value from the macro"
)]

mod flood;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_ebpf::{packet::Frame, program};

program!();

/// Passes everything: a veth whose peer transmits from XDP needs a program of its own.
#[xdp]
pub(crate) fn pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Makes a packet of a flood and sends it: run by BPF_PROG_TEST_RUN with live frames, never attached.
#[xdp]
pub(crate) fn flood(context: XdpContext) -> u32 {
    flood::send(&mut Frame::new(&context))
}

/// The member to which a balancer over a kernel LRU would send this packet: run by BPF_PROG_TEST_RUN, never attached.
#[xdp]
pub(crate) fn remembered(context: XdpContext) -> u32 {
    flood::remembered(&Frame::new(&context))
}
