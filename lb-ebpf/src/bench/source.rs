//! Where frames come from: a template, varied by a counter, and the program that puts it back before each repeat.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_action},
    btf_maps::{Array, ProgramArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::{
    datapath::Packet as _,
    wire::{put, word},
};
use lb_ebpf::packet::Frame;

/// Words of a frame: 96 bytes, headers and a little payload.
pub(crate) const WORDS: usize = 12;
/// Bytes of a frame.
pub(crate) const BYTES: usize = WORDS * 8;

/// What frames look like; the same layout is in `tests/src/bench/object.rs`.
#[repr(C)]
pub(crate) struct Source {
    /// The frame as it is for index 0 of everything that varies.
    template: [u64; WORDS],
    /// Frames so far.
    count: u32,
    /// Sources to go through; 0 or 1: one.
    sources: u32,
    /// Destinations to go through.
    destinations: u32,
    /// [`V6`], or anything else for IPv4: in whose header addresses vary.
    family: u32,
    /// IPv4: the first source, host order.
    first_source: u32,
    /// IPv4: the first destination, host order. IPv6: the last word of the first.
    first_destination: u32,
    /// IPv4: sum of the header's words without addresses and checksum, host order.
    sum: u32,
    /// Interface that `generate` sends by.
    ifindex: u32,
}

const V6: u32 = 6;

/// Written by user space between runs, through a mapping.
#[btf_map]
static SOURCE: Array<Source, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
/// The program under test.
#[btf_map]
static UNDER_TEST: ProgramArray<1> = ProgramArray::new();

/// Odd constants with well-spread multiples (2^32 divided by the golden ratio, and by the square root of two): index
/// `n · c` jumps about, and yet comes to all of 2^32 places once.
const SOURCE_STEP: u32 = 0x9e37_79b1;
const DESTINATION_STEP: u32 = 0xb504_f333;

/// The `n`th of `of` things, in an order that no cache guesses.
#[inline(always)]
fn pick(n: u32, step: u32, of: u32) -> u32 {
    ((u64::from(n.wrapping_mul(step)) * u64::from(of)) >> 32) as u32
}

/// Writes the next frame over the 96 bytes of `frame`; `None` when it is shorter.
#[inline(always)]
pub(crate) fn next_frame(frame: &mut Frame) -> Option<u32> {
    let source = SOURCE.get_ptr_mut(0)?;
    // SAFETY: the map's only element; user space writes it only while no program runs.
    let source = unsafe { &mut *source };
    let room: &mut [u8; BYTES] = frame.at_mut(0).ok()?;
    let mut i = 0;
    while i < WORDS {
        put(room, i * 8, &source.template.get(i)?.to_ne_bytes());
        i += 1;
    }
    if source.sources > 1 || source.destinations > 1 {
        let n = source.count;
        source.count = n.wrapping_add(1);
        vary(source, room, n);
    }
    Some(source.ifindex)
}

#[inline(always)]
fn vary(source: &Source, room: &mut [u8; BYTES], n: u32) {
    let from = pick(n, SOURCE_STEP, source.sources);
    let to = pick(n, DESTINATION_STEP, source.destinations);
    if source.family == V6 {
        // The low word of the prefix: each source is a /64 of its own.
        put(room, 26, &from.to_be_bytes());
        put(room, 50, &(source.first_destination + to).to_be_bytes());
        return;
    }
    let (from, to) = (source.first_source + from, source.first_destination + to);
    let sum = source.sum + (from >> 16) + (from & 0xffff) + (to >> 16) + (to & 0xffff);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    put(room, 24, &(!sum as u16).to_be_bytes());
    put(room, 26, &from.to_be_bytes());
    put(room, 30, &to.to_be_bytes());
}

/// Puts the frame back and jumps to the program under test.
#[xdp]
pub(crate) fn wrap(context: XdpContext) -> u32 {
    let mut frame = Frame::new(&context);
    if frame.resize(BYTES).is_err() || next_frame(&mut frame).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the map holds an XDP program; a jump to none comes back here.
    unsafe { UNDER_TEST.tail_call(&context, 0) };
    xdp_action::XDP_ABORTED
}

/// Whether the frame's first bytes are of this Ethernet type.
#[inline(always)]
pub(crate) fn is(header: &[u8; 14], ether_type: u16) -> bool {
    lb_common::wire::be16(header, 12) == ether_type
}

/// The 32-bit word at an offset: ports, mostly.
#[inline(always)]
pub(crate) fn at(frame: &Frame, offset: usize) -> Option<u32> {
    frame.at::<4>(offset).ok().map(|bytes| word(bytes, 0))
}
