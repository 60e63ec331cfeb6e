//! From a verdict to what the kernel wants.

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_redirect};
use lb_common::datapath::Action;

/// The return value of the program.
#[inline(always)]
pub fn xdp(action: Action) -> u32 {
    match action {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
        Action::Transmit => xdp_action::XDP_TX,
        // SAFETY: a helper without pointers. An interface that is gone is dropped and traced by the kernel.
        Action::Redirect(ifindex) => unsafe { bpf_redirect(ifindex, 0) as u32 },
    }
}
