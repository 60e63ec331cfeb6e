//! What the daemon says about itself. Field names are a contract: `docs/api.md`.
//!
//! Readers accept unknown fields (an older `lb` may ask a newer daemon); what is *sent to* the daemon lives in
//! `change.rs` and refuses them.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr, time::SystemTime};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::{AdminState, Affinity, Forward, Ports, Protocol, Rate};

/// `GET /v1/status`: everything at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the layout shared by the XDP program and user space.
    pub abi: u32,
    /// Name of the instance (`--name`).
    pub name: String,
    /// Version of the daemon.
    pub version: String,
    /// Counts installed changes; never goes back while the pins live.
    pub generation: u64,
    /// When this daemon started.
    pub started: Timestamp,
    /// Interfaces that XDP is attached to.
    pub interfaces: Vec<InterfaceStatus>,
    /// Services, in the order of `lb.toml`.
    pub services: Vec<ServiceStatus>,
    /// Packets by Reason since the maps were made, keyed by the Reason's name.
    pub reasons: BTreeMap<String, u64>,
    /// The table of remembered flows.
    pub flow_table: FlowTable,
    /// Bytes of kernel memory that the maps of this instance take.
    pub memory_bytes: u64,
    /// What somebody else has written to the maps.
    #[serde(default)]
    pub drift: Drift,
    /// What an operator should know, one sentence each; empty when all is well.
    pub warnings: Vec<String>,
}

/// Maps that somebody else has written to since the daemon started, and that were written anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// How often that was found.
    pub count: u64,
    /// When it was found last.
    pub last: Option<Timestamp>,
    /// Where it was found last, in words.
    pub what: Vec<String>,
}

/// An interface with our XDP program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name in this network namespace.
    pub name: String,
    /// Where the program runs.
    pub mode: InterfaceMode,
    /// Why this mode: "asked for", or why native was not possible.
    pub mode_reason: String,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceMode {
    /// In the driver.
    Native,
    /// In the stack (skb mode).
    Generic,
}

/// A service and what its table looks like now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Name, unique in the instance.
    pub name: String,
    /// VIPs.
    pub addresses: Vec<IpAddr>,
    /// `["any"]`, or ports and ranges as text: `["80", "8000-8100"]`.
    pub ports: Vec<String>,
    /// `tcp`, `udp` or `both`.
    pub protocol: Protocol,
    /// Which fields choose the slot.
    pub affinity: Affinity,
    /// How packets reach the backend.
    pub forward: Forward,
    /// Digest (hex) of the table that configuration and seed ask for: equal on every balancer of a group.
    pub desired_digest: String,
    /// Digest (hex) of the table in the kernel, health applied: differs from `desired_digest` while a member's slots
    /// are handed on.
    pub installed_digest: String,
    /// Length of the table.
    pub slots: u32,
    /// Slots that changed owner less than `settle` ago.
    pub unsettled: u32,
    /// Slots with long-lived flows on another backend than the owner.
    pub exceptions: u32,
    /// Who takes traffic: `normal` (those that are ready), `limited` (some that are not ready stay, since too many would
    /// have left), `panic` (all, since too few are ready), `sorry` (those that say sorry), `nobody`.
    #[serde(default)]
    pub mode: ServiceMode,
    /// Backends that are ready, those that say sorry and those taken out by the operator left out.
    #[serde(default)]
    pub ready: u32,
    /// Backends that could be.
    #[serde(default)]
    pub ready_of: u32,
    /// Packets forwarded to backends of this service.
    pub packets: u64,
    /// Bytes of those packets as they came in, link header included.
    pub bytes: u64,
    /// Packets per second per source; `null`: unlimited.
    pub limit: Option<Rate>,
    /// Backends, in the order of `lb.toml`.
    pub backends: Vec<BackendStatus>,
}

/// Who takes traffic of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceMode {
    /// Those that are ready.
    #[default]
    Normal,
    /// Some that are not ready stay, since too many would have left.
    Limited,
    /// All, since too few are ready.
    Panic,
    /// Those that say sorry, since nobody else is ready.
    Sorry,
    /// Nobody.
    Nobody,
}

