//! All arrays of the balancer together, and how large they are.

use lb_common::{
    abi::{
        BUCKET_ENTRIES, Backend, BackendInfo, Control, Globals, QuicConfig, Reply, Service, ServiceInfo,
        Vip6, slot,
    },
    datapath::limit,
};

use super::{
    region::Region,
    room::{InstallError, Room},
};
use crate::config::{Config, Forward, Ports, Protocol};

/// Elements of `QUIC`: eight for each of two generations.
pub(super) const QUIC_ELEMENTS: u32 = 16;

/// Sizes of the maps, fixed when they are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Cells of each half of the two VIP tables; a power of two.
    pub vip_cells: u32,
    /// Cells of each half of the port table; a power of two.
    pub port_cells: u32,
    /// Services of each half, number 0 not counted.
    pub services: u32,
    /// Maglev slots in all, of all generations that are alive at once.
    pub slots: u32,
    /// Member records in all.
    pub backends: u32,
    /// Buckets of eight sources each; a power of two.
    pub limit_buckets: u32,
    /// Buckets of eight flows each; a power of two.
    pub flow_buckets: u32,
    /// Cells of each half of the table of replies; a power of two.
    pub reply_cells: u32,
    /// Buckets of the flow table from before its size was changed; 1 = there is none.
    pub old_flow_buckets: u32,
}

impl Capacity {
    /// Room for this configuration to double, and never less than a small site needs.
    pub fn for_config(config: &Config) -> Self {
        let services = config.services.len() as u64;
        let vips: u64 = config.services.iter().map(|s| s.addresses.len() as u64).sum();
        let ports: u64 =
            config.services.iter().map(|s| s.addresses.len() as u64 * port_keys(s) + server_ids(s)).sum();
        let slots: u64 = config.services.iter().map(|s| u64::from(s.table_slots) + 4).sum();
        let backends: u64 = config.services.iter().map(|s| s.backends.len() as u64).sum();
        Self {
            vip_cells: power_of_two(vips * 4, 1 << 10),
            port_cells: power_of_two(ports * 4, 1 << 12),
            services: power_of_two(services * 2, 1 << 8),
            slots: multiple(slots * 2, 1 << 20),
            backends: multiple(backends * 4, 1 << 12),
            limit_buckets: power_of_two(u64::from(config.daemon.limit_capacity) / BUCKET_ENTRIES as u64, 1),
            flow_buckets: power_of_two(u64::from(config.daemon.flow_capacity) / BUCKET_ENTRIES as u64, 1),
            reply_cells: power_of_two(
                config.services.iter().map(|service| reply_keys(service)).sum::<u64>() * 4,
                1 << 10,
            ),
            old_flow_buckets: 1,
        }
    }

    /// Room for what did not fit here, and for all that `wanted` has room for; `None` when larger maps would not help.
    pub fn grown(&self, wanted: &Self, error: &InstallError) -> Option<Self> {
        let mut to = Self {
            vip_cells: self.vip_cells.max(wanted.vip_cells),
            port_cells: self.port_cells.max(wanted.port_cells),
            reply_cells: self.reply_cells.max(wanted.reply_cells),
            services: self.services.max(wanted.services),
            slots: self.slots.max(wanted.slots),
            backends: self.backends.max(wanted.backends),
            ..*self
        };
        let double = |n: u64| power_of_two(n * 2, 1);
        match error {
            InstallError::Full { what: Room::Services, wanted, .. } => {
                to.services = to.services.max(double(*wanted));
            }
            InstallError::Full { what: Room::Slots, wanted, .. } => to.slots = to.slots.max(double(*wanted)),
            InstallError::Full { what: Room::Backends, wanted, .. } => {
                to.backends = to.backends.max(double(*wanted));
            }
            InstallError::Crowded { what: Room::Ports, cells, .. } => {
                to.port_cells = to.port_cells.max(double((*cells).into()));
            }
            InstallError::Crowded { what: Room::Replies, cells, .. } => {
                to.reply_cells = to.reply_cells.max(double((*cells).into()));
            }
            InstallError::Crowded { what: Room::Vips, cells, .. } => {
                to.vip_cells = to.vip_cells.max(double((*cells).into()));
            }
            InstallError::Full { .. } | InstallError::Crowded { .. } => return None,
        }
        (to != *self).then_some(to)
    }

