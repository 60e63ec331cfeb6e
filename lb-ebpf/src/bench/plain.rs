//! The yardstick `plain`: a balancer as a good engineer writes it first, with the kernel's hash and LRU maps.
//!
//! A hash map for services, an LRU map that remembers every flow, a table of slots for new flows, an array of
//! backends, and per-CPU counters for service and backend. User space sets the sizes; the smallest are here.

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray},
    helpers::generated::bpf_ktime_get_ns,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::{
    abi::Counter,
    datapath::Packet as _,
    wire::{be16, ethernet, ipv4, ipv6, protocol, word, words},
};
use lb_ebpf::packet::Frame;

use crate::{
    rewrite::{self, Real},
    source::{at, is},
};

/// A flow over IPv4, or with source and source port 0 a service.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Key4 {
    source: u32,
    destination: u32,
    ports: u32,
    protocol: u32,
}

/// The same over IPv6.
#[repr(C)]
#[derive(Clone, Copy)]
struct Key6 {
    source: [u64; 2],
    destination: [u64; 2],
    ports: u32,
    protocol: u32,
}

/// A service over IPv6. (A [`Key6`] without source would be cleared by a call of `memset`, which BPF does not have.)
#[repr(C)]
#[derive(Clone, Copy)]
struct Service6 {
    destination: [u64; 2],
    ports: u32,
    protocol: u32,
}

/// What is remembered of a flow or a source: a number and a time.
#[repr(C)]
#[derive(Clone, Copy)]
struct Known {
    real: u32,
    tokens: u32,
    time: u64,
}

/// Slots of the table.
const SLOTS: u32 = 65_537;

#[btf_map]
static PLAIN_SERVICE4: HashMap<Key4, u32, 512> = HashMap::new();
#[btf_map]
static PLAIN_SERVICE6: HashMap<Service6, u32, 512> = HashMap::new();
#[btf_map]
static PLAIN_FLOWS4: LruHashMap<Key4, Known, 1024> = LruHashMap::new();
#[btf_map]
static PLAIN_FLOWS6: LruHashMap<Key6, Known, 1024> = LruHashMap::new();
#[btf_map]
static PLAIN_SLOTS: Array<u32, { SLOTS as usize }> = Array::new();
#[btf_map]
static PLAIN_REALS: Array<Real, 512> = Array::new();
#[btf_map]
static PLAIN_COUNT: PerCpuArray<Counter, 1024> = PerCpuArray::new();
#[btf_map]
static PLAIN_LIMITS: LruHashMap<u32, Known, 1024> = LruHashMap::new();
/// Where the counters of backends begin; before them are those of services.
const REALS: u32 = 512;

#[inline(always)]
fn ipv4(frame: &Frame) -> Option<Key4> {
    let header = frame.at::<{ ipv4::HEADER }>(ethernet::HEADER).ok()?;
    if header[0] != 0x45 || be16(header, 6) & ipv4::FRAGMENT != 0 {
        return None;
    }
    let number = header[9];
    if number != protocol::TCP && number != protocol::UDP {
        return None;
    }
    let (source, destination) = (word(header, 12), word(header, 16));
    let ports = at(frame, ethernet::HEADER + ipv4::HEADER)?;
    Some(Key4 { source, destination, ports, protocol: u32::from(number) })
}

#[inline(always)]
fn halves([a, b, c, d]: [u32; 4]) -> [u64; 2] {
    [u64::from(a) << 32 | u64::from(b), u64::from(c) << 32 | u64::from(d)]
}

#[inline(always)]
fn ipv6(frame: &Frame) -> Option<Key6> {
    let header = frame.at::<{ ipv6::HEADER }>(ethernet::HEADER).ok()?;
    let number = header[6];
    if number != protocol::TCP && number != protocol::UDP {
        return None;
    }
    let (source, destination) = (halves(words(header, 8)), halves(words(header, 24)));
    let ports = at(frame, ethernet::HEADER + ipv6::HEADER)?;
    Some(Key6 { source, destination, ports, protocol: u32::from(number) })
}

/// Destination port alone: ports lie in memory as on the wire, the destination behind.
const DESTINATION_PORT: u32 = 0xffff_0000;

/// The slot of a new flow.
#[inline(always)]
fn slot(source: u32, ports: u32) -> Option<u32> {
    let mixed = (u64::from(source) << 32 | u64::from(ports)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    PLAIN_SLOTS.get((mixed >> 32) as u32 % SLOTS).copied()
}

#[inline(always)]
fn count(index: u32, bytes: usize) {
    if let Some(counter) = PLAIN_COUNT.get_ptr_mut(index) {
        // SAFETY: this CPU's map value; XDP programs of one CPU do not interrupt each other.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes as u64;
        }
    }
}

/// Backend of an IPv4 flow of a service.
#[inline(always)]
fn real4(key: &Key4) -> Option<u32> {
    // SAFETY: the value is copied at once; nobody deletes entries while the benchmark runs.
    if let Some(known) = unsafe { PLAIN_FLOWS4.get(key) } {
        return Some(known.real);
    }
    let real = slot(key.source, key.ports)?;
    let _ = PLAIN_FLOWS4.insert(key, Known { real, tokens: 0, time: 0 }, 0);
    Some(real)
}

