//! From configuration, health and next hops to the snapshot that should be in force.
//!
//! Pure but for a cache: the same inputs give the same snapshot on every balancer, bit for bit. A membership change
//! rebuilds a service's Maglev table; a health event only hands on the slots of the member concerned (see `table`).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use lb_common::abi::slot;

mod touched;

pub use self::touched::Touched;
use self::touched::{Digests, Last};
use super::{
    candidates, identity, maglev,
    mass::{self, Candidate, Decision, Mode},
    model::{Hop, Member, Service, Snapshot},
    past::Past,
    rendezvous::Rendezvous,
    settling::{Counts, Seconds, Settling},
    slow_start, table,
};
use crate::config::{AdminState, Backend, Config, Forward, Seed, Service as ServiceConfig, Tracking};

/// What is known of a backend besides its configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Health, as the ABI has it: 0 unknown, 1 ready, 2 not ready, 3 failed.
    pub health: u8,
    /// `CLOCK_REALTIME` seconds of its last change.
    pub since: u64,
}

/// `Condition::health` of a backend that takes traffic.
pub const READY: u8 = 1;
/// `Condition::health` of a backend that does not answer.
pub const FAILED: u8 = 3;
/// Longest settling time in seconds: half the range of the datapath's 14-bit clock, less a margin.
const MAX_SETTLE: u16 = 7200;
/// Seconds after the settling time until the index of a member that is gone may be given away.
const INDEX_REST: Seconds = 60;

/// Answers for the inputs that live elsewhere.
pub trait View {
    /// Health of a backend.
    fn condition(&self, service: &str, backend: &str) -> Condition;
    /// Whether a backend was added while the daemon ran and has not been ready since: until then the table is built
    /// without it. (Built with it, its slots would go to other members first and to it later: two moves for one.)
    fn joining(&self, service: &str, backend: &str) -> bool;
    /// The way to an address, if it is known.
    fn hop(&self, address: IpAddr) -> Option<Hop>;
    /// `CLOCK_REALTIME` in seconds, which [`Condition::since`] is compared with.
    fn unix_time(&self) -> u64;
}

/// What a service's table is built from: equal inputs, equal table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TableInput {
    members: Vec<(u64, u32)>,
    slots: u32,
}

/// A service's tables: by membership alone, and with health applied.
#[derive(Clone, Debug)]
struct Tables {
    order: Arc<Rendezvous>,
    base: Arc<[u16]>,
    /// First members of each slot's order, once a service wants them.
    firsts: Arc<OnceLock<Vec<[u16; 4]>>>,
    taking: Taking,
    installed: Arc<[u16]>,
}

/// Which members take traffic, by index, and how much of their share ([`slow_start::levels`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Taking {
    available: Vec<bool>,
    levels: Vec<u8>,
}

impl Taking {
    /// Whether the member at `index` takes all of its slots.
    fn is_whole(&self, index: u16) -> bool {
        let index = usize::from(index);
        self.available.get(index) == Some(&true) && self.levels.get(index) == Some(&slow_start::STEPS)
    }

    /// Whether a slot stays with its owner.
    fn keeps(&self, slot: u32, owner: u16, members: &[(u64, u32)]) -> bool {
        let index = usize::from(owner);
        let (Some(true), Some(level)) = (self.available.get(index), self.levels.get(index)) else {
            return false;
        };
        members.get(index).is_some_and(|(identity, _)| slow_start::takes(*identity, slot, *level))
    }
}

/// What is remembered of a service between snapshots.
#[derive(Clone, Debug, Default)]
struct ServiceState {
    /// An index keeps its member as long as anything may refer to it.
    places: Vec<Option<Place>>,
    settling: Settling,
    past: Past,
    settle: u16,
    /// Who takes traffic, and why, as it was decided last.
    decision: Decision,
    /// Who, and how much, by index.
    taking: Taking,
    told: Told,
    /// Whether slots settled since the last snapshot.
    has_settled: bool,
    /// Whether time will change who takes how much.
    warms_up: bool,
}

/// The tables of the last snapshot, and what was worked out of them for whoever asked first.
#[derive(Clone, Debug, Default)]
struct Told {
    base: Arc<[u16]>,
    slots: Arc<[u16]>,
    report: OnceLock<TableReport>,
}

