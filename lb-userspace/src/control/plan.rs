//! What lies between two states, in words and in slots.

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::Arc,
};

use lb_common::abi::slot;
use serde::Serialize;

use super::model::{Service, Snapshot};
use crate::config::{Backend, Config, Daemon, Service as ServiceConfig, Tracking};

/// Differences that are told one by one.
const TOLD: usize = 1_000;

/// Slots of one table, or of several, that change their owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Slots that change owner.
    pub moved: u64,
    /// Of those: flows stay where they are, since the old owner stays and they are remembered.
    pub protected: u64,
    /// Of those: flows go along.
    pub at_risk: u64,
    /// Slots of the tables.
    pub of: u64,
}

impl std::ops::AddAssign for Moves {
    fn add_assign(&mut self, other: Self) {
        self.moved += other.moved;
        self.protected += other.protected;
        self.at_risk += other.at_risk;
        self.of += other.of;
    }
}

/// Moves by service identity, for services that are in both and whose table differs.
pub fn moves(old: &Snapshot, new: &Snapshot) -> HashMap<u64, Moves> {
    let key_kept = old.key == new.key;
    // Nearly all are what they were; only the others are looked for.
    let at_same_place = |at: usize, service: &Arc<Service>| {
        old.services.get(at).filter(|old| key_kept && Arc::ptr_eq(old, service)).is_some()
    };
    let rest: Vec<&Arc<Service>> =
        new.services.iter().enumerate().filter(|(at, s)| !at_same_place(*at, s)).map(|(_, s)| s).collect();
    let wanted: HashSet<u64> = rest.iter().map(|s| s.identity).collect();
    let before: HashMap<u64, &Arc<Service>> =
        old.services.iter().filter(|s| wanted.contains(&s.identity)).map(|s| (s.identity, s)).collect();
    let pairs = rest.into_iter().filter_map(|service| Some((*before.get(&service.identity)?, service)));
    pairs
        .filter_map(|(old, new)| {
            let between = between(old, new, key_kept);
            (between.of > 0).then_some((new.identity, between))
        })
        .collect()
}

/// The sum of [`moves`].
pub fn sum(moves: &HashMap<u64, Moves>) -> Moves {
    let mut sum = Moves::default();
    for moves in moves.values() {
        sum += *moves;
    }
    sum
}

fn between(old: &Service, new: &Service, key_kept: bool) -> Moves {
    let length = new.table.len() as u64;
    let same_hash = key_kept && old.affinity == new.affinity;
    if same_hash && Arc::ptr_eq(&old.table, &new.table) {
        return Moves::default();
    }
    if !same_hash || old.table.len() != new.table.len() {
        // Every source is looked up elsewhere, and nothing says where it was.
        return Moves { moved: length, protected: 0, at_risk: length, of: length };
    }
    let stays: HashSet<u64> = new.members.iter().flatten().filter(|m| m.alive).map(|m| m.identity).collect();
    let owner = |service: &Service, value: u16| {
        let member = service.members.get(usize::from(value & slot::MEMBER))?;
        member.as_ref().map(|member| member.identity)
    };
    let mut moves = Moves { of: length, ..Moves::default() };
    for (before, after) in old.table.iter().zip(new.table.iter()) {
        let from = owner(old, *before);
        if from == owner(new, *after) {
            continue;
        }
        moves.moved += 1;
        match from {
            // A slot without an owner had no flows.
            None => {}
            Some(from) if stays.contains(&from) && new.tracking != Tracking::Never => moves.protected += 1,
            Some(_) => moves.at_risk += 1,
        }
    }
    moves
}

/// Members that have flows and do not keep them: by the index that entries of the flow table name.
pub fn leaving(old: &Snapshot, new: &Snapshot) -> HashSet<u16> {
    let after: HashMap<u64, &Arc<Service>> = new.services.iter().map(|s| (s.identity, s)).collect();
    let mut leaving = HashSet::new();
    for service in &old.services {
        let stays: HashSet<u64> = after
            .get(&service.identity)
            .map(|s| s.members.iter().flatten().filter(|m| m.alive).map(|m| m.identity).collect())
            .unwrap_or_default();
        for (index, member) in (0u16..).zip(&service.members) {
            if member.as_ref().is_some_and(|m| m.alive && !stays.contains(&m.identity)) {
                leaving.insert(index);
            }
        }
    }
    leaving
}

/// Slots of all tables, shared ones once; and those of `new` that `old` does not have.
pub fn slots(old: &Snapshot, new: &Snapshot) -> (u64, u64, u64) {
    let tables = |snapshot: &Snapshot| -> HashMap<*const u16, u64> {
        snapshot.services.iter().map(|s| (s.table.as_ptr(), s.table.len() as u64)).collect()
    };
    let (before, after) = (tables(old), tables(new));
    let fresh: u64 = after.iter().filter(|(table, _)| !before.contains_key(*table)).map(|(_, n)| n).sum();
    (before.values().sum(), fresh, after.values().sum())
}

