//! Reads back what an earlier daemon installed, so that a new one goes on from there.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use lb_common::abi::{BackendInfo, slot};

use super::{
    extent::{Arena, Extent},
    memory::Memory,
};

/// A member as the maps have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdoptedMember {
    /// Its index in the service.
    pub index: u16,
    /// Health, as `BackendInfo::health` has it.
    pub health: u8,
    /// `CLOCK_REALTIME` seconds of its last change.
    pub since: u64,
    pub(super) counter: u32,
}

/// A service as the maps have it.
#[derive(Clone, Debug)]
pub struct AdoptedService {
    /// The installed table: owners with states.
    pub slots: Arc<[u16]>,
    /// `SLOT_META` of slots that are not settled, by slot.
    pub meta: HashMap<u32, u32>,
    /// Members by identity.
    pub members: HashMap<u64, AdoptedMember>,
    pub(super) number: u32,
    pub(super) table: Extent,
    pub(super) extent: Extent,
}

/// Everything in force, by the identity of the service.
#[derive(Clone, Debug, Default)]
pub struct Adopted {
    /// Services by identity.
    pub services: HashMap<u64, AdoptedService>,
    /// Key of the hashes: another key moves every source.
    pub key: Option<[u64; 4]>,
    /// Digest of the desired state that was installed.
    pub desired_digest: u64,
}

impl Adopted {
    /// Reads the generation in force. Records that cannot be are left out: they are rewritten by the next install.
    pub(super) fn read(memory: &Memory) -> Self {
        let Some(globals) = memory.globals() else { return Self::default() };
        let capacity = memory.capacity();
        let base = globals.service_base as usize;
        let mut services = HashMap::new();
        let mut seen: HashMap<Extent, Arc<[u16]>> = HashMap::new();
        for number in 1..capacity.services {
            let at = base + number as usize;
            let Some((info, record)) = memory.service_info.get(at).zip(memory.services.get(at)) else {
                continue;
            };
            if info.identity == 0 {
                continue;
            }
            let table = Extent { start: record.table_base, length: record.table_slots };
            let extent = Extent { start: record.backend_base, length: record.backend_count };
            let Some(slots) = range(memory.slots.as_slots(), table) else { continue };
            let meta = (0u32..)
                .zip(slots)
                .filter(|(_, value)| *value & slot::STATE != slot::SETTLED)
                .filter_map(|(i, _)| Some((i, memory.slot_meta.word((table.start + i) as usize)?)))
                .collect();
            let slots = seen.entry(table).or_insert_with(|| Arc::from(slots)).clone();
            let Some(infos) = range(memory.backend_info.as_slice(), extent) else { continue };
            let Some(records) = range(memory.backends.as_slice(), extent) else { continue };
            let member = |(i, (info, record)): (usize, (&BackendInfo, &lb_common::abi::Backend))| {
                let index = u16::try_from(i).ok()?;
                (info.identity != 0).then_some((
                    info.identity,
                    AdoptedMember { index, health: info.health, since: info.since, counter: record.counter },
                ))
            };
            let members = infos.iter().zip(records).enumerate().filter_map(member).collect();
            services.insert(info.identity, AdoptedService { slots, meta, members, number, table, extent });
        }
        let control = memory.control.get(0).unwrap_or_default();
        Self { services, key: Some(globals.key), desired_digest: control.desired_digest }
    }

    /// Marks what is in use, or says that the records contradict each other.
    pub(super) fn reserve(&self, slots: &mut Arena, members: &mut Arena, counters: &mut Arena) -> bool {
        let tables: BTreeSet<Extent> = self.services.values().map(|s| s.table).collect();
        tables.into_iter().all(|t| slots.reserve(t))
            && self.services.values().all(|s| members.reserve(s.extent))
            && self
                .services
                .values()
                .flat_map(|s| s.members.values())
                .all(|m| counters.reserve(Extent { start: m.counter, length: 1 }))
    }
}

fn range<T>(all: &[T], extent: Extent) -> Option<&[T]> {
    let start = extent.start as usize;
    all.get(start..start.checked_add(extent.length as usize)?)
}
