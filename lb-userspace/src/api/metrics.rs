//! The status as Prometheus text (exposition format 0.0.4). Names are a contract: `docs/api.md`.

use std::fmt::{Display, Write};

use super::types::{BackendState, BackendStatus, InterfaceMode, ServiceStatus, Status};

/// Renders every metric of this instance.
pub fn render(status: &Status) -> String {
    let mut text = Text(String::with_capacity(4096));
    instance(&mut text, status);
    services(&mut text, &status.services);
    backends(&mut text, &status.services);
    text.0
}

fn instance(text: &mut Text, s: &Status) {
    let abi = s.abi.to_string();
    text.family("lb_build_info", "gauge", "Constant 1; what runs.");
    text.sample("lb_build_info", &[("name", &s.name), ("version", &s.version), ("abi", &abi)], 1);
    text.single("lb_generation", "gauge", "Installed changes.", s.generation);
    text.single("lb_start_time_seconds", "gauge", "Unix time of the daemon's start.", s.started.as_unix());
    text.family("lb_interface_info", "gauge", "Constant 1; where XDP runs.");
    for i in &s.interfaces {
        let mode = match i.mode {
            InterfaceMode::Native => "native",
            InterfaceMode::Generic => "generic",
        };
        text.sample("lb_interface_info", &[("interface", &i.name), ("mode", mode)], 1);
    }
    text.family("lb_packets_total", "counter", "Packets by what became of them.");
    for (reason, count) in &s.reasons {
        text.sample("lb_packets_total", &[("reason", reason)], count);
    }
    let t = s.flow_table;
    text.single("lb_flow_table_capacity", "gauge", "Flows that fit.", t.capacity);
    text.single("lb_flow_table_used", "gauge", "Flows remembered.", t.used);
    text.single("lb_flow_table_hits_total", "counter", "Packets that found their flow.", t.hits);
    text.single("lb_flow_table_refused_total", "counter", "Flows that found no place.", t.refused);
    text.single("lb_flow_table_evicted_total", "counter", "Flows that had to leave for others.", t.evicted);
    let inherited = "Packets of unknown flows that went to the owner from before a change.";
    text.single("lb_flow_table_inherited_total", "counter", inherited, t.inherited);
    let rehashed = "Packets of flows whose backend is gone: lost connections.";
    text.single("lb_flow_table_rehashed_total", "counter", rehashed, t.rehashed);
    let expired = "Packets of flows that had been silent for too long.";
    text.single("lb_flow_table_expired_total", "counter", expired, t.expired);
    let reopened = "SYNs of flows that had seen a FIN or RST, which began at another backend.";
    text.single("lb_flow_table_reopened_total", "counter", reopened, t.reopened);
    text.single("lb_memory_bytes", "gauge", "Kernel memory of the maps.", s.memory_bytes);
    text.single(
        "lb_drift_total",
        "counter",
        "Times that somebody else had written to the maps.",
        s.drift.count,
    );
    text.single("lb_warnings", "gauge", "Warnings in the status.", s.warnings.len());
}

fn services(text: &mut Text, all: &[ServiceStatus]) {
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&ServiceStatus) -> Option<u64>| {
        text.family(name, kind, help);
        for s in all {
            if let Some(value) = value(s) {
                text.sample(name, &[("service", &s.name)], value);
            }
        }
    };
    family("lb_service_packets_total", "counter", "Packets forwarded.", &|s| Some(s.packets));
    family("lb_service_bytes_total", "counter", "Bytes of those packets as they came in.", &|s| {
        Some(s.bytes)
    });
    family("lb_service_slots", "gauge", "Length of the table.", &|s| Some(s.slots.into()));
    family("lb_service_unsettled_slots", "gauge", "Slots that changed owner lately.", &|s| {
        Some(s.unsettled.into())
    });
    family("lb_service_exception_slots", "gauge", "Slots with flows elsewhere.", &|s| {
        Some(s.exceptions.into())
    });
    family("lb_service_limit_rate", "gauge", "Packets per second per source; absent: unlimited.", &|s| {
        s.limit.map(|l| l.rate.into())
    });
    family("lb_service_limit_burst", "gauge", "Packets at once per source; absent: unlimited.", &|s| {
        s.limit.map(|l| l.burst.into())
    });
}

