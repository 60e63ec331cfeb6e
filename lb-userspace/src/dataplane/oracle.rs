//! The rules of `docs/connections.md` against an oracle that remembers every flow.
//!
//! Not a model: the very code that builds tables ([`Desired`]), installs them ([`Installer`]) and forwards packets
//! (`lb_common::datapath::balance`, as in XDP) runs here, on plain memory and a clock that the test turns. Random scale
//! events overlap within one settling time, off-path SYNs hit live connections, tuples are reused, the daemon restarts,
//! and spoofed SYN and ACK floods go through the same slots. A connection is broken without cause when a packet of it
//! reaches another backend while its own is neither failed nor removed.

mod sizes;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use lb_common::{
    abi::slot,
    datapath::{Cause, balance, track::FlowEvent},
};

use super::{Capacity, Clock, Grace, HostPacket, HostTables, Installer, Memory, Swept};
use crate::{
    config::{
        AdminState, Affinity, Backend, Check, Config, Forward, Health, OnFailure, Ports, Protocol, Seed,
        Service, Tracking,
    },
    control::{
        desired::{Condition, Desired, FAILED, READY, View},
        model::{Hop, Member},
    },
};

mod slow_start;

const CLOCK: Clock = Clock { ticks_per_second: 250, jiffies: 0, nanoseconds: 0 };
const SETTLE: u64 = 120;
const VIP: [u8; 4] = [192, 0, 2, 10];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n.max(1)
    }
    fn chance(&mut self, per_mille: u64) -> bool {
        self.next() % 1000 < per_mille
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    source: u32,
    port: u16,
}

#[derive(Clone, Default)]
struct World {
    /// Backend number → failed.
    backends: BTreeMap<u8, bool>,
    drained: BTreeSet<u8>,
    /// Unix seconds since when a backend is what it is; absent: for ever.
    since: BTreeMap<u8, u64>,
    slow_start: Duration,
    /// Unix seconds.
    now: u64,
}

impl View for World {
    fn condition(&self, _: &str, backend: &str) -> Condition {
        let number: u8 = backend.parse().unwrap_or_default();
        let failed = self.backends.get(&number).copied().unwrap_or(true);
        let since = self.since.get(&number).copied().unwrap_or_default();
        Condition { health: if failed { FAILED } else { READY }, since }
    }
    fn joining(&self, _: &str, _: &str) -> bool {
        false
    }
    fn unix_time(&self) -> u64 {
        self.now
    }
    fn hop(&self, address: IpAddr) -> Option<Hop> {
        let IpAddr::V4(address) = address else { return None };
        let n = address.octets()[3];
        Some(Hop {
            ifindex: 1,
            dmac: [2, 0, 0, 0, 0, n],
            smac: [0; 6],
            source: IpAddr::V4(address),
            mtu: 1500,
        })
    }
}

impl World {
    fn config(&self, tracking: Tracking) -> Config {
        let backend = |n: &u8| Backend {
            name: n.to_string(),
            address: IpAddr::from([198, 51, 100, *n]),
            port: None,
            weight: 100,
            state: if self.drained.contains(n) { AdminState::Drain } else { AdminState::Up },
            sorry: false,
            server_id: None,
        };
        let service = Service {
            name: "web".into(),
            addresses: vec![IpAddr::V4(Ipv4Addr::from(VIP))],
            ports: Ports::Ranges(vec![80..=80]),
            protocol: Protocol::Tcp,
            affinity: Affinity::Flow,
            forward: Forward::L2,
            tracking,
            settle: Duration::from_secs(SETTLE),
            slow_start: self.slow_start,
            on_failure: OnFailure::Rehash,
            table_slots: 1009,
            health: Health {
                check: Check::None,
                port: None,
                interval: Duration::from_secs(2),
                timeout: Duration::from_secs(1),
                rise: 1,
                fall: 1,
                mass: crate::config::defaults::MASS,
            },
            limit: None,
            backends: self.backends.keys().map(backend).collect(),
        };
        Config { services: vec![service.into()], ..Config::default() }
    }

    fn alive(&self, n: u8) -> bool {
        self.backends.get(&n) == Some(&false)
    }

