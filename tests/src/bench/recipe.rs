//! What is measured: a program, what it was given, and what it is sent.

use std::{net::Ipv4Addr, path::Path};

use anyhow::{Result, bail, ensure};
use lb_userspace::control::model::Snapshot;

use super::{
    object::{Bench, Service, Sizes, Source},
    runner::{Expect, Runner},
    world::{self, Balancer, CLIENT4, PORT, SLOTS, VIP4},
};
use crate::{
    cases::{
        cast::{CLIENT, STRANGER, WEB},
        site::{self, MemberExt as _},
    },
    packet::{self, Packet},
};

/// A program under test. Each recipe gets maps of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Program {
    /// A program of the benchmark's object without the wrapper.
    Bare(&'static str),
    /// A program of the benchmark's object that does as its name says.
    Floor(&'static str),
    /// One of the yardsticks with maps.
    Plain(&'static str),
    /// The balancer.
    Lb(World),
}

/// What the balancer was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum World {
    /// One service in the default configuration, so many backends behind IPv4 tunnels.
    Ipip(u32),
    /// Its backends are on the same link.
    L2,
    /// Its backends are behind GUE in IPv4.
    Gue,
    /// Its backends are translated to, with another port than the service's.
    Nat,
    /// For UDP.
    Udp,
    /// For QUIC, by connection IDs.
    Quic,
    /// Every flow is remembered.
    Always,
    /// Every slot changed its owner a moment ago.
    Unsettled,
    /// A limit per source, never reached.
    Limit,
    /// So many services with one backend each and a table of so many slots: for each, or one for all.
    Services { count: u32, slots: u32, shared: bool },
}

/// What it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Tcp4,
    Syn4,
    Udp4,
    Tcp6,
    /// For somebody who is no service.
    Stranger,
    /// An echo request for a VIP.
    Echo,
    /// QUIC with a short header, whose connection ID is of the configuration with this index.
    Quic4(usize),
}

/// Packets, from so many sources to so many destinations at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Traffic {
    pub(super) kind: Kind,
    pub(super) sources: u32,
    pub(super) destinations: u32,
}

/// A program and its traffic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Recipe {
    pub(super) program: Program,
    pub(super) traffic: Traffic,
}

/// More flows than any table here holds.
pub(super) const FLOOD: u32 = 1 << 24;
/// Backends of a service unless a case is about their number.
pub(super) const BACKENDS: u32 = 16;

impl Traffic {
    pub(super) fn of(kind: Kind, sources: u32) -> Self {
        Self { kind, sources, destinations: 1 }
    }

    pub(super) fn source(self) -> Source {
        let frame: Packet = match self.kind {
            Kind::Tcp4 => packet::tcp(CLIENT4, VIP4, PORT).flags("."),
            Kind::Syn4 => packet::tcp(CLIENT4, VIP4, PORT),
            Kind::Udp4 => packet::udp(CLIENT4, VIP4, PORT),
            Kind::Tcp6 => packet::tcp(CLIENT.v6, WEB.v6, PORT).flags("."),
            Kind::Stranger => packet::tcp(CLIENT4, STRANGER.v4, PORT).flags("."),
            Kind::Echo => packet::echo_request(CLIENT4, VIP4),
            Kind::Quic4(config) => {
                let id = site::connection_id(config, 1);
                packet::udp(CLIENT4, VIP4, PORT).bytes(&[&[0x43][..], &id, &[0x5c; 30]].concat())
            }
        };
        let mut source = Source::new(&frame);
        source.sources = self.sources;
        source.destinations = self.destinations;
        source
    }

    fn service(self) -> Service {
        let address = if self.kind == Kind::Tcp6 { WEB.v6.into() } else { VIP4.into() };
        let protocol = if matches!(self.kind, Kind::Udp4 | Kind::Quic4(_)) { 17 } else { 6 };
        Service { address, protocol, port: PORT }
    }

    /// How often frames must come before all of them have, or, of a flood, before every table is full.
    fn warm_up(self) -> u32 {
        let different = self.sources.max(self.destinations);
        if different <= 1 { 1000 } else { different.saturating_mul(4).min(1 << 23) }
    }
}

impl Recipe {
    pub(super) fn new(program: Program, traffic: Traffic) -> Self {
        Self { program, traffic }
    }

    /// The wrapper around a bare XDP_TX on the same kind of frames: the zero of this recipe.
    pub(super) fn zero(&self) -> Self {
        // What varies costs the wrapper the same, however much there is of it.
        let (sources, destinations) = if self.traffic.source().varies() { (2, 2) } else { (1, 1) };
        let kind = if self.traffic.kind == Kind::Tcp6 { Kind::Tcp6 } else { Kind::Tcp4 };
        Self::new(Program::Floor("transmit"), Traffic { kind, sources, destinations })
    }

