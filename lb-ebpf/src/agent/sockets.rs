//! Asks the host's kernel whether it has a TCP connection.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{bpf_sock_tuple, xdp_md},
    helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie},
};
use lb_common::{
    datapath::Packet,
    wire::{ipv4, ipv6, word},
};
use lb_ebpf::packet::Frame;

/// `TCP_LISTEN` of include/net/tcp_states.h: any other state is that of a connection.
const LISTEN: u32 = 10;
/// Bytes of a TCP header without options.
const TCP: usize = 20;
/// The network namespace that the program runs in (`BPF_F_CURRENT_NETNS`).
const HERE: u64 = -1i64 as u64;

/// Addresses and ports of an IPv4 connection, as `struct bpf_sock_tuple` has them; aligned for the stack.
#[repr(C, align(8))]
struct Tuple4 {
    addresses: [u32; 2],
    ports: u32,
}

/// The same of IPv6.
#[repr(C, align(8))]
struct Tuple6 {
    addresses: [u32; 8],
    ports: u32,
}

/// Whether a connection over IPv4 is known, or a SYN cookie proves that it was begun here.
#[inline(always)]
pub(crate) fn knows4(frame: &mut Frame, ip: usize, tcp: usize) -> bool {
    let context = frame.context();
    let (Ok(header), Ok(segment)) = (frame.at::<{ ipv4::HEADER }>(ip), frame.at::<TCP>(tcp)) else {
        return false;
    };
    let mut tuple = Tuple4 { addresses: [word(header, 12), word(header, 16)], ports: word(segment, 0) };
    let tuple = (&raw mut tuple).cast();
    is_known(context, tuple, 12, (&raw const *header).cast(), ipv4::HEADER as u32, segment)
}

/// The same over IPv6.
#[inline(always)]
pub(crate) fn knows6(frame: &mut Frame, ip: usize, tcp: usize) -> bool {
    let context = frame.context();
    let (Ok(header), Ok(segment)) = (frame.at::<{ ipv6::HEADER }>(ip), frame.at::<TCP>(tcp)) else {
        return false;
    };
    let at = |i: usize| word(header, 8 + i * 4);
    let addresses = [at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)];
    let mut tuple = Tuple6 { addresses, ports: word(segment, 0) };
    let tuple = (&raw mut tuple).cast();
    is_known(context, tuple, 36, (&raw const *header).cast(), ipv6::HEADER as u32, segment)
}

#[inline(always)]
fn is_known(
    context: *mut xdp_md,
    tuple: *mut bpf_sock_tuple,
    size: u32,
    ip: *const c_void,
    ip_bytes: u32,
    tcp: &[u8; TCP],
) -> bool {
    // SAFETY: the context is the program's, the tuple has `size` bytes, both headers lie in the frame, and the socket
    // is given back on the only way out. The verifier demands all of it.
    unsafe {
        let socket = bpf_skc_lookup_tcp(context.cast(), tuple, size, HERE, 0);
        if socket.is_null() {
            return false;
        }
        let mut known = (*socket).state != LISTEN;
        if !known {
            let segment = (&raw const *tcp).cast_mut().cast();
            known = bpf_tcp_check_syncookie(socket.cast(), ip.cast_mut(), ip_bytes, segment, TCP as u32) == 0;
        }
        bpf_sk_release(socket.cast());
        known
    }
}
