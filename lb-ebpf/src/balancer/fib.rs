//! The kernel's routing tables (`bpf_fib_lookup`).

use aya_ebpf::{
    bindings::{bpf_fib_lookup as Parameters, xdp_md},
    btf_maps::PerCpuArray,
    helpers::generated::bpf_fib_lookup,
    macros::btf_map,
};
use lb_common::datapath::{Route, Wanted, route};

/// Parameters of the helper as sixteen words: on the stack they would be an eighth of it.
#[btf_map]
static FIB: PerCpuArray<[u32; WORDS], 1> = PerCpuArray::new();

const WORDS: usize = size_of::<Parameters>() / 4;
const _: () = assert!(size_of::<Parameters>() == 64);

/// Address families of the kernel (include/linux/socket.h).
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
/// Answers of the helper (include/uapi/linux/bpf.h): `BPF_FIB_LKUP_RET_NOT_FWDED` and `_FRAG_NEEDED`.
const NOT_FORWARDED: i64 = 4;
const FRAGMENTATION_NEEDED: i64 = 8;

/// What the kernel says about the way of a packet that came in by `ingress`.
#[inline(always)]
pub(crate) fn route(context: *mut xdp_md, wanted: &Wanted, ingress: u32) -> Route {
    let Some(words) = FIB.get_ptr_mut(0) else { return Route::without_way(route::UNKNOWN) };
    // SAFETY: this CPU's map value of sixteen words; XDP programs of one CPU do not interrupt each other. Offsets are
    // those of `struct bpf_fib_lookup`: family and protocol, ports, length, interface, TOS, source, destination.
    let words = unsafe { &mut *words };
    let family = if wanted.is_v6 { AF_INET6 } else { AF_INET };
    *words = [
        family | u32::from(wanted.protocol) << 8,
        // No destination port; the length lies in the upper half.
        wanted.length << 16,
        ingress,
        0,
        wanted.source[0],
        wanted.source[1],
        wanted.source[2],
        wanted.source[3],
        wanted.destination[0],
        wanted.destination[1],
        wanted.destination[2],
        wanted.destination[3],
        0,
        0,
        0,
        0,
    ];
    let parameters = core::ptr::from_mut(words).cast::<Parameters>();
    // SAFETY: context and parameters are valid, and the length is theirs.
    let answer = unsafe { bpf_fib_lookup(context.cast(), parameters, size_of::<Parameters>() as i32, 0) };
    match answer {
        0 => Route {
            answer: route::THERE,
            egress: words[2],
            // Behind a word of VLAN tag: source, then destination MAC address, six bytes each.
            macs: [
                words[14] >> 16 | words[15] << 16,
                words[15] >> 16 | words[13] << 16,
                words[13] >> 16 | words[14] << 16,
            ],
        },
        NOT_FORWARDED => Route::without_way(route::HERE),
        FRAGMENTATION_NEEDED => Route::without_way(route::TOO_BIG),
        _ => Route::without_way(route::UNKNOWN),
    }
}
