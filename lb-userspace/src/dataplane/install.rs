//! Installs snapshots: writes what is new where no program looks, then switches the generation.
//!
//! `docs/abi.md` has the picture. In short: slots and member records live in arenas; a table or a member list that
//! changed is written to a fresh extent; VIPs, ports and services have two halves each; a [`Globals`] that points at
//! the new places goes into the unused one of its two cells, and one 32-bit store switches. What the switch made
//! unreachable is reused only after an RCU grace period.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use lb_common::{
    abi::{ABI_VERSION, Control, Globals, QuicConfig, Service, ServiceInfo, globals_flags, slot},
    datapath::track::{entry, meta},
};

use super::{
    DataplaneError,
    adopt::Adopted,
    drift::Seal,
    extent::{Arena, Extent},
    grace::Grace,
    lookup_tables::{self, Keys},
    memory::{Clock, Memory, QUIC_ELEMENTS},
    records,
    room::{InstallError, Room},
    sweep::{self, Swept},
};
use crate::control::{
    model,
    settling::{Seconds, never},
};

/// What the kernel holds of one service.
#[derive(Clone, Debug)]
pub(super) struct Installed {
    pub(super) number: u32,
    /// Slots, shared by services whose tables are equal.
    pub(super) table: Extent,
    /// The slots' owner in user space: equality by pointer is the fast way to see that nothing changed.
    pub(super) slots: Arc<[u16]>,
    pub(super) members: Extent,
    /// What was written to `members`.
    pub(super) list: Vec<Option<model::Member>>,
    /// What was written for the slots of `table`, if anything was.
    pub(super) candidates: Option<Arc<[u64]>>,
    /// Counter of each member identity.
    pub(super) counters: HashMap<u64, u32>,
    /// What all of that was written for; `None` where it is not believed to be there still.
    pub(super) source: Option<Arc<model::Service>>,
}

impl Installed {
    /// Whether it was written for this very service.
    fn is_of(&self, service: &Arc<model::Service>) -> bool {
        self.source.as_ref().is_some_and(|source| Arc::ptr_eq(source, service))
    }
}

/// Writes generations. One per instance; the only writer of its memory.
pub struct Installer {
    pub(super) memory: Memory,
    pub(super) clock: Clock,
    pub(super) grace: Grace,
    slots: Arena,
    members: Arena,
    pub(super) counters: Arena,
    /// Tables in force; services may share one.
    tables: BTreeSet<Extent>,
    pub(super) installed: HashMap<u64, Arc<Installed>>,
    pub(super) keys: Keys,
    /// What the last install wrote, to find what somebody else has changed since.
    pub(super) seal: Option<Seal>,
    /// Freed by the last switch: programs may still look at them.
    leaving: Vec<(Kind, Extent)>,
    /// Tables that were replaced by the last switch, with the ones that replaced them.
    replaced: Vec<(Extent, Extent)>,
    /// Seconds of the datapath's clock.
    pub(super) now: Seconds,
    /// Whether `FLOWS_OLD` still has flows.
    pub(super) moving: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Slots,
    Members,
    Counters,
}

/// What an installation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Installation {
    /// The generation now in force.
    pub generation: u32,
    /// Tables written.
    pub tables: u32,
    /// Member lists written.
    pub member_lists: u32,
}

impl Installer {
    /// Over memory that is empty or was never switched to a generation.
    pub fn new(memory: Memory, clock: Clock, grace: Grace) -> Self {
        let capacity = memory.capacity();
        Self {
            slots: Arena::new(capacity.slots, 4),
            members: Arena::new(capacity.backends, 1),
            counters: Arena::new(capacity.backends, 1),
            memory,
            clock,
            grace,
            tables: BTreeSet::new(),
            installed: HashMap::new(),
            keys: Keys::default(),
            seal: None,
            leaving: Vec::new(),
            replaced: Vec::new(),
            now: 0,
            moving: false,
        }
    }

