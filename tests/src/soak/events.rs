//! Random scale events on a site, and who may break a connection by them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use anyhow::Result;

use super::talkers::Life;
use crate::{backend::Backend, random::source::Random, site::Site};

/// Backends that must stay able to take new connections, in each service.
const LEAST_AVAILABLE: usize = 3;
/// Weights to choose from.
const WEIGHTS: [u16; 5] = [10, 50, 100, 200, 300];

/// What the operator has asked of a backend of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Up,
    Drain,
    Down,
}

/// A moment in which connections of a backend lost their right to go on.
#[derive(Clone, Debug)]
struct Cause {
    service: &'static str,
    backend: String,
    began: Instant,
    /// When the change was in force, or the server was dead.
    done: Instant,
}

/// The services with their backends, as they were changed.
#[derive(Debug)]
pub(super) struct Events {
    random: Random,
    services: BTreeMap<&'static str, BTreeMap<String, Asked>>,
    killed: BTreeSet<usize>,
    not_ready: BTreeSet<usize>,
    causes: Vec<Cause>,
    /// Failures that nobody has made: a machine too busy to answer a check in time.
    pub(super) unplanned: u64,
}

/// One thing that can happen.
#[derive(Clone, Debug)]
enum Event {
    Add(&'static str, usize),
    Remove(&'static str, String),
    Weight(&'static str, String, u16),
    Ask(&'static str, String, Asked),
    Kill(usize),
    Revive(usize),
    Ready(usize, bool),
}

impl Events {
    /// With the backends that the services begin with.
    pub(super) fn new(random: Random, services: &[(&'static str, usize)]) -> Self {
        let named = |count: usize| (1..=count).map(|i| (format!("b{i}"), Asked::Up)).collect();
        Self {
            random,
            services: services.iter().map(|(service, count)| (*service, named(*count))).collect(),
            killed: BTreeSet::new(),
            not_ready: BTreeSet::new(),
            causes: Vec::new(),
            unplanned: 0,
        }
    }

    /// Makes one random event happen; says it in a few words.
    ///
    /// # Errors
    /// When the balancer or a server does not do as told.
    pub(super) fn next(&mut self, site: &mut Site) -> Result<String> {
        let event = loop {
            if let Some(event) = self.choose(site.servers.len())
                && self.leaves_enough(&event)
            {
                break event;
            }
        };
        let words = format!("{event:?}");
        let began = Instant::now();
        self.apply(&event, site)?;
        self.note(&event, began);
        Ok(words)
    }

    fn choose(&mut self, servers: usize) -> Option<Event> {
        let services: Vec<&'static str> = self.services.keys().copied().collect();
        let service = *services.get(self.random.below(services.len()))?;
        let members: Vec<String> = self.services.get(service)?.keys().cloned().collect();
        let member = members.get(self.random.below(members.len()))?.clone();
        let server = self.random.below(servers);
        Some(match self.random.below(16) {
            0..=2 => Event::Add(service, server),
            3 => Event::Remove(service, member),
            4..=5 => Event::Weight(service, member, self.random.one_of(&WEIGHTS)),
            6..=8 => Event::Ask(service, member, Asked::Drain),
            9..=10 => Event::Ask(service, member, Asked::Up),
            11 => Event::Ask(service, member, Asked::Down),
            12 => Event::Kill(server),
            13 => Event::Revive(*self.killed.iter().next()?),
            14 => Event::Ready(server, false),
            _ => Event::Ready(*self.not_ready.iter().next()?, true),
        })
    }

    /// Whether the event changes something, and every service keeps backends for new connections.
    fn leaves_enough(&self, event: &Event) -> bool {
        let (mut services, mut killed) = (self.services.clone(), self.killed.clone());
        let mut not_ready = self.not_ready.clone();
        match event {
            Event::Add(service, server) => {
                let known = services.get_mut(service).map(|m| m.insert(name(*server), Asked::Up));
                if known != Some(None) {
                    return false;
                }
            }
            Event::Remove(service, member) => {
                services.get_mut(service).map(|m| m.remove(member));
            }
            Event::Ask(service, member, asked) => {
                let before = services.get_mut(service).and_then(|m| m.insert(member.clone(), *asked));
                if before == Some(*asked) {
                    return false;
                }
            }
            Event::Kill(server) => {
                if !killed.insert(*server) {
                    return false;
                }
            }
            Event::Ready(server, false) => {
                if killed.contains(server) || !not_ready.insert(*server) {
                    return false;
                }
            }
            Event::Weight(..) | Event::Revive(_) | Event::Ready(_, true) => return true,
        }
        let out: BTreeSet<String> = killed.union(&not_ready).map(|server| name(*server)).collect();
        services.values().all(|members| {
            let available =
                members.iter().filter(|(member, asked)| **asked == Asked::Up && !out.contains(*member));
            available.count() >= LEAST_AVAILABLE
        })
    }

    fn apply(&mut self, event: &Event, site: &mut Site) -> Result<()> {
        match event {
            Event::Add(service, server) => {
                let host = &site.world.backends[*server];
                let address = if *service == super::connections::OVER_V6 {
                    host.v6.to_string()
                } else {
                    host.v4.to_string()
                };
                let target = format!("{service}/{}", name(*server));
                site.lb.cli(&["backend", "add", &target, "--address", &address])?;
                self.services.entry(service).or_default().insert(name(*server), Asked::Up);
            }
            Event::Remove(service, member) => {
                site.lb.cli(&["backend", "remove", &format!("{service}/{member}")])?;
                self.services.entry(service).or_default().remove(member);
            }
            Event::Weight(service, member, weight) => {
                let target = format!("{service}/{member}");
                site.lb.cli(&["backend", "set", &target, "--weight", &weight.to_string()])?;
            }
            Event::Ask(service, member, asked) => {
                let target = format!("{service}/{member}");
                let state = match asked {
                    Asked::Up => "up",
                    Asked::Drain => "drain",
                    Asked::Down => "down",
                };
                site.lb.cli(&["backend", "set", &target, "--state", state])?;
                self.services.entry(service).or_default().insert(member.clone(), *asked);
            }
            Event::Kill(server) => {
                site.servers[*server].kill()?;
                self.killed.insert(*server);
                self.not_ready.remove(server);
            }
            Event::Revive(server) => {
                let host = &site.world.backends[*server];
                site.servers[*server] = Backend::start(host, site.folder.path())?;
                self.killed.remove(server);
            }
            Event::Ready(server, ready) => {
                site.servers[*server].set_ready(*ready)?;
                if *ready {
                    self.not_ready.remove(server);
                } else {
                    self.not_ready.insert(*server);
                }
            }
        }
        Ok(())
    }

    /// Remembers whose connections may break from now on.
    fn note(&mut self, event: &Event, began: Instant) {
        let done = Instant::now();
        let mut cause = |service: &'static str, backend: String| {
            self.causes.push(Cause { service, backend, began, done });
        };
        match event {
            Event::Remove(service, member) | Event::Ask(service, member, Asked::Down) => {
                cause(service, member.clone());
            }
            Event::Kill(server) => {
                for service in self.services.keys() {
                    cause(service, name(*server));
                }
            }
            _ => {}
        }
    }

    /// Looks for backends that the balancer calls failed though nobody has killed them: their connections may break.
    ///
    /// # Errors
    /// When the balancer does not answer.
    pub(super) fn look(&mut self, site: &Site) -> Result<()> {
        let view = site.view()?;
        let now = Instant::now();
        for (service, members) in &self.services {
            for member in members.keys() {
                let alive = !self.killed.iter().any(|server| name(*server) == *member);
                if alive && view.state(&format!("{service}/{member}")) == "failed" && !self.revived(member) {
                    self.unplanned += 1;
                    let backend = member.clone();
                    self.causes.push(Cause { service, backend, began: now, done: now });
                }
            }
        }
        Ok(())
    }

    /// Whether the backend was killed before: it stays failed for a while after it is back.
    fn revived(&self, member: &str) -> bool {
        self.causes.iter().any(|cause| cause.backend == member)
    }

    /// Whether a connection that broke had a cause: its backend failed or was taken out, after it was opened, and it
    /// was not heard of again.
    pub(super) fn explains(&self, life: &Life) -> bool {
        let Some((broken, _)) = &life.broken else { return true };
        self.causes.iter().any(|cause| {
            cause.service == life.service
                && cause.backend == life.backend
                && cause.done >= life.opened
                && cause.began <= *broken
                && life.heard <= cause.done
        })
    }
}

/// Name of the backend with this server.
fn name(server: usize) -> String {
    format!("b{}", server + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn life(opened: Instant, heard: u64, broken: u64) -> Life {
        let after = |seconds| opened + Duration::from_secs(seconds);
        let broken = Some((after(broken), "reset".to_owned()));
        let backend = "b2".to_owned();
        Life { service: "web", backend, opened, heard: after(heard), lines: 3, broken }
    }

    #[test]
    fn only_what_was_silent_since_the_cause_is_explained_by_it() {
        let start = Instant::now();
        let mut events = Events::new(Random::new(1), &[("web", 3)]);
        let at = |seconds| start + Duration::from_secs(seconds);
        events.causes.push(Cause { service: "web", backend: "b2".into(), began: at(10), done: at(11) });
        assert!(events.explains(&life(start, 10, 12)));
        assert!(!events.explains(&life(start, 8, 9)), "broke before");
        assert!(
            !events.explains(&life(start, 13, 14)),
            "went on after the backend was gone, and broke later"
        );
        assert!(!events.explains(&Life { backend: "b1".into(), ..life(start, 10, 12) }));
        assert!(!events.explains(&Life { service: "six", ..life(start, 10, 12) }));
        assert!(events.explains(&Life { broken: None, ..life(start, 8, 9) }));
    }

    #[test]
    fn no_event_leaves_too_few_backends() {
        let events = Events::new(Random::new(1), &[("web", 3), ("six", 4)]);
        assert!(!events.leaves_enough(&Event::Kill(0)));
        assert!(!events.leaves_enough(&Event::Ask("web", "b1".into(), Asked::Drain)));
        assert!(events.leaves_enough(&Event::Ask("six", "b1".into(), Asked::Drain)));
        assert!(!events.leaves_enough(&Event::Add("web", 0)), "it is there already");
        assert!(events.leaves_enough(&Event::Add("web", 3)));
    }
}
