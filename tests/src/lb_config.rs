//! Configuration files for the programs under test: the keys that the suites vary, written as TOML.
//!
//! On purpose not the types of `lb_userspace::config`: what is written here is what a user would write.

use std::net::IpAddr;

use anyhow::{Context, Result};
use lb_userspace::config::{Affinity, Announce, Forward, OnFailure, Protocol, Rate, Tracking, XdpMode};
use serde::Serialize;

use crate::topology::{World, world::Host};

/// A whole file of the balancer.
#[derive(Clone, Debug, Serialize)]
pub struct LbConfig {
    /// `[daemon]`.
    pub daemon: Daemon,
    /// `[[service]]`.
    #[serde(rename = "service")]
    pub services: Vec<Service>,
}

/// `[daemon]`.
#[derive(Clone, Debug, Serialize, Default)]
pub struct Daemon {
    /// `interfaces`; empty where the command line names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// `announce`.
    pub announce: Announce,
    /// `xdp_mode`.
    pub xdp_mode: XdpMode,
    /// `hash_seed`, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_seed: Option<String>,
    /// `flow_table`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_table: Option<Capacity>,
}

/// `flow_table` and its like.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Capacity {
    /// `capacity`.
    pub capacity: u32,
}

/// `[[service]]`.
#[derive(Clone, Debug, Serialize)]
pub struct Service {
    /// `name`.
    pub name: String,
    /// `addresses`.
    pub addresses: Vec<IpAddr>,
    /// `ports`.
    pub ports: Ports,
    /// `protocol`.
    pub protocol: Protocol,
    /// `affinity`.
    pub affinity: Affinity,
    /// `forward`.
    pub forward: Forward,
    /// `tracking`; absent: the default of protocol and affinity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking: Option<Tracking>,
    /// `settle`; absent: the default of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settle: Option<String>,
    /// `slow_start`; absent: the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<String>,
    /// `on_failure`.
    pub on_failure: OnFailure,
    /// `[service.health]`.
    pub health: Health,
    /// `[service.limit]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// `[[service.backend]]`.
    #[serde(rename = "backend")]
    pub backends: Vec<Backend>,
}

/// `ports` of a service.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Ports {
    /// A list of numbers.
    Numbers(Vec<u16>),
    /// `"any"`, or a range.
    Word(String),
}

/// `[service.health]`: by default an HTTP check of the demo server.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    /// `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `path`; only with `http`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `body`; only with `http` and `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// `sni`; only with `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// `ca`; only with `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// `port`.
    pub port: u16,
    /// `interval`.
    pub interval: String,
    /// `timeout`.
    pub timeout: String,
    /// `rise`.
    pub rise: u32,
    /// `fall`.
    pub fall: u32,
}

/// `[service.limit]`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limit {
    /// `anonymous`.
    pub anonymous: Rate,
}

/// `[[service.backend]]`.
#[derive(Clone, Debug, Serialize)]
pub struct Backend {
    /// `name`.
    pub name: String,
    /// `address`.
    pub address: IpAddr,
    /// `port`; absent: as the client names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `server_id`, for connection IDs of QUIC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_id: Option<u64>,
    /// `weight`.
    pub weight: u16,
}

/// A whole file of an agent.
#[derive(Clone, Debug, Serialize)]
pub struct AgentConfig {
    /// `[agent]`.
    pub agent: Agent,
}

/// `[agent]`.
#[derive(Clone, Debug, Serialize)]
pub struct Agent {
    /// `interface`.
    pub interface: String,
    /// `vips`.
    pub vips: Vec<IpAddr>,
    /// `tunnel_sources`.
    pub tunnel_sources: Vec<String>,
    /// `peers`.
    pub peers: Vec<IpAddr>,
}

impl Default for Health {
    /// Fast enough for tests; three late answers in a row must not happen by chance, whatever else the machine does.
    fn default() -> Self {
        Self {
            kind: "http".into(),
            path: Some("/ready".into()),
            body: None,
            sni: None,
            ca: None,
            port: 80,
            interval: "1s".into(),
            timeout: "1s".into(),
            rise: 2,
            fall: 3,
        }
    }
}

