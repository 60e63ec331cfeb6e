//! The tables and keys of `lb.toml`: what is known, and how places are called.
//!
//! The reader refuses every key that is not here, and a test demands that the reader looks at every key that is.

use std::fmt;

use super::problem::quoted;

/// One kind of table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TableKeys {
    /// As `docs/configuration.md` heads it.
    pub(super) heading: &'static str,
    /// What may stand in it.
    pub(super) known: &'static [&'static str],
}

/// The keys whose values no message repeats.
pub(super) const SECRETS: [&str; 2] = ["hash_seed", "aes_key"];

/// The file itself.
pub(super) const FILE: TableKeys =
    TableKeys { heading: "lb.toml", known: &["daemon", "quic", "service", "agent"] };
/// `[daemon]`.
pub(super) const DAEMON: TableKeys = TableKeys {
    heading: "[daemon]",
    known: &[
        "interfaces",
        "xdp_mode",
        "hash_seed",
        "tunnel_source",
        "gue_port",
        "announce",
        "flow_table",
        "limit_table",
        "listen",
    ],
};
/// `[daemon] flow_table`.
pub(super) const FLOW_TABLE: TableKeys = TableKeys { heading: "[daemon.flow_table]", known: &["capacity"] };
/// `[daemon] limit_table`.
pub(super) const LIMIT_TABLE: TableKeys = TableKeys { heading: "[daemon.limit_table]", known: &["capacity"] };
/// `[[quic]]`.
pub(super) const QUIC: TableKeys =
    TableKeys { heading: "[[quic]]", known: &["config", "server_id_bytes", "nonce_bytes", "aes_key"] };
/// `[[service]]`.
pub(super) const SERVICE: TableKeys = TableKeys {
    heading: "[[service]]",
    known: &[
        "name",
        "addresses",
        "ports",
        "protocol",
        "affinity",
        "forward",
        "tracking",
        "settle",
        "slow_start",
        "on_failure",
        "table_slots",
        "health",
        "limit",
        "backend",
    ],
};
/// `[service.health]`.
pub(super) const HEALTH: TableKeys = TableKeys {
    heading: "[service.health]",
    known: &[
        "type",
        "path",
        "expect",
        "host",
        "service",
        "query",
        "send",
        "receive",
        "body",
        "sni",
        "ca",
        "insecure",
        "command",
        "port",
        "interval",
        "timeout",
        "rise",
        "fall",
        "max_ejected",
        "panic_below",
        "min_ready",
        "via",
    ],
};
/// `[service.limit]`.
pub(super) const LIMIT: TableKeys = TableKeys { heading: "[service.limit]", known: &["anonymous"] };
/// `[service.limit] anonymous`.
pub(super) const ANONYMOUS: TableKeys =
    TableKeys { heading: "[service.limit.anonymous]", known: &["rate", "burst"] };
/// `[[service.backend]]`.
pub(super) const BACKEND: TableKeys = TableKeys {
    heading: "[[service.backend]]",
    known: &["name", "address", "port", "weight", "state", "sorry", "server_id"],
};
/// `[agent]`.
pub(super) const AGENT: TableKeys = TableKeys {
    heading: "[agent]",
    known: &["interface", "vips", "tunnel_sources", "gue_port", "peers", "xdp_mode"],
};

/// All of them, in the order of the documentation.
#[cfg(test)]
pub(super) const TABLES: [&TableKeys; 11] = [
    &FILE,
    &DAEMON,
    &FLOW_TABLE,
    &LIMIT_TABLE,
    &QUIC,
    &SERVICE,
    &HEALTH,
    &LIMIT,
    &ANONYMOUS,
    &BACKEND,
    &AGENT,
];

/// A service or backend in a message: by its name, else by its number in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'t> {
    pub(super) name: Option<&'t str>,
    /// From 1.
    pub(super) number: usize,
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => f.write_str(&quoted(name)),
            None => write!(f, "number {}", self.number),
        }
    }
}

/// Where a table stands: the beginning of every message about it. Small, so that a file of 200,000 backends makes no
/// string per backend.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'t> {
    File,
    Daemon,
    FlowTable,
    LimitTable,
    /// From 1.
    Quic(usize),
    Service(Who<'t>),
    Health(Who<'t>),
    Limit(Who<'t>),
    Anonymous(Who<'t>),
    Backend(Who<'t>, Who<'t>),
    Agent,
}

impl Place<'_> {
    /// What may stand in the table.
    pub(super) fn keys(&self) -> &'static TableKeys {
        match self {
            Self::File => &FILE,
            Self::Daemon => &DAEMON,
            Self::FlowTable => &FLOW_TABLE,
            Self::LimitTable => &LIMIT_TABLE,
            Self::Quic(_) => &QUIC,
            Self::Service(_) => &SERVICE,
            Self::Health(_) => &HEALTH,
            Self::Limit(_) => &LIMIT,
            Self::Anonymous(_) => &ANONYMOUS,
            Self::Backend(..) => &BACKEND,
            Self::Agent => &AGENT,
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("top level"),
            Self::Daemon => f.write_str("[daemon]"),
            Self::FlowTable => f.write_str("[daemon] flow_table"),
            Self::LimitTable => f.write_str("[daemon] limit_table"),
            Self::Quic(number) => write!(f, "[[quic]] number {number}"),
            Self::Service(service) => write!(f, "service {service}"),
            Self::Health(service) => write!(f, "service {service} health"),
            Self::Limit(service) => write!(f, "service {service} limit"),
            Self::Anonymous(service) => write!(f, "service {service} limit anonymous"),
            Self::Backend(service, backend) => write!(f, "service {service} backend {backend}"),
            Self::Agent => f.write_str("[agent]"),
        }
    }
}
