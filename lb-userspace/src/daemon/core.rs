//! The state of the daemon, owned by one task.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aya::Ebpf;
use log::{error, info};

use super::{history::History, hops, journal::Journal};
use crate::{
    api::types::{Drift, Timestamp},
    config::{AdminState, Check, Config, Digest, Forward, Ports, Service},
    control::{
        desired::{Condition, Desired, Touched, View},
        model::{Hop, Snapshot},
        plan::{self, Moves},
        settling::Seconds,
    },
    dataplane::{Adopted, Attachment, Clock, Installer, Pins, Swept},
    health::{Checker, HealthState, Status, Target, TargetKey},
    net::{
        links::Inventory,
        nexthop::{self, Resolver},
    },
};

/// Ticks from one look at what settles, and one sweep of the flow table, to the next.
const TICKS_OF_A_SWEEP: u64 = 5;

/// Everything that can change.
pub(super) struct Core {
    pub(super) name: String,
    pub(super) config_path: PathBuf,
    /// Digest of the file as it was applied last.
    pub(super) applied: Digest,
    pub(super) config: Config,
    /// Interfaces given on the command line, which replace those of the file.
    pub(super) interfaces: Vec<String>,
    pub(super) desired: Desired,
    pub(super) installer: Installer,
    pub(super) ebpf: Ebpf,
    pub(super) pins: Pins,
    pub(super) clock: Clock,
    /// What the last sweep of the flow table found.
    pub(super) swept: Swept,
    /// Ticks so far.
    pub(super) ticks: u64,
    pub(super) generation: u32,
    /// What is in force.
    pub(super) snapshot: Snapshot,
    pub(super) checker: Checker,
    pub(super) health: Health,
    /// Backends that were added to a running service and do not take connections yet.
    pub(super) joining: Joining,
    pub(super) resolver: Resolver,
    pub(super) links: Arc<Inventory>,
    pub(super) routes: Arc<nexthop::Snapshot>,
    pub(super) attachments: Vec<Attachment>,
    pub(super) started: Timestamp,
    pub(super) seed_is_own: bool,
    pub(super) history: History,
    pub(super) journal: Journal,
    /// What was found in the maps that nobody of us had written.
    pub(super) drift: Drift,
    /// Install even what seems to be in force.
    pub(super) rewrite: bool,
    /// What must be looked at again for the next snapshot.
    pub(super) touched: Touched,
}

/// Backends that join, and when each was added, by the datapath's clock.
pub(super) type Joining = HashMap<TargetKey, Seconds>;

/// Seconds for which a backend is a candidate before it takes connections, where packets name candidates: in this time the
/// other balancers of the group have to learn of it, or they do not know where its connections are.
const CANDIDATE_FIRST: Seconds = 3;

/// Health of all backends by service and backend.
#[derive(Debug, Default)]
pub(super) struct Health(HashMap<String, HashMap<String, Status>>);

impl Health {
    /// Takes news in; says whether the state changed.
    pub(super) fn update(&mut self, key: &TargetKey, status: Status) -> bool {
        let state = status.state;
        let backends = self.0.entry(key.service.clone()).or_default();
        backends.insert(key.backend.clone(), status).is_none_or(|old| old.state != state)
    }

    /// The status of a backend.
    pub(super) fn get(&self, service: &str, backend: &str) -> Option<&Status> {
        self.0.get(service)?.get(backend)
    }

    fn is_ready(&self, key: &TargetKey) -> bool {
        self.get(&key.service, &key.backend).is_some_and(|status| status.state == HealthState::Ready)
    }

    /// Forgets what is not configured any more.
    fn retain(&mut self, config: &Config) {
        let known: HashMap<&str, BTreeSet<&str>> = config
            .services
            .iter()
            .map(|s| (s.name.as_str(), s.backends.iter().map(|b| b.name.as_str()).collect()))
            .collect();
        self.0.retain(|service, backends| match known.get(service.as_str()) {
            Some(names) => {
                backends.retain(|backend, _| names.contains(backend.as_str()));
                true
            }
            None => false,
        });
    }
}

/// What a snapshot is made from, besides the configuration.
pub(super) struct CoreView<'c> {
    pub(super) health: &'c Health,
    pub(super) joining: &'c Joining,
    pub(super) routes: &'c nexthop::Snapshot,
    pub(super) links: &'c Inventory,
    pub(super) tunnel_sources: &'c [ipnet::IpNet],
    /// Unix seconds.
    pub(super) now: u64,
}

impl View for CoreView<'_> {
    fn condition(&self, service: &str, backend: &str) -> Condition {
        self.health.get(service, backend).map_or_else(Condition::default, |status| Condition {
            health: health_number(status.state),
            since: unix_seconds(status.since),
        })
    }

    fn joining(&self, service: &str, backend: &str) -> bool {
        !self.joining.is_empty()
            && self.joining.contains_key(&TargetKey { service: service.into(), backend: backend.into() })
    }

    fn hop(&self, address: IpAddr) -> Option<Hop> {
        let next = self.routes.entries.get(&address)?.next_hop()?;
        Some(hops::hop(next, self.tunnel_sources, self.links))
    }

    fn unix_time(&self) -> u64 {
        self.now
    }
}

