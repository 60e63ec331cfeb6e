//! The frame: the only file with packet pointers.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use lb_common::datapath::{Cut, Packet};

/// The frame of an XDP context.
pub struct Frame {
    ctx: *mut xdp_md,
    /// Bytes of VLAN tags that are out of sight: 0, 4 or 8.
    skipped: usize,
    /// Whether offsets may be unknown to the verifier: in the rare ways.
    is_resumed: bool,
}

impl Frame {
    /// The frame of this context.
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        Self { ctx: context.ctx, skipped: 0, is_resumed: false }
    }

    /// The same, in another function of the program.
    ///
    /// # Safety
    /// `ctx` is the context of the running program.
    #[inline(always)]
    pub unsafe fn of(ctx: *mut xdp_md) -> Self {
        Self { ctx, skipped: 0, is_resumed: false }
    }

    /// The frame that another function of the program looked at: `skipped` as [`Packet::skipped`] said there.
    ///
    /// # Safety
    /// `ctx` is the context of the running program.
    #[inline(always)]
    pub unsafe fn resume(ctx: *mut xdp_md, skipped: u32) -> Self {
        // The mask tells the verifier.
        Self { ctx, skipped: skipped as usize & 0xc, is_resumed: true }
    }

    /// The context, for another function of the program.
    #[inline(always)]
    pub fn context(&mut self) -> *mut xdp_md {
        self.ctx
    }

    #[inline(always)]
    fn start(&self) -> usize {
        // SAFETY: the context is valid for the whole run of the program.
        let start = unsafe { (*self.ctx).data as usize };
        // The field has 32 bits, in which the verifier sees a pointer. Where registers are few the compiler widens it to
        // 64 bits again when it comes back from the stack, and it would be a pointer no more.
        if self.is_resumed { whole(start) } else { start }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: as above.
        let end = unsafe { (*self.ctx).data_end as usize };
        if self.is_resumed { whole(end) } else { end }
    }

    /// Interface the frame came in by.
    #[inline(always)]
    pub fn ingress(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.ctx).ingress_ifindex }
    }

    /// `N` bytes at `offset`, if the frame has them.
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Result<*mut [u8; N], Cut> {
        let start = self.start() + self.skipped + offset;
        // The pointer that is compared with the end must be the one that is read from: one and the same, not two sums
        // of the same parts, which the verifier does not know to be equal. Where all offsets are constants it knows.
        let start = if self.is_resumed { whole(start) } else { start };
        if start + N > self.end() {
            return Err(Cut);
        }
        Ok(start as *mut [u8; N])
    }

    /// Moves the start of the frame so that it has `length` bytes; what is before its content now is undefined. For
    /// the benchmark, which gives a program the same frame again and again.
    #[inline(always)]
    pub fn resize(&mut self, length: usize) -> Result<(), Cut> {
        self.adjust_head((self.length() as i32).wrapping_sub(length as i32))
    }

    /// Moves what is out of sight, which may overlap with where it goes, from one offset to another.
    #[inline(always)]
    fn carry(&mut self, from: usize, to: usize) -> Result<(), Cut> {
        let both = self.skipped == 8;
        let skipped = core::mem::replace(&mut self.skipped, 0);
        let (first, second) = (self.bytes::<4>(from)?, self.bytes::<4>(from + 4)?);
        let (first_to, second_to) = (self.bytes::<4>(to)?, self.bytes::<4>(to + 4)?);
        // SAFETY: `bytes` compared all four ranges with the end of the frame; words are read before any is written.
        unsafe {
            let (tag, other) = (first.cast::<u32>().read_unaligned(), second.cast::<u32>().read_unaligned());
            first_to.cast::<u32>().write_unaligned(tag);
            if both {
                second_to.cast::<u32>().write_unaligned(other);
            }
        }
        self.skipped = skipped;
        Ok(())
    }

    /// Moves the start of the frame by `delta` bytes.
    #[inline(always)]
    fn adjust_head(&mut self, delta: i32) -> Result<(), Cut> {
        // SAFETY: the context is valid; no reference into the frame is alive, because `self` is borrowed mutably.
        if unsafe { bpf_xdp_adjust_head(self.ctx, delta) } == 0 { Ok(()) } else { Err(Cut) }
    }
}

/// All 64 bits of a number. Where only 32 of a difference between two pointers are wanted, the compiler would subtract
/// the halves of the pointers, which the verifier refuses.
#[inline(always)]
fn whole(number: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut number = number;
        // SAFETY: moves a register to itself.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack, preserves_flags));
        }
        number
    }
    #[cfg(not(target_arch = "bpf"))]
    number
}

impl Packet for Frame {
    #[inline(always)]
    fn length(&self) -> usize {
        // A frame that ends within its tags has no length; it has none of the bytes asked for either.
        whole(self.end() - self.start()).wrapping_sub(self.skipped)
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Result<&[u8; N], Cut> {
        // SAFETY: `bytes` compared the range with the end of the frame; bytes have no alignment; the borrow of `self`
        // ends before the head can move.
        self.bytes(offset).map(|bytes| unsafe { &*bytes })
    }

    #[inline(always)]
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Result<&mut [u8; N], Cut> {
        // SAFETY: as in `at`, and `self` is borrowed mutably: this is the only reference into the frame.
        self.bytes(offset).map(|bytes| unsafe { &mut *bytes })
    }

    #[inline(always)]
    fn grow<const N: usize>(&mut self) -> Result<(), Cut> {
        self.adjust_head(-(N as i32))?;
        if self.skipped != 0 { self.carry(N, 0) } else { Ok(()) }
    }

    #[inline(always)]
    fn shrink<const N: usize>(&mut self) -> Result<(), Cut> {
        if self.skipped != 0 {
            self.carry(0, N)?;
        }
        self.adjust_head(N as i32)
    }

    #[inline(always)]
    fn look_again(&mut self) {
        self.ctx = core::hint::black_box(self.ctx);
    }

    #[inline(always)]
    fn truncate(&mut self, length: usize) {
        let more = (length as i32).wrapping_sub(self.length() as i32);
        // SAFETY: as in `adjust_head`; the offset is negative, so nothing that was not written comes into sight.
        unsafe { bpf_xdp_adjust_tail(self.ctx, more) };
    }

    #[inline(always)]
    fn skipped(&self) -> usize {
        self.skipped
    }

    #[inline(always)]
    fn skip(&mut self, bytes: usize) {
        self.skipped = bytes & 0xc;
    }
}
