//! The agent on a backend host: takes packets for its VIPs out of tunnels.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the entry point gets its context by value from the macro"
)]

mod maps;
mod sockets;

use aya_ebpf::{macros::xdp, programs::XdpContext};
use lb_common::datapath::decapsulate;
use lb_ebpf::{packet::Frame, program, verdict};

program!();

/// Every packet that comes in by the agent's interface.
#[xdp]
pub(crate) fn agent(context: XdpContext) -> u32 {
    let mut frame = Frame::new(&context);
    let ingress = frame.ingress();
    let verdict = decapsulate(&mut frame, &maps::Maps, ingress);
    maps::count(verdict);
    verdict::xdp(verdict)
}