    /// Over memory that an earlier daemon wrote: its generation stays in force until the first install, and services
    /// and members keep their numbers.
    ///
    /// # Errors
    /// [`DataplaneError::Contradiction`] when the records overlap or point outside: not written by this program.
    pub fn adopt(memory: Memory, clock: Clock, grace: Grace) -> Result<(Self, Adopted), DataplaneError> {
        let adopted = Adopted::read(&memory);
        let moving = memory.globals().is_some_and(|globals| globals.flow_old != 0);
        let mut installer = Self { moving, ..Self::new(memory, clock, grace) };
        if !adopted.reserve(&mut installer.slots, &mut installer.members, &mut installer.counters) {
            return Err(DataplaneError::Contradiction);
        }
        for (identity, service) in &adopted.services {
            installer.tables.insert(service.table);
            let installed = Installed {
                number: service.number,
                table: service.table,
                slots: service.slots.clone(),
                members: service.extent,
                // Next hops may have changed while nobody looked: the list is written anew in any case.
                list: Vec::new(),
                candidates: None,
                counters: service.members.iter().map(|(id, m)| (*id, m.counter)).collect(),
                source: None,
            };
            installer.installed.insert(*identity, Arc::new(installed));
        }
        // Whatever the earlier daemon replaced last may still be looked at.
        installer.grace.begin();
        Ok((installer, adopted))
    }

    /// The memory, for reading.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The memory, for tests that write over it.
    #[cfg(test)]
    pub(super) fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Gives the memory up, as a daemon does that ends.
    #[cfg(test)]
    pub(super) fn into_memory(self) -> Memory {
        self.memory
    }

    /// Counter of a member, if it is installed.
    pub fn counter(&self, service: u64, member: u64) -> Option<u32> {
        self.installed.get(&service)?.counters.get(&member).copied()
    }

    /// Tells the time: seconds of the datapath's clock.
    pub fn set_time(&mut self, now: Seconds) {
        self.now = now;
    }

    /// Time of the last exception of a slot of a service, as the datapath has it.
    pub fn stamp(&self, service: u64, slot: u32) -> u16 {
        let meta = self
            .installed
            .get(&service)
            .and_then(|i| self.memory.slot_meta.word((i.table.start + slot) as usize));
        meta.map_or_else(|| never(self.now), meta::stamp)
    }

    /// Removes flows that were not seen for `longest` seconds, and counts the others.
    pub fn sweep_flows(&self, longest: u16) -> Swept {
        let mut settles = sweep::Settles::default();
        for installed in self.installed.values() {
            settles.add(installed.number, self.record(installed.number).settle);
        }
        let tables = [&self.memory.flows, &self.memory.old_flows];
        sweep::sweep(tables, &settles, longest, self.now as u16 & entry::TIME)
    }

    /// Flows of a member that a sweep has found; `None` when they cannot be told from another service's.
    pub fn flows(&self, swept: &Swept, service: u64, member: u16) -> Option<u64> {
        swept.flows(self.installed.get(&service)?.number, member)
    }

    /// The record in force of the service with this number.
    fn record(&self, number: u32) -> Service {
        let base = self.memory.globals().unwrap_or_default().service_base;
        self.memory.services.get((base + number) as usize).unwrap_or_default()
    }

    /// Slots and member records in use, for status.
    pub fn used(&self) -> (u32, u32) {
        (self.slots.used(), self.members.used())
    }

    /// Makes `snapshot` the generation in force.
    ///
    /// # Errors
    /// [`InstallError`]; the generation in force stays as it was.
    pub fn install(&mut self, snapshot: &model::Snapshot) -> Result<Installation, InstallError> {
        self.install_with(snapshot, &mut |_| ())
    }

    /// As [`Installer::install`]; `reset` is told of every element of `COUNTERS` that gets a new meaning, before a
    /// program can move it.
    ///
    /// # Errors
    /// [`InstallError`]; the generation in force stays as it was.
    pub fn install_with(
        &mut self,
        snapshot: &model::Snapshot,
        reset: &mut dyn FnMut(u32),
    ) -> Result<Installation, InstallError> {
        self.check_room(snapshot)?;
        self.finish_last_switch();

        // What somebody else has written over them must not live on.
        let sealed = self.seal.as_ref().map(|seal| seal.globals);
        let old = sealed.or_else(|| self.memory.globals()).unwrap_or_default();
        let numbers = self.numbers(snapshot);
        let keys =
            if lookup_tables::are_of(self, snapshot) { None } else { Some(Keys::of(snapshot, &numbers)?) };
        let mut next = HashMap::with_capacity(snapshot.services.len());
        let mut done = Installation::default();
        let mut fresh: Vec<(Kind, Extent)> = Vec::new();
        let mut by_table: HashMap<*const u16, Extent> = HashMap::new();
        for service in &snapshot.services {
            if let Some(same) = self.installed.get(&service.identity).filter(|i| i.is_of(service)) {
                by_table.insert(service.table.as_ptr(), same.table);
                next.insert(service.identity, Arc::clone(same));
                continue;
            }
            match self.write_service(
                service,
                numbers[&service.identity],
                &mut by_table,
                &mut fresh,
                &mut done,
            ) {
                Ok(installed) => {
                    next.insert(service.identity, Arc::new(installed));
                }
                Err(error) => {
                    for (kind, extent) in fresh {
                        self.give_back(kind, extent);
                    }
                    return Err(error);
                }
            }
        }

        let mut globals = self.globals_of(snapshot, keys.as_ref().unwrap_or(&self.keys), &old);
        if let Some(keys) = keys.as_ref().filter(|keys| **keys != self.keys || old.salt == 0)
            && let Err(error) = keys.write(&mut self.memory, &mut globals)
        {
            for (kind, extent) in fresh {
                self.give_back(kind, extent);
            }
            return Err(error);
        }
        self.write_services(snapshot, &next, &mut globals);
        self.write_quic(snapshot, &mut globals);
        for (kind, extent) in &fresh {
            if matches!(kind, Kind::Counters) {
                reset(extent.start);
            }
        }
        done.generation = self.switch(&globals, snapshot.desired_digest);

        self.retire(next);
        if let Some(keys) = keys {
            self.keys = keys;
        }
        self.seal = Some(Seal::of(&self.memory, &globals, self.installed.iter()));
        Ok(done)
    }