    /// Loads it, and lets it see its traffic once.
    pub(super) fn prepare(&self, object: &Path) -> Result<Runner> {
        let source = self.traffic.source();
        let sizes = self.sizes();
        let mut bench = Bench::load(object, sizes, source)?;
        let mut balancer = None;
        let mut bare = None;
        match &self.program {
            Program::Bare(name) => bare = Some(*name),
            Program::Floor(name) => bench.under_test(name)?,
            Program::Plain(name) => {
                let reals: Vec<_> = (0..BACKENDS).map(|i| (world::address(i), world::mac_of(i))).collect();
                bench.set_plain(self.traffic.service(), &reals)?;
                bench.under_test(name)?;
            }
            Program::Lb(world) => {
                let snapshot = world.snapshot(self.traffic)?;
                let (flows, limits) = (sizes.flows / 8, sizes.limits / 8);
                let capacity = world::room_for(&snapshot, flows, limits);
                let mut loaded = Balancer::new(&snapshot, &capacity)?;
                let program = lb_userspace::dataplane::balancer(&mut loaded.ebpf)?;
                bench.jump_to(&program.fd()?.try_clone()?)?;
                balancer = Some(loaded);
            }
        }
        let mut runner = Runner::new(self.clone(), bench, bare, balancer);
        runner.warm_up(self.traffic.warm_up())?;
        self.check_state(&runner)?;
        Ok(runner)
    }

    /// Where flows are remembered, nearly all must be: else what is measured is something else.
    fn check_state(&self, runner: &Runner) -> Result<()> {
        let remembered = matches!(self.program, Program::Lb(World::Always | World::Unsettled));
        let Some(balancer) = runner.balancer.as_ref().filter(|_| remembered) else { return Ok(()) };
        let (flows, wanted) = (balancer.flows(), u64::from(self.traffic.sources.min(FLOOD / 32)));
        ensure!(flows >= wanted / 100 * 98, "only {flows} of {wanted} flows are in the flow table");
        Ok(())
    }

    /// Twice the room that the traffic needs, and a power of two.
    fn sizes(&self) -> Sizes {
        let wanted = self.traffic.sources.saturating_mul(2).next_power_of_two();
        let flood = self.traffic.sources >= FLOOD;
        let flows = if flood { 1 << 21 } else { wanted.clamp(1 << 16, 1 << 25) };
        let remembers = match &self.program {
            Program::Plain(name) => *name != "plain_limit" && *name != "plain_parse",
            Program::Lb(world) => matches!(world, World::Always | World::Unsettled),
            Program::Bare(_) | Program::Floor(_) => false,
        };
        let limits = match &self.program {
            Program::Plain("plain_limit") | Program::Lb(World::Limit) => wanted.clamp(1 << 17, 1 << 21),
            _ => 1 << 10,
        };
        Sizes { flows: if remembers { flows } else { 1 << 10 }, limits }
    }

    /// What becomes of the frame.
    pub(super) fn expect(&self) -> Result<Expect> {
        Ok(match (&self.program, self.traffic.kind) {
            (Program::Bare("pass") | Program::Floor("pass"), _) => Expect::Passed,
            (Program::Bare("transmit" | "swap") | Program::Floor("transmit"), _) => Expect::Sent,
            (Program::Floor("swap"), _) => Expect::Rewritten,
            (Program::Floor("encapsulate"), _) => Expect::Encapsulated,
            (Program::Plain(_) | Program::Lb(_), Kind::Stranger) => Expect::Passed,
            (Program::Plain(_), Kind::Echo) => Expect::Passed,
            (Program::Lb(_), Kind::Echo) => Expect::Answered,
            (Program::Plain("plain_l2") | Program::Lb(World::L2), _) => Expect::Rewritten,
            (Program::Lb(World::Gue), _) => Expect::Gue,
            (Program::Plain("plain_nat") | Program::Lb(World::Nat), _) => Expect::Translated,
            (Program::Plain(_) | Program::Lb(_), _) => Expect::Encapsulated,
            (Program::Bare(name) | Program::Floor(name), _) => bail!("what does {name} do?"),
        })
    }
}

impl World {
    fn snapshot(&self, traffic: Traffic) -> Result<Snapshot> {
        let vip = traffic.service().address;
        let one = |backends, like| {
            let members = world::members(backends, like);
            world::service(vip, members, SLOTS)
        };
        let service = match self {
            Self::Ipip(backends) => one(*backends, site::ipip4)?,
            Self::Gue => one(BACKENDS, site::gue4)?,
            Self::L2 => one(BACKENDS, site::l2)?,
            Self::Nat => one(BACKENDS, |name| site::nat4(name, Ipv4Addr::UNSPECIFIED).port(8080))?,
            Self::Udp => world::udp(one(BACKENDS, site::ipip4)?),
            Self::Quic => world::quic(one(BACKENDS, |name| {
                let number = name.trim_start_matches('b').parse().unwrap_or(0);
                site::ipip4(name).server_id(number)
            })?),
            Self::Always => world::always(one(BACKENDS, site::ipip4)?),
            Self::Unsettled => {
                let members = world::members(BACKENDS, site::ipip4);
                let table = world::table(&members, SLOTS)?;
                let (marked, old) = world::unsettled(&table);
                world::service(vip, members, SLOTS)?.unsettled(marked, old)
            }
            Self::Limit => one(BACKENDS, site::ipip4)?.limit(50_000_000, u32::MAX),
            Self::Services { count, slots, shared } => {
                return world::many_services(*count, *slots, *shared);
            }
        };
        world::snapshot(vec![service])
    }
}