impl Told {
    /// Equal members give the same base, by address.
    fn take(&mut self, base: &Arc<[u16]>, slots: &Arc<[u16]>) {
        if !Arc::ptr_eq(&self.base, base) || !Arc::ptr_eq(&self.slots, slots) {
            *self = Self { base: Arc::clone(base), slots: Arc::clone(slots), report: OnceLock::new() };
        }
    }
}

impl ServiceState {
    /// Whether time alone may have changed what the last snapshot says of the service.
    fn is_due(&self, now: Seconds) -> bool {
        let mut indices = 0..self.places.len();
        self.has_settled || self.warms_up || self.past.is_due(now) || indices.any(|at| self.is_free(at, now))
    }

    /// Whether the member with this index is gone, and no slot and no flow can refer to it any more.
    fn is_free(&self, index: usize, now: Seconds) -> bool {
        let Some(gone) = self.places[index].and_then(|place| place.gone) else { return false };
        let referred = u16::try_from(index).is_ok_and(|index| self.settling.refers_to(index));
        now.saturating_sub(gone) > Seconds::from(self.settle) + INDEX_REST && !referred
    }
}

/// Whose index this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    identity: u64,
    /// Since when the member is not configured any more.
    gone: Option<Seconds>,
}

/// Digests and shares of a service, for status and for comparing balancers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableReport {
    /// Digest of the table by membership alone.
    pub desired_digest: String,
    /// Digest of the table with health applied.
    pub installed_digest: String,
    /// Slots of each member, by index.
    pub shares: Vec<u32>,
}

/// Builds snapshots; remembers tables and member indices between them. A copy tells what would be: it shares the tables.
pub struct Desired {
    seed: Seed,
    scratch: maglev::Scratch,
    /// By service identity.
    services: HashMap<u64, ServiceState>,
    /// The datapath's clock.
    now: Seconds,
    tables: HashMap<TableInput, Tables>,
    last: Last,
    digests: Digests,
}

/// More members than a slot can name, or a table too short for them; the configuration refuses both earlier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("service {service:?}: {reason}")]
pub struct TableError {
    /// Which service.
    pub service: String,
    /// What does not fit.
    pub reason: String,
}

impl Clone for Desired {
    fn clone(&self) -> Self {
        Self {
            seed: self.seed,
            // Memory to work in, which every copy finds for itself.
            scratch: maglev::Scratch::default(),
            services: self.services.clone(),
            now: self.now,
            tables: self.tables.clone(),
            last: self.last.clone(),
            digests: self.digests.clone(),
        }
    }
}

impl Desired {
    /// With this seed, remembering nothing.
    pub fn new(seed: Seed) -> Self {
        Self {
            seed,
            scratch: maglev::Scratch::default(),
            services: HashMap::new(),
            now: 0,
            tables: HashMap::new(),
            last: Last::default(),
            digests: Digests::default(),
        }
    }

    /// The seed.
    pub fn seed(&self) -> &Seed {
        &self.seed
    }

    /// Tells the time: seconds of the datapath's clock, never backwards.
    pub fn set_time(&mut self, now: Seconds) {
        self.now = now;
    }

    /// Goes on with what an earlier daemon installed: member indices, and slots that were not settled.
    pub fn adopt(
        &mut self,
        service: u64,
        members: impl Iterator<Item = (u64, u16)>,
        slots: &[u16],
        meta: impl Fn(u32) -> u32,
    ) {
        let state = self.services.entry(service).or_default();
        for (identity, index) in members {
            let index = usize::from(index);
            if state.places.len() <= index {
                state.places.resize(index + 1, None);
            }
            state.places[index] = Some(Place { identity, gone: None });
        }
        state.settling = Settling::adopt(slots, meta, self.now);
    }

    /// Notes who was in the services of a configuration that was in force until then, for the candidates of packets.
    /// Later ones are noted later, all of them before the first snapshot.
    pub fn remember(&mut self, config: &Config, until: Seconds) {
        for service in &config.services {
            let members = service.backends.iter().filter(|b| !b.sorry && b.weight > 0);
            let weight = |b: &Backend| (identity::member(&self.seed, b.address, b.port), u32::from(b.weight));
            let state = self.services.entry(identity::service(&self.seed, &service.name)).or_default();
            state.past.remember(members.map(weight).collect(), until);
        }
    }

    /// Moves slots on that have waited long enough; `stamp` is the time of the last exception of a slot of a service.
    /// Says whether a new snapshot would differ.
    pub fn settle(&mut self, stamp: impl Fn(u64, u32) -> u16) -> bool {
        let now = self.now;
        let mut changed = false;
        for (identity, state) in &mut self.services {
            let has_settled = state.settling.settle(state.settle, |slot| stamp(*identity, slot), now);
            state.has_settled |= has_settled;
            changed |= has_settled;
        }
        changed
    }

