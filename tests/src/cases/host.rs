//! The pipeline on the host: the same functions as in XDP, over plain memory and a clock that stands still.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_common::{
    abi::{BUCKET_ENTRIES, Peer},
    datapath::{Action, AgentTables, Cut, Packet, Route, Verdict, Wanted, balance, decapsulate, mapped},
};
use lb_userspace::dataplane::{Clock, Grace, HostPacket, HostTables, Installer, Memory};

use super::{
    agent::{GUE_PORT, KNOWN_PORT, PEERS, VIPS, believes},
    cast::INGRESS,
    machine::{Code, Machine, Outcome, ledger},
    site::{CAPACITY, Site},
};

/// The clock of the host's worlds: 250 ticks per second, and a time that is nothing special.
pub const CLOCK: Clock =
    Clock { ticks_per_second: 250, jiffies: 4_300_000_000, nanoseconds: 17_200_000_000_000 };

/// A frame whose headroom is limited, as the kernel's is.
struct Limited {
    frame: HostPacket,
    headroom: usize,
}

impl Packet for Limited {
    fn length(&self) -> usize {
        self.frame.length()
    }
    fn at<const N: usize>(&self, offset: usize) -> Result<&[u8; N], Cut> {
        self.frame.at(offset)
    }
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Result<&mut [u8; N], Cut> {
        self.frame.at_mut(offset)
    }
    fn grow<const N: usize>(&mut self) -> Result<(), Cut> {
        self.headroom = self.headroom.checked_sub(N).ok_or(Cut)?;
        self.frame.grow::<N>()
    }
    fn shrink<const N: usize>(&mut self) -> Result<(), Cut> {
        self.frame.shrink::<N>()
    }
    fn truncate(&mut self, length: usize) {
        self.frame.truncate(length);
    }
    fn skipped(&self) -> usize {
        self.frame.skipped()
    }
    fn skip(&mut self, bytes: usize) {
        self.frame.skip(bytes);
    }
}

/// A balancer of this site on the host; an agent where there is none.
pub fn machine(site: Option<&Site>) -> Result<Box<dyn Machine>> {
    Ok(match site {
        Some(site) => Box::new(HostBalancer::new(site)?),
        None => Box::new(HostAgent::new()),
    })
}

/// A balancer on the host.
pub struct HostBalancer {
    memory: Memory,
    installer: Installer,
    mac: Option<[u8; 6]>,
    routes: Option<fn(&Wanted) -> Route>,
    now: Duration,
}

impl HostBalancer {
    /// With this site installed.
    ///
    /// # Errors
    /// When the snapshot cannot be installed.
    pub fn new(site: &Site) -> Result<Self> {
        let mut installer = Installer::new(Memory::heap(&CAPACITY), CLOCK, Grace::none());
        if let Some(snapshot) = &site.snapshot {
            installer.install(snapshot).context("the snapshot of the world")?;
        }
        // The installer owns what it wrote; patches go to a copy.
        let mut memory = copied(installer.memory());
        (site.patch)(&mut memory);
        Ok(Self { memory, installer, mac: site.mac, routes: site.routes, now: Duration::ZERO })
    }

    fn verdict(&self, frame: &mut impl Packet) -> Verdict {
        let mut tables = HostTables::new(&self.memory);
        let ticks = self.now.as_nanos() * u128::from(CLOCK.ticks_per_second) / 1_000_000_000;
        tables.jiffies.set(CLOCK.jiffies + ticks as u64);
        tables.nanoseconds.set(CLOCK.nanoseconds + self.now.as_nanos() as u64);
        tables.interfaces.extend(self.mac.map(|mac| (INGRESS, mac)));
        if let Some(routes) = self.routes {
            tables.routes = routes;
        }
        balance(frame, &tables, INGRESS)
    }
}

fn copied(from: &Memory) -> Memory {
    let mut to = Memory::heap(&from.capacity());
    to.control.as_mut_slice().copy_from_slice(from.control.as_slice());
    to.globals.as_mut_slice().copy_from_slice(from.globals.as_slice());
    to.vips4.as_mut_slice().copy_from_slice(from.vips4.as_slice());
    to.vips6.as_mut_slice().copy_from_slice(from.vips6.as_slice());
    to.ports.as_mut_slice().copy_from_slice(from.ports.as_slice());
    to.services.as_mut_slice().copy_from_slice(from.services.as_slice());
    to.service_info.as_mut_slice().copy_from_slice(from.service_info.as_slice());
    to.slots.as_mut_slice().copy_from_slice(from.slots.as_slice());
    to.slot_meta.as_mut_slice().copy_from_slice(from.slot_meta.as_slice());
    to.candidates.as_mut_slice().copy_from_slice(from.candidates.as_slice());
    to.quic.as_mut_slice().copy_from_slice(from.quic.as_slice());
    to.backends.as_mut_slice().copy_from_slice(from.backends.as_slice());
    to.replies.as_mut_slice().copy_from_slice(from.replies.as_slice());
    to.backend_info.as_mut_slice().copy_from_slice(from.backend_info.as_slice());
    to
}

