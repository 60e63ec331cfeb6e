//! What keeps a change of one service from costing as much as all of them: who may have changed, and digests that are
//! known already.

use std::{collections::HashSet, sync::Arc};

use sha2::{Digest, Sha256};

use super::{Desired, ServiceState, TableError, View};
use crate::{
    config::{Announce, Config, Daemon, Quic, Service as ServiceConfig},
    control::{
        identity,
        model::{Service, Snapshot},
    },
};

/// Whose conditions or next hops may have changed since the last snapshot. What time alone changes is seen anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Anybody's.
    All,
    /// Those of services with these names at most. (A service whose configuration changed is seen anyway.)
    Services(HashSet<String>),
}

impl Touched {
    /// No service.
    #[must_use]
    pub fn nobody() -> Self {
        Self::Services(HashSet::new())
    }

    /// This service as well.
    pub fn add(&mut self, service: &str) {
        match self {
            Self::All => {}
            Self::Services(names) => drop(names.insert(service.to_owned())),
        }
    }
}

/// What the last snapshot was made from, and what came of it.
#[derive(Clone, Default)]
pub(super) struct Last {
    daemon: Option<Daemon>,
    quic: Vec<Quic>,
    services: Vec<(Arc<ServiceConfig>, Arc<Service>)>,
    /// `CLOCK_REALTIME` in seconds.
    unix_time: u64,
}

impl Last {
    /// This service, as it was then if it is equal.
    pub(super) fn shared(&self, at: usize, service: Service) -> Arc<Service> {
        match self.services.get(at) {
            Some((_, last)) if **last == service => Arc::clone(last),
            _ => Arc::new(service),
        }
    }
}

/// First eight bytes of a digest of each service of the last configuration.
#[derive(Clone, Default)]
pub(super) struct Digests(Vec<(Arc<ServiceConfig>, u64)>);

impl Digests {
    /// First eight bytes of a digest over the services and the ways to make connection IDs.
    pub(super) fn of(&mut self, config: &Config) -> u64 {
        let known = std::mem::take(&mut self.0);
        let of = |(at, service): (usize, &Arc<ServiceConfig>)| {
            let same = known.get(at).filter(|(known, _)| Arc::ptr_eq(known, service));
            let digest =
                same.map_or_else(|| first_eight(format!("{service:?}").as_bytes()), |(_, digest)| *digest);
            (Arc::clone(service), digest)
        };
        self.0 = config.services.iter().enumerate().map(of).collect();
        let mut all: Vec<u8> = self.0.iter().flat_map(|(_, digest)| digest.to_le_bytes()).collect();
        all.extend(format!("{:?}", config.quic).into_bytes());
        first_eight(&all)
    }
}

/// First eight bytes of SHA-256.
fn first_eight(bytes: &[u8]) -> u64 {
    let bytes = Sha256::digest(bytes);
    u64::from_le_bytes(std::array::from_fn(|i| bytes[i]))
}

impl Desired {
    /// As [`Desired::snapshot`], and equal to it, from the last one, where only these are looked at again: the services that
    /// `touched` names, those with another configuration, and those that time alone may change. All are, if there is no
    /// last one, if more has changed, or if the clock was set back.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn snapshot_from_last(
        &mut self,
        config: &Config,
        view: &dyn View,
        touched: &Touched,
    ) -> Result<Snapshot, TableError> {
        let last = &self.last.services;
        let named_alike = || {
            last.iter()
                .zip(&config.services)
                .all(|((old, _), new)| Arc::ptr_eq(old, new) || old.name == new.name)
        };
        let Touched::Services(names) = touched else { return self.snapshot(config, view) };
        if self.last.daemon.as_ref() != Some(&config.daemon)
            || self.last.quic != config.quic
            || last.len() != config.services.len()
            || view.unix_time() < self.last.unix_time
            // Tables that nothing uses any more are forgotten by the full way alone.
            || self.tables.len() > 2 * last.len() + 64
            || !named_alike()
        {
            return self.snapshot(config, view);
        }
        let mut services: Vec<Arc<Service>> = last.iter().map(|(_, service)| Arc::clone(service)).collect();
        let is_due =
            |identity| self.services.get(&identity).is_none_or(|state: &ServiceState| state.is_due(self.now));
        let changed: Vec<usize> = (0..services.len())
            .filter(|at| {
                let ((old, made), new) = (&last[*at], &config.services[*at]);
                !Arc::ptr_eq(old, new) || names.contains(&new.name) || is_due(made.identity)
            })
            .collect();
        let mut used = std::mem::take(&mut self.tables);
        for at in changed {
            match self.service(&config.services[at], config.daemon.gue_port, view, &mut used) {
                Ok(service) => services[at] = self.last.shared(at, service),
                Err(error) => {
                    self.tables = used;
                    return Err(error);
                }
            }
        }
        self.tables = used;
        Ok(self.finish(config, view, services))
    }

    /// Remembers what a snapshot was made from.
    pub(super) fn finish(
        &mut self,
        config: &Config,
        view: &dyn View,
        services: Vec<Arc<Service>>,
    ) -> Snapshot {
        self.last = Last {
            daemon: Some(config.daemon.clone()),
            quic: config.quic.clone(),
            unix_time: view.unix_time(),
            services: config.services.iter().cloned().zip(services.iter().cloned()).collect(),
        };
        Snapshot {
            key: identity::key(&self.seed),
            announce: config.daemon.announce == Announce::Arp,
            desired_digest: self.digest(config),
            quic: config.quic.clone(),
            services,
        }
    }
}

#[cfg(test)]
mod tests;
