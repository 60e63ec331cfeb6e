//! A site: one snapshot to install, with names for its services and members.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    sync::{Arc, Mutex},
};

use lb_common::{
    abi::{BackendInfo, slot},
    datapath::{Route, Wanted},
};
use lb_userspace::{
    config::{Affinity, Forward, OnFailure, Ports, Protocol, Quic, QuicKey, Rate, Tracking},
    control::model::{Hop, Member, Service, Snapshot},
    dataplane::{Capacity, Memory},
    quic::ConnectionIds,
};

use super::cast::{BACKEND, INGRESS, TUNNEL};
use crate::packet::HERE;

/// Key of every hash. The golden rows of `rows::affinity` hold for this one.
pub const KEY: [u64; 4] =
    [0x6c62_272e_07bb_0142, 0x9e6c_63d0_876a_9a35, 0x5bd1_e995_1b87_3593, 0x2127_599b_f432_5c37];
/// Slots of a table: a prime, small enough to read.
pub const SLOTS: usize = 251;
/// Small maps, so that whole ones can be read after every frame.
pub const CAPACITY: Capacity = Capacity {
    vip_cells: 256,
    port_cells: 512,
    services: 64,
    slots: 1 << 14,
    backends: 128,
    limit_buckets: 1,
    flow_buckets: 256,
    reply_cells: 256,
    old_flow_buckets: 1,
};

/// What a world is made of.
#[derive(Clone)]
pub struct Site {
    /// Installed through the installer; `None`: nothing ever was.
    pub snapshot: Option<Snapshot>,
    /// MAC address of the interface that frames come in by, if the program was told.
    pub mac: Option<[u8; 6]>,
    /// Changes records after they were installed, in the kernel's maps as on the host.
    pub patch: fn(&mut Memory),
    /// What the kernel's routing tables say; `None`: the kernel does not route.
    pub routes: Option<fn(&Wanted) -> Route>,
}

impl Site {
    /// Announcing, with this snapshot's services.
    pub fn new(services: Vec<ServiceBuilder>) -> Self {
        let services = services.into_iter().map(|s| s.service.into()).collect();
        let snapshot =
            Snapshot { key: KEY, announce: true, desired_digest: 1, quic: quic_configs(), services };
        Self { snapshot: Some(snapshot), mac: Some(HERE), patch: |_| {}, routes: None }
    }

    /// Service and member with this name, `service/member`.
    pub fn backend(&self, name: &str) -> (&Service, &Member) {
        let (service, member) = name.split_once('/').expect("a name of the form service/member");
        let services = self.snapshot.iter().flat_map(|s| &s.services);
        let service = services
            .into_iter()
            .find(|s| s.identity == identity(service))
            .unwrap_or_else(|| panic!("no service {service}"));
        let member = service
            .members
            .iter()
            .flatten()
            .find(|m| m.identity == identity(member))
            .unwrap_or_else(|| panic!("no member {name}"));
        (service, member)
    }
}

/// Names by what stands for them, for messages.
static NAMES: Mutex<BTreeMap<u64, String>> = Mutex::new(BTreeMap::new());

