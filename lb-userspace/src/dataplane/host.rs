//! The tables in plain memory, for running the datapath on the host: packet cases, fuzzing, `explain`.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use lb_common::{
    abi::{BUCKET_ENTRIES, Backend, Globals, QuicConfig, Reply, Service, Vip6},
    datapath::{Cut, Packet, Route, Tables, Wanted, Ways, Word, route, track::FlowEvent},
};

use super::memory::Memory;

/// A word of a bucket on the host.
#[repr(transparent)]
pub struct HostWord(AtomicU64);

impl Word for HostWord {
    fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    fn store(&self, new: u64) {
        self.0.store(new, Ordering::Relaxed);
    }
    fn replace(&self, old: u64, new: u64) -> bool {
        self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }
}

/// [`Memory`] with a clock that tests set and the interfaces' MAC addresses.
pub struct HostTables<'m> {
    memory: &'m Memory,
    /// What `jiffies` answers.
    pub jiffies: Cell<u64>,
    /// What `nanoseconds` answers.
    pub nanoseconds: Cell<u64>,
    /// Interface index → MAC address.
    pub interfaces: BTreeMap<u32, [u8; 6]>,
    /// What happened in the flow table, by number of [`FlowEvent`].
    pub flow_events: [Cell<u64>; FlowEvent::ALL.len()],
    /// What the kernel's routing tables would say; that it does not route, unless set.
    pub routes: fn(&Wanted) -> Route,
}

impl<'m> HostTables<'m> {
    /// Over this memory, at time 0.
    pub fn new(memory: &'m Memory) -> Self {
        Self {
            memory,
            jiffies: Cell::new(0),
            nanoseconds: Cell::new(0),
            interfaces: BTreeMap::new(),
            flow_events: Default::default(),
            routes: |_| Route::without_way(route::UNKNOWN),
        }
    }
}

impl Tables for HostTables<'_> {
    type Word = HostWord;

    fn globals(&self) -> Option<&Globals> {
        let generation = self.memory.control.as_slice().first()?.generation;
        if generation == 0 { None } else { self.memory.globals.as_slice().get((generation & 1) as usize) }
    }
    fn vip4(&self, index: u32) -> Option<u64> {
        self.memory.vips4.get(index as usize)
    }
    fn vip6(&self, index: u32) -> Option<&Vip6> {
        self.memory.vips6.as_slice().get(index as usize)
    }
    fn port(&self, index: u32) -> Option<u64> {
        self.memory.ports.get(index as usize)
    }
    fn service(&self, index: u32) -> Option<&Service> {
        self.memory.services.as_slice().get(index as usize)
    }
    fn slots(&self, index: u32) -> Option<u64> {
        self.memory.slots.get(index as usize)
    }
    fn candidates(&self, index: u32) -> Option<u64> {
        self.memory.candidates.get(index as usize)
    }
    fn slot_meta(&self, index: u32) -> Option<u32> {
        let two = self.memory.slot_meta.get((index >> 1) as usize)?;
        Some((two >> ((index & 1) * 32)) as u32)
    }
    fn stamp_slot(&self, index: u32, time: u16) {
        let Some(two) = self.memory.slot_meta.as_slice().get((index >> 1) as usize) else { return };
        // SAFETY: an aligned word of ours; programs on the host run one after the other.
        let word = unsafe { AtomicU64::from_ptr(std::ptr::from_ref(two).cast_mut()) };
        let shift = (index & 1) * 32 + 16;
        let value = word.load(Ordering::Relaxed);
        word.store(value & !(0xffff << shift) | u64::from(time) << shift, Ordering::Relaxed);
    }
    fn flow_bucket(&self, index: u32) -> Option<&[HostWord; BUCKET_ENTRIES]> {
        let bucket = self.memory.flows.as_slice().get(index as usize)?;
        // SAFETY: as in `limit_bucket`.
        Some(unsafe { &*std::ptr::from_ref(bucket).cast() })
    }
    fn old_flow_bucket(&self, index: u32) -> Option<&[HostWord; BUCKET_ENTRIES]> {
        let bucket = self.memory.old_flows.as_slice().get(index as usize)?;
        // SAFETY: as in `limit_bucket`.
        Some(unsafe { &*std::ptr::from_ref(bucket).cast() })
    }
    fn count_flow(&self, event: FlowEvent) {
        let count = &self.flow_events[event as usize];
        count.set(count.get() + 1);
    }
    fn quic(&self, index: u32) -> Option<&QuicConfig> {
        self.memory.quic.as_slice().get(index as usize)
    }
    fn backend(&self, index: u32) -> Option<&Backend> {
        self.memory.backends.as_slice().get(index as usize)
    }
    fn reply(&self, index: u32) -> Option<&Reply> {
        self.memory.replies.as_slice().get(index as usize)
    }
    fn limit_bucket(&self, index: u32) -> Option<&[HostWord; BUCKET_ENTRIES]> {
        let bucket = self.memory.limits.as_slice().get(index as usize)?;
        // SAFETY: `HostWord` is a transparent `AtomicU64`, which has the layout of `u64`; the memory is changed only
        // through such words while this borrow lives.
        Some(unsafe { &*std::ptr::from_ref(bucket).cast() })
    }
    fn jiffies(&self) -> u64 {
        self.jiffies.get()
    }
    fn nanoseconds(&self) -> u64 {
        self.nanoseconds.get()
    }
    fn interface_mac(&self, ifindex: u32) -> Option<[u8; 6]> {
        self.interfaces.get(&ifindex).copied()
    }
}

/// A frame in a vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPacket {
    /// All of it.
    pub bytes: Vec<u8>,
    skipped: usize,
}

impl HostPacket {
    /// With these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, skipped: 0 }
    }
}

impl<P: Packet> Ways<P> for HostTables<'_> {
    fn route(&self, _packet: &mut P, wanted: &Wanted, _ingress: u32) -> Route {
        (self.routes)(wanted)
    }
}

impl Packet for HostPacket {
    fn length(&self) -> usize {
        self.bytes.len().wrapping_sub(self.skipped)
    }
    fn at<const N: usize>(&self, offset: usize) -> Result<&[u8; N], Cut> {
        self.bytes.get(self.skipped + offset..).and_then(|b| b.first_chunk()).ok_or(Cut)
    }
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Result<&mut [u8; N], Cut> {
        self.bytes.get_mut(self.skipped + offset..).and_then(|b| b.first_chunk_mut()).ok_or(Cut)
    }
    fn grow<const N: usize>(&mut self) -> Result<(), Cut> {
        self.bytes.splice(self.skipped..self.skipped, [0; N]);
        Ok(())
    }
    fn shrink<const N: usize>(&mut self) -> Result<(), Cut> {
        // As the kernel: at least an Ethernet header stays.
        if self.bytes.len() < self.skipped + N + 14 {
            return Err(Cut);
        }
        self.bytes.drain(self.skipped..self.skipped + N);
        Ok(())
    }
    fn truncate(&mut self, length: usize) {
        self.bytes.truncate(self.skipped + length);
    }
    fn skipped(&self) -> usize {
        self.skipped
    }
    fn skip(&mut self, bytes: usize) {
        self.skipped = bytes;
    }
}
