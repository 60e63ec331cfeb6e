//! The two ends of the benchmark through veth: one device sends, and counts what comes back.

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::PerCpuArray,
    helpers::generated::bpf_redirect,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::abi::Counter;
use lb_common::datapath::Packet as _;
use lb_ebpf::packet::Frame;

use crate::source::{BYTES, next_frame};

/// Frames that came back.
#[btf_map]
static BACK: PerCpuArray<Counter, 1> = PerCpuArray::new();

/// Makes a frame and sends it. Run with live frames (BPF_F_TEST_XDP_LIVE_FRAMES), which are used again as they are.
#[xdp]
pub(crate) fn generate(context: XdpContext) -> u32 {
    let mut frame = Frame::new(&context);
    if frame.resize(BYTES).is_err() {
        return xdp_action::XDP_ABORTED;
    }
    match next_frame(&mut frame) {
        // SAFETY: a helper without pointers.
        Some(ifindex) => unsafe { bpf_redirect(ifindex, 0) as u32 },
        None => xdp_action::XDP_ABORTED,
    }
}

/// Counts and drops.
#[xdp]
pub(crate) fn sink(context: XdpContext) -> u32 {
    let frame = Frame::new(&context);
    if let Some(back) = BACK.get_ptr_mut(0) {
        // SAFETY: this CPU's map value; XDP programs of one CPU do not interrupt each other.
        unsafe {
            (*back).packets += 1;
            (*back).bytes += frame.length() as u64;
        }
    }
    xdp_action::XDP_DROP
}
