//! From a verdict to what the kernel wants.

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_redirect};
use lb_common::datapath::{Verdict, code};

/// The return value of the program.
#[inline(always)]
pub fn xdp(verdict: Verdict) -> u32 {
    match verdict.code() {
        code::PASS => xdp_action::XDP_PASS,
        code::DROP => xdp_action::XDP_DROP,
        code::TRANSMIT => xdp_action::XDP_TX,
        // SAFETY: a helper without pointers. An interface that is gone is dropped and traced by the kernel.
        _ => unsafe { bpf_redirect(verdict.egress(), 0) as u32 },
    }
}
