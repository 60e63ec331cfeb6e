//! Programs of the test laboratory; not part of `lb`.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_ebpf::program;

program!();

/// Passes everything: a veth whose peer transmits from XDP needs a program of its own.
#[xdp]
pub(crate) fn pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}
