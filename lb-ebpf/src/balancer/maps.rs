//! The balancer's maps and how the datapath reads them.
//!
//! Sizes here are the smallest that load; user space sets the real ones at load time from the configuration. All but
//! the counters and `INTERFACES` are arrays that user space writes through memory mappings.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, HashMap, PerCpuArray},
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns},
    macros::btf_map,
};
use lb_common::{
    abi::{
        BUCKET_ENTRIES, Backend, BackendInfo, Control, Counter, Globals, Interface, QuicConfig, Reason,
        Reply, Service, ServiceInfo, Vip6, slot,
    },
    aes::{self, Block},
    datapath::{
        Tables, Verdict, limit,
        track::{self, FlowEvent, Query},
    },
};
use lb_ebpf::atomic::MapWord;

/// Both clocks, read one after the other.
#[repr(C)]
#[derive(Clone, Copy)]
struct Clocks {
    jiffies: u64,
    nanoseconds: u64,
}

const MAPPED: usize = BPF_F_MMAPABLE as usize;
/// Placeholder for capacities that user space sets.
const SET_AT_LOAD: usize = 2;

#[btf_map]
static CONTROL: Array<Control, 1, MAPPED> = Array::new();
#[btf_map]
static GLOBALS: Array<Globals, 2, MAPPED> = Array::new();
#[btf_map]
static VIPS4: Array<u64, SET_AT_LOAD, MAPPED> = Array::new();
#[btf_map]
static VIPS6: Array<Vip6, SET_AT_LOAD, MAPPED> = Array::new();
#[btf_map]
static PORTS: Array<u64, SET_AT_LOAD, MAPPED> = Array::new();
#[btf_map]
static SERVICES: Array<Service, SET_AT_LOAD, MAPPED> = Array::new();
#[btf_map]
static SLOTS: Array<u64, SET_AT_LOAD, MAPPED> = Array::new();
#[btf_map]
static SLOT_META: Array<u64, SET_AT_LOAD, MAPPED> = Array::new();
#[btf_map]
static CANDIDATES: Array<u64, SET_AT_LOAD, MAPPED> = Array::new();
#[btf_map]
static FLOWS: Array<[MapWord; BUCKET_ENTRIES], SET_AT_LOAD, MAPPED> = Array::new();
#[btf_map]
static FLOWS_OLD: Array<[MapWord; BUCKET_ENTRIES], 1, MAPPED> = Array::new();
#[btf_map]
static BACKENDS: Array<Backend, SET_AT_LOAD, MAPPED> = Array::new();
#[btf_map]
static LIMITS: Array<[MapWord; BUCKET_ENTRIES], SET_AT_LOAD, MAPPED> = Array::new();
#[btf_map]
static REPLIES: Array<Reply, SET_AT_LOAD, MAPPED> = Array::new();
#[btf_map]
static COUNTERS: PerCpuArray<Counter, SET_AT_LOAD> = PerCpuArray::new();
#[btf_map]
static REASONS: PerCpuArray<u64, { Reason::CAPACITY as usize }> = PerCpuArray::new();
#[btf_map]
static FLOW_EVENTS: PerCpuArray<u64, { FlowEvent::ALL.len() }> = PerCpuArray::new();
#[btf_map]
static QUIC: Array<QuicConfig, 16, MAPPED> = Array::new();
#[btf_map]
static INTERFACES: HashMap<u32, Interface, 64> = HashMap::new();
/// Jiffies and nanoseconds, written by the program `clocks`.
#[btf_map]
static CLOCKS: Array<Clocks, 1> = Array::new();
// Read by user space only, to recognise services and members after a restart. They belong to this object so that all
// maps are created, sized and pinned in one place; `read_clocks` mentions them, or the linker would drop them
// (`#[used]` would put them into a second `.maps` section, which loaders do not look for).
#[btf_map]
static SERVICE_INFO: Array<ServiceInfo, SET_AT_LOAD, MAPPED> = Array::new();
#[btf_map]
static BACKEND_INFO: Array<BackendInfo, SET_AT_LOAD, MAPPED> = Array::new();

/// The maps above, as the datapath wants them.
pub(crate) struct Maps;

impl Tables for Maps {
    type Word = MapWord;

