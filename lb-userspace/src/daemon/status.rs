//! The picture that the API gives.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use lb_common::abi::{ABI_VERSION, BUCKET_ENTRIES, Counter, slot};

use super::core::Core;
use crate::{
    api::{
        AgentInfo, ApiError,
        types::{
            BackendState, BackendStatus, FlowTable, InterfaceMode, InterfaceStatus, ServiceMode,
            ServiceStatus, Status, Timestamp, port_words,
        },
    },
    config::{AdminState, Backend, Check, Forward, Service, Tls, Tracking, Trust},
    control::{
        identity,
        mass::{Decision, Mode},
        model,
    },
    dataplane,
    health::HealthState,
    net::nexthop::Resolution,
};

/// Seconds that maps written by somebody else are a warning for.
const DRIFT_TOLD: u64 = 3_600;

impl Core {
    /// Everything at once.
    pub(super) fn status(&mut self) -> Result<Status, ApiError> {
        let reasons = dataplane::reasons(&self.ebpf).map_err(|e| ApiError::internal(e.to_string()))?;
        let counters = self.counters()?;
        let installed: HashMap<u64, &model::Service> =
            self.snapshot.services.iter().map(|s| (s.identity, &**s)).collect();
        let services = self.config.services.iter().map(|s| self.service(s, &installed, &counters)).collect();
        let capacity = self.installer.memory().capacity();
        let [hits, refused, evicted, inherited, rehashed, expired, reopened] =
            dataplane::flow_events(&self.ebpf).map_err(|e| ApiError::internal(e.to_string()))?;
        Ok(Status {
            abi: ABI_VERSION,
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            generation: u64::from(self.generation),
            started: self.started,
            interfaces: self.attachments.iter().map(interface).collect(),
            services,
            reasons: reasons.into_iter().map(|(reason, n)| (reason.name().to_owned(), n)).collect(),
            flow_table: FlowTable {
                capacity: u64::from(capacity.flow_buckets) * BUCKET_ENTRIES as u64,
                used: self.swept.used,
                moving: self.swept.in_old,
                hits,
                refused,
                evicted,
                inherited,
                rehashed,
                expired,
                reopened,
            },
            memory_bytes: capacity.bytes(aya::util::nr_cpus().map_or(1, |n| n as u32)),
            drift: self.drift.clone(),
            warnings: self.warnings(),
        })
    }

    /// What a backend's agent needs to know: the VIPs, and where tunnels come from.
    pub(super) fn agent(&self) -> AgentInfo {
        let vips: BTreeSet<IpAddr> = self.config.services.iter().flat_map(|s| s.addresses.clone()).collect();
        let configured = &self.config.daemon.tunnel_source;
        let in_use = self
            .snapshot
            .services
            .iter()
            .flat_map(|s| s.members.iter().flatten())
            .filter_map(|m| Some(m.hop?.source))
            .filter(|source| !configured.iter().any(|prefix| prefix.contains(source)));
        let mut tunnel_sources: BTreeSet<IpNet> = configured.iter().copied().collect();
        tunnel_sources.extend(in_use.map(IpNet::from));
        let gue = self.config.services.iter().filter(|s| s.forward == Forward::Gue);
        let peers: BTreeSet<IpAddr> = gue.flat_map(|s| &s.backends).map(|b| b.address).collect();
        AgentInfo {
            peers: peers.into_iter().collect(),
            vips: vips.into_iter().collect(),
            tunnel_sources: tunnel_sources.into_iter().collect(),
            gue_port: self.config.daemon.gue_port,
        }
    }

    /// Counters of all members, by service and member identity.
    fn counters(&self) -> Result<HashMap<(u64, u64), Counter>, ApiError> {
        let mut keys = Vec::new();
        let mut indices = Vec::new();
        for service in &self.snapshot.services {
            for member in service.members.iter().flatten() {
                if let Some(index) = self.installer.counter(service.identity, member.identity) {
                    keys.push((service.identity, member.identity));
                    indices.push(index);
                }
            }
        }
        let values =
            dataplane::forwarded(&self.ebpf, &indices).map_err(|e| ApiError::internal(e.to_string()))?;
        Ok(keys.into_iter().zip(values).collect())
    }

