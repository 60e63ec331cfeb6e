//! What the XDP programs share. Each program is a folder: `balancer`, `agent`, and `harness` for tests and benches.
//!
//! This crate owns pointers, helpers, maps and head adjustment; every decision is made in `lb_common::datapath`.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch))]
#![expect(internal_features, reason = "compare-and-swap has no stable form for the BPF target")]

pub mod atomic;
pub mod packet;
pub mod verdict;

/// Panic handler and licence of a program.
///
/// A panic would be an endless loop, which the verifier refuses: what loads cannot panic. The licence is GPL-compatible
/// because GPL-only helpers are called.
#[macro_export]
macro_rules! program {
    () => {
        #[cfg(not(test))]
        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo) -> ! {
            loop {}
        }

        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
    };
}