/// A backend of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Name, unique in its service.
    pub name: String,
    /// Where packets are sent.
    pub address: IpAddr,
    /// Its own port, where one is configured.
    pub port: Option<u16>,
    /// 0 to 65,535.
    pub weight: u16,
    /// What the operator wants.
    pub admin: AdminState,
    /// What it is: admin state and health together.
    pub state: BackendState,
    /// Why it is in that state; empty when there is nothing to add.
    pub reason: String,
    /// When it came into that state.
    pub since: Timestamp,
    /// `resolved`, or what stands in the way.
    pub next_hop: String,
    /// Remembered flows; `null` while the service tracks none.
    pub flows: Option<u64>,
    /// Percent of its slots that it takes while it warms up (`slow_start`); `null` when it takes all of them, or nothing.
    #[serde(default)]
    pub slow_start: Option<u8>,
    /// Slots that it owns now.
    pub slots: u32,
    /// `slots` as a part of the service's table, 0 to 1.
    pub share: f64,
    /// Packets forwarded to it.
    pub packets: u64,
    /// Bytes of those packets as they came in.
    pub bytes: u64,
}

/// What a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// Not checked yet.
    Unknown,
    /// Gets new flows.
    Ready,
    /// Answers, but not well: keeps its flows, gets no new ones.
    NotReady,
    /// Does not answer: its flows are handed on.
    Failed,
    /// Drained by the operator: keeps its flows, gets no new ones.
    Draining,
    /// Taken out by the operator: gets nothing.
    Down,
}

impl BackendState {
    /// Every state, in the order of the contract.
    pub const ALL: [Self; 6] =
        [Self::Unknown, Self::Ready, Self::NotReady, Self::Failed, Self::Draining, Self::Down];

    /// The word that JSON and metrics use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ready => "ready",
            Self::NotReady => "not_ready",
            Self::Failed => "failed",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

/// The table of remembered flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FlowTable {
    /// Flows that fit.
    pub capacity: u64,
    /// Flows that are in it.
    pub used: u64,
    /// Of those, flows that have not come to their place since the table got another size.
    #[serde(default)]
    pub moving: u64,
    /// Packets that found their flow.
    pub hits: u64,
    /// Flows that found no place.
    pub refused: u64,
    /// Flows that had to leave for others.
    pub evicted: u64,
    /// Packets of unknown flows that went to their slot's owner from before a change.
    #[serde(default)]
    pub inherited: u64,
    /// Packets of flows whose backend is gone, sent to another: lost connections.
    #[serde(default)]
    pub rehashed: u64,
    /// Packets of flows that had been silent for longer than `settle`.
    #[serde(default)]
    pub expired: u64,
    /// SYNs of flows that had seen a FIN or RST, which began at another backend.
    #[serde(default)]
    pub reopened: u64,
}

/// `GET /v1/services`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// Services, in the order of `lb.toml`.
    pub services: Vec<ServiceStatus>,
}

/// `GET /v1/backends`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backends {
    /// Backends of all services, or of the one that was asked for.
    pub backends: Vec<BackendRow>,
}

/// A backend with the name of its service beside its own fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendRow {
    /// Name of the service.
    pub service: String,
    /// The backend; its fields stand on the same level.
    #[serde(flatten)]
    pub backend: BackendStatus,
}

/// `GET /v1/services/{name}/limit`, and a row of `GET /v1/limits`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLimit {
    /// Name of the service.
    pub service: String,
    /// Packets per second per source; `null`: unlimited.
    pub limit: Option<Rate>,
}

/// `GET /v1/limits`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// One row per service.
    pub limits: Vec<ServiceLimit>,
}

/// `GET /v1/agent`: what an agent on a backend must know. No secret: TCP serves it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Destinations of inner packets: the VIPs of every service that is forwarded in tunnels.
    pub vips: Vec<IpAddr>,
    /// Outer sources of this balancer: the configured prefixes, else the addresses in use as prefixes of one.
    pub tunnel_sources: Vec<IpNet>,
    /// Destination port of GUE.
    pub gue_port: u16,
    /// Backends of all services with `forward = "gue"`: an agent hands on to them what its host does not know.
    pub peers: Vec<IpAddr>,
}