    /// What is different in `to`, in words.
    pub fn changes(&self, to: &Self) -> String {
        let sizes = |c: &Self| {
            [
                ("VIP cells", c.vip_cells),
                ("port cells", c.port_cells),
                ("reply cells", c.reply_cells),
                ("services", c.services),
                ("slots", c.slots),
                ("backends", c.backends),
                ("limit buckets", c.limit_buckets),
                ("flow buckets", c.flow_buckets),
                ("old flow buckets", c.old_flow_buckets),
            ]
        };
        let pairs = sizes(self).into_iter().zip(sizes(to)).filter(|(from, to)| from != to);
        let words: Vec<String> =
            pairs.map(|((name, from), (_, to))| format!("{name} {from} to {to}")).collect();
        words.join(", ")
    }

    /// Elements of the map with this name, or `None` for maps whose size is fixed in the object.
    pub fn elements(&self, map: &str) -> Option<u32> {
        use lb_common::abi::maps;
        Some(match map {
            maps::VIPS4 | maps::VIPS6 => self.vip_cells * 2,
            maps::PORTS => self.port_cells * 2,
            maps::SERVICES | maps::SERVICE_INFO => self.services * 2,
            maps::SLOTS => self.slots / 4,
            maps::CANDIDATES => self.slots,
            maps::BACKENDS | maps::BACKEND_INFO | maps::COUNTERS => self.backends,
            maps::SLOT_META => self.slots / 2,
            maps::LIMITS => self.limit_buckets,
            maps::FLOWS => self.flow_buckets,
            maps::REPLIES => self.reply_cells * 2,
            maps::FLOWS_OLD => self.old_flow_buckets,
            _ => return None,
        })
    }

    /// Bytes of all maps, counters for `cpus` CPUs included.
    pub fn bytes(&self, cpus: u32) -> u64 {
        let n = |elements: u32, size: usize| u64::from(elements) * size as u64;
        n(self.vip_cells * 2, 8 + size_of::<Vip6>())
            + n(self.port_cells * 2, 8)
            + n(self.services * 2, size_of::<Service>() + size_of::<ServiceInfo>())
            + n(self.slots, 2 + 4 + 8)
            + n(self.backends, size_of::<Backend>() + size_of::<BackendInfo>() + 16 * cpus as usize)
            + n(self.limit_buckets, 8 * BUCKET_ENTRIES)
            + n(self.flow_buckets, 8 * BUCKET_ENTRIES)
            + n(self.reply_cells * 2, size_of::<Reply>())
            + n(self.old_flow_buckets, 8 * BUCKET_ENTRIES)
    }
}

fn power_of_two(wanted: u64, least: u32) -> u32 {
    wanted.max(u64::from(least)).next_power_of_two().min(1 << 30) as u32
}

/// The same where nothing masks an index: the next multiple of what `least` is.
fn multiple(wanted: u64, least: u32) -> u32 {
    let least = u64::from(least);
    wanted.max(1).next_multiple_of(least.min(1 << 12)).max(least).min(1 << 30) as u32
}

/// Cells of the port table that server IDs take.
fn server_ids(service: &crate::config::Service) -> u64 {
    service.backends.iter().filter(|backend| backend.server_id.is_some()).count() as u64
}

/// Cells of the port table that each VIP of this service takes, one of each protocol for fragments included.
fn port_keys(service: &crate::config::Service) -> u64 {
    let protocols = if service.protocol == Protocol::Both { 2 } else { 1 };
    match &service.ports {
        Ports::Any => protocols * 2 + 1,
        Ports::Ranges(ranges) => protocols * (1 + ranges.iter().map(|r| r.len() as u64).sum::<u64>()),
    }
}

/// Cells of the table of replies that this service takes.
fn reply_keys(service: &crate::config::Service) -> u64 {
    if service.forward != Forward::Nat {
        return 0;
    }
    let ports = match &service.ports {
        Ports::Any => 1,
        Ports::Ranges(ranges) => ranges.iter().map(|r| r.len() as u64).sum(),
    };
    ports * 2 * service.backends.len() as u64
}

/// The arrays that the datapath reads.
pub struct Memory {
    /// `CONTROL`.
    pub control: Region<Control>,
    /// `GLOBALS`.
    pub globals: Region<Globals>,
    /// `VIPS4`.
    pub vips4: Region<u64>,
    /// `VIPS6`.
    pub vips6: Region<Vip6>,
    /// `PORTS`.
    pub ports: Region<u64>,
    /// `SERVICES`.
    pub services: Region<Service>,
    /// `SERVICE_INFO`.
    pub service_info: Region<ServiceInfo>,
    /// `SLOTS`.
    pub slots: Region<u64>,
    /// `SLOT_META`.
    pub slot_meta: Region<u64>,
    /// `CANDIDATES`.
    pub candidates: Region<u64>,
    /// `FLOWS`.
    pub flows: Region<[u64; BUCKET_ENTRIES]>,
    /// `FLOWS_OLD`.
    pub old_flows: Region<[u64; BUCKET_ENTRIES]>,
    /// `BACKENDS`.
    pub backends: Region<Backend>,
    /// `BACKEND_INFO`.
    pub backend_info: Region<BackendInfo>,
    /// `QUIC`.
    pub quic: Region<QuicConfig>,
    /// `LIMITS`.
    pub limits: Region<[u64; BUCKET_ENTRIES]>,
    /// `REPLIES`.
    pub replies: Region<Reply>,
}

