//! Maps of other sizes, while packets go on.
//!
//! A second set of maps is made beside the one in force and the next generation is written there; then every link gets a
//! new program that looks at the new set, and the pin directories change their places. Maps whose size stays (flows,
//! limits, counters) belong to both sets. When the flow table gets another size the old one stays as `FLOWS_OLD`, from
//! where the datapath moves each flow when its next packet comes (`lb_common::datapath::track::bring`).
//!
//! Killed anywhere, the next start finds out by the program that is attached which set counts ([`recover`]).

use std::sync::Arc;

use aya::{
    Ebpf,
    maps::{MapData, MapInfo},
    programs::loaded_programs,
};
use lb_common::{
    abi::{maps, slot},
    datapath::track::meta,
};
use log::{info, warn};

use super::{
    Capacity, DataplaneError, Grace, Installer, Memory, Pins,
    attach::{self, hand_over, pinned_program},
    counters,
    extent::Extent,
    install::Installed,
    load,
};

/// Maps that stay as long as their size does.
const KEPT: [&str; 7] = [
    maps::FLOWS,
    maps::FLOWS_OLD,
    maps::LIMITS,
    maps::COUNTERS,
    maps::REASONS,
    maps::FLOW_EVENTS,
    maps::INTERFACES,
];

/// A program with its maps, loaded beside the one that is attached.
pub struct Beside {
    /// Program and maps.
    pub ebpf: Ebpf,
    pins: Pins,
}

impl Beside {
    /// Makes maps of the capacity `to` beside those of `from`, and loads a program over them. Nothing is in force there.
    ///
    /// # Errors
    /// [`DataplaneError`], most of all for want of memory; nothing has changed then.
    pub fn load(pins: &Pins, from: &Capacity, to: &Capacity) -> Result<(Self, Memory), DataplaneError> {
        let next = pins.next();
        next.forget()?;
        next.create()?;
        let loaded = share(pins, &next, from, to).and_then(|()| load::load_with(Some(&next), to));
        match loaded {
            Ok((ebpf, memory)) => Ok((Self { ebpf, pins: next }, memory)),
            Err(error) => {
                next.forget()?;
                Err(error)
            }
        }
    }

    /// Puts the program on every link in the place of the one of `old`, and the pins in the place of the old ones.
    /// `counters` are elements of `COUNTERS` to be copied, if that map is another one.
    ///
    /// # Errors
    /// [`DataplaneError`]; what was attached is attached again then.
    pub fn switch(
        mut self,
        pins: &Pins,
        old: &mut Ebpf,
        counters: Option<&[u32]>,
    ) -> Result<Ebpf, DataplaneError> {
        if let Err(error) = self.try_switch(pins, old, counters) {
            for interface in pins.linked_interfaces() {
                if self.pins.link(&interface).exists()
                    && let Err(left) = attach::replace(attach::balancer(old)?, &pins.link(&interface))
                {
                    warn!("{interface} keeps the program of a change of sizes that was given up: {left}");
                }
            }
            self.give_up();
            return Err(error);
        }
        Ok(self.ebpf)
    }

    fn try_switch(
        &mut self,
        pins: &Pins,
        old: &Ebpf,
        counters: Option<&[u32]>,
    ) -> Result<(), DataplaneError> {
        if let Some(counters) = counters {
            counters::copy(old, &mut self.ebpf, counters)?;
        }
        let program = attach::balancer(&mut self.ebpf)?;
        for interface in pins.linked_interfaces() {
            let lives = hand_over(program, &pins.link(&interface), &self.pins.link(&interface))
                .map_err(|error| DataplaneError::Attach { interface: interface.clone(), error })?;
            if !lives {
                info!("the pinned link of {interface} is dead and forgotten");
            }
        }
        pins.exchange(&self.pins)?;
        // Now those that were in force until here.
        self.give_up();
        Ok(())
    }

    /// Removes the pins of what is not in force.
    pub fn give_up(&self) {
        if let Err(error) = self.pins.forget() {
            warn!("maps that are not in force stay pinned until the next start: {error}");
        }
    }
}

