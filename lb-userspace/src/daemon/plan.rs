//! What a change would do to this instance, asked without doing it.

use std::net::IpAddr;

use super::core::{Core, CoreView, check_vips};
use crate::{
    api::{MemoryPlan, Plan, ServicePlan, Timestamp},
    config::Config,
    control::{
        desired::{Condition, READY, View},
        identity,
        model::{Hop, Snapshot},
        plan::{changes, leaving, moves, slots, sum},
    },
    health::TargetKey,
};

/// The world as it will be once the backends that are new have passed their first check.
struct Ready<'v> {
    view: CoreView<'v>,
    added: &'v [TargetKey],
}

impl Ready<'_> {
    fn is_added(&self, service: &str, backend: &str) -> bool {
        self.added.iter().any(|key| key.service == service && key.backend == backend)
    }
}

impl View for Ready<'_> {
    fn condition(&self, service: &str, backend: &str) -> Condition {
        if self.is_added(service, backend) {
            return Condition { health: READY, since: Timestamp::now().as_unix().unsigned_abs() };
        }
        self.view.condition(service, backend)
    }

    fn joining(&self, service: &str, backend: &str) -> bool {
        !self.is_added(service, backend) && self.view.joining(service, backend)
    }

    fn hop(&self, address: IpAddr) -> Option<Hop> {
        self.view.hop(address)
    }

    /// When everybody has warmed up.
    fn unix_time(&self) -> u64 {
        u64::MAX
    }
}

impl Core {
    /// Says what this configuration would change. `standing` is what keeps it from being applied while the daemon runs.
    pub(super) fn plan_of(&mut self, config: &Config, standing: Vec<String>) -> anyhow::Result<Plan> {
        check_vips(config, &self.links)?;
        self.set_time();
        let added = self.added(config);
        let mut joining = self.joining.clone();
        joining.extend(added.iter().cloned().map(|key| (key, 0)));
        // Copies: what is only planned must leave no trace in member indices and settling clocks.
        let at_once = {
            let view = CoreView { joining: &joining, ..self.view(config) };
            self.desired.clone().snapshot(config, &view)?
        };
        let in_the_end = {
            let ready = Ready { view: self.view(config), added: &added };
            self.desired.clone().snapshot(config, &ready)?
        };
        let mut plan = self.slots_of(config, &at_once, &in_the_end);
        plan.changes = changes(&self.config, config);
        plan.changed = !plan.changes.is_empty();
        let members = leaving(&self.snapshot, &in_the_end);
        (plan.flows_at_risk, plan.flows_protected) = self.installer.count_flows(&members);
        plan.warnings.extend(standing);
        plan.warnings.extend(empty_services(config));
        Ok(plan)
    }

    fn slots_of(&self, config: &Config, at_once: &Snapshot, in_the_end: &Snapshot) -> Plan {
        let (first, last) = (moves(&self.snapshot, at_once), moves(&self.snapshot, in_the_end));
        let mut services = Vec::new();
        for service in &config.services {
            let identity = identity::service(self.desired.seed(), &service.name);
            let (now, then) = (
                first.get(&identity).copied().unwrap_or_default(),
                last.get(&identity).copied().unwrap_or_default(),
            );
            if now.moved == 0 && then.moved == 0 {
                continue;
            }
            let of = now.of.max(then.of);
            services.push(ServicePlan {
                name: service.name.clone(),
                slots_moved: now.moved,
                slots_moved_when_ready: then.moved,
                slots_total: of,
                share_moved: then.moved as f64 / of.max(1) as f64,
                slots_protected: then.protected,
                slots_at_risk: then.at_risk,
            });
        }
        let (slots_now, fresh, slots_after) = slots(&self.snapshot, in_the_end);
        let capacity = self.installer.memory().capacity();
        let memory = MemoryPlan {
            slots_now,
            slots_during: slots_now + fresh,
            slots_after,
            slots_capacity: u64::from(capacity.slots),
            bytes: capacity.bytes(aya::util::nr_cpus().map_or(1, |n| n as u32)),
        };
        let mut warnings = Vec::new();
        if memory.slots_during > memory.slots_capacity {
            warnings.push(format!(
                "no room for {} slots while the tables change (there is room for {}): larger maps will be made",
                memory.slots_during, memory.slots_capacity
            ));
        }
        Plan {
            changed: false,
            changes: Vec::new(),
            slots_moved: sum(&first).moved,
            slots_moved_when_ready: sum(&last).moved,
            slots_total: services.iter().map(|s| s.slots_total).sum(),
            services,
            flows_protected: 0,
            flows_at_risk: 0,
            memory,
            warnings,
        }
    }
}

fn empty_services(config: &Config) -> impl Iterator<Item = String> {
    let empty = config.services.iter().filter(|service| service.backends.is_empty());
    empty
        .map(|service| format!("service {}: no backend, so all of its packets will be dropped", service.name))
}