    /// Slots that are not settled, of a service.
    pub fn counts(&self, service: u64) -> Counts {
        self.services.get(&service).map(|state| state.settling.counts()).unwrap_or_default()
    }

    /// The snapshot for these inputs.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn snapshot(&mut self, config: &Config, view: &dyn View) -> Result<Snapshot, TableError> {
        let mut services = Vec::with_capacity(config.services.len());
        let mut used = HashMap::with_capacity(config.services.len());
        for (at, service) in config.services.iter().enumerate() {
            let service = self.service(service, config.daemon.gue_port, view, &mut used)?;
            services.push(self.last.shared(at, service));
        }
        // Tables that nothing uses any more are forgotten.
        self.tables = used;
        let known: HashSet<u64> = services.iter().map(|s| s.identity).collect();
        self.services.retain(|identity, _| known.contains(identity));
        Ok(self.finish(config, view, services))
    }

    /// First eight bytes of a digest over the desired state, health and next hops left out.
    pub fn digest(&mut self, config: &Config) -> u64 {
        self.digests.of(config)
    }

    fn service(
        &mut self,
        service: &ServiceConfig,
        gue_port: u16,
        view: &dyn View,
        used: &mut HashMap<TableInput, Tables>,
    ) -> Result<Service, TableError> {
        let identity = identity::service(&self.seed, &service.name);
        let backends: BTreeMap<u64, &Backend> =
            service.backends.iter().map(|b| (identity::member(&self.seed, b.address, b.port), b)).collect();
        let settle = u16::try_from(service.settle.as_secs()).unwrap_or(u16::MAX).clamp(1, MAX_SETTLE);
        let state = self.services.entry(identity).or_default();
        state.settle = settle;
        assign(state, &backends, self.now);
        let list: Vec<Option<u64>> = state.places.iter().map(|p| p.map(|p| p.identity)).collect();

        let member = |id: &Option<u64>| {
            let (id, backend) = id.and_then(|id| Some((id, *backends.get(&id)?)))?;
            let condition = view.condition(&service.name, &backend.name);
            Some(Member {
                identity: id,
                address: backend.address,
                forward: service.forward,
                gue_port,
                port: backend.port,
                server_id: backend.server_id,
                alive: condition.health != FAILED && backend.state != AdminState::Down,
                // Without an address of its own in that family the balancer has no source for an outer header.
                hop: view.hop(backend.address).filter(|hop| {
                    matches!(service.forward, Forward::L2 | Forward::Nat) || !hop.source.is_unspecified()
                }),
                health: condition.health,
                since: condition.since,
            })
        };
        let mut members: Vec<Option<Member>> = list.iter().map(member).collect();
        let available = decide(service, &members, &backends, &mut state.decision);
        let sorry = state.decision.mode == Mode::Sorry;
        for (member, available) in members.iter_mut().zip(&available) {
            // Whoever takes traffic keeps its flows, whatever its checks say.
            if let Some(member) = member {
                member.alive |= *available;
            }
        }
        let weight = |id: &Option<u64>| {
            let (id, backend) = id.and_then(|id| Some((id, *backends.get(&id)?)))?;
            let joining = view.joining(&service.name, &backend.name);
            // Those that say sorry have a table of their own.
            let counts = !joining && backend.sorry == sorry;
            Some((id, if counts { u32::from(backend.weight) } else { 0 }))
        };
        let input = TableInput {
            members: list.iter().map(|id| weight(id).unwrap_or_default()).collect(),
            slots: service.table_slots,
        };
        let (taking, warms_up) = warm_up(service, &members, &input, available, view.unix_time());
        let tables = self.tables(&service.name, &input, taking, used)?;
        let tracked = service.tracking != Tracking::Never;
        let now = self.now;
        let state = self.services.entry(identity).or_default();
        state.taking.clone_from(&tables.taking);
        state.warms_up = warms_up;
        let issued = state.settling.issue(&tables.installed, tracked, now);
        state.told.take(&tables.base, &issued.slots);
        state.past.change(&input.members, now);
        let candidates = if service.forward == Forward::Gue {
            let joining = joining_order(&input, &list, service, &backends, &self.seed)?;
            let coming = joining.as_ref().map(candidates::firsts);
            let firsts = tables.firsts.get_or_init(|| candidates::firsts(&tables.order));
            let mut owners = vec![Arc::clone(&tables.base)];
            owners.extend(state.past.owners(&list, input.slots, &self.seed.0, &mut self.scratch, now));
            let firsts = coming.as_ref().unwrap_or(firsts);
            candidates::of(firsts, &owners, &issued.slots, &issued.old, &members)
        } else {
            None
        };
        state.has_settled = false;
        Ok(Service {
            identity,
            candidates,
            addresses: service.addresses.clone(),
            ports: service.ports.clone(),
            protocol: service.protocol,
            affinity: service.affinity,
            limit: service.limit.map(|l| l.anonymous),
            table: issued.slots,
            old: issued.old,
            tracking: service.tracking,
            on_failure: service.on_failure,
            settle,
            members,
        })
    }

    /// Who takes traffic of a service, and why.
    pub fn decision(&self, service: u64) -> Option<&Decision> {
        self.services.get(&service).map(|state| &state.decision)
    }

    /// Percent of its slots that a member takes, by its index, while it warms up; else `None`.
    pub fn slow_start_percent(&self, service: u64, index: usize) -> Option<u8> {
        let taking = &self.services.get(&service)?.taking;
        let level = *taking.levels.get(index).filter(|level| **level < slow_start::STEPS)?;
        taking.available.get(index).filter(|available| **available)?;
        Some(slow_start::percent(level))
    }

    /// Whether time alone will give some member more slots than in the last snapshot.
    pub fn is_warming_up(&self) -> bool {
        let mut levels = self.services.values().flat_map(|state| &state.taking.levels);
        levels.any(|level| *level < slow_start::STEPS)
    }

    /// The tables of these members with this health: from the cache, patched, or built.
    fn tables(
        &mut self,
        name: &str,
        input: &TableInput,
        taking: Taking,
        used: &mut HashMap<TableInput, Tables>,
    ) -> Result<Tables, TableError> {
        let cached = used.get(input).or_else(|| self.tables.get(input));
        if let Some(tables) = cached.filter(|t| t.taking == taking) {
            let tables = tables.clone();
            used.insert(input.clone(), tables.clone());
            return Ok(tables);
        }
        let members = numbered(&input.members);
        let (order, base, firsts) = match cached {
            Some(tables) => (Arc::clone(&tables.order), Arc::clone(&tables.base), Arc::clone(&tables.firsts)),
            None => {
                let order = Rendezvous::new(&members, input.slots, &self.seed.0)
                    .map_err(|e| TableError { service: name.into(), reason: e.to_string() })?;
                let base = Arc::from(maglev::fill(&order, &mut self.scratch));
                (Arc::new(order), base, Arc::default())
            }
        };
        let count = input.members.len() as u16;
        let installed = if (0..count).all(|index| taking.is_whole(index)) {
            Arc::clone(&base)
        } else {
            let mut installed = Vec::new();
            let keeps = |slot, owner| taking.keeps(slot, owner, &input.members);
            let whole = |member| taking.is_whole(member);
            table::hand_on(&order, &base, keeps, whole, &mut installed, &mut self.scratch);
            Arc::from(installed)
        };
        let tables = Tables { order, base, firsts, taking, installed };
        used.insert(input.clone(), tables.clone());
        Ok(tables)
    }

    /// Digests and shares of a service of the last snapshot.
    pub fn report(&self, service: &Service) -> TableReport {
        let told = self.services.get(&service.identity).map(|state| &state.told);
        match told.filter(|told| told.slots == service.table) {
            Some(told) => told.report.get_or_init(|| report(service, Some(&told.base))).clone(),
            None => report(service, None),
        }
    }
}