    /// One random scale event.
    fn event(&mut self, random: &mut Random, next: &mut u8) {
        let up: Vec<u8> =
            self.backends.keys().copied().filter(|n| self.alive(*n) && !self.drained.contains(n)).collect();
        let failed: Vec<u8> = self.backends.iter().filter(|(_, f)| **f).map(|(n, _)| *n).collect();
        let drained: Vec<u8> = self.drained.iter().copied().collect();
        match random.below(100) {
            0..25 if self.backends.len() < 20 && *next < 250 => {
                self.backends.insert(*next, false);
                *next += 1;
            }
            25..45 if up.len() > 3 => {
                self.drained.insert(up[random.below(up.len())]);
            }
            45..60 if !drained.is_empty() => {
                self.drained.remove(&drained[random.below(drained.len())]);
            }
            60..70 if self.backends.len() > 6 => {
                let gone =
                    *self.backends.keys().nth(random.below(self.backends.len())).expect("there are some");
                self.backends.remove(&gone);
                self.drained.remove(&gone);
            }
            70..85 if up.len() > 3 => {
                self.backends.insert(up[random.below(up.len())], true);
            }
            _ if !failed.is_empty() => {
                self.backends.insert(failed[random.below(failed.len())], false);
            }
            _ => {}
        }
    }
}

/// Desired state, installer and clock: a balancer.
struct Balancer {
    desired: Desired,
    installer: Option<Installer>,
    now: u64,
    /// The service, and its backends by index.
    members: (u64, Vec<Option<u8>>),
    /// Its table.
    table: Arc<[u16]>,
    /// By number of the event.
    events: [u64; FlowEvent::ALL.len()],
}

impl Balancer {
    fn new(flow_buckets: u32) -> Self {
        let capacity = Capacity {
            vip_cells: 16,
            port_cells: 16,
            services: 4,
            slots: 8192,
            backends: 256,
            limit_buckets: 1,
            flow_buckets,
            reply_cells: 2,
            old_flow_buckets: 1,
        };
        let installer = Installer::new(Memory::heap(&capacity), CLOCK, Grace::none());
        Self {
            desired: Desired::new(Seed([7; 32])),
            installer: Some(installer),
            now: 0,
            members: Default::default(),
            table: Arc::default(),
            events: Default::default(),
        }
    }

    fn installer(&mut self) -> &mut Installer {
        self.installer.as_mut().expect("only a restart takes it")
    }

    fn jiffies(&self) -> u64 {
        // Half a tick over, so that rounding never shows the second before.
        self.now * u64::from(CLOCK.ticks_per_second) + 1
    }

    fn set_time(&mut self, now: u64) {
        self.now = now;
        self.desired.set_time(now);
        self.installer().set_time(now);
    }

    fn install(&mut self, world: &World, tracking: Tracking) {
        let snapshot = self.desired.snapshot(&world.config(tracking), world).expect("a table");
        self.installer().install(&snapshot).expect("room");
        let service = &snapshot.services[0];
        let backend = |m: &Option<Member>| m.as_ref().and_then(|m| Some(m.hop?.dmac[5]));
        self.members = (service.identity, service.members.iter().map(backend).collect());
        self.table = Arc::clone(&service.table);
    }

    /// The backend that owns each slot.
    fn owners(&self) -> Vec<Option<u8>> {
        let owner = |value: &u16| *self.members.1.get(usize::from(value & slot::MEMBER))?;
        self.table.iter().map(owner).collect()
    }

    fn tick(&mut self, world: &World, tracking: Tracking) {
        let installer = self.installer.as_ref().expect("only a restart takes it");
        if self.desired.settle(|service, slot| installer.stamp(service, slot)) {
            self.install(world, tracking);
        }
        let swept = self.installer().sweep_flows(SETTLE as u16);
        if self.installer().is_moving() && swept.in_old == 0 {
            self.installer().has_moved();
            self.install(world, tracking);
        }
    }

    /// A new daemon, which knows only what is in the maps.
    fn restart(&mut self) {
        let memory = self.installer.take().expect("there").into_memory();
        let (installer, adopted) = Installer::adopt(memory, CLOCK, Grace::none()).expect("adopted");
        self.installer = Some(installer);
        self.desired = Desired::new(Seed([7; 32]));
        let now = self.now;
        self.set_time(now);
        for (identity, service) in &adopted.services {
            let members = service.members.iter().map(|(id, m)| (*id, m.index));
            let meta = |slot: u32| service.meta.get(&slot).copied().unwrap_or_default();
            self.desired.adopt(*identity, members, &service.slots, meta);
        }
    }

