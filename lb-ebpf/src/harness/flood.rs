//! A flood of packets from tuples that nobody has, and a balancer as others build it, over a kernel LRU, which sees the
//! same flood.
//!
//! `flood` is run by BPF_PROG_TEST_RUN with live frames, on one CPU at a time: each frame is written anew (the kernel
//! uses them again as they come back) and sent out of an interface. `remembered` is run once for each packet of a
//! connection.

use aya_ebpf::{
    bindings::{BPF_ANY, xdp_action},
    btf_maps::{Array, LruHashMap},
    helpers::generated::bpf_redirect,
    macros::btf_map,
};
use lb_common::{
    datapath::Packet,
    wire::{be16, checksum, ethernet, ipv4, protocol, put, word},
};
use lb_ebpf::packet::Frame;

/// What user space says of the flood, and where it is: eight-byte fields, so that both sides agree on the layout.
#[repr(C)]
#[derive(Clone, Copy)]
struct Plan {
    /// Of the sequence of tuples.
    seed: u64,
    /// Packets that were made so far.
    made: u64,
    /// Interface to send from.
    interface: u64,
    /// Destination MAC address in the upper 48 bits, then two bytes of the source's.
    macs_high: u64,
    /// The other four bytes of the source's MAC address in the lower half.
    macs_low: u64,
    /// VIP in the upper half, port in the lower, as numbers.
    target: u64,
    /// Lowest source address in the upper half, mask of what is chosen at random in the lower, as numbers.
    sources: u64,
    /// 1: the LRU sees the flood as well.
    with_lru: u64,
}

/// A tuple as balancers with IPv6 keep it: 40 bytes. Whole words, because it is on the stack, where LLVM joins stores
/// to smaller fields to what the kernel calls misaligned.
#[repr(C)]
#[derive(Clone, Copy)]
struct Key {
    source: [u64; 2],
    destination: [u64; 2],
    ports_and_protocol: u64,
}

impl Key {
    #[inline(always)]
    fn new(source: u32, destination: u32, ports: u32, protocol: u8) -> Self {
        Self {
            source: [u64::from(source), 0],
            destination: [u64::from(destination), 0],
            ports_and_protocol: u64::from(ports) << 32 | u64::from(protocol),
        }
    }
}

/// Slots of the other balancer's table.
const SLOTS: u32 = 16_381;
const FRAME: usize = 60;
/// TCP flags.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

#[btf_map]
static FLOOD: Array<Plan, 1> = Array::new();
/// Who owns each slot of the other balancer's table.
#[btf_map]
static OWNERS: Array<u32, { SLOTS as usize }> = Array::new();
/// What the other balancer remembers; user space sets the size.
#[btf_map]
static REMEMBERED: LruHashMap<Key, u64, 1024> = LruHashMap::new();

/// SplitMix64's last step.
#[inline(always)]
fn mix(z: u64) -> u64 {
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// One packet of the flood. Of four, one is a SYN, the next an ACK from the same tuple, as if a connection had begun;
/// then comes a SYN or an ACK from a tuple of its own, and a datagram. Their transport checksums are wrong on purpose: a
/// backend's kernel throws them away without an answer.
#[inline(always)]
pub(super) fn send(frame: &mut Frame) -> u32 {
    let Some(plan) = FLOOD.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: a map value of this type, which only this program changes, on one CPU.
    let plan = unsafe { &mut *plan };
    plan.made += 1;
    let turn = plan.made & 3;
    let tuple = if turn == 1 { plan.made - 1 } else { plan.made };
    let random = mix(plan.seed.wrapping_add(tuple.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let more = mix(random);
    let source = (plan.sources >> 32) as u32 + (random as u32 & plan.sources as u32);
    let destination = (plan.target >> 32) as u32;
    let ports = (more as u32 | 1024) << 16 | plan.target as u16 as u32;
    let (protocol, flags) = match (turn, more >> 32 & 1) {
        (0, _) | (2, 0) => (protocol::TCP, SYN),
        (1 | 2, _) => (protocol::TCP, ACK),
        _ => (protocol::UDP, 0),
    };
    let Ok(bytes) = frame.at_mut::<FRAME>(0) else { return xdp_action::XDP_ABORTED };
    put(bytes, 0, &plan.macs_high.to_be_bytes());
    put(bytes, 8, &(plan.macs_low as u32).to_be_bytes());
    put(bytes, 12, &ethernet::IPV4.to_be_bytes());
    const IP: usize = ethernet::HEADER;
    // Version and length, total length; identification 0, do not fragment; 64 hops.
    put(bytes, IP, &0x4500_0028_u32.to_be_bytes());
    put(bytes, IP + 4, &u32::from(ipv4::DONT_FRAGMENT).to_be_bytes());
    put(bytes, IP + 8, &(64_u32 << 24 | u32::from(protocol) << 16).to_be_bytes());
    put(bytes, IP + 12, &source.to_be_bytes());
    put(bytes, IP + 16, &destination.to_be_bytes());
    let sum = 0x4500 + 0x28 + u32::from(ipv4::DONT_FRAGMENT) + (64 << 8 | u32::from(protocol));
    let sum = sum + (source >> 16) + (source & 0xffff) + (destination >> 16) + (destination & 0xffff);
    put(bytes, IP + 10, &checksum::finish(sum).to_be_bytes());
    const TRANSPORT: usize = IP + ipv4::HEADER;
    put(bytes, TRANSPORT, &ports.to_be_bytes());
    if protocol == protocol::UDP {
        // Length of the datagram, and a checksum that is none.
        put(bytes, TRANSPORT + 4, &0x0014_dead_u32.to_be_bytes());
    } else {
        put(bytes, TRANSPORT + 4, &(random >> 32).to_be_bytes());
        put(bytes, TRANSPORT + 12, &(0x5000_ffff_u32 | u32::from(flags) << 16).to_be_bytes());
        put(bytes, TRANSPORT + 16, &0xdead_0000_u32.to_be_bytes());
    }
    if plan.with_lru != 0 {
        member(&Key::new(source, destination, ports, protocol));
    }
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(plan.interface as u32, 0) as u32 }
}

/// Where the other balancer sends this TCP packet: what it remembers, else the owner, which it remembers from now on.
#[inline(always)]
pub(super) fn remembered(frame: &Frame) -> u32 {
    const HEADERS: usize = ethernet::HEADER + ipv4::HEADER + 4;
    let Ok(bytes) = frame.at::<HEADERS>(0) else { return u32::MAX };
    let at = |offset| u32::from_be(word(bytes, offset));
    let ports = u32::from(be16(bytes, 34)) << 16 | u32::from(be16(bytes, 36));
    member(&Key::new(at(26), at(30), ports, protocol::TCP))
}

#[inline(always)]
fn member(key: &Key) -> u32 {
    // SAFETY: the value is one word, read at once; the element may be used again for another key, as in any LRU.
    if let Some(member) = unsafe { REMEMBERED.get(key) } {
        return *member as u32;
    }
    let slot = mix(key.source[0] << 32 | key.destination[0]) % u64::from(SLOTS);
    let owner = OWNERS.get(slot as u32).copied().unwrap_or(u32::MAX);
    // No room is as in any LRU: the next packet tries again.
    let _ = REMEMBERED.insert(key, u64::from(owner), u64::from(BPF_ANY));
    owner
}