impl Memory {
    /// Plain memory, for the pipeline on the host.
    pub fn heap(capacity: &Capacity) -> Self {
        let n = |x: u32| x as usize;
        Self {
            control: Region::heap(1),
            globals: Region::heap(2),
            vips4: Region::heap(n(capacity.vip_cells) * 2),
            vips6: Region::heap(n(capacity.vip_cells) * 2),
            ports: Region::heap(n(capacity.port_cells) * 2),
            services: Region::heap(n(capacity.services) * 2),
            service_info: Region::heap(n(capacity.services) * 2),
            slots: Region::heap(n(capacity.slots) / 4),
            slot_meta: Region::heap(n(capacity.slots) / 2),
            candidates: Region::heap(n(capacity.slots)),
            flows: Region::heap(n(capacity.flow_buckets)),
            old_flows: Region::heap(n(capacity.old_flow_buckets)),
            backends: Region::heap(n(capacity.backends)),
            backend_info: Region::heap(n(capacity.backends)),
            quic: Region::heap(QUIC_ELEMENTS as usize),
            limits: Region::heap(n(capacity.limit_buckets)),
            replies: Region::heap(n(capacity.reply_cells) * 2),
        }
    }

    /// The sizes of these arrays.
    pub fn capacity(&self) -> Capacity {
        let n = |x: usize| u32::try_from(x).unwrap_or(u32::MAX);
        Capacity {
            vip_cells: n(self.vips4.len() / 2),
            port_cells: n(self.ports.len() / 2),
            services: n(self.services.len() / 2),
            slots: n(self.slots.len() * 4),
            backends: n(self.backends.len()),
            limit_buckets: n(self.limits.len()),
            flow_buckets: n(self.flows.len()),
            reply_cells: n(self.replies.len() / 2),
            old_flow_buckets: n(self.old_flows.len()),
        }
    }

    /// The generation in force, or `None` when nothing was ever installed.
    pub fn globals(&self) -> Option<Globals> {
        let control = self.control.get(0)?;
        if control.generation == 0 { None } else { self.globals.get((control.generation & 1) as usize) }
    }
}

/// The kernel's clocks as the rate limiter counts time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// Kernel ticks per second.
    pub ticks_per_second: u32,
    /// Jiffies when `nanoseconds` was read.
    pub jiffies: u64,
    /// `CLOCK_MONOTONIC` when `jiffies` was read.
    pub nanoseconds: u64,
}

impl Clock {
    /// Rate-limit time units per second.
    pub fn units_per_second(&self) -> u64 {
        u64::from(self.ticks_per_second) << limit::UNITS_PER_TICK_BITS
    }

    /// `Globals::limit_time_mult`.
    pub fn multiplier(&self) -> u32 {
        ((self.units_per_second() << limit::MULT_BITS) / 1_000_000_000) as u32
    }

    /// `Globals::seconds_mult`: seconds per tick, scaled by 2^32.
    pub fn seconds_multiplier(&self) -> u32 {
        ((1u64 << 32) / u64::from(self.ticks_per_second.max(2))) as u32
    }

    /// The datapath's seconds when `CLOCK_MONOTONIC` shows this; not reduced to 14 bits.
    pub fn seconds(&self, nanoseconds: u64) -> u64 {
        let passed = u128::from(nanoseconds.saturating_sub(self.nanoseconds));
        let jiffies = u128::from(self.jiffies) + passed * u128::from(self.ticks_per_second) / 1_000_000_000;
        ((jiffies * u128::from(self.seconds_multiplier())) >> 32) as u64
    }

    /// `Globals::limit_time_offset`: makes both clocks agree at the moment they were read together.
    pub fn offset(&self) -> u64 {
        let scaled = self.nanoseconds.wrapping_mul(u64::from(self.multiplier())) >> limit::MULT_BITS;
        limit::coarse_time(self.jiffies).wrapping_sub(scaled) & ((1 << limit::TIME_BITS) - 1)
    }
}

const _: () = assert!(slot::MAX_MEMBERS <= u16::MAX as usize);
