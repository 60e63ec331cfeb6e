//! The tables that lead from a destination to a service: VIPs and ports.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use lb_common::{
    abi::{
        Globals, Reply, Vip6, fragments_key, port_entry, port_key, server_key, sole_port, vip_entry,
        vip_flags,
    },
    datapath::{fold6, port_words, reply_words},
    wire::protocol,
};

use super::{
    cells,
    install::Installer,
    memory::Memory,
    records,
    room::{InstallError, Room},
};
use crate::{
    config::{Forward, Ports, Protocol},
    control::model,
};

/// Salts that are tried before a table is called crowded.
const SALTS: u32 = 64;

/// What the tables hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    /// VIP → number and flags.
    vips: BTreeMap<IpAddr, (u16, u16)>,
    /// Port key → service number.
    ports: BTreeMap<u64, u32>,
    /// What comes back from backends behind NAT.
    replies: BTreeMap<ReplyKey, (IpAddr, u16)>,
}

/// Address, port (0 = any) and protocol of a backend.
type ReplyKey = (IpAddr, u16, u8);

impl Keys {
    /// The keys of a snapshot whose services have these numbers.
    pub(super) fn of(snapshot: &model::Snapshot, numbers: &HashMap<u64, u32>) -> Result<Self, InstallError> {
        let mut vips: BTreeMap<IpAddr, (u16, u16)> = BTreeMap::new();
        let mut ports = BTreeMap::new();
        let mut users: HashMap<IpAddr, u32> = HashMap::new();
        for address in snapshot.services.iter().flat_map(|s| &s.addresses) {
            *users.entry(*address).or_default() += 1;
        }
        // The service of all fragments of a VIP and protocol: the only one, and it needs no ports.
        let mut fragments: BTreeMap<(u16, u8), Option<u32>> = BTreeMap::new();
        for service in &snapshot.services {
            let number = numbers.get(&service.identity).copied().unwrap_or_default();
            let sole = sole_ports(service).and(u16::try_from(number).ok());
            for address in &service.addresses {
                if let (Some(number), Some(1)) = (sole, users.get(address)) {
                    vips.insert(*address, (number, vip_flags::SOLE));
                    continue;
                }
                let fresh = vips.len() + 1;
                let entry = match u16::try_from(fresh) {
                    Ok(fresh) => vips.entry(*address).or_insert((fresh, 0)),
                    Err(_) => {
                        return Err(InstallError::Full {
                            what: Room::Vips,
                            wanted: fresh as u64,
                            capacity: 65_535,
                        });
                    }
                };
                entry.1 |= flags(service);
                let vip = entry.0;
                for protocol in protocols(service.protocol) {
                    let only = (!service.affinity.needs_ports()).then_some(number);
                    fragments.entry((vip, *protocol)).and_modify(|other| *other = None).or_insert(only);
                }
                for (protocol, port) in port_keys(service) {
                    ports.insert(port_key(vip, protocol, port), number);
                }
            }
            ports.extend(server_keys(service, number));
        }
        for ((vip, protocol), number) in fragments {
            if let Some(number) = number {
                ports.insert(fragments_key(vip, protocol), number);
            }
        }
        Ok(Self {
            vips,
            ports,
            replies: snapshot.services.iter().flat_map(|service| replies(service)).collect(),
        })
    }

    /// Whether anything comes back through the balancer.
    pub(super) fn has_replies(&self) -> bool {
        !self.replies.is_empty()
    }