#[inline(always)]
fn balance4(frame: &Frame) -> Option<u32> {
    let key = ipv4(frame)?;
    let wanted = Key4 { source: 0, ports: key.ports & DESTINATION_PORT, ..key };
    // SAFETY: as in `real4`.
    let service = *unsafe { PLAIN_SERVICE4.get(wanted) }?;
    let real = real4(&key)?;
    count(service, frame.length());
    Some(real)
}

#[inline(always)]
fn balance6(frame: &Frame) -> Option<u32> {
    let key = ipv6(frame)?;
    let Key6 { destination, ports, protocol, .. } = key;
    let wanted = Service6 { destination, ports: ports & DESTINATION_PORT, protocol };
    // SAFETY: as in `real4`.
    let service = *unsafe { PLAIN_SERVICE6.get(wanted) }?;
    // SAFETY: as in `real4`.
    let real = match unsafe { PLAIN_FLOWS6.get(key) } {
        Some(known) => known.real,
        None => {
            let mixed = key.source[0] ^ key.source[1];
            let real = slot(mixed as u32 ^ (mixed >> 32) as u32, key.ports)?;
            let _ = PLAIN_FLOWS6.insert(key, Known { real, tokens: 0, time: 0 }, 0);
            real
        }
    };
    count(service, frame.length());
    Some(real)
}

/// The whole of it.
#[xdp]
pub(crate) fn plain(context: XdpContext) -> u32 {
    let mut frame = Frame::new(&context);
    let Ok(header) = frame.at::<{ ethernet::HEADER }>(0) else { return xdp_action::XDP_PASS };
    let real = if is(header, ethernet::IPV4) {
        balance4(&frame)
    } else if is(header, ethernet::IPV6) {
        balance6(&frame)
    } else {
        None
    };
    let Some(real) = real else { return xdp_action::XDP_PASS };
    count(REALS + real, frame.length());
    match PLAIN_REALS.get(real) {
        Some(real) => rewrite::ipip(&mut frame, real),
        None => xdp_action::XDP_DROP,
    }
}

/// Parse, LRU, backend, and new addresses: destination NAT with the least possible state.
#[xdp]
pub(crate) fn plain_nat(context: XdpContext) -> u32 {
    let mut frame = Frame::new(&context);
    let Some(real) = ipv4(&frame).and_then(|key| real4(&key)) else { return xdp_action::XDP_PASS };
    match PLAIN_REALS.get(real) {
        Some(real) => rewrite::nat(&mut frame, real),
        None => xdp_action::XDP_DROP,
    }
}

/// The same with new MAC addresses.
#[xdp]
pub(crate) fn plain_l2(context: XdpContext) -> u32 {
    let mut frame = Frame::new(&context);
    let Some(real) = ipv4(&frame).and_then(|key| real4(&key)) else { return xdp_action::XDP_PASS };
    match PLAIN_REALS.get(real) {
        Some(real) => rewrite::l2(&mut frame, real),
        None => xdp_action::XDP_DROP,
    }
}

/// Parse and encapsulate: what `plain_limit` is compared with.
#[xdp]
pub(crate) fn plain_parse(context: XdpContext) -> u32 {
    let mut frame = Frame::new(&context);
    if ipv4(&frame).is_none() {
        return xdp_action::XDP_PASS;
    }
    match PLAIN_REALS.get(1) {
        Some(real) => rewrite::ipip(&mut frame, real),
        None => xdp_action::XDP_DROP,
    }
}

/// The same behind a token bucket for each source, in an LRU map and by the kernel's clock.
#[xdp]
pub(crate) fn plain_limit(context: XdpContext) -> u32 {
    let mut frame = Frame::new(&context);
    let Some(key) = ipv4(&frame) else { return xdp_action::XDP_PASS };
    if !token(key.source) {
        return xdp_action::XDP_DROP;
    }
    match PLAIN_REALS.get(1) {
        Some(real) => rewrite::ipip(&mut frame, real),
        None => xdp_action::XDP_DROP,
    }
}

/// Most tokens of a source; one comes back every 64 ns.
const BURST: u64 = 1 << 30;

#[inline(always)]
fn token(source: u32) -> bool {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(bucket) = PLAIN_LIMITS.get_ptr_mut(source) else {
        let _ = PLAIN_LIMITS.insert(source, Known { real: 0, tokens: BURST as u32, time: now }, 0);
        return true;
    };
    // SAFETY: a map value; as in `count`.
    let bucket = unsafe { &mut *bucket };
    let tokens = u64::from(bucket.tokens) + ((now - bucket.time) >> 6);
    let tokens = if tokens > BURST { BURST } else { tokens };
    bucket.time = now;
    if tokens == 0 {
        return false;
    }
    bucket.tokens = (tokens - 1) as u32;
    true
}