    /// Sends one packet and says which backend got it.
    fn packet(&mut self, flow: Flow, flags: u8) -> Option<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 0];
        frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend(flow.source.to_be_bytes());
        frame.extend(VIP);
        frame.extend(flow.port.to_be_bytes());
        frame.extend([0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        let mut packet = HostPacket::new(frame);
        let jiffies = self.jiffies();
        let tables = HostTables::new(self.installer().memory());
        tables.jiffies.set(jiffies);
        let cause = balance(&mut packet, &tables, 1).cause();
        let events = tables.flow_events.each_ref().map(std::cell::Cell::get);
        self.events.iter_mut().zip(events).for_each(|(sum, n)| *sum += n);
        match cause {
            Cause::Forwarded { .. } => Some(packet.bytes[5]),
            Cause::Reason(_) => None,
        }
    }

    /// Flows that a sweep has found on a backend of the one service.
    fn flows(&self, swept: &Swept, backend: u8) -> Option<u64> {
        let (service, members) = &self.members;
        let index = members.iter().position(|member| *member == Some(backend))?;
        self.installer.as_ref()?.flows(swept, *service, index as u16)
    }
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 17;

/// A connection as the oracle knows it.
struct Connection {
    backend: u8,
    seen: u64,
    ends: u64,
    attacked: bool,
}

#[derive(Debug, Default)]
struct Report {
    packets: u64,
    events: u32,
    resizes: u32,
    broken: u32,
    broken_by_off_path_syn: u32,
    lost_with_backend: u32,
}

fn play(seed: u64, tracking: Tracking, flood: usize, steps: u64, flow_buckets: u32) -> Report {
    let mut random = Random(seed);
    let mut world = World { backends: (1..=10).map(|n| (n, false)).collect(), ..World::default() };
    let mut balancer = Balancer::new(flow_buckets);
    balancer.set_time(5);
    balancer.install(&world, tracking);
    let mut connections: BTreeMap<Flow, Connection> = BTreeMap::new();
    let (mut next, mut fresh) = (11u8, 0u32);
    let mut report = Report::default();
    for now in 6..steps {
        balancer.set_time(now);
        if random.chance(30) {
            for _ in 0..1 + random.below(3) {
                world.event(&mut random, &mut next);
                report.events += 1;
            }
            balancer.install(&world, tracking);
        }
        if random.chance(5) {
            balancer.restart();
            balancer.install(&world, tracking);
        }
        if random.chance(10) && !balancer.installer().is_moving() {
            balancer.resize(flow_buckets << random.below(3) >> 1, &world, tracking);
            report.resizes += 1;
        }
        let before = connections.len();
        connections.retain(|_, c| world.alive(c.backend));
        report.lost_with_backend += (before - connections.len()) as u32;
        let ended: Vec<Flow> = connections.iter().filter(|(_, c)| c.ends < now).map(|(f, _)| *f).collect();
        for flow in &ended {
            balancer.packet(*flow, FIN);
            connections.remove(flow);
        }
        let mut reusable = ended;
        while connections.len() < 600 {
            let flow = match reusable.pop().filter(|_| random.chance(200)) {
                Some(flow) => flow,
                None => {
                    fresh += 1;
                    Flow { source: 0xc612_0000 + (fresh >> 8), port: 1024 + (fresh & 0xff) as u16 }
                }
            };
            let Some(backend) = balancer.packet(flow, SYN) else { break };
            report.packets += 2;
            if balancer.packet(flow, ACK) != Some(backend) {
                report.broken += 1;
                continue;
            }
            let ends = now + 1 + (random.next() % 600);
            connections.insert(flow, Connection { backend, seen: now, ends, attacked: false });
        }
        for _ in 0..flood {
            let flow =
                Flow { source: 0xcb00_7100 + (random.next() as u32 & 0xff), port: random.next() as u16 };
            balancer.packet(flow, if random.chance(500) { SYN } else { ACK });
        }
        let mut broken = Vec::new();
        for (flow, connection) in &mut connections {
            // Some are chatty, all speak before they are forgotten.
            if !random.chance(125) && now - connection.seen < SETTLE - 10 {
                continue;
            }
            if random.chance(2) {
                balancer.packet(*flow, SYN);
                connection.attacked = true;
            }
            report.packets += 1;
            connection.seen = now;
            let got = balancer.packet(*flow, ACK);
            if got != Some(connection.backend) {
                broken.push(*flow);
                if connection.attacked {
                    report.broken_by_off_path_syn += 1;
                } else {
                    report.broken += 1;
                }
            }
        }
        for flow in broken {
            connections.remove(&flow);
        }
        if now % 5 == 0 {
            balancer.tick(&world, tracking);
        }
    }
    report
}

#[test]
fn no_connection_is_broken_without_cause() {
    for seed in 0..3 {
        let report = play(seed, Tracking::Changes, 0, 1500, 1024);
        assert!(
            report.events > 50
                && report.packets > 50_000
                && report.lost_with_backend > 100
                && report.resizes > 3,
            "{report:?}"
        );
        assert_eq!(report.broken, 0, "seed {seed}: {report:?}");
    }
}

#[test]
fn a_flood_breaks_none_either() {
    let report = play(11, Tracking::Changes, 200, 800, 1024);
    assert!(report.events > 20, "{report:?}");
    assert_eq!(report.broken, 0, "{report:?}");
}

#[test]
fn tracking_every_flow_keeps_them_as_well() {
    let report = play(21, Tracking::Always, 0, 800, 1024);
    assert_eq!(report.broken, 0, "{report:?}");
}

#[test]
fn without_tracking_changes_break_connections() {
    // The oracle can fail: it finds what tracking prevents.
    let report = play(31, Tracking::Never, 0, 300, 256);
    assert!(report.broken > 10, "{report:?}");
}

/// How many flows are where, for the figures that status shows.
#[test]
fn sweeping_counts_and_removes() {
    let mut balancer = Balancer::new(64);
    let mut world = World { backends: (1..=3).map(|n| (n, false)).collect(), ..World::default() };
    balancer.set_time(100);
    balancer.install(&world, Tracking::Always);
    let mut owners = HashMap::new();
    for port in 1..=40u16 {
        let flow = Flow { source: 0xc612_0001, port };
        owners.insert(port, balancer.packet(flow, SYN).expect("forwarded"));
        balancer.packet(flow, ACK);
    }
    assert_eq!(balancer.installer().sweep_flows(SETTLE as u16).used, 40);
    world.drained.insert(1);
    balancer.install(&world, Tracking::Always);
    for (port, owner) in &owners {
        assert_eq!(
            balancer.packet(Flow { source: 0xc612_0001, port: *port }, ACK),
            Some(*owner),
            "drained keeps flows"
        );
    }
    balancer.set_time(100 + SETTLE + 1);
    let swept = balancer.installer().sweep_flows(SETTLE as u16);
    assert_eq!((swept.used, swept.removed), (0, 40));
}

/// What happens is counted, each under its name.
#[test]
fn events_of_flows_are_counted() {
    let mut balancer = Balancer::new(64);
    let mut world = World { backends: (1..=3).map(|n| (n, false)).collect(), ..World::default() };
    balancer.set_time(100);
    balancer.install(&world, Tracking::Changes);
    let flows: Vec<Flow> = (1..=60).map(|port| Flow { source: 0xc612_0001, port }).collect();
    let on_1: Vec<Flow> = flows.into_iter().filter(|flow| balancer.packet(*flow, SYN) == Some(1)).collect();
    let n = on_1.len() as u64;
    assert!(n > 5, "{n} flows are on the first backend");
    let send_all = |balancer: &mut Balancer, flags| {
        balancer.events = [0; FlowEvent::ALL.len()];
        for flow in &on_1 {
            balancer.packet(*flow, flags);
        }
        balancer.events
    };
    let send = |balancer: &mut Balancer| send_all(balancer, ACK);
    assert_eq!(send(&mut balancer), [0; 7], "nothing is looked up while the slots are settled");
    world.drained.insert(1);
    balancer.install(&world, Tracking::Changes);
    assert_eq!(send(&mut balancer), [0, 0, 0, n, 0, 0, 0], "unknown: inherited");
    assert_eq!(send(&mut balancer), [n, 0, 0, 0, 0, 0, 0], "known: hits");
    let swept = balancer.installer().sweep_flows(SETTLE as u16);
    assert_eq!((swept.used, balancer.flows(&swept, 1)), (n, Some(n)));
    assert_eq!(send_all(&mut balancer, FIN), [n, 0, 0, 0, 0, 0, 0], "known until the end");
    assert_eq!(send_all(&mut balancer, SYN), [0, 0, 0, 0, 0, 0, n], "used again, elsewhere");
    balancer.set_time(100 + SETTLE + 1);
    assert_eq!(send(&mut balancer), [0, 0, 0, 0, 0, n, 0], "silent for longer than they are remembered");
    world.backends.insert(1, true);
    balancer.install(&world, Tracking::Changes);
    assert_eq!(send(&mut balancer), [0, 0, 0, 0, n, 0, 0], "their backend failed");
}

/// The last packet of a connection does not make it look alive; a later one does.
#[test]
fn the_last_ack_does_not_bring_a_connection_back() {
    let mut balancer = Balancer::new(64);
    let world = World { backends: BTreeMap::from([(1, false)]), ..World::default() };
    balancer.set_time(100);
    balancer.install(&world, Tracking::Always);
    let flow = Flow { source: 0xc612_0001, port: 7 };
    balancer.packet(flow, SYN);
    balancer.packet(flow, ACK);
    let flows = |balancer: &mut Balancer| {
        let swept = balancer.installer().sweep_flows(SETTLE as u16);
        balancer.flows(&swept, 1)
    };
    assert_eq!(flows(&mut balancer), Some(1));
    balancer.packet(flow, FIN);
    balancer.packet(flow, ACK);
    assert_eq!(flows(&mut balancer), Some(0), "closed");
    balancer.set_time(103);
    balancer.packet(flow, ACK);
    assert_eq!(flows(&mut balancer), Some(1), "half closed, and going on");
}

/// A balancer of three backends, and flows whose slots the first one owned until it was drained a moment ago.
fn drained() -> (Balancer, World, Vec<Flow>) {
    let mut balancer = Balancer::new(64);
    let mut world = World { backends: (1..=3).map(|n| (n, false)).collect(), ..World::default() };
    balancer.set_time(100);
    balancer.install(&world, Tracking::Changes);
    let flows = (1..=60).map(|port| Flow { source: 0xc612_0001, port });
    let on_1: Vec<Flow> = flows.filter(|flow| balancer.packet(*flow, SYN) == Some(1)).collect();
    assert!(on_1.len() > 5, "{} flows are on the first backend", on_1.len());
    world.drained.insert(1);
    balancer.install(&world, Tracking::Changes);
    (balancer, world, on_1)
}

/// The answer to the first SYN may be under way when the slot changes again.
#[test]
fn a_syn_that_is_repeated_goes_where_the_first_one_went() {
    let (mut balancer, mut world, flows) = drained();
    let first: Vec<_> = flows.iter().map(|flow| balancer.packet(*flow, SYN)).collect();
    assert!(first.contains(&Some(2)) && !first.contains(&Some(1)), "{first:?}");
    world.drained.insert(2);
    balancer.install(&world, Tracking::Changes);
    for (flow, first) in flows.iter().zip(first) {
        assert_eq!(balancer.packet(*flow, SYN), first, "repeated");
        assert_eq!(balancer.packet(*flow, ACK), first, "open");
    }
}

/// What is left of a flow of a backend that failed hides the next flow with its tuple no longer than that backend fails.
#[test]
fn a_backend_that_recovers_takes_no_flow_that_began_elsewhere() {
    let (mut balancer, mut world, flows) = drained();
    for now in (100..=100 + SETTLE + 50).step_by(50) {
        balancer.set_time(now);
        for flow in &flows {
            assert_eq!(balancer.packet(*flow, ACK), Some(1), "an exception");
        }
        balancer.tick(&world, Tracking::Changes);
    }
    world.backends.insert(1, true);
    balancer.install(&world, Tracking::Changes);
    let begun: Vec<_> = flows.iter().map(|flow| balancer.packet(*flow, SYN)).collect();
    assert!(!begun.contains(&Some(1)), "{begun:?}");
    world.backends.insert(1, false);
    balancer.install(&world, Tracking::Changes);
    for (flow, begun) in flows.iter().zip(begun) {
        assert_eq!(balancer.packet(*flow, ACK), begun);
    }
}
