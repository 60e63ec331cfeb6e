//! Eight bytes that several CPUs and user space change at once.

use core::{
    cell::UnsafeCell,
    intrinsics::{AtomicOrdering, atomic_cxchg},
};

use lb_common::datapath::Word;

/// A word of a map's value. `core::sync::atomic` has no compare-and-swap for BPF; the instruction exists since
/// kernel 5.12.
#[repr(transparent)]
pub struct MapWord(UnsafeCell<u64>);

// SAFETY: every access is one aligned 64-bit load or one atomic compare-and-swap.
unsafe impl Sync for MapWord {}

impl Word for MapWord {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: map values live as long as the program, and an aligned 64-bit load does not tear on 64-bit kernels.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn store(&self, new: u64) {
        // SAFETY: as in `load`.
        unsafe { self.0.get().write_volatile(new) };
    }

    #[inline(always)]
    fn replace(&self, old: u64, new: u64) -> bool {
        // SAFETY: the pointer is a valid, aligned map value.
        unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::Relaxed }>(
                self.0.get(),
                old,
                new,
            )
            .1
        }
    }
}