/// Digests and shares of a service with this table by membership alone; unknown, it counts as the one installed.
fn report(service: &Service, base: Option<&[u16]>) -> TableReport {
    let owners: Vec<u16> = service.table.iter().map(|value| value & slot::MEMBER).collect();
    let identity = |owner: u16| {
        let member = service.members.get(usize::from(owner));
        member.and_then(|m| Some(m.as_ref()?.identity)).unwrap_or_default()
    };
    TableReport {
        desired_digest: table::owners_digest(base.unwrap_or(&owners), identity),
        installed_digest: table::owners_digest(&owners, identity),
        shares: table::shares(&owners, service.members.len()),
    }
}

/// Which members take traffic, by index.
fn decide(
    service: &ServiceConfig,
    members: &[Option<Member>],
    backends: &BTreeMap<u64, &Backend>,
    decision: &mut Decision,
) -> Vec<bool> {
    let mut places = Vec::new();
    let mut candidates = Vec::new();
    for (place, member) in members.iter().enumerate() {
        let Some((member, backend)) = member.as_ref().and_then(|m| Some((m, backends.get(&m.identity)?)))
        else {
            continue;
        };
        if backend.state == AdminState::Up {
            places.push(place);
            candidates.push(Candidate {
                identity: member.identity,
                ready: member.health == READY,
                known: member.health != 0,
                since: member.since,
                sorry: backend.sorry,
            });
        }
    }
    *decision = mass::decide(&candidates, &service.health.mass, decision.mode);
    let mut available = vec![false; members.len()];
    for (place, takes) in places.into_iter().zip(&decision.available) {
        available[place] = *takes;
    }
    available
}

