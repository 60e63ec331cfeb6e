//! The validated configuration: what the rest of the program works with.
//!
//! `raw.rs` is the file as written, `resolve.rs` turns it into these types or into errors that name file, line and
//! fix. Every value here is in range; nobody checks it a second time.

use std::{fmt, net::IpAddr, ops::RangeInclusive, sync::Arc, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::defaults;

/// A whole `lb.toml`, validated.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Config {
    /// `[daemon]`.
    pub daemon: Daemon,
    /// `[[quic]]`, in the order of the file.
    pub quic: Vec<Quic>,
    /// `[[service]]`, in the order of the file. Shared with later configurations, where a change leaves them as they are.
    pub services: Vec<Arc<Service>>,
    /// `[agent]`: only on a backend host.
    pub agent: Option<Agent>,
}

/// `[daemon]`: what belongs to the balancer as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Daemon {
    /// Interfaces that XDP attaches to. May be empty in the file when `--interface` names one.
    pub interfaces: Vec<String>,
    /// `xdp_mode`.
    pub xdp_mode: XdpMode,
    /// `hash_seed`: the same on every balancer of a group; absent: made once and kept by the daemon.
    pub hash_seed: Option<Seed>,
    /// `tunnel_source`: prefixes of outer source addresses, at most one per family. Absent: the address that the
    /// route to the backend prefers.
    pub tunnel_source: Vec<IpNet>,
    /// `gue_port`: destination port of UDP with `forward = "gue"`.
    pub gue_port: u16,
    /// `announce`.
    pub announce: Announce,
    /// `flow_table.capacity`, in flows.
    pub flow_capacity: u32,
    /// `limit_table.capacity`, in sources.
    pub limit_capacity: u32,
    /// `listen`: metrics and status page over TCP.
    pub listen: Option<std::net::SocketAddr>,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            xdp_mode: defaults::XDP_MODE,
            hash_seed: None,
            tunnel_source: Vec::new(),
            gue_port: defaults::GUE_PORT,
            announce: defaults::ANNOUNCE,
            flow_capacity: defaults::FLOW_CAPACITY,
            limit_capacity: defaults::LIMIT_CAPACITY,
            listen: None,
        }
    }
}

/// How XDP is attached. `Auto` tries native, then generic, and says which it got and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native first, generic as a spoken fallback.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the stack (skb mode), works on any device.
    Generic,
}

/// Whether the balancer makes its VIPs known on the local network by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Announce {
    /// VIPs are routed to the balancer (static route or BGP).
    #[default]
    None,
    /// XDP answers ARP and neighbour solicitations for VIPs; gratuitous ones are sent at start.
    Arp,
}

/// A 32-byte secret that keys every hash: the same on every balancer of a group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

impl fmt::Debug for Seed {
    /// Never prints the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(…)")
    }
}

/// `[[quic]]`: one way to make QUIC connection IDs (QUIC-LB).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quic {
    /// `config`: the codepoint in the first byte of its connection IDs, 0 to 6.
    pub codepoint: u8,
    /// `server_id_bytes`: 1 to 8.
    pub server_id_bytes: u8,
    /// `nonce_bytes`: 4 to 18; 19 at most together.
    pub nonce_bytes: u8,
    /// `key`; absent: server IDs are to be seen.
    pub key: Option<QuicKey>,
}

/// A 16-byte secret of AES.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct QuicKey(pub [u8; 16]);

impl fmt::Debug for QuicKey {
    /// Never prints the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QuicKey(…)")
    }
}

/// `[[service]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Unique in the file; 1 to 63 of `[A-Za-z0-9._-]`.
    pub name: String,
    /// Addresses (VIPs) that clients hit, both families mixed; at least one, no duplicates.
    pub addresses: Vec<IpAddr>,
    /// Ports of the service.
    pub ports: Ports,
    /// `protocol`.
    pub protocol: Protocol,
    /// `affinity`.
    pub affinity: Affinity,
    /// `forward`.
    pub forward: Forward,
    /// `tracking`; absent in the file: by protocol and affinity (design: TCP changes, UDP by flow always).
    pub tracking: Tracking,
    /// `settle`: how long a slot that changed owner asks the flow table. Default 15 min TCP, 60 s UDP.
    pub settle: Duration,
    /// `slow_start`: how long a backend that becomes ready beside others takes to all of its slots; zero: at once.
    pub slow_start: Duration,
    /// `on_failure`.
    pub on_failure: OnFailure,
    /// `table_slots`: a prime, 251 to 1,048,573. Default 16,381.
    pub table_slots: u32,
    /// `[service.health]`.
    pub health: Health,
    /// `[service.limit]`: absent = unlimited.
    pub limit: Option<Limit>,
    /// `[[service.backend]]`, in the order of the file; may be empty (the service then drops with NoBackend).
    pub backends: Vec<Backend>,
}

/// Ports of a service, host byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Any port, and for protocols without ports any packet.
    Any,
    /// Sorted, not overlapping, at most 4,096 ports in all.
    Ranges(Vec<RangeInclusive<u16>>),
}

/// Layer-4 protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP only.
    Tcp,
    /// UDP only.
    Udp,
    /// TCP and UDP.
    Both,
}

/// Which fields of a packet choose the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// Source and destination address.
    #[default]
    Addresses,
    /// Source address.
    Source,
    /// The 5-tuple.
    Flow,
    /// The server that the QUIC connection ID names; else the 5-tuple.
    Quic,
}