    /// Writes all tables to the halves that are not in force and points `globals` at them.
    pub(super) fn write(&self, memory: &mut Memory, globals: &mut Globals) -> Result<(), InstallError> {
        let capacity = memory.capacity();
        let (vip_mask, port_mask) = (capacity.vip_cells - 1, capacity.port_cells - 1);
        let reply_mask = capacity.reply_cells - 1;
        let four: Vec<(u32, u64)> = self.cells4();
        let six: Vec<Vip6> = self.cells6();
        let ports: Vec<(u64, u32)> = self.ports.iter().map(|(k, n)| (*k, *n)).collect();
        let keys4: Vec<[u32; 2]> = four.iter().map(|(address, _)| [*address, 0]).collect();
        let keys6: Vec<[u32; 2]> = six.iter().map(|cell| fold6(cell.address)).collect();
        let port_keys: Vec<[u32; 2]> = ports.iter().map(|(key, _)| port_words(*key)).collect();
        let replies: Vec<Reply> = self.replies.iter().map(reply_cell).collect();
        let reply_keys: Vec<[u32; 2]> =
            replies.iter().map(|r| reply_words(r.backend, r.port, r.protocol)).collect();

        for salt in globals.salt.wrapping_add(1)..=globals.salt.saturating_add(SALTS) {
            let Ok(places4) = cells::place(&keys4, salt, vip_mask) else { continue };
            let Ok(places6) = cells::place(&keys6, salt, vip_mask) else { continue };
            let Ok(port_places) = cells::place(&port_keys, salt, port_mask) else { continue };
            let Ok(reply_places) = cells::place(&reply_keys, salt, reply_mask) else { continue };
            globals.salt = salt;
            globals.vip4_mask = vip_mask;
            globals.vip6_mask = vip_mask;
            globals.port_mask = port_mask;
            globals.reply_mask = reply_mask;
            globals.reply_base = other_half(globals.reply_base, capacity.reply_cells);
            globals.vip4_base = other_half(globals.vip4_base, capacity.vip_cells);
            globals.vip6_base = other_half(globals.vip6_base, capacity.vip_cells);
            globals.port_base = other_half(globals.port_base, capacity.port_cells);
            fill(memory.vips4.as_mut_slice(), globals.vip4_base, &places4, |i| four[i].1);
            fill(memory.vips6.as_mut_slice(), globals.vip6_base, &places6, |i| six[i]);
            fill(memory.ports.as_mut_slice(), globals.port_base, &port_places, |i| {
                port_entry::new(ports[i].0, ports[i].1)
            });
            fill(memory.replies.as_mut_slice(), globals.reply_base, &reply_places, |i| replies[i]);
            return Ok(());
        }
        Err(if replies.len() * 2 > reply_mask as usize {
            InstallError::Crowded { what: Room::Replies, wanted: replies.len(), cells: capacity.reply_cells }
        } else if ports.len() * 2 > port_mask as usize {
            InstallError::Crowded { what: Room::Ports, wanted: ports.len(), cells: capacity.port_cells }
        } else {
            InstallError::Crowded { what: Room::Vips, wanted: self.vips.len(), cells: capacity.vip_cells }
        })
    }

    fn cells4(&self) -> Vec<(u32, u64)> {
        let cell = |(address, (number, flags)): (&IpAddr, &(u16, u16))| match address {
            IpAddr::V4(a) => {
                let word = u32::from_ne_bytes(a.octets());
                Some((word, vip_entry::new(word, *number, *flags)))
            }
            IpAddr::V6(_) => None,
        };
        self.vips.iter().filter_map(cell).collect()
    }

    fn cells6(&self) -> Vec<Vip6> {
        let cell = |(address, (number, flags)): (&IpAddr, &(u16, u16))| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(_) => {
                let vip = u32::from(*flags) << 16 | u32::from(*number);
                Some(Vip6 { address: records::words(*address), vip, _pad: 0 })
            }
        };
        self.vips.iter().filter_map(cell).collect()
    }
}

/// What comes back from the members of a service that translates without a pool. The configuration allows one VIP per
/// family there, so that there is one answer; the first of several would win.
fn replies(service: &model::Service) -> Vec<(ReplyKey, (IpAddr, u16))> {
    let mut found = Vec::new();
    for member in service.members.iter().flatten().filter(|m| m.forward == Forward::Nat) {
        let of_family = |vip: &&IpAddr| vip.is_ipv4() == member.address.is_ipv4();
        let Some(vip) = service.addresses.iter().find(of_family) else { continue };
        for (protocol, port) in port_keys(service).into_iter().filter(|(protocol, _)| *protocol != 0) {
            let key = (member.address, member.port.unwrap_or(port), protocol);
            found.push((key, (*vip, if member.port.is_some() { port } else { 0 })));
        }
    }
    found
}