fn backends(text: &mut Text, all: &[ServiceStatus]) {
    let mut family =
        |name: &str, kind: &str, help: &str, value: &dyn Fn(&BackendStatus) -> Option<String>| {
            text.family(name, kind, help);
            for (s, b) in each_backend(all) {
                if let Some(value) = value(b) {
                    text.sample(name, &[("service", &s.name), ("backend", &b.name)], value);
                }
            }
        };
    family("lb_backend_packets_total", "counter", "Packets forwarded.", &|b| Some(b.packets.to_string()));
    family("lb_backend_bytes_total", "counter", "Bytes of those packets as they came in.", &|b| {
        Some(b.bytes.to_string())
    });
    family("lb_backend_weight", "gauge", "Configured weight.", &|b| Some(b.weight.to_string()));
    family("lb_backend_slots", "gauge", "Slots owned.", &|b| Some(b.slots.to_string()));
    family("lb_backend_share_ratio", "gauge", "Slots owned, 0 to 1.", &|b| Some(b.share.to_string()));
    family("lb_backend_flows", "gauge", "Flows remembered; absent: not tracked.", &|b| {
        b.flows.map(|f| f.to_string())
    });
    family("lb_backend_next_hop_resolved", "gauge", "1 when packets can be sent to it.", &|b| {
        Some(u8::from(b.next_hop == "resolved").to_string())
    });
    family("lb_backend_state_since_seconds", "gauge", "Unix time of the last change of state.", &|b| {
        Some(b.since.as_unix().to_string())
    });
    let name = "lb_backend_state";
    text.family(name, "gauge", "1 for the state that the backend is in, 0 for the others.");
    for (s, b) in each_backend(all) {
        for state in BackendState::ALL {
            let labels = [("service", s.name.as_str()), ("backend", &b.name), ("state", state.word())];
            text.sample(name, &labels, u8::from(b.state == state));
        }
    }
}

fn each_backend(all: &[ServiceStatus]) -> impl Iterator<Item = (&ServiceStatus, &BackendStatus)> {
    all.iter().flat_map(|s| s.backends.iter().map(move |b| (s, b)))
}

/// The text so far. Writing to a `String` cannot fail, hence the ignored results.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if i == 0 { '{' } else { ',' });
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::fake::sample_status;

    #[test]
    fn counters_of_services_backends_and_reasons_are_there() {
        let text = render(&sample_status());
        for line in [
            "lb_build_info{name=\"main\",version=\"0.1.0\",abi=\"1\"} 1",
            "lb_packets_total{reason=\"forwarded\"} 123456",
            "lb_service_slots{service=\"web\"} 16381",
            "lb_service_limit_rate{service=\"web\"} 1000",
            "lb_backend_packets_total{service=\"web\",backend=\"b1\"} 100000",
            "lb_backend_state{service=\"web\",backend=\"b2\",state=\"failed\"} 1",
            "lb_backend_state{service=\"web\",backend=\"b2\",state=\"ready\"} 0",
            "lb_backend_next_hop_resolved{service=\"web\",backend=\"b2\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("lb_service_limit_rate{service=\"dns\"}"), "dns has no limit");
        assert!(!text.contains("lb_backend_flows{service=\"web\""), "web tracks no flows");
    }

    #[test]
    fn every_sample_belongs_to_the_family_above_it_and_no_family_comes_twice() {
        let text = render(&sample_status());
        let (mut families, mut current) = (BTreeSet::new(), String::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                current = rest.split(' ').next().unwrap().into();
                assert!(families.insert(current.clone()), "{current} comes twice");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(name, current, "{line}");
            }
        }
        assert!(families.len() > 20);
    }

    #[test]
    fn labels_are_escaped() {
        let mut status = sample_status();
        status.services[0].name = "a\"b\\c\nd".into();
        let text = render(&status);
        assert!(text.contains(r#"lb_service_slots{service="a\"b\\c\nd"} 16381"#), "{text}");
    }
}
