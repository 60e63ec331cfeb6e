//! Live connections while millions of packets from tuples that nobody has go through the same service, and the table
//! changes before, meanwhile and afterwards. A balancer that remembers flows in a kernel LRU of the same memory sees the
//! same packets and the same changes.

use std::{
    net::{SocketAddr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lb_userspace::config::{Affinity, Forward, Protocol};
use serde::Serialize;

use super::{
    LINES, Outcome, PERIOD, Size,
    generator::Generator,
    many_files, say,
    talkers::{Plan, Talkers},
};
use crate::{
    lb_config::{Capacity, Health, LbConfig, Ports},
    site::Site,
    topology::World,
};

/// `flow_table.capacity`: the power of two that holds 200,000 flows.
const TABLE: u32 = 262_144;
/// Bytes of an entry of the flow table.
const ENTRY: u64 = 8;
/// Packets between two looks at what goes on.
const PORTION: u32 = 16_384;
/// Source port that the connections have towards the other balancer: theirs, which nobody else's needs to be.
const PORT: u16 = 40_000;
/// For what a busy machine does sooner or later.
const LIMIT: Duration = Duration::from_secs(180);
const QUOTED: usize = 10;

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Connections at any time.
    pub connections: usize,
    /// Packets of the flood that were made.
    pub sent: u64,
    /// Packets that the balancer forwarded meanwhile.
    pub packets: u64,
    /// Flows that fit in the table.
    pub capacity: u64,
    /// Flows that were in it when the flood ended.
    pub used: u64,
    /// Scale events.
    pub events: usize,
    /// Connections that broke: their packets went to another backend.
    pub moved: usize,
    /// Connections that a balancer over a kernel LRU of the same memory would have sent elsewhere.
    pub kernel_lru_moved: usize,
    /// Packets of the flood a second.
    pub packets_per_second: u64,
    /// Lines that were answered.
    pub lines: u64,
    /// The first ends of connections, in words.
    pub broken: Vec<String>,
}

impl Outcome for Report {
    fn complaints(&self) -> Vec<String> {
        let mut complaints = self.broken.clone();
        if self.moved > 0 {
            complaints.push(format!("{} connections moved", self.moved));
        }
        complaints
    }
}

/// The connections as the other balancer has them.
struct Other {
    sources: Vec<SocketAddrV4>,
    target: SocketAddrV4,
    /// Where each was first, and whether it has moved.
    members: Vec<(u32, bool)>,
    /// Packets of connections so far: each connection has one a period, and they take turns.
    asked: usize,
    start: Instant,
}

/// Runs it.
///
/// # Errors
/// When a part of the site does not do its part.
pub fn run(size: Size, seed: u64) -> Result<Report> {
    let (connections, packets) = match size {
        Size::Ci => (200, 600_000),
        Size::Full => (1000, 10_000_000),
    };
    many_files()?;
    let site = site()?;
    let SocketAddr::V4(target) = site.vip4(LINES) else { bail!("the VIP is no IPv4 address") };
    let router = site.world.router.as_ref().context("this world has a router")?.ns.entry();
    let memory = capacity(&site)? * ENTRY;
    let mut generator = Generator::new(router, "p-lb", target, memory, seed)?;
    generator.set_weights(&[100; 4])?;

    let plan = |i: usize| {
        let source = SocketAddr::from((World::source_v4(i as u16), 0));
        Plan { service: "web", source, target: target.into() }
    };
    let talkers = Talkers::start(&site.world.client.ns.entry(), (0..connections).map(plan).collect())?;
    talkers.wait_round(LIMIT)?;
    let mut other = Other::new(connections, target, &mut generator)?;
    say(&format!("{} connections", talkers.living()));

    // Before.
    let b5 = site.world.backend(5)?.v4.to_string();
    site.lb.cli(&["backend", "add", "web/b5", "--address", &b5])?;
    site.wait("b5 to have slots", |view| view.slots("web/b5") > 0)?;
    generator.set_weights(&[100; 5])?;
    talkers.wait_round(LIMIT)?;
    // It has seen each of them more than once by now, as we have.
    other.ask_all(&mut generator)?;
    // Meanwhile.
    let start = Instant::now();
    let before = forwarded(&site)?;
    let mut events = 1;
    while forwarded(&site)? - before < packets {
        generator.send(PORTION)?;
        other.ask(&mut generator)?;
        let done = forwarded(&site)? - before;
        if events < 2 && done >= packets / 3 {
            site.lb.cli(&["backend", "drain", "web/b2"])?;
            generator.set_weights(&[100, 0, 100, 100, 100])?;
            events = 2;
        } else if events < 3 && done >= packets / 3 * 2 {
            site.lb.cli(&["backend", "set", "web/b1", "--weight", "300"])?;
            generator.set_weights(&[300, 0, 100, 100, 100])?;
            events = 3;
        }
    }
    let took = start.elapsed();
    let packets = forwarded(&site)? - before;
    // Afterwards.
    let used = site.view()?.0["flow_table"]["used"].as_u64().unwrap_or_default();
    talkers.wait_round(LIMIT)?;
    site.lb.cli(&["backend", "enable", "web/b2"])?;
    generator.set_weights(&[300, 100, 100, 100, 100])?;
    talkers.wait_round(LIMIT)?;
    talkers.wait_round(LIMIT)?;
    other.ask_all(&mut generator)?;

    let (capacity, sent) = (capacity(&site)?, generator.made()?);
    let lives = talkers.finish()?;
    let broken: Vec<_> = lives.all.iter().filter(|life| life.broken.is_some()).collect();
    Ok(Report {
        connections,
        sent,
        packets,
        capacity,
        used,
        events: events + 1,
        moved: broken.len(),
        kernel_lru_moved: other.members.iter().filter(|(_, moved)| *moved).count(),
        packets_per_second: packets * 1000 / u64::try_from(took.as_millis())?.max(1),
        lines: lives.lines,
        broken: broken.iter().take(QUOTED).map(|life| format!("{life:?}")).collect(),
    })
}

impl Other {
    fn new(connections: usize, target: SocketAddrV4, generator: &mut Generator) -> Result<Self> {
        let source = |i: usize| match World::source_v4(i as u16) {
            std::net::IpAddr::V4(address) => Ok(SocketAddrV4::new(address, PORT)),
            std::net::IpAddr::V6(address) => bail!("{address} is no IPv4 address"),
        };
        let sources = (0..connections).map(source).collect::<Result<Vec<_>>>()?;
        let members = sources
            .iter()
            .map(|source| Ok((generator.remembered(*source, target)?, false)))
            .collect::<Result<_>>()?;
        Ok(Self { sources, target, members, asked: 0, start: Instant::now() })
    }

    /// The packets that are due, when each connection has one a period as the real ones have, one after the other.
    fn ask(&mut self, generator: &mut Generator) -> Result<()> {
        let periods = self.start.elapsed().as_secs_f64() / PERIOD.as_secs_f64();
        let due = (periods * self.sources.len() as f64) as usize;
        // After a pause nobody has sent more than one.
        self.asked = self.asked.max(due.saturating_sub(self.sources.len()));
        for turn in self.asked..due {
            self.ask_one(turn % self.sources.len(), generator)?;
        }
        self.asked = due;
        Ok(())
    }

    fn ask_all(&mut self, generator: &mut Generator) -> Result<()> {
        (0..self.sources.len()).try_for_each(|which| self.ask_one(which, generator))
    }

    fn ask_one(&mut self, which: usize, generator: &mut Generator) -> Result<()> {
        let (first, moved) = &mut self.members[which];
        *moved |= generator.remembered(self.sources[which], self.target)? != *first;
        Ok(())
    }
}

/// Packets that the service has forwarded.
fn forwarded(site: &Site) -> Result<u64> {
    site.view()?.service("web")["packets"].as_u64().context("the service has a number of packets")
}

fn capacity(site: &Site) -> Result<u64> {
    site.view()?.0["flow_table"]["capacity"].as_u64().context("the flow table has a capacity")
}

fn site() -> Result<Site> {
    let world = World::one_arm().backends(5).prepared().build()?;
    let mut config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    config.daemon.flow_table = Some(Capacity { capacity: TABLE });
    let service = &mut config.services[0];
    service.ports = Ports::Numbers(vec![LINES]);
    service.protocol = Protocol::Both;
    service.affinity = Affinity::Addresses;
    service.backends.truncate(4);
    // The flood and the servers share the machine's processors: only what is killed shall fail.
    service.health = Health { interval: "10s".into(), timeout: "10s".into(), rise: 1, ..Health::default() };
    Site::start(world, config)
}
