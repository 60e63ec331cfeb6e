//! The balancer: one XDP program.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the entry point gets its context by value from the macro"
)]

mod fib;
mod maps;
mod ways;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::datapath::balance;
use lb_ebpf::{packet::Frame, program, verdict};

program!();

/// Every packet that comes in by an attached interface.
#[xdp]
pub(crate) fn balancer(context: XdpContext) -> u32 {
    let mut frame = Frame::new(&context);
    let ingress = frame.ingress();
    let verdict = balance(&mut frame, &maps::Maps, ingress);
    maps::count(verdict);
    verdict::xdp(verdict)
}

/// Reads both clocks for user space, which cannot see kernel ticks: run by BPF_PROG_TEST_RUN, never attached.
#[xdp]
pub(crate) fn clocks(_context: XdpContext) -> u32 {
    maps::read_clocks();
    xdp_action::XDP_PASS
}