fn outcome(verdict: Verdict, frame: Limited) -> Outcome {
    Outcome {
        code: Code::from(verdict.action()),
        ifindex: match verdict.action() {
            Action::Redirect(ifindex) => Some(ifindex),
            Action::Pass | Action::Drop | Action::Transmit => None,
        },
        output: frame.frame.bytes,
        moved: ledger(verdict.cause()),
    }
}

impl Machine for HostBalancer {
    fn reset(&mut self) {
        self.memory.limits.as_mut_slice().fill([0; BUCKET_ENTRIES]);
        self.memory.flows.as_mut_slice().fill([0; BUCKET_ENTRIES]);
        self.now = Duration::ZERO;
    }

    fn run(&mut self, frame: &[u8], headroom: usize) -> Result<Outcome> {
        let mut frame = Limited { frame: HostPacket::new(frame.to_vec()), headroom };
        let verdict = self.verdict(&mut frame);
        Ok(outcome(verdict, frame))
    }

    fn least_headroom(&self) -> usize {
        0
    }

    fn pass_time(&mut self, pause: Duration) {
        self.now += pause;
    }

    fn counter(&self, service: u64, member: u64) -> Option<u32> {
        self.installer.counter(service, member)
    }
}

/// An agent on the host.
pub struct HostAgent {
    vips: BTreeSet<[u32; 4]>,
    peers: BTreeMap<[u32; 4], Peer>,
    /// Source port of the connections that its host has.
    known: Option<u16>,
}

impl HostAgent {
    /// As [`super::agent`] says it was told.
    pub fn new() -> Self {
        let key = |address: &IpAddr| match address {
            IpAddr::V4(a) => mapped(u32::from_ne_bytes(a.octets())),
            IpAddr::V6(a) => words(a.octets()),
        };
        Self {
            vips: VIPS.iter().map(key).collect(),
            peers: PEERS.iter().map(|p| (key(&p.0), p.1)).collect(),
            known: Some(KNOWN_PORT),
        }
    }

    /// The same on a host without connections, like the kernel's here.
    pub fn without_connections() -> Self {
        Self { known: None, ..Self::new() }
    }

    fn is_known(&self, packet: &Limited, tcp: usize) -> bool {
        packet.at::<2>(tcp).is_ok_and(|port| Some(u16::from_be_bytes(*port)) == self.known)
    }
}

impl Default for HostAgent {
    fn default() -> Self {
        Self::new()
    }
}

fn words(octets: [u8; 16]) -> [u32; 4] {
    let word = |i: usize| u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]);
    [word(0), word(4), word(8), word(12)]
}

impl AgentTables<Limited> for HostAgent {
    fn knows_source4(&self, address: u32) -> bool {
        believes(IpAddr::from(address.to_ne_bytes()))
    }
    fn knows_source6(&self, address: [u32; 4]) -> bool {
        let mut octets = [0; 16];
        for (bytes, word) in octets.chunks_exact_mut(4).zip(address) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        believes(IpAddr::from(octets))
    }
    fn knows_vip(&self, address: [u32; 4]) -> bool {
        self.vips.contains(&address)
    }
    fn gue_port(&self) -> u16 {
        GUE_PORT
    }
    fn peer(&self, address: [u32; 4]) -> Option<&Peer> {
        self.peers.get(&address)
    }
    fn knows4(&self, packet: &mut Limited, _ip: usize, tcp: usize) -> bool {
        self.is_known(packet, tcp)
    }
    fn knows6(&self, packet: &mut Limited, _ip: usize, tcp: usize) -> bool {
        self.is_known(packet, tcp)
    }
}

impl Machine for HostAgent {
    fn reset(&mut self) {}

    fn run(&mut self, frame: &[u8], headroom: usize) -> Result<Outcome> {
        let mut frame = Limited { frame: HostPacket::new(frame.to_vec()), headroom };
        let verdict = decapsulate(&mut frame, self, INGRESS);
        Ok(outcome(verdict, frame))
    }

    fn least_headroom(&self) -> usize {
        0
    }

    fn pass_time(&mut self, _pause: Duration) {}

    fn counter(&self, _service: u64, _member: u64) -> Option<u32> {
        None
    }
}