/// Pins the maps that both sets have in common in the directory of the new set.
fn share(pins: &Pins, next: &Pins, from: &Capacity, to: &Capacity) -> Result<(), DataplaneError> {
    for name in KEPT {
        let is_moved = name == maps::FLOWS_OLD && from.flow_buckets != to.flow_buckets;
        let source = if is_moved { maps::FLOWS } else { name };
        if !is_moved && from.elements(name) != to.elements(name) {
            continue;
        }
        let error = |error: &dyn std::error::Error| DataplaneError::Map { name, error: error.to_string() };
        let map = MapData::from_pin(pins.map(source)).map_err(|e| error(&e))?;
        map.pin(next.map(name)).map_err(|e| error(&e))?;
    }
    Ok(())
}

/// Ends a change of sizes in the middle of which a daemon died: the set of maps that an attached program looks at stays.
///
/// # Errors
/// [`DataplaneError`] when pins cannot be read or removed.
pub fn recover(pins: &Pins) -> Result<(), DataplaneError> {
    let next = pins.next();
    if !next.directory().exists() {
        return Ok(());
    }
    let control = MapInfo::from_pin(next.map(maps::CONTROL)).map(|info| info.id()).ok();
    let mut taken_over = false;
    for interface in pins.linked_interfaces() {
        let program = pinned_program(pins, &interface)?.map(|pinned| pinned.program);
        let info = loaded_programs().flatten().find(|info| Some(info.id()) == program);
        let looked_at = info.and_then(|info| info.map_ids().ok().flatten()).unwrap_or_default();
        taken_over |= control.is_some_and(|id| looked_at.contains(&id));
    }
    if taken_over {
        info!("a change of sizes that an earlier daemon had begun is in force, and is brought to its end");
        for interface in pins.linked_interfaces() {
            if !next.link(&interface).exists() {
                attach::pin_again(&pins.link(&interface), &next.link(&interface))
                    .map_err(|error| DataplaneError::Attach { interface, error })?;
            }
        }
        pins.exchange(&next)?;
    }
    next.forget()
}

impl Installer {
    /// Whether flows are still moving out of the flow table from before the last change of its size.
    pub fn is_moving(&self) -> bool {
        self.moving
    }

    /// The next installations leave `FLOWS_OLD` alone: a sweep has found nothing there.
    pub fn has_moved(&mut self) {
        self.moving = false;
    }

    /// Elements of `COUNTERS` that mean something.
    pub fn counters(&self) -> Vec<u32> {
        self.installed.values().flat_map(|installed| installed.counters.values().copied()).collect()
    }

    /// Over empty memory, with the same numbers for services and counters: flows and counters are known by these.
    #[must_use]
    pub fn successor(&self, memory: Memory) -> Self {
        let mut next = Self::new(memory, self.clock, Grace::none());
        next.now = self.now;
        next.moving = next.memory.capacity().old_flow_buckets > 1;
        // Generations count on.
        let before = self.memory.control.get(0).unwrap_or_default();
        next.memory.control.as_mut_slice()[0].generation = before.generation;
        for (identity, installed) in &self.installed {
            for counter in installed.counters.values() {
                next.counters.reserve(Extent { start: *counter, length: 1 });
            }
            let unwritten = Installed {
                table: Extent::default(),
                slots: [].into(),
                candidates: None,
                members: Extent::default(),
                list: Vec::new(),
                source: None,
                ..Installed::clone(installed)
            };
            next.installed.insert(*identity, Arc::new(unwritten));
        }
        next
    }

    /// Takes over the stamps of slots that are not settled from the maps before.
    pub fn carry_stamps(&mut self, from: &Self) {
        let pairs: Vec<(Extent, Extent)> = self
            .installed
            .iter()
            .filter_map(|(identity, new)| Some((from.installed.get(identity)?.table, new.table)))
            .filter(|(old, new)| old.length == new.length)
            .collect();
        for (old, new) in pairs {
            for i in 0..new.length {
                let at = (old.start + i) as usize;
                let is_settled = from.memory.slots.as_slots()[at] & slot::STATE == slot::SETTLED;
                if let Some(word) = from.memory.slot_meta.word(at).filter(|_| !is_settled) {
                    self.merge_stamp((new.start + i) as usize, meta::stamp(word));
                }
            }
        }
    }

    /// Waits until no program looks at the maps before, whose last stamps then come over.
    pub fn succeed(&mut self, before: &Self, grace: Grace) {
        self.grace = grace;
        self.grace.begin();
        self.grace.wait();
        self.carry_stamps(before);
    }
}