impl Affinity {
    /// Whether a packet without ports (a fragment) cannot be told where to go.
    pub fn needs_ports(self) -> bool {
        matches!(self, Self::Flow | Self::Quic)
    }
}

/// How packets reach the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// MAC rewrite: backends share a link with the balancer.
    L2,
    /// IP-in-IP, all four pairs of families (RFC 2003, RFC 2473, RFC 4213).
    #[default]
    Ipip,
    /// IP in UDP with a GUE header, all four pairs of families (draft-ietf-intarea-gue).
    Gue,
    /// Network address translation: for backends that cannot be touched.
    Nat,
}

/// When flows are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Tracking {
    /// Only flows of slots that changed owner.
    #[default]
    Changes,
    /// Every flow.
    Always,
    /// None.
    Never,
}

/// What becomes of TCP connections whose backend failed, was removed or is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Their packets go to another backend, whose kernel answers with a reset.
    #[default]
    Rehash,
    /// The balancer answers with a reset.
    Reset,
}

/// `[service.limit]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// For sources that no tier names (IPv4 /32, IPv6 /64 each).
    pub anonymous: Rate,
}

/// Packets per second per source, and how many may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Packets per second, 1 to 1,000,000.
    pub rate: u32,
    /// Packets that may come back to back, 1 to 10,000,000.
    pub burst: u32,
}

/// `[[service.backend]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Unique in its service; the address when the file gives none.
    pub name: String,
    /// Where packets are sent.
    pub address: IpAddr,
    /// Port on the backend, where the mode can translate (`nat`); the health check asks it in any mode.
    pub port: Option<u16>,
    /// 0 to 65,535; 0 = no new slots. Default 100.
    pub weight: u16,
    /// Set by operators; health is separate.
    pub state: AdminState,
    /// Takes traffic only when no other backend is ready. Default false.
    pub sorry: bool,
    /// What QUIC connection IDs call it, 1 to 65,535; only with `affinity = "quic"`.
    pub server_id: Option<u16>,
}

/// What the operator wants of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// In service when healthy.
    #[default]
    Up,
    /// Keeps its flows, gets no new ones.
    Drain,
    /// Gets nothing.
    Down,
}

/// `[service.health]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub check: Check,
    /// Port that is asked; absent: the backend's `port`, else the first port of the service.
    pub port: Option<u16>,
    /// Between the starts of two checks; jitter only shortens it. 100 ms to 1 h. Default 2 s.
    pub interval: Duration,
    /// For the whole check. At most `interval`. Default 1 s.
    pub timeout: Duration,
    /// Good answers in a row until a backend is ready. Default 2.
    pub rise: u32,
    /// Bad answers in a row until it is not. Default 3.
    pub fall: u32,
    /// What to do when many fail at once.
    pub mass: Mass,
}

/// What to do when many backends fail at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mass {
    /// Percent of the backends that checks may take out of service at most, 0 to 100. Default 100.
    pub max_ejected: u8,
    /// Percent of ready backends below which all of them take traffic, 0 (never) to 100. Default 0.
    pub panic_below: u8,
    /// Ready backends below which the status warns, 0 to 16,383. Default 1.
    pub min_ready: u16,
}

/// Kind of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Always ready.
    None,
    /// A TCP connection is accepted.
    Tcp,
    /// `grpc.health.v1.Health/Check`, without TLS.
    Grpc {
        /// Name of the service that is asked for; empty: the server as a whole.
        service: String,
    },
    /// A DNS question over UDP, for an IPv4 address.
    Dns {
        /// The name that is asked for.
        query: String,
    },
    /// A datagram is answered.
    Udp {
        /// What is sent.
        send: String,
        /// What the answer must contain; absent: anything.
        receive: Option<String>,
    },
    /// A command ends with exit code 0; 2 = failed, anything else = not ready.
    Exec {
        /// Program (absolute path) and arguments.
        command: Vec<String>,
    },
    /// HTTP/1.1 GET, over TLS where `tls` is set.
    Http {
        /// Absolute path with optional query.
        path: String,
        /// Status codes that mean ready, sorted ranges.
        expect: Vec<RangeInclusive<u16>>,
        /// Host header; absent: the backend's address and port.
        host: Option<String>,
        /// What the body must contain; absent: the body is not read.
        body: Option<String>,
        /// TLS around it; absent: plain HTTP.
        tls: Option<Tls>,
    },
}

/// The TLS of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Name that is asked for (SNI) and that the certificate must be for; absent: the one of the Host header, else the
    /// backend's address.
    pub name: Option<String>,
    /// Who is believed.
    pub trust: Trust,
}

/// Who vouches for a backend's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// The certificate authorities of this system.
    #[default]
    System,
    /// Those in a PEM file, by absolute path, and no others.
    File(String),
    /// Nobody has to: any certificate will do, also an expired one of another name.
    Anyone,
}

/// `[agent]`: a backend host.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Interface on which tunnelled packets arrive.
    pub interface: String,
    /// Destinations of inner packets that are taken out of tunnels.
    pub vips: Vec<IpAddr>,
    /// Outer sources that are believed.
    pub tunnel_sources: Vec<IpNet>,
    /// `gue_port`: destination port of GUE.
    pub gue_port: u16,
    /// `peers`: other backends, which packets of connections that are strange here may be handed on to, and which may
    /// hand on.
    pub peers: Vec<IpAddr>,
    /// `xdp_mode`.
    pub xdp_mode: XdpMode,
}