/// One sentence for each difference between two configurations.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut out = Differences::default();
    out.daemon(&old.daemon, &new.daemon);
    let before: HashMap<&str, &Arc<ServiceConfig>> =
        old.services.iter().map(|s| (s.name.as_str(), s)).collect();
    let after: HashSet<&str> = new.services.iter().map(|s| s.name.as_str()).collect();
    for service in old.services.iter().filter(|s| !after.contains(s.name.as_str())) {
        out.add(|| format!("service {} removed, {} backends", service.name, service.backends.len()));
    }
    for service in &new.services {
        match before.get(service.name.as_str()) {
            None => out.add(|| {
                let addresses: Vec<_> = service.addresses.iter().map(ToString::to_string).collect();
                let n = service.backends.len();
                format!("service {} added ({}), {n} backends", service.name, addresses.join(", "))
            }),
            Some(old) => out.service(old, service),
        }
    }
    if old.agent != new.agent {
        out.add(|| "[agent] changed".into());
    }
    out.finish()
}

#[derive(Default)]
struct Differences {
    told: Vec<String>,
    more: usize,
}

impl Differences {
    fn add(&mut self, words: impl FnOnce() -> String) {
        if self.told.len() < TOLD {
            self.told.push(words());
        } else {
            self.more += 1;
        }
    }

    fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            self.told.push(format!("and {} more", self.more));
        }
        self.told
    }

    /// `KEY: OLD → NEW`, if they differ.
    fn field<T: PartialEq>(&mut self, place: &str, key: &str, old: &T, new: &T, show: impl Fn(&T) -> String) {
        if old != new {
            self.add(|| format!("{place}: {key} {} → {}", show(old), show(new)));
        }
    }

    fn daemon(&mut self, old: &Daemon, new: &Daemon) {
        let place = "daemon";
        self.field(place, "interfaces", &old.interfaces, &new.interfaces, |i| format!("[{}]", i.join(", ")));
        self.field(place, "xdp_mode", &old.xdp_mode, &new.xdp_mode, word);
        if old.hash_seed != new.hash_seed {
            self.add(|| "daemon: hash_seed changed".into());
        }
        self.field(place, "tunnel_source", &old.tunnel_source, &new.tunnel_source, debug);
        self.field(place, "gue_port", &old.gue_port, &new.gue_port, debug);
        self.field(place, "announce", &old.announce, &new.announce, word);
        self.field(place, "flow_table.capacity", &old.flow_capacity, &new.flow_capacity, debug);
        self.field(place, "limit_table.capacity", &old.limit_capacity, &new.limit_capacity, debug);
        self.field(place, "listen", &old.listen, &new.listen, debug);
    }

    fn service(&mut self, old: &ServiceConfig, new: &ServiceConfig) {
        let place = format!("service {}", new.name);
        let place = place.as_str();
        self.field(place, "addresses", &old.addresses, &new.addresses, debug);
        self.field(place, "ports", &old.ports, &new.ports, debug);
        self.field(place, "protocol", &old.protocol, &new.protocol, word);
        self.field(place, "affinity", &old.affinity, &new.affinity, word);
        self.field(place, "forward", &old.forward, &new.forward, word);
        self.field(place, "tracking", &old.tracking, &new.tracking, word);
        self.field(place, "settle", &old.settle, &new.settle, debug);
        self.field(place, "slow_start", &old.slow_start, &new.slow_start, debug);
        self.field(place, "on_failure", &old.on_failure, &new.on_failure, word);
        self.field(place, "table_slots", &old.table_slots, &new.table_slots, debug);
        self.field(place, "limit", &old.limit, &new.limit, |limit| match limit {
            Some(limit) => format!("{}/s burst {}", limit.anonymous.rate, limit.anonymous.burst),
            None => "none".into(),
        });
        if old.health != new.health {
            self.add(|| format!("{place}: health check changed"));
        }
        let before: HashMap<&str, &Backend> = old.backends.iter().map(|b| (b.name.as_str(), b)).collect();
        let after: HashSet<&str> = new.backends.iter().map(|b| b.name.as_str()).collect();
        for backend in old.backends.iter().filter(|b| !after.contains(b.name.as_str())) {
            self.add(|| format!("{place}: backend {} removed ({})", backend.name, backend.address));
        }
        for backend in &new.backends {
            match before.get(backend.name.as_str()) {
                None => self.add(|| {
                    let Backend { name, address, weight, .. } = backend;
                    format!("{place}: backend {name} added ({address}, weight {weight})")
                }),
                Some(old) => self.backend(place, old, backend),
            }
        }
    }

    fn backend(&mut self, place: &str, old: &Backend, new: &Backend) {
        if old == new {
            return;
        }
        let place = format!("{place}: backend {}", new.name);
        self.field(&place, "address", &old.address, &new.address, ToString::to_string);
        self.field(&place, "port", &old.port, &new.port, debug);
        self.field(&place, "weight", &old.weight, &new.weight, ToString::to_string);
        self.field(&place, "state", &old.state, &new.state, word);
    }
}

fn debug(value: &impl Debug) -> String {
    format!("{value:?}")
}

/// The word that the file has for a value.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