impl Core {
    /// Makes `config` the desired state and installs it.
    ///
    /// # Errors
    /// In words; then nothing was changed.
    pub(super) fn apply(&mut self, config: Config) -> anyhow::Result<Moves> {
        check_vips(&config, &self.links)?;
        // Backends that are new must be looked up and checked whatever comes of it; if installing fails the old
        // targets are set again.
        let joining = self.joining.clone();
        let now = self.clock.seconds(monotonic_nanoseconds());
        self.joining.extend(self.added(&config).into_iter().map(|key| (key, now)));
        let (_, moved) = match self.install(&config) {
            Ok(done) => done,
            Err(error) => {
                self.joining = joining;
                return Err(error);
            }
        };
        let known: BTreeSet<IpAddr> = vips(&self.config).collect();
        let fresh: Vec<IpAddr> = vips(&config).filter(|vip| !known.contains(vip)).collect();
        self.config = config;
        self.announce(&fresh);
        self.health.retain(&self.config);
        let health = &self.health;
        // Known to be ready from before (renamed, or moved within a reload): nothing to wait for.
        let touched = &mut self.touched;
        self.joining.retain(|key, _| {
            let is_ready = health.is_ready(key);
            if is_ready {
                touched.add(&key.service);
            }
            !is_ready
        });
        self.checker.set_targets(targets(&self.config, &HashMap::new()));
        self.resolver.set_targets(addresses(&self.config));
        Ok(moved)
    }

    /// What a snapshot of this configuration is made from now.
    pub(super) fn view<'c>(&'c self, config: &'c Config) -> CoreView<'c> {
        CoreView {
            health: &self.health,
            joining: &self.joining,
            routes: &self.routes,
            links: &self.links,
            tunnel_sources: &config.daemon.tunnel_source,
            now: unix_seconds(SystemTime::now()),
        }
    }

    /// Backends that `config` adds to services that are running.
    pub(super) fn added(&self, config: &Config) -> Vec<TargetKey> {
        if self.generation == 0 {
            return Vec::new();
        }
        let kept: HashSet<*const Service> = self.config.services.iter().map(Arc::as_ptr).collect();
        let changed: Vec<_> =
            config.services.iter().filter(|service| !kept.contains(&Arc::as_ptr(service))).collect();
        let names: HashSet<&str> = changed.iter().map(|service| service.name.as_str()).collect();
        let running: HashMap<&str, BTreeSet<IpAddr>> = self
            .config
            .services
            .iter()
            .filter(|s| names.contains(s.name.as_str()))
            .map(|s| (s.name.as_str(), s.backends.iter().map(|b| b.address).collect()))
            .collect();
        let mut added = Vec::new();
        for service in changed {
            let Some(before) = running.get(service.name.as_str()) else { continue };
            for backend in service.backends.iter().filter(|b| !before.contains(&b.address)) {
                added.push(TargetKey { service: service.name.clone(), backend: backend.name.clone() });
            }
        }
        added
    }

    /// Installs what health and routes now ask for, if that differs from what is in force.
    pub(super) fn refresh(&mut self) {
        let config = self.config.clone();
        match self.install(&config) {
            Ok((true, moved)) => {
                info!("generation {}: {} of {} slots moved", self.generation, moved.moved, moved.of);
            }
            Ok((false, _)) => {}
            Err(error) => error!("the tables stay as they were: {error:#}"),
        }
    }

    /// Tells tables and installer the time of the datapath.
    pub(super) fn set_time(&mut self) {
        let now = self.clock.seconds(monotonic_nanoseconds());
        self.desired.set_time(now);
        self.installer.set_time(now);
    }

    /// Lets those take connections that join, are ready and have been candidates for long enough. Says whether there were
    /// any.
    pub(super) fn join(&mut self) -> bool {
        let now = self.clock.seconds(monotonic_nanoseconds());
        let (health, services) = (&self.health, &self.config.services);
        let is_named = |name: &str| services.iter().any(|s| s.name == name && s.forward == Forward::Gue);
        let before = self.joining.len();
        let touched = &mut self.touched;
        self.joining.retain(|key, since| {
            let waits = is_named(&key.service) && now.saturating_sub(*since) < CANDIDATE_FIRST;
            let stays = waits || !health.is_ready(key);
            if !stays {
                touched.add(&key.service);
            }
            stays
        });
        before != self.joining.len()
    }

    /// What time alone changes: those that join take connections, slots settle, backends warm up, flows that nothing was seen
    /// of are forgotten.
    pub(super) fn tick(&mut self) {
        self.ticks += 1;
        self.set_time();
        if self.join() {
            self.refresh();
        }
        let is_due = self.ticks.is_multiple_of(TICKS_OF_A_SWEEP);
        if is_due {
            self.repair();
            if self.missing_interfaces().next().is_some() {
                self.follow_interfaces();
            }
        }
        let installer = &self.installer;
        let has_settled = is_due && self.desired.settle(|service, slot| installer.stamp(service, slot));
        if has_settled || self.desired.is_warming_up() {
            self.refresh();
        }
        // Whoever drains watches the figure.
        let mut backends = self.config.services.iter().flat_map(|s| &s.backends);
        if !is_due && !backends.any(|b| b.state == AdminState::Drain) {
            return;
        }
        let longest = self.config.services.iter().map(|s| s.settle.as_secs()).max().unwrap_or(1);
        let longest = u16::try_from(longest).unwrap_or(u16::MAX);
        self.swept = tokio::task::block_in_place(|| self.installer.sweep_flows(longest));
        self.end_move();
    }

