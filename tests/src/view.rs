//! What a balancer says of itself, read by the field names that `docs/api.md` promises.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use lb_common::abi::{Outcome, Reason};
use lb_userspace::api::Client;
use serde_json::Value;

/// A status, as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct View(pub Value);

impl View {
    /// Asks the daemon behind `socket`. The same as `lb status --json`, without a process: for asking often.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask(socket: &Path) -> Result<Self> {
        let answer = Client::new("", Some(socket.to_owned())).get("/v1/status");
        let answer = answer.with_context(|| format!("GET /v1/status on {}", socket.display()))?;
        Ok(Self(answer.json().context("the status")?))
    }

    /// The service of this name; null when there is none.
    #[must_use]
    pub fn service(&self, name: &str) -> &Value {
        let services = self.0["services"].as_array().into_iter().flatten();
        services.into_iter().find(|service| service["name"] == name).unwrap_or(&Value::Null)
    }

    /// The backend `SERVICE/NAME`; null when there is none.
    #[must_use]
    pub fn backend(&self, target: &str) -> &Value {
        let (service, name) = target.split_once('/').unwrap_or((target, ""));
        let backends = self.service(service)["backends"].as_array().into_iter().flatten();
        backends.into_iter().find(|backend| backend["name"] == name).unwrap_or(&Value::Null)
    }

    /// Every backend of every service.
    pub fn backends(&self) -> impl Iterator<Item = &Value> {
        let services = self.0["services"].as_array().into_iter().flatten();
        services.flat_map(|service| service["backends"].as_array().into_iter().flatten())
    }

    /// The state of the backend `SERVICE/NAME`; empty when there is none.
    #[must_use]
    pub fn state(&self, target: &str) -> &str {
        self.backend(target)["state"].as_str().unwrap_or_default()
    }

    /// Slots that the backend `SERVICE/NAME` owns now.
    #[must_use]
    pub fn slots(&self, target: &str) -> u64 {
        self.backend(target)["slots"].as_u64().unwrap_or_default()
    }

    /// Number of installed changes.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0["generation"].as_u64().unwrap_or_default()
    }

    /// Every backend is ready and its next hop known, and the kernel has the table that follows from it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let services = self.0["services"].as_array().map(Vec::as_slice).unwrap_or_default();
        let installed =
            services.iter().all(|service| service["desired_digest"] == service["installed_digest"]);
        let ready = |backend: &Value| backend["state"] == "ready" && backend["next_hop"] == "resolved";
        !services.is_empty() && installed && self.backends().all(ready)
    }

    /// Packets of this Reason so far.
    #[must_use]
    pub fn reason(&self, reason: Reason) -> u64 {
        self.0["reasons"][reason.name()].as_u64().unwrap_or_default()
    }

    /// Dropped packets by Reason, those without any left out.
    #[must_use]
    pub fn dropped(&self) -> BTreeMap<&'static str, u64> {
        let drops = Reason::ALL.iter().filter(|reason| reason.outcome() == Outcome::Dropped);
        drops.map(|reason| (reason.name(), self.reason(*reason))).filter(|(_, count)| *count > 0).collect()
    }

    /// The status without what packets and the passing of time change: equal before and after a command that was
    /// refused.
    #[must_use]
    pub fn lasting(&self) -> Value {
        let mut value = self.0.clone();
        strip(&mut value);
        value
    }
}

/// Takes the moving fields out, at every depth. `reason` is among them: a check words it anew each time.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for moving in ["packets", "bytes", "reasons", "flow_table", "reason", "since"] {
                fields.remove(moving);
            }
            fields.values_mut().for_each(strip);
        }
        Value::Array(values) => values.iter_mut().for_each(strip),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(state: &str, next_hop: &str, installed: &str) -> View {
        View(json!({ "generation": 3, "reasons": { "no_backend": 2, "not_ip": 7 }, "services": [{
            "name": "web", "desired_digest": "aa", "installed_digest": installed, "packets": 5, "backends": [
                { "name": "b1", "state": "ready", "next_hop": "resolved", "slots": 11 },
                { "name": "b2", "state": state, "next_hop": next_hop, "slots": 12 },
            ] }] }))
    }

    #[test]
    fn fields_are_found_by_name() {
        let view = view("failed", "resolved", "aa");
        assert_eq!((view.state("web/b2"), view.slots("web/b2"), view.generation()), ("failed", 12, 3));
        assert_eq!((view.state("web/b3"), view.slots("mail/b1")), ("", 0));
        assert_eq!(view.dropped(), [("no_backend", 2)].into());
    }

    #[test]
    fn a_view_is_settled_when_every_part_of_it_is() {
        assert!(view("ready", "resolved", "aa").is_settled());
        assert!(!view("unknown", "resolved", "aa").is_settled());
        assert!(!view("ready", "waiting for a neighbour", "aa").is_settled());
        assert!(!view("ready", "resolved", "bb").is_settled());
        assert!(!View(json!({})).is_settled());
        assert!(!View(json!({ "services": [] })).is_settled());
    }

    #[test]
    fn what_lasts_is_compared_and_what_moves_is_not() {
        let (mut before, mut after) = (view("ready", "resolved", "aa"), view("ready", "resolved", "aa"));
        after.0["services"][0]["packets"] = 6.into();
        assert_eq!(before.lasting(), after.lasting());
        before.0["generation"] = 4.into();
        assert_ne!(before.lasting(), after.lasting());
    }
}