    fn service(
        &self,
        service: &Service,
        installed: &HashMap<u64, &model::Service>,
        counters: &HashMap<(u64, u64), Counter>,
    ) -> ServiceStatus {
        let id = identity::service(self.desired.seed(), &service.name);
        let model = installed.get(&id).copied();
        let report = model.map(|m| self.desired.report(m));
        let counts = self.desired.counts(id);
        let decision = self.desired.decision(id);
        let backends: Vec<BackendStatus> = service
            .backends
            .iter()
            .map(|backend| {
                let member = identity::member(self.desired.seed(), backend.address, backend.port);
                let index = model.and_then(|m| {
                    m.members.iter().position(|m| m.as_ref().is_some_and(|m| m.identity == member))
                });
                let slots = index.and_then(|i| report.as_ref()?.shares.get(i).copied()).unwrap_or_default();
                let counter = counters.get(&(id, member)).copied().unwrap_or_default();
                let flows = index.and_then(|i| self.flows(service, id, i));
                let slow_start = index.and_then(|i| self.desired.slow_start_percent(id, i));
                BackendStatus { flows, slow_start, ..self.backend(service, backend, slots, counter) }
            })
            .collect();
        ServiceStatus {
            name: service.name.clone(),
            addresses: service.addresses.clone(),
            ports: port_words(&service.ports),
            protocol: service.protocol,
            affinity: service.affinity,
            forward: service.forward,
            desired_digest: report.as_ref().map(|r| r.desired_digest.clone()).unwrap_or_default(),
            installed_digest: report.map(|r| r.installed_digest).unwrap_or_default(),
            slots: service.table_slots,
            unsettled: counts.unsettled,
            exceptions: counts.exceptions,
            mode: decision.map_or(ServiceMode::Normal, |d| service_mode(d.mode)),
            ready: decision.map_or(0, |d| d.ready),
            ready_of: decision.map_or(0, |d| d.of),
            packets: backends.iter().map(|b| b.packets).sum(),
            bytes: backends.iter().map(|b| b.bytes).sum(),
            limit: service.limit.map(|l| l.anonymous),
            backends,
        }
    }

    /// Flows that the last sweep found on the member at `index`.
    fn flows(&self, service: &Service, id: u64, index: usize) -> Option<u64> {
        if service.tracking == Tracking::Never {
            return None;
        }
        self.installer.flows(&self.swept, id, u16::try_from(index).ok()?)
    }