impl Health {
    /// A TCP check of the demo server.
    #[must_use]
    pub fn tcp() -> Self {
        Self { kind: "tcp".into(), path: None, ..Self::default() }
    }
}

impl LbConfig {
    /// One service `web`, TCP port 80 of `vip`, over all backends of `world` by their addresses in `backend_family_v6`
    /// or IPv4.
    #[must_use]
    pub fn web(world: &World, vip: IpAddr, forward: Forward, backends_v6: bool) -> Self {
        Self::of_hosts(&world.backends, vip, forward, backends_v6)
    }

    /// The same over these hosts.
    #[must_use]
    pub fn of_hosts(hosts: &[Host], vip: IpAddr, forward: Forward, backends_v6: bool) -> Self {
        let backends = hosts.iter().map(|host| Backend {
            name: host.name.clone(),
            address: if backends_v6 { host.v6.into() } else { host.v4.into() },
            port: None,
            server_id: None,
            weight: 100,
        });
        let service = Service {
            name: "web".into(),
            addresses: vec![vip],
            ports: Ports::Numbers(vec![80]),
            protocol: Protocol::Tcp,
            affinity: Affinity::Addresses,
            forward,
            tracking: None,
            settle: None,
            slow_start: None,
            on_failure: OnFailure::Rehash,
            health: Health::default(),
            limit: None,
            backends: backends.collect(),
        };
        Self { daemon: Daemon::default(), services: vec![service] }
    }

    /// As the text of a file.
    ///
    /// # Errors
    /// When a value cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).context("writing the balancer's configuration")
    }
}

impl AgentConfig {
    /// For a backend of `world`: both VIPs, and tunnels from the balancer's own addresses.
    #[must_use]
    pub fn of(world: &World) -> Self {
        let tunnel_sources = world.tunnel_sources();
        let vips = vec![world.vip4.into(), world.vip6.into()];
        let peers = world.backends.iter().flat_map(|host| [host.v4.into(), host.v6.into()]).collect();
        Self { agent: Agent { interface: "eth0".into(), vips, tunnel_sources, peers } }
    }

    /// As the text of a file.
    ///
    /// # Errors
    /// When a value cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).context("writing an agent's configuration")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_like_the_documented_one() {
        let config = LbConfig {
            daemon: Daemon { announce: Announce::Arp, ..Daemon::default() },
            services: vec![Service {
                name: "web".into(),
                addresses: vec!["192.0.2.10".parse().unwrap()],
                ports: Ports::Numbers(vec![80, 443]),
                protocol: Protocol::Tcp,
                affinity: Affinity::Source,
                forward: Forward::L2,
                tracking: None,
                settle: None,
                slow_start: None,
                on_failure: OnFailure::Rehash,
                health: Health::default(),
                limit: Some(Limit { anonymous: Rate { rate: 1000, burst: 50 } }),
                backends: vec![Backend {
                    name: "b1".into(),
                    address: "198.51.100.11".parse().unwrap(),
                    port: None,
                    server_id: None,
                    weight: 7,
                }],
            }],
        };
        let text: toml::Table = config.to_toml().unwrap().parse().unwrap();
        let service = &text["service"][0];
        assert_eq!(text["daemon"]["announce"].as_str(), Some("arp"));
        assert_eq!(service["addresses"][0].as_str(), Some("192.0.2.10"));
        assert_eq!(service["ports"][1].as_integer(), Some(443));
        assert_eq!(service["forward"].as_str(), Some("l2"));
        assert_eq!(service["affinity"].as_str(), Some("source"));
        assert_eq!(service["health"]["type"].as_str(), Some("http"));
        assert_eq!(service["limit"]["anonymous"]["burst"].as_integer(), Some(50));
        assert_eq!(service["backend"][0]["name"].as_str(), Some("b1"));
    }
}
