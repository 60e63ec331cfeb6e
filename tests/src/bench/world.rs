//! What the balancer is given in the benchmark: services, backends, tables as the daemon would build them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use lb_common::abi::slot;
use lb_userspace::{
    config::{Affinity, Protocol, Tracking},
    control::{
        maglev::{self, Scratch},
        model::{Member, Snapshot},
    },
    dataplane::{self, Capacity, Grace, Installer, Loaded},
};

use crate::cases::site::{self, CAPACITY, ServiceBuilder, Site, identity};

/// The first source.
pub(super) const CLIENT4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
/// The VIP, or the first of many.
pub(super) const VIP4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// Source of outer headers.
pub(super) const TUNNEL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The port of every service.
pub(super) const PORT: u16 = 80;
/// Slots of a table unless a case says otherwise: the default of the configuration.
pub(super) const SLOTS: u32 = 16_381;

/// `count` backends, each with an address and a MAC address of its own.
pub(super) fn members(count: u32, like: fn(&str) -> Member) -> Vec<Member> {
    (0..count)
        .map(|i| {
            let mut member = like(&format!("b{i}"));
            if member.address.is_ipv4() {
                member.address = address(i).into();
            }
            member
        })
        .collect()
}

/// The address of a backend.
pub(super) fn address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 1)) + index)
}

/// The table that the daemon would build.
pub(super) fn table(members: &[Member], slots: u32) -> Result<Arc<[u16]>> {
    let members: Vec<maglev::Member> =
        members.iter().map(|m| maglev::Member { identity: m.identity, weight: 100 }).collect();
    let table = maglev::build(&members, slots, &[7; 32], &mut Scratch::default()).context("a table")?;
    Ok(Arc::from(table))
}

/// A TCP service at `address` with such members.
pub(super) fn service(address: IpAddr, members: Vec<Member>, slots: u32) -> Result<ServiceBuilder> {
    let table = table(&members, slots)?;
    Ok(site::service("s", [address]).members(members).table(table))
}

/// The same table, every slot of which changed its owner a moment ago.
pub(super) fn unsettled(table: &[u16]) -> (Arc<[u16]>, Arc<BTreeMap<u32, u16>>) {
    let marked = table.iter().map(|owner| owner | slot::UNSETTLED).collect();
    (marked, Arc::new((0..).zip(table.iter().copied()).collect()))
}

/// The snapshot of these services.
pub(super) fn snapshot(services: Vec<ServiceBuilder>) -> Result<Snapshot> {
    Site::new(services).snapshot.context("a site has a snapshot")
}

/// `count` services at consecutive addresses with one backend each; with one table for all, or one for each.
pub(super) fn many_services(count: u32, slots: u32, shared: bool) -> Result<Snapshot> {
    let mut services = Vec::with_capacity(count as usize);
    let one = members(1, site::ipip4);
    let first = table(&one, slots)?;
    for i in 0..count {
        let address = Ipv4Addr::from(u32::from(VIP4) + i);
        let table = if shared { Arc::clone(&first) } else { Arc::from(&first[..]) };
        services.push(site::service(&format!("s{i}"), [address.into()]).members(one.clone()).table(table));
    }
    snapshot(services)
}

/// Room for `snapshot`, and what is given.
pub(super) fn room_for(snapshot: &Snapshot, flow_buckets: u32, limit_buckets: u32) -> Capacity {
    let services = snapshot.services.len() as u32;
    let slots: u64 = snapshot.services.iter().map(|s| s.table.len() as u64 + 4).sum();
    let backends: u32 = snapshot.services.iter().map(|s| s.members.len() as u32).sum();
    let addresses: u32 = snapshot.services.iter().map(|s| s.addresses.len() as u32).sum();
    let mut capacity = CAPACITY;
    capacity.vip_cells = (addresses * 4).next_power_of_two().max(1 << 10);
    capacity.port_cells = (addresses * 4).next_power_of_two().max(1 << 12);
    capacity.services = (services * 2).next_power_of_two().max(1 << 8);
    capacity.slots = (slots as u32).next_power_of_two().max(1 << 20);
    capacity.backends = (backends * 2).next_power_of_two().max(1 << 12);
    capacity.flow_buckets = flow_buckets;
    capacity.limit_buckets = limit_buckets;
    capacity
}

/// The balancer in the kernel with this snapshot in force.
pub(super) struct Balancer {
    pub(super) ebpf: aya::Ebpf,
    pub(super) installer: Installer,
    counters: Vec<u32>,
}

impl Balancer {
    /// Loads and installs.
    pub(super) fn new(snapshot: &Snapshot, capacity: &Capacity) -> Result<Self> {
        let Loaded { ebpf, memory, clock, .. } = dataplane::load(None, capacity)?;
        let mut installer = Installer::new(memory, clock, Grace::none());
        installer.install(snapshot).context("the snapshot")?;
        let counter = |service: &Arc<lb_userspace::control::model::Service>| {
            let members = service.members.iter().flatten();
            members.filter_map(|m| installer.counter(service.identity, m.identity)).collect::<Vec<_>>()
        };
        let counters = snapshot.services.iter().flat_map(counter).collect();
        Ok(Self { ebpf, installer, counters })
    }

    /// Packets forwarded to all members, and everything else that was counted.
    pub(super) fn counted(&self) -> Result<(u64, BTreeMap<&'static str, u64>)> {
        let forwarded = dataplane::forwarded(&self.ebpf, &self.counters)?;
        let reasons = dataplane::reasons(&self.ebpf)?;
        let reasons = reasons.into_iter().filter(|(_, n)| *n > 0).map(|(reason, n)| (reason.name(), n));
        Ok((forwarded.iter().map(|c| c.packets).sum(), reasons.collect()))
    }

    /// Flows in the flow table.
    pub(super) fn flows(&self) -> u64 {
        let buckets = self.installer.memory().flows.as_slice();
        buckets.iter().flatten().filter(|word| **word != 0).count() as u64
    }
}

/// A service that remembers every flow.
pub(super) fn always(service: ServiceBuilder) -> ServiceBuilder {
    service.tracking(Tracking::Always)
}

/// A service for UDP.
pub(super) fn udp(service: ServiceBuilder) -> ServiceBuilder {
    service.ports(Protocol::Udp, &[PORT..=PORT])
}

/// The same, by connection IDs.
pub(super) fn quic(service: ServiceBuilder) -> ServiceBuilder {
    udp(service).affinity(Affinity::Quic)
}

/// Whether the MAC address of a frame is a backend's; see `cases::site`.
pub(super) fn mac_of(index: u32) -> [u8; 6] {
    let [.., a, b] = identity(&format!("b{index}")).to_be_bytes();
    [0x02, 0xbb, 0, 0, a, b]
}
