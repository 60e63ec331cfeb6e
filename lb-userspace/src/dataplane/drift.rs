//! Whether the maps still hold what was written to them. Somebody with bpftool can change anything; what is found is
//! written anew, as a generation like any other.
//!
//! What the datapath itself writes (flows, limits, counters, stamps of slots) is not looked at.

use std::{collections::BTreeMap, sync::Arc};

use lb_common::abi::{Backend, BackendInfo, Globals, Service, ServiceInfo, Vip6};

use super::{
    install::{Installed, Installer},
    lookup_tables::Keys,
    memory::Memory,
};
use crate::control::reconcile::{Parts, State, Step, steps};

/// What was written by the last install, as it was read back directly after it; tables are known anyway.
#[derive(Debug, Default)]
pub(super) struct Seal {
    generation: u32,
    pub(super) globals: Globals,
    vips4: Vec<u64>,
    vips6: Vec<Vip6>,
    ports: Vec<u64>,
    services: BTreeMap<u64, SealedService>,
}

#[derive(Debug)]
struct SealedService {
    record: (Service, ServiceInfo),
    backends: Vec<Backend>,
    infos: Vec<BackendInfo>,
}

type Common<'m> = (u32, Globals, &'m [u64], &'m [Vip6], &'m [u64]);
type Record = (Service, ServiceInfo);
type Members<'m> = (&'m [Backend], &'m [BackendInfo]);
type Held<'m> = State<Common<'m>, Record, &'m [u16], Members<'m>>;

impl Seal {
    /// Of what was just installed.
    pub(super) fn of<'i>(
        memory: &Memory,
        globals: &Globals,
        installed: impl Iterator<Item = (&'i u64, &'i Arc<Installed>)>,
    ) -> Self {
        let (generation, _, vips4, vips6, ports) = common(memory, globals);
        let sealed = |(identity, installed): (&u64, &Arc<Installed>)| {
            let (backends, infos) = members(memory, installed);
            let record = record(memory, globals, installed);
            (*identity, SealedService { record, backends: backends.to_vec(), infos: infos.to_vec() })
        };
        Self {
            generation,
            globals: *globals,
            vips4: vips4.to_vec(),
            vips6: vips6.to_vec(),
            ports: ports.to_vec(),
            services: installed.map(sealed).collect(),
        }
    }
}

impl Installer {
    /// The steps from what the maps hold to what was installed; none while nobody else has written to them.
    pub fn drift(&self) -> Vec<Step> {
        let Some(seal) = &self.seal else { return Vec::new() };
        steps(&self.sealed(seal), &self.found(seal))
    }

    fn sealed<'m>(&'m self, seal: &'m Seal) -> Held<'m> {
        let common = (seal.generation, seal.globals, &seal.vips4[..], &seal.vips6[..], &seal.ports[..]);
        let services = self.installed.iter().filter_map(|(identity, installed)| {
            let SealedService { record, backends, infos } = seal.services.get(identity)?;
            let members = (&backends[..], &infos[..]);
            Some((*identity, Parts { record: *record, slots: &installed.slots[..], members }))
        });
        State { common, services: services.collect() }
    }

    fn found<'m>(&'m self, seal: &'m Seal) -> Held<'m> {
        let memory = self.memory();
        let (generation, _, vips4, vips6, ports) = common(memory, &seal.globals);
        let globals = memory.globals.get((generation & 1) as usize).unwrap_or_default();
        let services = self.installed.iter().map(|(identity, installed)| {
            let (start, length) = (installed.table.start as usize, installed.table.length as usize);
            let slots = memory.slots.as_slots().get(start..start + length).unwrap_or_default();
            let record = record(memory, &seal.globals, installed);
            (*identity, Parts { record, slots, members: members(memory, installed) })
        });
        State { common: (generation, globals, vips4, vips6, ports), services: services.collect() }
    }

    /// Makes the next install write what these steps name, wherever that is now.
    pub fn distrust(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Slots(identity) => {
                    let Some(table) = self.installed.get(identity).map(|i| i.table) else { continue };
                    // Services may share the table that was changed.
                    for installed in self.installed.values_mut().filter(|i| i.table == table) {
                        let installed = Arc::make_mut(installed);
                        installed.source = None;
                        installed.slots = Arc::from([]);
                    }
                }
                Step::Members(identity) => {
                    if let Some(installed) = self.installed.get_mut(identity).map(Arc::make_mut) {
                        installed.source = None;
                        installed.list.clear();
                    }
                }
                // Records are always written; look-up tables when they seem to differ from what was there.
                Step::Record(_) | Step::Common => self.keys = Keys::default(),
                Step::Switch | Step::Release(_) => {}
            }
        }
    }
}

fn part<T>(all: &[T], start: u32, length: u32) -> &[T] {
    all.get(start as usize..start as usize + length as usize).unwrap_or_default()
}

fn common<'m>(memory: &'m Memory, globals: &Globals) -> Common<'m> {
    let generation = memory.control.get(0).unwrap_or_default().generation;
    (
        generation,
        *globals,
        part(memory.vips4.as_slice(), globals.vip4_base, globals.vip4_mask.saturating_add(1)),
        part(memory.vips6.as_slice(), globals.vip6_base, globals.vip6_mask.saturating_add(1)),
        part(memory.ports.as_slice(), globals.port_base, globals.port_mask.saturating_add(1)),
    )
}

fn record(memory: &Memory, globals: &Globals, installed: &Installed) -> Record {
    let at = (globals.service_base + installed.number) as usize;
    (memory.services.get(at).unwrap_or_default(), memory.service_info.get(at).unwrap_or_default())
}

fn members<'m>(memory: &'m Memory, installed: &Installed) -> Members<'m> {
    let extent = installed.members;
    (
        part(memory.backends.as_slice(), extent.start, extent.length),
        part(memory.backend_info.as_slice(), extent.start, extent.length),
    )
}