    fn backend(&self, service: &Service, backend: &Backend, slots: u32, counter: Counter) -> BackendStatus {
        let health = self.health.get(&service.name, &backend.name);
        let (state, reason) = match (backend.state, health) {
            (AdminState::Down, _) => (BackendState::Down, "taken out by the operator".to_owned()),
            (AdminState::Drain, _) => (BackendState::Draining, "drained by the operator".to_owned()),
            (AdminState::Up, None) => (BackendState::Unknown, "not checked yet".to_owned()),
            (AdminState::Up, Some(status)) => (backend_state(status.state), status.reason.clone()),
        };
        let since = health.map_or(self.started, |s| Timestamp::from(s.since));
        let next_hop = match self.routes.entries.get(&backend.address) {
            Some(Resolution::Resolved(_)) => "resolved".to_owned(),
            Some(Resolution::Unresolved { reason }) => reason.clone(),
            None => "not looked up yet".to_owned(),
        };
        BackendStatus {
            name: backend.name.clone(),
            address: backend.address,
            port: backend.port,
            weight: backend.weight,
            admin: backend.state,
            state,
            reason,
            since,
            next_hop,
            flows: None,
            slow_start: None,
            slots,
            share: f64::from(slots) / f64::from(service.table_slots.max(1)),
            packets: counter.packets,
            bytes: counter.bytes,
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.seed_is_own {
            warnings.push(
                "no hash_seed is configured: this balancer made its own and is not part of a group"
                    .to_owned(),
            );
        }
        if let Some(last) = self.drift.last.filter(|last| last.seconds_until(Timestamp::now()) < DRIFT_TOLD) {
            warnings.push(format!(
                "somebody else wrote to the maps at {last} ({}); they were written anew: look for who has bpftool or \
                 another instance under this name",
                self.drift.what.join(", ")
            ));
        }
        warnings.extend(self.missing_interfaces().map(|name| {
            format!("interface {name} is gone, or the program could not be attached to it (the log says which): it is \
                     attached as soon as that is possible")
        }));
        for attachment in self.attachments.iter().filter(|a| a.mode == "generic") {
            warnings.push(format!(
                "{}: generic mode, slower than native ({})",
                attachment.interface, attachment.reason
            ));
        }
        for service in &self.config.services {
            let decision = self.desired.decision(identity::service(self.desired.seed(), &service.name));
            warnings.extend(decision.and_then(|decision| mass_warning(service, decision)));
            warnings.extend(trust_warning(service));
        }
        for service in &self.snapshot.services {
            if service.table.first().is_some_and(|value| value & slot::MEMBER == slot::EMPTY) {
                let name = self
                    .config
                    .services
                    .iter()
                    .find(|s| identity::service(self.desired.seed(), &s.name) == service.identity)
                    .map_or("?", |s| s.name.as_str());
                warnings.push(format!(
                    "service {name:?} has no backend that takes packets: all of them are dropped"
                ));
            }
        }
        warnings
    }
}

fn service_mode(mode: Mode) -> ServiceMode {
    match mode {
        Mode::Normal => ServiceMode::Normal,
        Mode::Limited => ServiceMode::Limited,
        Mode::Panic => ServiceMode::Panic,
        Mode::Sorry => ServiceMode::Sorry,
        Mode::Nobody => ServiceMode::Nobody,
    }
}

/// That a check believes any certificate.
fn trust_warning(service: &Service) -> Option<String> {
    let Check::Http { tls: Some(Tls { trust: Trust::Anyone, .. }), .. } = &service.health.check else {
        return None;
    };
    let name = &service.name;
    Some(format!(
        "service {name:?}: health checks believe any certificate (insecure); name the certificate authority with ca"
    ))
}

/// Why a service does not balance over those that are ready, or that these are few.
fn mass_warning(service: &Service, decision: &Decision) -> Option<String> {
    let (ready, of) = (decision.ready, decision.of);
    let mass = service.health.mass;
    let name = &service.name;
    match decision.mode {
        Mode::Limited => Some(format!(
            "service {name:?}: {ready} of {of} backends are ready; some of the others stay in service, since at most {} % \
             may leave (max_ejected)",
            mass.max_ejected
        )),
        Mode::Panic => Some(format!(
            "service {name:?}: only {ready} of {of} backends are ready, fewer than {} % (panic_below): all of them take \
             traffic",
            mass.panic_below
        )),
        Mode::Sorry => Some(format!(
            "service {name:?}: none of {of} backends is ready; those with sorry = true take traffic"
        )),
        Mode::Normal if ready < u32::from(mass.min_ready) && of > 0 => Some(format!(
            "service {name:?}: only {ready} of {of} backends are ready, expected at least {} (min_ready)",
            mass.min_ready
        )),
        Mode::Normal | Mode::Nobody => None,
    }
}

fn interface(attachment: &dataplane::Attachment) -> InterfaceStatus {
    InterfaceStatus {
        name: attachment.interface.clone(),
        mode: if attachment.mode == "generic" { InterfaceMode::Generic } else { InterfaceMode::Native },
        mode_reason: attachment.reason.clone(),
    }
}

fn backend_state(state: HealthState) -> BackendState {
    match state {
        HealthState::Unknown => BackendState::Unknown,
        HealthState::Ready => BackendState::Ready,
        HealthState::NotReady => BackendState::NotReady,
        HealthState::Failed => BackendState::Failed,
    }
}