    fn check_room(&self, snapshot: &model::Snapshot) -> Result<(), InstallError> {
        let capacity = self.memory.capacity();
        let wanted = snapshot.services.len() as u64;
        // Number 0 is no service.
        if wanted >= u64::from(capacity.services) {
            return Err(InstallError::Full {
                what: Room::Services,
                wanted,
                capacity: u64::from(capacity.services) - 1,
            });
        }
        Ok(())
    }

    /// After this no program looks at what the last switch replaced.
    fn finish_last_switch(&mut self) {
        self.grace.wait();
        for (old, new) in std::mem::take(&mut self.replaced) {
            self.merge_stamps(old, new);
        }
        for (kind, extent) in std::mem::take(&mut self.leaving) {
            self.give_back(kind, extent);
        }
    }

    /// A program that still saw the old table may have stamped a slot there after it was copied.
    fn merge_stamps(&mut self, old: Extent, new: Extent) {
        for i in 0..new.length {
            if let Some(before) = self.memory.slot_meta.word((old.start + i) as usize) {
                self.merge_stamp((new.start + i) as usize, meta::stamp(before));
            }
        }
    }

    /// The younger one counts, in slots that are not settled.
    pub(super) fn merge_stamp(&mut self, to: usize, before: u16) {
        if self.memory.slots.as_slots()[to] & slot::STATE == slot::SETTLED {
            return;
        }
        let now = self.now as u16 & entry::TIME;
        let words = self.memory.slot_meta.as_mut_words();
        if entry::age(before, now) < entry::age(meta::stamp(words[to]), now) {
            words[to] = meta::new(meta::old(words[to]), before);
        }
    }

    fn give_back(&mut self, kind: Kind, extent: Extent) {
        match kind {
            Kind::Slots => self.slots.release(extent),
            Kind::Members => self.members.release(extent),
            Kind::Counters => self.counters.release(extent),
        }
    }

    /// A service keeps its number as long as it exists; new ones take the lowest that nobody has.
    fn numbers(&self, snapshot: &model::Snapshot) -> HashMap<u64, u32> {
        let is_new = |service: &Arc<model::Service>| !self.installed.contains_key(&service.identity);
        let taken: HashSet<u32> = if snapshot.services.iter().any(is_new) {
            self.installed.values().map(|i| i.number).collect()
        } else {
            HashSet::new()
        };
        let mut free = (1..).filter(|n| !taken.contains(n));
        let mut numbers = HashMap::with_capacity(snapshot.services.len());
        for service in &snapshot.services {
            let number = match self.installed.get(&service.identity) {
                Some(installed) => installed.number,
                None => free.next().unwrap_or(u32::MAX),
            };
            numbers.insert(service.identity, number);
        }
        numbers
    }