fn reply_cell((key, to): (&ReplyKey, &(IpAddr, u16))) -> Reply {
    let ((backend, port, protocol), (vip, vip_port)) = (*key, *to);
    Reply {
        backend: records::words(backend),
        vip: records::words(vip),
        port: port.to_be(),
        vip_port: vip_port.to_be(),
        protocol,
        _pad: [0; 3],
    }
}

/// The member index of every server ID.
fn server_keys(service: &model::Service, number: u32) -> impl Iterator<Item = (u64, u32)> {
    // The configuration has fewer services than that.
    let number = u16::try_from(number).unwrap_or_default();
    let members = (0u32..).zip(&service.members);
    members.filter_map(move |(index, member)| {
        let server = member.as_ref()?.server_id?;
        Some((server_key(number, server), index))
    })
}

/// Whether the tables in force are the ones of this snapshot.
pub(super) fn are_of(installer: &Installer, snapshot: &model::Snapshot) -> bool {
    let source = |service: &Arc<model::Service>| installer.installed.get(&service.identity)?.source.as_ref();
    installer.keys != Keys::default()
        && installer.installed.len() == snapshot.services.len()
        && snapshot
            .services
            .iter()
            .all(|new| source(new).is_some_and(|old| Arc::ptr_eq(old, new) || same_keys(old, new)))
}

/// Whether two states of a service have the same keys. (Those of replies and server IDs hang on the backends.)
fn same_keys(old: &model::Service, new: &model::Service) -> bool {
    let keys = |s: &model::Service| (s.protocol, s.affinity);
    // Its number stays as it is.
    let servers = |s: &model::Service| server_keys(s, 0).collect::<Vec<_>>();
    keys(old) == keys(new)
        && old.addresses == new.addresses
        && old.ports == new.ports
        && replies(old).is_empty()
        && replies(new).is_empty()
        && servers(old) == servers(new)
}

fn other_half(base: u32, half: u32) -> u32 {
    if base == 0 { half } else { 0 }
}

fn fill<T: Copy + Default>(table: &mut [T], base: u32, places: &[Option<u32>], cell: impl Fn(usize) -> T) {
    let half = &mut table[base as usize..base as usize + places.len()];
    for (place, key) in half.iter_mut().zip(places) {
        *place = key.map_or_else(T::default, |key| cell(key as usize));
    }
}

fn protocols(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Tcp => &[protocol::TCP],
        Protocol::Udp => &[protocol::UDP],
        Protocol::Both => &[protocol::TCP, protocol::UDP],
    }
}

/// Any port of both protocols takes protocols without ports as well (SCTP, ESP, …), by addresses.
fn takes_every_protocol(service: &model::Service) -> bool {
    service.ports == Ports::Any && service.protocol == Protocol::Both
}

fn flags(service: &model::Service) -> u16 {
    let mut flags = 0;
    if service.ports == Ports::Any {
        flags |= vip_flags::ANY_PORT;
    }
    if takes_every_protocol(service) {
        flags |= vip_flags::ANY_PROTOCOL;
    }
    flags
}

/// `Service::sole`, if the service has at most two ports.
pub(super) fn sole_ports(service: &model::Service) -> Option<[u32; 2]> {
    let Ports::Ranges(ranges) = &service.ports else { return None };
    let count: usize = ranges.iter().map(|range| range.len()).sum();
    if count * protocols(service.protocol).len() > 2 {
        return None;
    }
    let mut keys = port_keys(service).into_iter().map(|(protocol, port)| sole_port(protocol, port));
    Some([keys.next().unwrap_or_default(), keys.next().unwrap_or_default()])
}

fn port_keys(service: &model::Service) -> Vec<(u8, u16)> {
    let ports: Vec<u16> = match &service.ports {
        Ports::Any => vec![0],
        Ports::Ranges(ranges) => ranges.iter().cloned().flatten().collect(),
    };
    let mut keys: Vec<(u8, u16)> = protocols(service.protocol)
        .iter()
        .flat_map(|protocol| ports.iter().map(|port| (*protocol, *port)))
        .collect();
    if takes_every_protocol(service) {
        keys.push((0, 0));
    }
    keys
}