/// `GET /v1/digests`: what balancers of a group compare. TCP serves it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// Name of the instance.
    pub name: String,
    /// Services, in the order of `lb.toml`.
    pub services: Vec<ServiceDigests>,
}

/// The digests of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDigests {
    /// Name of the service.
    pub name: String,
    /// As in [`ServiceStatus`].
    pub desired_digest: String,
    /// As in [`ServiceStatus`].
    pub installed_digest: String,
}

impl Digests {
    /// Those of a status.
    pub fn of(status: &Status) -> Self {
        let of = |s: &ServiceStatus| ServiceDigests {
            name: s.name.clone(),
            desired_digest: s.desired_digest.clone(),
            installed_digest: s.installed_digest.clone(),
        };
        Self { name: status.name.clone(), services: status.services.iter().map(of).collect() }
    }
}

/// `GET /healthz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthz {
    /// `ok`: the daemon answers; its backends may still be failed.
    pub status: String,
    /// Name of the instance.
    pub name: String,
    /// As in [`Status`].
    pub generation: u64,
}

/// The configured ports as the API writes them.
pub fn port_words(ports: &Ports) -> Vec<String> {
    match ports {
        Ports::Any => vec!["any".into()],
        Ports::Ranges(ranges) => ranges
            .iter()
            .map(|r| {
                if r.start() == r.end() {
                    r.start().to_string()
                } else {
                    format!("{}-{}", r.start(), r.end())
                }
            })
            .collect(),
    }
}

/// A moment, whole seconds, UTC; RFC 3339 in JSON (`2031-05-06T07:08:09Z`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// The beginning of 1970.
    pub const EPOCH: Self = Self(jiff::Timestamp::UNIX_EPOCH);

    /// Now.
    pub fn now() -> Self {
        Self::from_unix(jiff::Timestamp::now().as_second())
    }

    /// Seconds since 1970; outside the years -9999 to 9999 the nearest moment that can be written.
    pub fn from_unix(seconds: i64) -> Self {
        let nearest = if seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        Self(jiff::Timestamp::from_second(seconds).unwrap_or(nearest))
    }

    /// Seconds since 1970.
    pub fn as_unix(self) -> i64 {
        self.0.as_second()
    }

    /// Whole seconds from here to `later`; 0 when `later` is earlier (clocks are set back).
    pub fn seconds_until(self, later: Self) -> u64 {
        u64::try_from(later.as_unix().saturating_sub(self.as_unix())).unwrap_or(0)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Self::from_unix(i64::try_from(after.as_secs()).unwrap_or(i64::MAX)),
            Err(before) => Self::from_unix(
                i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX).saturating_neg(),
            ),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>().map(|t| Self::from_unix(t.as_second()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|e| de::Error::custom(format!("{text:?} is not an RFC 3339 time: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timestamps_travel_as_rfc_3339() {
        let t = Timestamp::from_unix(crate::api::fake::NOW);
        let json = serde_json::to_string(&t).unwrap();
        assert_eq!(json, "\"2031-05-07T17:24:49Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), t);
        assert!(serde_json::from_str::<Timestamp>("\"yesterday\"").is_err());
        assert_eq!(Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_millis(1_500)).as_unix(), 1);
    }

    #[test]
    fn a_clock_set_back_gives_no_negative_age() {
        let (early, late) = (Timestamp::from_unix(100), Timestamp::from_unix(160));
        assert_eq!(early.seconds_until(late), 60);
        assert_eq!(late.seconds_until(early), 0);
    }

    #[test]
    fn state_words_are_those_of_json() {
        for state in BackendState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.word());
        }
    }

    #[test]
    fn ports_are_words() {
        assert_eq!(port_words(&Ports::Any), ["any"]);
        assert_eq!(port_words(&Ports::Ranges(vec![80..=80, 8000..=8100])), ["80", "8000-8100"]);
    }

    #[test]
    fn a_backend_row_is_flat() {
        let status = crate::api::fake::sample_status();
        let row = BackendRow { service: "web".into(), backend: status.services[0].backends[0].clone() };
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(json["service"], "web");
        assert_eq!(json["name"], "b1");
        assert_eq!(serde_json::from_value::<BackendRow>(json).unwrap(), row);
    }
}