    fn write_service(
        &mut self,
        service: &Arc<model::Service>,
        number: u32,
        by_table: &mut HashMap<*const u16, Extent>,
        fresh: &mut Vec<(Kind, Extent)>,
        done: &mut Installation,
    ) -> Result<Installed, InstallError> {
        let old = self.installed.get(&service.identity).cloned();
        let table = match &old {
            Some(old) if Arc::ptr_eq(&old.slots, &service.table) || old.slots == service.table => old.table,
            _ => match by_table.get(&service.table.as_ptr()) {
                Some(extent) => *extent,
                None => {
                    let before =
                        old.as_ref().map(|o| o.table).filter(|t| t.length as usize == service.table.len());
                    let extent = self.write_table(&service.table, &service.old, before)?;
                    fresh.push((Kind::Slots, extent));
                    done.tables += 1;
                    extent
                }
            },
        };
        by_table.insert(service.table.as_ptr(), table);
        let written = old.as_ref().filter(|old| old.table == table).and_then(|old| old.candidates.as_ref());
        if let Some(candidates) = service.candidates.as_ref().filter(|wanted| written != Some(wanted)) {
            // Words of eight bytes that only say whom to ask as well: they may change under a running program.
            let start = table.start as usize;
            let room = &mut self.memory.candidates.as_mut_slice()[start..start + candidates.len()];
            room.copy_from_slice(candidates);
        }

        let mut counters: HashMap<u64, u32> = old.as_ref().map(|o| o.counters.clone()).unwrap_or_default();
        for member in service.members.iter().flatten() {
            if let Entry::Vacant(entry) = counters.entry(member.identity) {
                let one = self.counters.allocate(1).ok_or(InstallError::Full {
                    what: Room::Backends,
                    wanted: u64::from(self.counters.capacity()) + 1,
                    capacity: u64::from(self.counters.capacity()),
                })?;
                fresh.push((Kind::Counters, one));
                entry.insert(one.start);
            }
        }
        let members = match &old {
            Some(old) if old.list == service.members => old.members,
            _ => {
                let extent = self.write_members(&service.members, &counters)?;
                fresh.push((Kind::Members, extent));
                done.member_lists += 1;
                extent
            }
        };
        Ok(Installed {
            number,
            table,
            slots: service.table.clone(),
            members,
            list: service.members.clone(),
            candidates: service.candidates.clone(),
            counters,
            source: Some(Arc::clone(service)),
        })
    }

    /// Writes slots, and what belongs to those that are not settled; their stamps come from the table `before`.
    fn write_table(
        &mut self,
        table: &[u16],
        old: &BTreeMap<u32, u16>,
        before: Option<Extent>,
    ) -> Result<Extent, InstallError> {
        let capacity = self.slots.capacity();
        let wanted = u64::from(self.slots.used()) + table.len() as u64;
        let full = InstallError::Full { what: Room::Slots, wanted, capacity: u64::from(capacity) };
        let extent = u32::try_from(table.len()).ok().and_then(|n| self.slots.allocate(n)).ok_or(full)?;
        let start = extent.start as usize;
        self.memory.slots.as_mut_slots()[start..start + table.len()].copy_from_slice(table);
        for (index, owner) in old {
            let at = |extent: Extent| (extent.start + index) as usize;
            let was_settled = |at: usize| self.memory.slots.as_slots()[at] & slot::STATE == slot::SETTLED;
            let stamp = before
                .map(at)
                .filter(|at| !was_settled(*at))
                .and_then(|at| self.memory.slot_meta.word(at))
                .map_or_else(|| never(self.now), meta::stamp);
            self.memory.slot_meta.as_mut_words()[at(extent)] = meta::new(*owner, stamp);
        }
        if let Some(before) = before.filter(|_| !old.is_empty()) {
            self.replaced.push((before, extent));
        }
        Ok(extent)
    }

    fn write_members(
        &mut self,
        members: &[Option<model::Member>],
        counters: &HashMap<u64, u32>,
    ) -> Result<Extent, InstallError> {
        let capacity = self.members.capacity();
        let wanted = u64::from(self.members.used()) + members.len() as u64;
        let full = InstallError::Full { what: Room::Backends, wanted, capacity: u64::from(capacity) };
        let extent = u32::try_from(members.len()).ok().and_then(|n| self.members.allocate(n)).ok_or(full)?;
        for (i, member) in members.iter().enumerate() {
            let at = extent.start as usize + i;
            let counter =
                member.as_ref().and_then(|m| counters.get(&m.identity)).copied().unwrap_or_default();
            self.memory.backends.as_mut_slice()[at] = records::backend(member.as_ref(), counter);
            self.memory.backend_info.as_mut_slice()[at] = records::backend_info(member.as_ref());
        }
        Ok(extent)
    }