/// What stands for a name in the maps: FNV-1a, never 0 for the names used here.
pub fn identity(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The name of a service or member that stands in a site.
pub fn name_of(identity: u64) -> Option<String> {
    NAMES.lock().ok()?.get(&identity).cloned()
}

fn named(name: &str) -> u64 {
    let identity = identity(name);
    if let Ok(mut names) = NAMES.lock() {
        names.insert(identity, name.to_owned());
    }
    identity
}

/// A service in the making.
#[derive(Clone)]
pub struct ServiceBuilder {
    service: Service,
}

/// A service at these addresses: TCP port 80, affinity by addresses, no limit, no members.
pub fn service(name: &str, addresses: impl IntoIterator<Item = IpAddr>) -> ServiceBuilder {
    ServiceBuilder {
        service: Service {
            candidates: None,
            identity: named(name),
            addresses: addresses.into_iter().collect(),
            ports: Ports::Ranges(vec![80..=80]),
            protocol: Protocol::Tcp,
            affinity: Affinity::Addresses,
            limit: None,
            table: Arc::from([]),
            old: Arc::default(),
            tracking: Tracking::Changes,
            on_failure: OnFailure::Rehash,
            settle: 900,
            members: Vec::new(),
        },
    }
}

impl ServiceBuilder {
    /// The first member owns every slot, and packets of TCP name these members.
    pub fn candidates(mut self, named: [u16; 3]) -> Self {
        self = self.every_slot(0);
        let word = named.iter().rev().fold(0, |word, member| word << 16 | u64::from(*member));
        self.service.candidates = Some(vec![word; self.service.table.len()].into());
        self
    }

    /// These ports.
    pub fn ports(mut self, protocol: Protocol, ports: &[RangeInclusive<u16>]) -> Self {
        self.service.protocol = protocol;
        self.service.ports = Ports::Ranges(ports.to_vec());
        self
    }

    /// Any port.
    pub fn any_port(mut self, protocol: Protocol) -> Self {
        self.service.protocol = protocol;
        self.service.ports = Ports::Any;
        self
    }

    /// Affinity.
    pub fn affinity(mut self, affinity: Affinity) -> Self {
        self.service.affinity = affinity;
        self
    }

    /// Packets per second, and at once.
    pub fn limit(mut self, rate: u32, burst: u32) -> Self {
        self.service.limit = Some(Rate { rate, burst });
        self
    }

    /// Members, and a table that names them in turn.
    pub fn members(mut self, members: impl IntoIterator<Item = Member>) -> Self {
        self.service.members = members.into_iter().map(Some).collect();
        let count = self.service.members.len();
        self.service.table = (0..SLOTS).map(|slot| (slot % count) as u16).collect();
        self
    }

    /// A table that was built elsewhere; services that are given the same one share it in the kernel.
    pub fn table(mut self, table: Arc<[u16]>) -> Self {
        self.service.table = table;
        self
    }

    /// Slots that are not settled, and their old owners.
    pub fn unsettled(mut self, table: Arc<[u16]>, old: Arc<BTreeMap<u32, u16>>) -> Self {
        self.service.table = table;
        self.service.old = old;
        self
    }

    /// Every slot belongs to the first member, and belonged to `old` a moment ago.
    pub fn changed_from(self, old: u16) -> Self {
        let slots: Vec<u32> = (0..SLOTS as u32).collect();
        self.unsettled(
            [slot::UNSETTLED; SLOTS].into(),
            Arc::new(slots.into_iter().map(|slot| (slot, old)).collect()),
        )
    }

    /// Which flows are remembered.
    pub fn tracking(mut self, tracking: Tracking) -> Self {
        self.service.tracking = tracking;
        self
    }

    /// Connections whose member is not alive are answered with a reset.
    pub fn resets(mut self) -> Self {
        self.service.on_failure = OnFailure::Reset;
        self
    }

    /// Another table: every slot names this member index.
    pub fn every_slot(mut self, member: u16) -> Self {
        self.service.table = [member; SLOTS].into();
        self
    }

    /// Every slot is empty.
    pub fn empty_slots(self) -> Self {
        self.every_slot(slot::EMPTY)
    }

    /// A table without slots.
    pub fn no_slots(mut self) -> Self {
        self.service.table = Arc::from([]);
        self
    }

    /// A free index behind the members.
    pub fn with_hole(mut self) -> Self {
        self.service.members.push(None);
        self
    }
}

/// A member on the ingress interface, with 1,500 bytes on the way.
fn member(name: &str, address: IpAddr, source: IpAddr, forward: Forward) -> Member {
    // MAC addresses differ by the name, so that no two members can be taken for each other.
    let [.., a, b] = identity(name).to_be_bytes();
    Member {
        gue_port: 6081,
        server_id: None,
        identity: named(name),
        address,
        forward,
        port: None,
        alive: true,
        hop: Some(Hop {
            ifindex: INGRESS,
            dmac: [0x02, 0xbb, 0, 0, a, b],
            smac: [0x02, 0xaa, 0, 0, 0, 0x01],
            source,
            mtu: 1500,
        }),
        health: 1,
        since: 0,
    }
}

/// Ways to make connection IDs: plain; four rounds over an odd number of bytes, and over one half that is too short for
/// the server ID; one block.
pub fn quic_configs() -> Vec<Quic> {
    let key = Some(QuicKey(*b"a key of 16 byte"));
    let config =
        |codepoint, server_id_bytes, nonce_bytes, key| Quic { codepoint, server_id_bytes, nonce_bytes, key };
    vec![
        config(0, 2, 6, None),
        config(1, 3, 4, key),
        config(2, 8, 4, key),
        config(4, 8, 8, key),
        config(6, 2, 17, key),
    ]
}

/// A connection ID of the configuration with this index for this server.
pub fn connection_id(config: usize, server: u64) -> Vec<u8> {
    let config = &quic_configs()[config];
    let (bytes, nonce) = (usize::from(config.server_id_bytes), usize::from(config.nonce_bytes));
    let ids = ConnectionIds::new(config.codepoint, bytes, nonce, config.key.map(|key| key.0));
    let ids = ids.and_then(|ids| ids.for_server(server)).expect("the configuration is valid");
    let nonce: Vec<u8> = (0..nonce).map(|i| 0xa7 ^ (i as u8).wrapping_mul(29)).collect();
    ids.with_nonce(&nonce).expect("a nonce of the right length")
}

/// A backend on the same link.
pub fn l2(name: &str) -> Member {
    member(name, BACKEND.v4.into(), TUNNEL.v4.into(), Forward::L2)
}

/// A backend behind an IPv4 tunnel.
pub fn ipip4(name: &str) -> Member {
    member(name, BACKEND.v4.into(), TUNNEL.v4.into(), Forward::Ipip)
}

/// A backend behind an IPv6 tunnel.
pub fn ipip6(name: &str) -> Member {
    member(name, BACKEND.v6.into(), TUNNEL.v6.into(), Forward::Ipip)
}

/// A backend behind GUE in IPv4.
pub fn gue4(name: &str) -> Member {
    member(name, BACKEND.v4.into(), TUNNEL.v4.into(), Forward::Gue)
}

/// A backend behind GUE in IPv6.
pub fn gue6(name: &str) -> Member {
    member(name, BACKEND.v6.into(), TUNNEL.v6.into(), Forward::Gue)
}

/// A backend behind NAT over IPv4.
pub fn nat4(name: &str, address: Ipv4Addr) -> Member {
    member(name, address.into(), TUNNEL.v4.into(), Forward::Nat)
}

/// A backend behind NAT over IPv6.
pub fn nat6(name: &str, address: Ipv6Addr) -> Member {
    member(name, address.into(), TUNNEL.v6.into(), Forward::Nat)
}

/// The same backend by another interface or over a narrower way, or without one.
pub trait MemberExt {
    /// With this server ID.
    fn server_id(self, id: u16) -> Self;
    /// Failed.
    fn dead(self) -> Self;
    /// By this interface.
    fn by(self, ifindex: u32) -> Self;
    /// Over a way of this MTU.
    fn mtu(self, mtu: u32) -> Self;
    /// With another port than the client names.
    fn port(self, port: u16) -> Self;
    /// Without a known next hop.
    fn unresolved(self) -> Self;
    /// Failed.
    fn failed(self) -> Self;
}

impl MemberExt for Member {
    fn server_id(mut self, id: u16) -> Self {
        self.server_id = Some(id);
        self
    }
    fn dead(mut self) -> Self {
        self.alive = false;
        self
    }
    fn by(mut self, ifindex: u32) -> Self {
        self.hop = self.hop.map(|hop| Hop { ifindex, ..hop });
        self
    }
    fn mtu(mut self, mtu: u32) -> Self {
        self.hop = self.hop.map(|hop| Hop { mtu, ..hop });
        self
    }
    fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }
    fn unresolved(mut self) -> Self {
        self.hop = None;
        self
    }
    fn failed(mut self) -> Self {
        self.alive = false;
        self
    }
}

/// The record of the service with this name, to be patched.
pub fn service_record<'m>(memory: &'m mut Memory, name: &str) -> &'m mut lb_common::abi::Service {
    let at = service_at(memory, name);
    &mut memory.services.as_mut_slice()[at]
}

/// The record of the member with this name, to be patched.
pub fn member_record<'m>(memory: &'m mut Memory, name: &str) -> &'m mut lb_common::abi::Backend {
    let wanted = |info: &BackendInfo| info.identity == identity(name);
    let at = memory.backend_info.as_slice().iter().position(wanted).expect("an installed member");
    &mut memory.backends.as_mut_slice()[at]
}

/// Index of the record of the service with this name.
pub fn service_at(memory: &Memory, name: &str) -> usize {
    let infos = memory.service_info.as_slice();
    infos.iter().position(|info| info.identity == identity(name)).expect("an installed service")
}