    /// Builds and installs; says whether anything changed.
    pub(super) fn install(&mut self, config: &Config) -> anyhow::Result<(bool, Moves)> {
        self.set_time();
        let view = CoreView {
            health: &self.health,
            joining: &self.joining,
            routes: &self.routes,
            links: &self.links,
            tunnel_sources: &config.daemon.tunnel_source,
            now: unix_seconds(SystemTime::now()),
        };
        let snapshot = self.desired.snapshot_from_last(config, &view, &self.touched)?;
        let fits = self.sizes(config) == self.installer.memory().capacity();
        if snapshot == self.snapshot && self.generation != 0 && fits && !std::mem::take(&mut self.rewrite) {
            self.touched = Touched::nobody();
            return Ok((false, Moves::default()));
        }
        let moved = plan::sum(&plan::moves(&self.snapshot, &snapshot));
        let installation = tokio::task::block_in_place(|| self.install_or_grow(config, &snapshot))?;
        self.generation = installation.generation;
        self.snapshot = snapshot;
        self.touched = Touched::nobody();
        Ok((true, moved))
    }
}

/// Health as the ABI has it.
fn health_number(state: HealthState) -> u8 {
    match state {
        HealthState::Unknown => 0,
        HealthState::Ready => 1,
        HealthState::NotReady => 2,
        HealthState::Failed => 3,
    }
}

fn health_state(number: u8) -> Option<HealthState> {
    match number {
        1 => Some(HealthState::Ready),
        2 => Some(HealthState::NotReady),
        3 => Some(HealthState::Failed),
        _ => None,
    }
}

/// `CLOCK_MONOTONIC`, which the datapath's fine clock shows.
pub(super) fn monotonic_nanoseconds() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The health that the maps remember, by target.
pub(super) fn adopted_health(
    config: &Config,
    desired: &Desired,
    adopted: &Adopted,
) -> HashMap<TargetKey, Status> {
    use crate::control::identity;
    let mut statuses = HashMap::new();
    for service in &config.services {
        let Some(known) = adopted.services.get(&identity::service(desired.seed(), &service.name)) else {
            continue;
        };
        for backend in &service.backends {
            let member = known.members.get(&identity::member(desired.seed(), backend.address, backend.port));
            let Some((member, state)) = member.and_then(|m| Some((m, health_state(m.health)?))) else {
                continue;
            };
            let key = TargetKey { service: service.name.clone(), backend: backend.name.clone() };
            let since = UNIX_EPOCH + std::time::Duration::from_secs(member.since);
            statuses.insert(key, Status { state, reason: "as before the restart".into(), since });
        }
    }
    statuses
}

/// All backends to check.
pub(super) fn targets(config: &Config, initial: &HashMap<TargetKey, Status>) -> Vec<Target> {
    let mut targets = Vec::new();
    for service in &config.services {
        for backend in &service.backends {
            let key = TargetKey { service: service.name.clone(), backend: backend.name.clone() };
            targets.push(Target {
                address: backend.address,
                port: check_port(service, backend.port),
                health: service.health.clone(),
                initial: initial.get(&key).cloned(),
                key,
            });
        }
    }
    targets
}

/// The port that a check connects to: its own, the backend's, or the first of the service.
fn check_port(service: &Service, backend: Option<u16>) -> u16 {
    let first = match &service.ports {
        Ports::Ranges(ranges) => ranges.first().map(|r| *r.start()),
        Ports::Any => None,
    };
    service.health.port.or(backend).or(first).unwrap_or(if service.health.check == Check::None {
        0
    } else {
        80
    })
}

fn vips(config: &Config) -> impl Iterator<Item = IpAddr> {
    config.services.iter().flat_map(|s| s.addresses.iter().copied())
}

/// All addresses that a way is needed to.
pub(super) fn addresses(config: &Config) -> BTreeSet<IpAddr> {
    config.services.iter().flat_map(|s| s.backends.iter().map(|b| b.address)).collect()
}

/// A VIP that is an address of this host would never reach XDP's backends for local connections, and the host would
/// answer for it: refused.
pub(super) fn check_vips(config: &Config, links: &Inventory) -> anyhow::Result<()> {
    for service in &config.services {
        for address in &service.addresses {
            if let Some(link) = links.owner(*address) {
                anyhow::bail!(
                    "service {:?}: address {address} is configured on {} of this host: a VIP must not be a local address of the balancer; remove it with `ip address del {address} dev {}`",
                    service.name,
                    link.name,
                    link.name
                );
            }
        }
    }
    Ok(())
}