    #[inline(always)]
    fn globals(&self) -> Option<&Globals> {
        let control = CONTROL.get(0)?;
        if control.generation == 0 {
            return None;
        }
        // Both places are looked up, and a branch chooses: it is guessed right until the next switch, so nothing waits
        // for the generation to be loaded. A computed index would have everything that follows wait for it.
        let (even, odd) = (GLOBALS.get(0)?, GLOBALS.get(1)?);
        Some(if control.generation & 1 == 0 { even } else { odd })
    }
    #[inline(always)]
    fn vip4(&self, index: u32) -> Option<u64> {
        VIPS4.get(index).copied()
    }
    #[inline(always)]
    fn vip6(&self, index: u32) -> Option<&Vip6> {
        VIPS6.get(index)
    }
    #[inline(always)]
    fn port(&self, index: u32) -> Option<u64> {
        PORTS.get(index).copied()
    }
    #[inline(always)]
    fn service(&self, index: u32) -> Option<&Service> {
        SERVICES.get(index)
    }
    #[inline(always)]
    fn slots(&self, index: u32) -> Option<u64> {
        SLOTS.get(index).copied()
    }
    #[inline(always)]
    fn slot_meta(&self, index: u32) -> Option<u32> {
        SLOT_META.get(index >> 1).map(|two| (*two >> ((index & 1) * 32)) as u32)
    }
    #[inline(always)]
    fn candidates(&self, index: u32) -> Option<u64> {
        CANDIDATES.get(index).copied()
    }
    #[inline(always)]
    fn stamp_slot(&self, index: u32, time: u16) {
        let Some(two) = SLOT_META.get_ptr_mut(index >> 1) else { return };
        // SAFETY: the pointer is a map value of eight bytes; the stamp of a slot is its upper half-word, at byte 2 or
        // 6. Two CPUs that write at once write the same second.
        unsafe {
            let stamp = two.cast::<u16>().add((index & 1) as usize * 2 + 1);
            if *stamp != time {
                *stamp = time;
            }
        }
    }
    #[inline(always)]
    fn flow_bucket(&self, index: u32) -> Option<&[MapWord; BUCKET_ENTRIES]> {
        FLOWS.get(index)
    }
    #[inline(always)]
    fn old_flow_bucket(&self, index: u32) -> Option<&[MapWord; BUCKET_ENTRIES]> {
        FLOWS_OLD.get(index)
    }
    #[inline(always)]
    fn count_flow(&self, event: FlowEvent) {
        if let Some(count) = FLOW_EVENTS.get_ptr_mut(event as u32) {
            // SAFETY: this CPU's map value; XDP programs of one CPU do not interrupt each other.
            unsafe { *count += 1 };
        }
    }
    #[inline(always)]
    fn track(&self, globals: &Globals, service: &Service, query: Query) -> u16 {
        let mut slot_and_packet = u32::from(query.packet) << 16 | u32::from(query.slot);
        // One after the other: within each other they would need more than the stack there is.
        if globals.flow_old != 0 && bring_flow(service, query.hash) != 0 {
            slot_and_packet |= IN_OLD;
        }
        track_flow(service, query.hash, slot_and_packet, query.index) as u16
    }
    #[inline(always)]
    fn admits(&self, _globals: &Globals, service: &Service, source: u64) -> bool {
        limit_source(service, source) != 0
    }
    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&Backend> {
        BACKENDS.get(index)
    }
    #[inline(always)]
    fn reply(&self, index: u32) -> Option<&Reply> {
        REPLIES.get(index)
    }
    #[inline(always)]
    fn quic(&self, index: u32) -> Option<&QuicConfig> {
        QUIC.get(index)
    }
    #[inline(always)]
    fn encrypt(&self, config: &QuicConfig, block: Block) -> Block {
        let mut place = InPlace { words: block };
        aes_encrypt(config, &mut place);
        place.words
    }
    #[inline(always)]
    fn decrypt(&self, config: &QuicConfig, block: Block) -> Block {
        let mut place = InPlace { words: block };
        aes_decrypt(config, &mut place);
        place.words
    }
    #[inline(always)]
    fn limit_bucket(&self, index: u32) -> Option<&[MapWord; BUCKET_ENTRIES]> {
        LIMITS.get(index)
    }
    #[inline(always)]
    fn jiffies(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_jiffies64() }
    }
    #[inline(always)]
    fn nanoseconds(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }
    #[inline(always)]
    fn interface_mac(&self, ifindex: u32) -> Option<[u8; 6]> {
        // SAFETY: the value is plain bytes; a concurrent update of a MAC address by user space is a replacement of
        // the whole element by the kernel.
        unsafe { INTERFACES.get(ifindex) }.map(|interface| interface.mac)
    }
}

