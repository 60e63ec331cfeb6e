//! A world on the host and in the kernel, side by side.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use lb_common::abi::Reason;

use super::{CHUNK, row, shrink};
use crate::cases::{
    case::FULL_HEADROOM,
    invariants,
    machine::{Counter, Ledger, Machine, Outcome, hex},
    site::Site,
    worlds::World,
};

/// What frames are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Sent to a backend.
    Forwarded,
    /// Anything else.
    Reason(Reason),
}

impl Kind {
    fn of(outcome: &Outcome) -> Self {
        match outcome.moved.keys().next() {
            Some(Counter::Reason(reason)) => Self::Reason(*reason),
            _ => Self::Forwarded,
        }
    }
}

/// A frame that something is wrong with.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Frames that have to come before.
    pub before: Vec<Vec<u8>>,
    /// The frame.
    pub frame: Vec<u8>,
    /// What does not hold.
    pub wrong: String,
    /// For the table of cases, to be completed with a sentence.
    pub row: String,
}

/// What one frame led to.
type Judged = Result<Outcome, String>;

/// One world in both machines.
pub struct Pair {
    world: World,
    site: Option<Site>,
    host: Box<dyn Machine>,
    kernel: Box<dyn Machine>,
}

impl Pair {
    /// The machines hold this world, the agent's if there is no site.
    pub fn new(world: World, site: Option<Site>, host: Box<dyn Machine>, kernel: Box<dyn Machine>) -> Self {
        Self { world, site, host, kernel }
    }

    /// Runs a chunk: how many frames became what, or the first fault.
    ///
    /// The kernel's counters are read once, after the last frame, and their sum is compared with what the host
    /// counted. Only if that differs is the chunk run again with a look at the counters after every frame.
    ///
    /// # Errors
    /// When the kernel refuses to run a frame, or its counters cannot be read.
    pub fn run(&mut self, frames: &[Vec<u8>]) -> Result<Result<BTreeMap<Kind, usize>, Box<Fault>>> {
        self.reset();
        self.kernel.counted()?;
        let mut kinds = BTreeMap::new();
        let mut total = Ledger::new();
        for (at, frame) in frames.iter().enumerate() {
            match self.one(frame, false) {
                Ok(outcome) => {
                    *kinds.entry(Kind::of(&outcome)).or_insert(0) += 1;
                    for (counter, by) in outcome.moved {
                        *total.entry(counter).or_insert(0) += by;
                    }
                }
                Err(wrong) => return Ok(Err(Box::new(self.fault(&frames[..at], frame, wrong)))),
            }
        }
        let counted = self.kernel.counted()?;
        if counted == total {
            return Ok(Ok(kinds));
        }
        self.reset();
        for (at, frame) in frames.iter().enumerate() {
            if let Err(wrong) = self.one(frame, true) {
                return Ok(Err(Box::new(self.fault(&frames[..at], frame, wrong))));
            }
        }
        bail!(
            "after {} frames the kernel had counted {counted:?} and the host {total:?}, and not so when they were \
             run once more",
            frames.len()
        )
    }

    fn reset(&mut self) {
        self.host.reset();
        self.kernel.reset();
    }

    /// Judges one frame in both machines; the kernel's counters too, if told so.
    fn one(&mut self, frame: &[u8], counters: bool) -> Judged {
        let host = self.host.run(frame, FULL_HEADROOM).map_err(|e| format!("host: {e:#}"))?;
        match &self.site {
            Some(site) => {
                let snapshot = site.snapshot.as_ref().ok_or("nothing is installed")?;
                invariants::balancer(frame, &host, snapshot, self.host.as_ref())
            }
            None => invariants::agent(frame, &host),
        }
        .map_err(|wrong| format!("{wrong}\n    {host}"))?;
        let found = if counters {
            self.kernel.run(frame, FULL_HEADROOM)
        } else {
            self.kernel.run_uncounted(frame, FULL_HEADROOM)
        };
        let kernel = found.map_err(|e| format!("kernel: {e:#}"))?;
        let same = kernel.code == host.code
            && kernel.output == host.output
            && (!counters || kernel.moved == host.moved);
        if same { Ok(host) } else { Err(format!("host   {host}\n    kernel {kernel}")) }
    }

    /// What is wrong with the last of these frames on fresh state.
    fn complaint(&mut self, before: &[Vec<u8>], frame: &[u8]) -> Option<String> {
        self.reset();
        for frame in before {
            // What was wrong with those is another fault.
            drop(self.one(frame, false));
        }
        // Counters move with what came before.
        drop(self.kernel.counted());
        self.one(frame, true).err()
    }

    /// The shortest frame at fault that can be found, and a row of it.
    fn fault(&mut self, before: &[Vec<u8>], frame: &[u8], wrong: String) -> Fault {
        debug_assert!(before.len() < CHUNK, "a fault happens inside a chunk");
        let whole = Fault { before: before.to_vec(), frame: frame.to_vec(), wrong, row: String::new() };
        let mut before = if self.complaint(&[], frame).is_some() {
            Vec::new()
        } else {
            shrink::frames(before, |fewer| self.complaint(fewer, frame).is_some())
        };
        let Some(_) = self.complaint(&before, frame) else {
            // It needs more than what came before in its chunk: nothing of it is left out.
            return Fault { row: format!("not again on fresh state: {}", hex(frame)), ..whole };
        };
        for at in 0..before.len() {
            let shorter = shrink::bytes(&before[at].clone(), |shorter| {
                before[at] = shorter.to_vec();
                self.complaint(&before, frame).is_some()
            });
            before[at] = shorter;
        }
        let frame = shrink::bytes(frame, |shorter| self.complaint(&before, shorter).is_some());
        let wrong = self.complaint(&before, &frame).unwrap_or(whole.wrong);
        self.reset();
        for frame in &before {
            drop(self.host.run(frame, FULL_HEADROOM));
        }
        let row = match self.host.run(&frame, FULL_HEADROOM) {
            Ok(outcome) => row::of(self.world, &before, &frame, &outcome, self.member_of(&outcome)),
            Err(error) => format!("{error:#}"),
        };
        Fault { before, frame, wrong, row }
    }

    /// Service and member that a counter belongs to, by their identities.
    fn member_of(&self, outcome: &Outcome) -> Option<(u64, u64)> {
        let services = &self.site.as_ref()?.snapshot.as_ref()?.services;
        let Some(Counter::Packets(counter)) = outcome.moved.keys().next() else { return None };
        services.iter().find_map(|service| {
            let member = service
                .members
                .iter()
                .flatten()
                .find(|member| self.host.counter(service.identity, member.identity) == Some(*counter))?;
            Some((service.identity, member.identity))
        })
    }
}