    fn globals_of(&self, snapshot: &model::Snapshot, keys: &Keys, old: &Globals) -> Globals {
        let announce = if snapshot.announce { globals_flags::ANNOUNCE } else { 0 };
        let replies = if keys.has_replies() { globals_flags::REPLIES } else { 0 };
        Globals {
            key: snapshot.key,
            flags: announce | replies,
            limit_mask: self.memory.capacity().limit_buckets - 1,
            flow_mask: self.memory.capacity().flow_buckets - 1,
            flow_old: if self.moving { self.memory.capacity().old_flow_buckets } else { 0 },
            seconds_mult: self.clock.seconds_multiplier(),
            limit_time_mult: self.clock.multiplier(),
            limit_time_offset: self.clock.offset(),
            ..*old
        }
    }

    /// Configurations of connection IDs go into the half that is not in force.
    fn write_quic(&mut self, snapshot: &model::Snapshot, globals: &mut Globals) {
        let half = QUIC_ELEMENTS / 2;
        globals.quic_base = if globals.quic_base == 0 { half } else { 0 };
        let base = globals.quic_base as usize;
        let elements = &mut self.memory.quic.as_mut_slice()[base..base + half as usize];
        elements.fill(QuicConfig::default());
        for config in &snapshot.quic {
            elements[usize::from(config.codepoint) % half as usize] = records::quic(config);
        }
    }

    /// All services go into the half that is not in force: they are small, and every one of them may have moved.
    fn write_services(
        &mut self,
        snapshot: &model::Snapshot,
        next: &HashMap<u64, Arc<Installed>>,
        globals: &mut Globals,
    ) {
        let half = self.memory.capacity().services;
        globals.service_base = if globals.service_base == 0 { half } else { 0 };
        let base = globals.service_base as usize;
        let records = &mut self.memory.services.as_mut_slice()[base..base + half as usize];
        let infos = &mut self.memory.service_info.as_mut_slice()[base..base + half as usize];
        infos.fill(ServiceInfo::default());
        for service in &snapshot.services {
            let installed = &next[&service.identity];
            let (limit_cost, limit_tolerance, fine) = records::limit(service.limit, &self.clock);
            records[installed.number as usize] = Service {
                table_base: installed.table.start,
                table_slots: installed.table.length,
                backend_base: installed.members.start,
                backend_count: installed.members.length,
                limit_cost,
                limit_tolerance,
                affinity: records::affinity(service.affinity),
                settle: service.settle,
                tracking: records::tracking(service.tracking),
                flags: records::flags(service, fine),
                id: installed.number,
                sole: lookup_tables::sole_ports(service).unwrap_or_default(),
                ..Service::default()
            };
            infos[installed.number as usize] =
                ServiceInfo { identity: service.identity, ..ServiceInfo::default() };
        }
    }

    fn switch(&mut self, globals: &Globals, desired_digest: u64) -> u32 {
        let control = self.memory.control.get(0).unwrap_or_default();
        // 0 means "never installed", also after four billion switches.
        let generation = control.generation.wrapping_add(1);
        let generation = if generation == 0 { 2 } else { generation };
        self.memory.globals.as_mut_slice()[(generation & 1) as usize] = *globals;
        let place = &mut self.memory.control.as_mut_slice()[0];
        place.abi_version = ABI_VERSION;
        place.installed_at = now();
        place.desired_digest = desired_digest;
        self.memory.control.publish(0, std::mem::offset_of!(Control, generation), generation);
        self.grace.begin();
        generation
    }

    /// Remembers what is in force now; what only the last generation used leaves.
    fn retire(&mut self, next: HashMap<u64, Arc<Installed>>) {
        let tables: BTreeSet<Extent> = next.values().map(|i| i.table).collect();
        self.leaving.extend(self.tables.difference(&tables).map(|e| (Kind::Slots, *e)));
        for (identity, old) in &self.installed {
            let new = next.get(identity);
            if new.is_none_or(|n| n.members != old.members) {
                self.leaving.push((Kind::Members, old.members));
            }
            for (member, counter) in &old.counters {
                let kept = new.is_some_and(|n| n.list.iter().flatten().any(|m| m.identity == *member));
                if !kept {
                    self.leaving.push((Kind::Counters, Extent { start: *counter, length: 1 }));
                }
            }
        }
        self.tables = tables;
        self.installed = next;
        // Nobody else holds them any more.
        for installed in self.installed.values_mut().filter_map(Arc::get_mut) {
            let list = &installed.list;
            installed.counters.retain(|member, _| list.iter().flatten().any(|m| m.identity == *member));
        }
    }
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
