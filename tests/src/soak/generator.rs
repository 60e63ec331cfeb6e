//! The programs of `lb-ebpf/src/harness/flood.rs`: packets from tuples that nobody has, and a balancer over a kernel LRU
//! that sees the same packets.

use std::net::SocketAddrV4;

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunAttrs, TestRunOptions,
    maps::{Array, MapData},
    programs::Xdp,
};
use lb_userspace::{
    control::maglev::{self, Member, Scratch},
    dataplane::HARNESS_OBJECT,
};

use crate::{netdev, netns::Entry};

/// Slots of the other balancer's table, as in the harness.
const SLOTS: u32 = 16_381;
/// 198.18.0.0/15, all of it: the clients' own addresses are among the sources.
const SOURCES: (u32, u32) = (0xc612_0000, 0x0001_ffff);
/// Bytes that the kernel takes for an element of an LRU with a key of 40 bytes: its head, key and value, and its part
/// of the buckets and lists. Measured with larger ones it is more.
const ELEMENT: u64 = 112;
/// Frames that are in flight at once: fewer than what a veth pair keeps in its ring.
const BATCH: u32 = 64;
const FRAME: usize = 60;

/// Both programs, in the namespace that the flood comes from.
pub(super) struct Generator {
    ebpf: Ebpf,
    ns: Entry,
    interface: u32,
}

impl Generator {
    /// Sends to `target` out of `device`; the other balancer has `bytes` of memory for what it remembers.
    ///
    /// # Errors
    /// When the kernel refuses the programs, or there is no such device.
    pub(super) fn new(ns: Entry, device: &str, target: SocketAddrV4, bytes: u64, seed: u64) -> Result<Self> {
        let interface = ns.run(|| netdev::index(device))?;
        let elements = u32::try_from(bytes / ELEMENT)?;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("REMEMBERED", elements)
            .load(HARNESS_OBJECT)
            .context("loading the harness")?;
        for name in ["flood", "remembered"] {
            program(&mut ebpf, name)?.load().with_context(|| format!("loading the program {name}"))?;
        }
        // Plan of the harness: seed, made, interface, MAC addresses, target, sources, whether the LRU sees it.
        let target = u64::from(target.ip().to_bits()) << 32 | u64::from(target.port());
        let sources = u64::from(SOURCES.0) << 32 | u64::from(SOURCES.1);
        let macs = [0x0200_5e00_0001_0200, 0x5e00_0002];
        let plan = [seed, 0, u64::from(interface), macs[0], macs[1], target, sources, 1];
        flood_map(&mut ebpf)?.set(0, plan, 0)?;
        Ok(Self { ebpf, ns, interface })
    }

    /// Sends `packets` more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn send(&mut self, packets: u32) -> Result<()> {
        let Self { ebpf, ns, interface } = self;
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let mut context = [0u8; 24];
        context[4..8].copy_from_slice(&(FRAME as u32).to_ne_bytes());
        context[12..16].copy_from_slice(&interface.to_ne_bytes());
        let frame = [0u8; FRAME];
        let program = program(ebpf, "flood")?;
        ns.run(|| {
            program
                .test_run(TestRunOptions {
                    data_in: Some(&frame),
                    ctx_in: Some(&context),
                    repeat: packets,
                    attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                    ..TestRunOptions::new()
                })
                .context("sending a flood")?;
            Ok(())
        })
    }

    /// Packets that were made.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(super) fn made(&mut self) -> Result<u64> {
        Ok(flood_map(&mut self.ebpf)?.get(&0, 0)?[1])
    }

    /// Gives the other balancer a table over members of these weights.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn set_weights(&mut self, weights: &[u32]) -> Result<()> {
        let members: Vec<_> =
            (1..).zip(weights).map(|(identity, weight)| Member { identity, weight: *weight }).collect();
        let table = maglev::build(&members, SLOTS, &[7; 32], &mut Scratch::default())?;
        let map = self.ebpf.map_mut("OWNERS").context("the harness has no OWNERS")?;
        let mut owners: Array<&mut MapData, u32> = Array::try_from(map)?;
        for (index, owner) in (0..).zip(&table) {
            owners.set(index, u32::from(*owner), 0)?;
        }
        Ok(())
    }

    /// The member that the other balancer sends a packet of this connection to.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn remembered(&mut self, source: SocketAddrV4, target: SocketAddrV4) -> Result<u32> {
        let mut frame = [0u8; FRAME];
        frame[26..30].copy_from_slice(&source.ip().octets());
        frame[30..34].copy_from_slice(&target.ip().octets());
        frame[34..36].copy_from_slice(&source.port().to_be_bytes());
        frame[36..38].copy_from_slice(&target.port().to_be_bytes());
        let program = program(&mut self.ebpf, "remembered")?;
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
        let member = program.test_run(options).context("asking the other balancer")?.return_value;
        if member >= SLOTS {
            bail!("the other balancer has no member for {source}");
        }
        Ok(member)
    }
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("the harness has no program {name}"))?;
    Ok(program.try_into()?)
}

fn flood_map(ebpf: &mut Ebpf) -> Result<Array<&mut MapData, [u64; 8]>> {
    Ok(Array::try_from(ebpf.map_mut("FLOOD").context("the harness has no FLOOD")?)?)
}