/// The flow table, as a function of its own: the verifier looks at it once, and the way of settled slots stays short.
///
/// Only scalars and a pointer to a map value can be passed to a global BPF function.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn track_flow(
    service: *const Service,
    hash: u64,
    slot_and_packet: u32,
    index: u32,
) -> u32 {
    let owner = slot_and_packet & u32::from(slot::MEMBER);
    if service.is_null() {
        return owner;
    }
    // SAFETY: not null (checked), and the verifier demands a readable `Service` of every caller.
    let service = unsafe { &*service };
    let Some(globals) = Maps.globals() else { return owner };
    let query = Query { hash, slot: slot_and_packet as u16, index, packet: (slot_and_packet >> 16) as u8 };
    let now = track::seconds(globals, Maps.jiffies());
    u32::from(track::select(&Maps, globals, service, now, query, slot_and_packet & IN_OLD != 0))
}

/// In an argument of [`track_flow`]: the flow is in the table from before its size was changed.
const IN_OLD: u32 = 1 << 24;

/// A flow that may be in the table from before its size was changed, as a function of its own as well. 1 = it stays there.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn bring_flow(service: *const Service, hash: u64) -> u32 {
    if service.is_null() {
        return 0;
    }
    // SAFETY: as in `track_flow`.
    let service = unsafe { &*service };
    let Some(globals) = Maps.globals() else { return 0 };
    let now = track::seconds(globals, Maps.jiffies());
    u32::from(track::bring(&Maps, globals, service, now, hash))
}

/// The rate limiter, as a function of its own. 0 = refused.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn limit_source(service: *const Service, source: u64) -> u32 {
    if service.is_null() {
        return 1;
    }
    // SAFETY: as in `track_flow`.
    let service = unsafe { &*service };
    let Some(globals) = Maps.globals() else { return 1 };
    u32::from(limit::allows(&Maps, globals, service, source))
}

/// A block that a function changes.
#[repr(C)]
pub(crate) struct InPlace {
    words: Block,
}

/// AES behind calls: the verifier looks at a block once, not once for each round of a connection ID.
macro_rules! aes {
    ($( $name:ident = $function:ident with $keys:ident; )*) => { $(
        #[doc = concat!("[`aes::", stringify!($function), "`].")]
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $name(config: *const QuicConfig, block: *mut InPlace) -> u32 {
            if config.is_null() || block.is_null() {
                return 0;
            }
            // SAFETY: not null (checked), and the verifier demands of every caller that both can be accessed whole.
            let (config, block) = unsafe { (&*config, &mut *block) };
            block.words = aes::$function(&config.$keys, block.words);
            1
        }
    )* };
}

aes! {
    aes_encrypt = encrypt with encrypt;
    aes_decrypt = decrypt with decrypt;
}

/// Reads both clocks for user space.
#[inline(always)]
pub(crate) fn read_clocks() {
    core::hint::black_box((SERVICE_INFO.get_ptr(0), BACKEND_INFO.get_ptr(0)));
    if let Some(clocks) = CLOCKS.get_ptr_mut(0) {
        // SAFETY: the pointer is a map value of this type, and user space reads it only after the run.
        unsafe { *clocks = Clocks { jiffies: bpf_jiffies64(), nanoseconds: bpf_ktime_get_ns() } };
    }
}

/// The one place where counters move: one per packet.
#[inline(always)]
pub(crate) fn count(verdict: Verdict) {
    if verdict.is_forwarded() {
        if let Some(counter) = COUNTERS.get_ptr_mut(verdict.counted()) {
            // SAFETY: this CPU's map value; XDP programs of one CPU do not interrupt each other.
            unsafe {
                (*counter).packets += 1;
                (*counter).bytes += u64::from(verdict.bytes());
            }
        }
    } else if let Some(count) = REASONS.get_ptr_mut(verdict.counted()) {
        // SAFETY: as above.
        unsafe { *count += 1 };
    }
}
