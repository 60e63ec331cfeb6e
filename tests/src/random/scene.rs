//! Who takes part: the addresses and ports of a world, and some of nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_userspace::{
    config::{Ports, Protocol, Quic},
    quic::ConnectionIds,
};

use super::source::Random;
use crate::{
    cases::{
        agent,
        cast::{BACKEND, CLIENT, Pair, STRANGER, TUNNEL, WEB, client},
        site::Site,
    },
    packet::Family,
};

/// A service's address with its ports.
#[derive(Clone, Debug)]
pub struct Door {
    /// A VIP.
    pub address: IpAddr,
    /// What it takes.
    pub protocol: Protocol,
    /// Ports at the edges of its ranges; empty: any port.
    pub ports: Vec<u16>,
}

/// Everybody whom a frame may name.
#[derive(Clone, Debug)]
pub struct Scene {
    doors: Vec<Door>,
    backends: Vec<IpAddr>,
    tunnels: Vec<IpAddr>,
    /// Makers of connection IDs with the length of their nonces.
    ids: Vec<(ConnectionIds, usize)>,
}

/// Clients, many enough for every slot to be hit.
const CLIENTS: u8 = 250;

impl Scene {
    /// Of a balancer's world; of the agent's where there is none.
    pub fn new(site: Option<&Site>) -> Self {
        let snapshot = site.and_then(|site| site.snapshot.as_ref());
        let services = snapshot.map_or(&[][..], |snapshot| &snapshot.services);
        let mut doors: Vec<Door> = Vec::new();
        for service in services {
            let ports = match &service.ports {
                Ports::Any => Vec::new(),
                Ports::Ranges(ranges) => ranges.iter().flat_map(|r| [*r.start(), *r.end()]).collect(),
            };
            let door = |address: &IpAddr| Door {
                address: *address,
                protocol: service.protocol,
                ports: ports.clone(),
            };
            doors.extend(service.addresses.iter().map(door));
        }
        if doors.is_empty() {
            let vips = agent::VIPS.map(|address| Door { address, protocol: Protocol::Both, ports: vec![80] });
            doors.extend(vips);
        }
        let mut backends: Vec<IpAddr> = BACKEND.both().to_vec();
        let members = services.iter().flat_map(|service| service.members.iter().flatten());
        backends.extend(members.map(|member| member.address));
        backends.dedup();
        let ids = snapshot.map_or(Vec::new(), |snapshot| snapshot.quic.iter().flat_map(makers).collect());
        Self { doors, backends, tunnels: TUNNEL.both().to_vec(), ids }
    }

    /// A service's address.
    pub fn door(&self, random: &mut Random) -> &Door {
        &self.doors[random.below(self.doors.len())]
    }

    /// A backend's address of this family.
    pub fn backend(&self, random: &mut Random, family: Family) -> IpAddr {
        one(random, &self.backends, family).unwrap_or_else(|| BACKEND.of(family))
    }

    /// A connection ID that a server of this world might have made; none in a world without.
    pub fn connection_id(&self, random: &mut Random) -> Option<Vec<u8>> {
        let (ids, nonce) = self.ids.get(random.below(self.ids.len()))?;
        ids.with_nonce(&random.bytes(*nonce)).ok()
    }

    /// Where tunnels of this family come from, mostly.
    pub fn tunnel(&self, random: &mut Random, family: Family) -> IpAddr {
        if random.once_in(5) {
            return stranger(random, family);
        }
        one(random, &self.tunnels, family).unwrap_or_else(|| TUNNEL.of(family))
    }
}

/// Makers by one configuration, for servers that exist and one that does not.
fn makers(config: &Quic) -> impl Iterator<Item = (ConnectionIds, usize)> {
    let (server, nonce) = (usize::from(config.server_id_bytes), usize::from(config.nonce_bytes));
    let ids = ConnectionIds::new(config.codepoint, server, nonce, config.key.map(|key| key.0));
    let make = move |id| Some((ids.as_ref().ok()?.clone().for_server(id).ok()?, nonce));
    (1..=8).filter_map(make)
}

fn one(random: &mut Random, all: &[IpAddr], family: Family) -> Option<IpAddr> {
    let of_family: Vec<IpAddr> = all.iter().filter(|a| family_of(**a) == family).copied().collect();
    (!of_family.is_empty()).then(|| random.one_of(&of_family))
}

/// The family of an address.
pub fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// A client of this family.
pub fn a_client(random: &mut Random, family: Family) -> IpAddr {
    client(1 + random.below(usize::from(CLIENTS)) as u8).of(family)
}

/// Somebody that no service knows, or an address that nobody can have.
pub fn stranger(random: &mut Random, family: Family) -> IpAddr {
    let known: [Pair; 3] = [STRANGER, CLIENT, WEB];
    match (random.below(6), family) {
        (0, Family::V4) => {
            let octets: [u8; 4] = *random.bytes(4).first_chunk().expect("four bytes");
            Ipv4Addr::from(octets).into()
        }
        (0, Family::V6) => {
            let octets: [u8; 16] = *random.bytes(16).first_chunk().expect("16 bytes");
            Ipv6Addr::from(octets).into()
        }
        (1, Family::V4) => random
            .one_of(&[
                Ipv4Addr::UNSPECIFIED,
                Ipv4Addr::LOCALHOST,
                Ipv4Addr::BROADCAST,
                Ipv4Addr::new(224, 0, 0, 1),
            ])
            .into(),
        (1, Family::V6) => {
            let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            let mapped = WEB.v4.to_ipv6_mapped();
            random.one_of(&[Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, all_nodes, mapped]).into()
        }
        _ => random.one_of(&known).of(family),
    }
}
