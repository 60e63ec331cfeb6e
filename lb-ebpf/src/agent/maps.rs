//! The agent's maps.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
    macros::btf_map,
};
use lb_common::{
    abi::{AgentSettings, Peer, Reason},
    datapath::{AgentTables, Verdict},
};

use lb_ebpf::packet::Frame;

use crate::sockets;

/// An address as a map key on the stack. LLVM may join stores to it, and the kernel demands that accesses to the stack
/// are aligned: hence the alignment.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Address([u32; 4]);

/// A key of an LPM trie on the stack, aligned for the same reason.
#[repr(C, align(8))]
struct Prefix<T> {
    bits: u32,
    address: T,
}

/// Prefixes of balancers: a handful.
const SOURCES: usize = 1024;
/// Other backends that packets may be handed on to.
const MAX_PEERS: usize = 16_384;
/// VIPs of one backend.
const VIPS: usize = 16_384;

#[btf_map]
static SOURCES4: LpmTrie<u32, u32, SOURCES> = LpmTrie::new();
#[btf_map]
static SOURCES6: LpmTrie<[u32; 4], u32, SOURCES> = LpmTrie::new();
#[btf_map]
static AGENT_VIPS: HashMap<Address, u32, VIPS> = HashMap::new();
#[btf_map]
static AGENT_SETTINGS: Array<AgentSettings, 1> = Array::new();
#[btf_map]
static REASONS: PerCpuArray<u64, { Reason::CAPACITY as usize }> = PerCpuArray::new();

#[btf_map]
static PEERS: HashMap<Address, Peer, MAX_PEERS> = HashMap::new();

/// The maps above, as the datapath wants them.
pub(crate) struct Maps;

impl AgentTables<Frame> for Maps {
    #[inline(always)]
    fn knows_source4(&self, address: u32) -> bool {
        let prefix = Prefix { bits: 32, address };
        // SAFETY: `Key` is `repr(C, packed)`: prefix length, then data; `Prefix` has the same two fields at the same
        // offsets, and more alignment.
        SOURCES4.get(unsafe { &*(&raw const prefix).cast::<Key<u32>>() }).is_some()
    }
    #[inline(always)]
    fn knows_source6(&self, address: [u32; 4]) -> bool {
        let prefix = Prefix { bits: 128, address };
        // SAFETY: as above.
        SOURCES6.get(unsafe { &*(&raw const prefix).cast::<Key<[u32; 4]>>() }).is_some()
    }
    #[inline(always)]
    fn knows_vip(&self, address: [u32; 4]) -> bool {
        // SAFETY: only the presence of the element matters.
        unsafe { AGENT_VIPS.get(Address(address)) }.is_some()
    }
    #[inline(always)]
    fn gue_port(&self) -> u16 {
        AGENT_SETTINGS.get(0).map_or(0, |settings| settings.gue_port)
    }
    #[inline(always)]
    fn peer(&self, address: [u32; 4]) -> Option<&Peer> {
        // SAFETY: plain numbers; the kernel replaces an element as a whole, and reuses its memory only for another
        // peer's: at worst one packet goes to a backend that hands it on.
        unsafe { PEERS.get(Address(address)) }
    }
    #[inline(always)]
    fn knows4(&self, packet: &mut Frame, ip: usize, tcp: usize) -> bool {
        sockets::knows4(packet, ip, tcp)
    }
    #[inline(always)]
    fn knows6(&self, packet: &mut Frame, ip: usize, tcp: usize) -> bool {
        sockets::knows6(packet, ip, tcp)
    }
}

/// The one place where counters move: one per packet.
#[inline(always)]
pub(crate) fn count(verdict: Verdict) {
    if let Some(count) = REASONS.get_ptr_mut(verdict.counted()) {
        // SAFETY: this CPU's map value; XDP programs of one CPU do not interrupt each other.
        unsafe { *count += 1 };
    }
}
