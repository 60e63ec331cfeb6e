//! The resolved configuration as text: every default written out, in the notation of `lb.toml`.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::Serialize;

use super::{
    types::{
        AdminState, Affinity, Agent, Announce, Backend, Check, Config, Daemon, Forward, Health, Limit,
        OnFailure, Ports, Protocol, Quic, Rate, Service, Tls, Tracking, Trust, XdpMode,
    },
    value::{format_duration, format_expect, format_range},
};

/// Whether `hash_seed` is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// `"hidden"` in its place: what `lb check` prints ends up in logs. Such a text is refused when read.
    Hidden,
    /// As it is: the text reads back as the same configuration.
    Shown,
}

/// A [`Config`] for people and programs. Serializes to the shape of `lb.toml`.
#[derive(Clone, Debug, Serialize)]
pub struct Printed {
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon: Option<PrintedDaemon>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    quic: Vec<PrintedQuic>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service: Vec<PrintedService>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<PrintedAgent>,
}

#[derive(Clone, Debug, Serialize)]
struct PrintedDaemon {
    interfaces: Vec<String>,
    xdp_mode: XdpMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash_seed: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tunnel_source: Vec<IpNet>,
    gue_port: u16,
    announce: Announce,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
    flow_table: PrintedCapacity,
    limit_table: PrintedCapacity,
}

#[derive(Clone, Debug, Serialize)]
struct PrintedCapacity {
    capacity: u32,
}