/// The order with those that join at their weight, if somebody joins: another balancer may have them already.
fn joining_order(
    input: &TableInput,
    list: &[Option<u64>],
    service: &ServiceConfig,
    backends: &BTreeMap<u64, &Backend>,
    seed: &Seed,
) -> Result<Option<Rendezvous>, TableError> {
    let weight = |id: &Option<u64>| id.and_then(|id| backends.get(&id)).map_or(0, |b| u32::from(b.weight));
    let weights: Vec<u32> = list.iter().map(weight).collect();
    if input.members.iter().map(|(_, weight)| weight).eq(&weights) {
        return Ok(None);
    }
    let members: Vec<(u64, u32)> =
        list.iter().zip(&weights).map(|(id, weight)| (id.unwrap_or_default(), *weight)).collect();
    let order = Rendezvous::new(&numbered(&members), input.slots, &seed.0);
    order.map(Some).map_err(|e| TableError { service: service.name.clone(), reason: e.to_string() })
}

/// Members as the tables want them: a free index has no identity, and no two members may have the same.
pub(super) fn numbered(members: &[(u64, u32)]) -> Vec<maglev::Member> {
    let member = |(index, (identity, weight)): (u64, &(u64, u32))| maglev::Member {
        identity: if *identity == 0 { u64::MAX - index } else { *identity },
        weight: *weight,
    };
    (0u64..).zip(members).map(member).collect()
}

/// How much of their share those take that are available. Somebody with a weight always takes all of its own: the slots
/// of the others need a stand-in. And whether that may still change by itself.
fn warm_up(
    service: &ServiceConfig,
    members: &[Option<Member>],
    input: &TableInput,
    available: Vec<bool>,
    now: u64,
) -> (Taking, bool) {
    let since = |((member, (_, weight)), available): ((&Option<Member>, &(u64, u32)), &bool)| {
        member.as_ref().filter(|m| *available && *weight > 0 && m.health == READY).map(|m| m.since)
    };
    let ready_since: Vec<_> = members.iter().zip(&input.members).zip(&available).map(since).collect();
    let slow_start = service.slow_start.as_secs();
    let levels = slow_start::levels(&ready_since, slow_start, now);
    let latest = ready_since.iter().flatten().max();
    let warms_up = slow_start > 0 && latest.is_some_and(|since| now < since.saturating_add(slow_start));
    (Taking { available, levels }, warms_up)
}

/// New members take the lowest free index, in the order of their identity, so that balancers that saw the same changes
/// agree. A member that is gone keeps its index until no slot and no flow can refer to it.
fn assign(state: &mut ServiceState, backends: &BTreeMap<u64, &Backend>, now: Seconds) {
    for index in 0..state.places.len() {
        let Some(place) = state.places[index].as_mut() else { continue };
        if backends.contains_key(&place.identity) {
            place.gone = None;
            continue;
        }
        place.gone.get_or_insert(now);
        if state.is_free(index, now) {
            state.places[index] = None;
        }
    }
    while state.places.last() == Some(&None) {
        state.places.pop();
    }
    let held: HashSet<u64> = state.places.iter().flatten().map(|p| p.identity).collect();
    let mut from = 0;
    for identity in backends.keys().filter(|id| !held.contains(id)) {
        while state.places.get(from).is_some_and(Option::is_some) {
            from += 1;
        }
        let place = Some(Place { identity: *identity, gone: None });
        match state.places.get_mut(from) {
            Some(free) => *free = place,
            None => state.places.push(place),
        }
    }
}