#[derive(Clone, Debug, Serialize)]
struct PrintedQuic {
    config: u8,
    server_id_bytes: u8,
    nonce_bytes: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    aes_key: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct PrintedService {
    name: String,
    addresses: Vec<IpAddr>,
    ports: PrintedPorts,
    protocol: Protocol,
    affinity: Affinity,
    forward: Forward,
    tracking: Tracking,
    settle: String,
    slow_start: String,
    on_failure: OnFailure,
    table_slots: u32,
    health: PrintedHealth,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<PrintedLimit>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backend: Vec<PrintedBackend>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum PrintedPorts {
    Any(&'static str),
    List(Vec<PrintedPort>),
}

#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum PrintedPort {
    One(u16),
    Range(String),
}

#[derive(Clone, Debug, Serialize)]
struct PrintedHealth {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expect: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    send: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receive: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    insecure: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    command: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    interval: String,
    timeout: String,
    rise: u32,
    fall: u32,
    max_ejected: u8,
    panic_below: u8,
    min_ready: u16,
    via: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct PrintedLimit {
    anonymous: Rate,
}

#[derive(Clone, Debug, Serialize)]
struct PrintedBackend {
    name: String,
    address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    weight: u16,
    state: AdminState,
    sorry: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_id: Option<u16>,
}

#[derive(Clone, Debug, Serialize)]
struct PrintedAgent {
    interface: String,
    vips: Vec<IpAddr>,
    tunnel_sources: Vec<IpNet>,
    gue_port: u16,
    peers: Vec<IpAddr>,
    xdp_mode: XdpMode,
}

impl Config {
    /// The configuration with every default written out; what `lb check` prints. Keys without a default that the file
    /// does not set (`listen`, `hash_seed`, `limit`, …) stay absent.
    #[must_use]
    pub fn printed(&self, secrets: Secrets) -> Printed {
        // On a backend host nothing is balanced: defaults of a daemon would only confuse.
        let agent_only = self.agent.is_some() && self.services.is_empty() && self.daemon == Daemon::default();
        Printed {
            daemon: (!agent_only).then(|| PrintedDaemon::new(&self.daemon, secrets)),
            quic: self.quic.iter().map(|quic| PrintedQuic::new(quic, secrets)).collect(),
            service: self.services.iter().map(|service| PrintedService::new(service)).collect(),
            agent: self.agent.as_ref().map(PrintedAgent::new),
        }
    }
}

impl Printed {
    /// As a `lb.toml`.
    ///
    /// # Errors
    /// None that are known: every value has a form in TOML. The serializer's signature has an error, so this has.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

impl PrintedDaemon {
    fn new(daemon: &Daemon, secrets: Secrets) -> Self {
        Self {
            interfaces: daemon.interfaces.clone(),
            xdp_mode: daemon.xdp_mode,
            hash_seed: daemon.hash_seed.map(|seed| match secrets {
                Secrets::Hidden => "hidden".to_owned(),
                Secrets::Shown => hex::encode(seed.0),
            }),
            tunnel_source: daemon.tunnel_source.clone(),
            gue_port: daemon.gue_port,
            announce: daemon.announce,
            listen: daemon.listen,
            flow_table: PrintedCapacity { capacity: daemon.flow_capacity },
            limit_table: PrintedCapacity { capacity: daemon.limit_capacity },
        }
    }
}

impl PrintedQuic {
    fn new(quic: &Quic, secrets: Secrets) -> Self {
        Self {
            config: quic.codepoint,
            server_id_bytes: quic.server_id_bytes,
            nonce_bytes: quic.nonce_bytes,
            aes_key: quic.key.map(|key| match secrets {
                Secrets::Hidden => "hidden".to_owned(),
                Secrets::Shown => hex::encode(key.0),
            }),
        }
    }
}

impl PrintedService {
    fn new(service: &Service) -> Self {
        Self {
            name: service.name.clone(),
            addresses: service.addresses.clone(),
            ports: PrintedPorts::new(&service.ports),
            protocol: service.protocol,
            affinity: service.affinity,
            forward: service.forward,
            tracking: service.tracking,
            settle: format_duration(service.settle),
            slow_start: format_duration(service.slow_start),
            on_failure: service.on_failure,
            table_slots: service.table_slots,
            health: PrintedHealth::new(&service.health),
            limit: service.limit.map(|Limit { anonymous }| PrintedLimit { anonymous }),
            backend: service.backends.iter().map(PrintedBackend::new).collect(),
        }
    }
}

impl PrintedPorts {
    fn new(ports: &Ports) -> Self {
        let Ports::Ranges(ranges) = ports else { return Self::Any("any") };
        let ports = ranges.iter().map(|range| match (*range.start(), *range.end()) {
            (first, last) if first == last => PrintedPort::One(first),
            _ => PrintedPort::Range(format_range(range)),
        });
        Self::List(ports.collect())
    }
}

impl PrintedHealth {
    fn new(health: &Health) -> Self {
        let mut printed = Self {
            r#type: "none",
            path: None,
            expect: None,
            host: None,
            service: None,
            query: None,
            send: None,
            receive: None,
            body: None,
            sni: None,
            ca: None,
            insecure: None,
            command: Vec::new(),
            port: health.port,
            interval: format_duration(health.interval),
            timeout: format_duration(health.timeout),
            rise: health.rise,
            fall: health.fall,
            max_ejected: health.mass.max_ejected,
            panic_below: health.mass.panic_below,
            min_ready: health.mass.min_ready,
            via: "address",
        };
        match &health.check {
            Check::None => {}
            Check::Tcp => printed.r#type = "tcp",
            Check::Http { path, expect, host, body, tls } => {
                printed.r#type = if tls.is_some() { "https" } else { "http" };
                printed.body.clone_from(body);
                if let Some(tls) = tls {
                    printed.tls(tls);
                }
                printed.path = Some(path.clone());
                printed.expect = Some(format_expect(expect));
                printed.host.clone_from(host);
            }
            Check::Grpc { service } => {
                printed.r#type = "grpc";
                printed.service = Some(service.clone());
            }
            Check::Dns { query } => {
                printed.r#type = "dns";
                printed.query = Some(query.clone());
            }
            Check::Udp { send, receive } => {
                printed.r#type = "udp";
                printed.send = Some(send.clone());
                printed.receive.clone_from(receive);
            }
            Check::Exec { command } => {
                printed.r#type = "exec";
                printed.command.clone_from(command);
            }
        }
        printed
    }

    fn tls(&mut self, tls: &Tls) {
        self.sni.clone_from(&tls.name);
        match &tls.trust {
            Trust::System => {}
            Trust::File(path) => self.ca = Some(path.clone()),
            Trust::Anyone => self.insecure = Some(true),
        }
    }
}

impl PrintedBackend {
    fn new(backend: &Backend) -> Self {
        Self {
            name: backend.name.clone(),
            address: backend.address,
            port: backend.port,
            weight: backend.weight,
            state: backend.state,
            sorry: backend.sorry,
            server_id: backend.server_id,
        }
    }
}

impl PrintedAgent {
    fn new(agent: &Agent) -> Self {
        Self {
            interface: agent.interface.clone(),
            vips: agent.vips.clone(),
            tunnel_sources: agent.tunnel_sources.clone(),
            gue_port: agent.gue_port,
            peers: agent.peers.clone(),
            xdp_mode: agent.xdp_mode,
        }
    }
}
