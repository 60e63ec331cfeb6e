//! The programs in the kernel, run by BPF_PROG_TEST_RUN over maps that the installer wrote.

use std::{net::IpAddr, os::fd::AsFd as _, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, LpmTrie, Map, MapData, lpm_trie::Key},
    programs::Xdp,
};
use lb_common::abi::{AgentSettings, BUCKET_ENTRIES, Peer, maps};
use lb_userspace::dataplane::{
    self, AGENT_OBJECT, Grace, Installer, Loaded, Memory, Region, balancer, set_interface,
};

use super::{
    agent::{GUE_PORT, PEERS, SOURCES, VIPS},
    case::FULL_HEADROOM,
    cast::INGRESS,
    machine::{Code, Counter, Ledger, Machine, Outcome},
    routes,
    site::{CAPACITY, Site},
};

use crate::netns::Namespace;

/// Bytes of `struct xdp_md` that the kernel takes.
const CONTEXT: usize = 24;
/// The longest metadata that a driver may put before a frame: one byte less four for alignment, and what older kernels
/// take (`xdp_metalen_invalid`, include/net/xdp.h).
const MOST_METADATA: usize = 252;
const MOST_METADATA_ONCE: usize = 32;

/// Says in one sentence what is missing, if the rows cannot be run in the kernel.
///
/// # Errors
/// That sentence.
pub fn permitted() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the kernel's half of the packet cases loads BPF programs: run it as root (`sudo -E cargo test …`)"
    );
    Ok(())
}

/// A balancer of this site in the kernel; an agent where there is none.
pub fn machine(site: Option<&Site>) -> Result<Box<dyn Machine>> {
    Ok(match site {
        Some(site) => Box::new(KernelBalancer::new(site)?),
        None => Box::new(KernelAgent::new()?),
    })
}

/// A balancer in the kernel.
pub struct KernelBalancer {
    ebpf: Ebpf,
    installer: Installer,
    /// The same maps, mapped a second time: for patches, and to empty the rate limiter.
    memory: Memory,
    /// The counters after the last frame.
    counters: Ledger,
    least_headroom: usize,
    /// Where frames come in, if not here.
    elsewhere: Option<Namespace>,
}

impl KernelBalancer {
    /// Loads the object and installs this site in its maps.
    ///
    /// # Errors
    /// When the kernel refuses the program or the snapshot cannot be installed.
    pub fn new(site: &Site) -> Result<Self> {
        let Loaded { mut ebpf, memory, clock, .. } = dataplane::load(None, &CAPACITY)?;
        let mut installer = Installer::new(memory, clock, Grace::none());
        if let Some(snapshot) = &site.snapshot {
            installer.install(snapshot).context("the snapshot of the world")?;
        }
        let mut memory = mapped_again(&ebpf)?;
        (site.patch)(&mut memory);
        if let Some(mac) = site.mac {
            set_interface(&mut ebpf, INGRESS, mac)?;
        }
        let least_headroom = least_headroom(balancer(&mut ebpf)?);
        let counters = read_counters(&ebpf)?;
        let elsewhere = site.routes.map(|_| routes::namespace()).transpose()?;
        Ok(Self { ebpf, installer, memory, counters, least_headroom, elsewhere })
    }
}

fn read_reasons(ebpf: &Ebpf) -> Result<Ledger> {
    Ok(dataplane::reasons(ebpf)?
        .into_iter()
        .map(|(reason, count)| (Counter::Reason(reason), count))
        .collect())
}

/// Every counter of a balancer, of all members that there is room for.
fn read_counters(ebpf: &Ebpf) -> Result<Ledger> {
    let mut ledger = read_reasons(ebpf)?;
    let indices: Vec<u32> = (0..CAPACITY.backends).collect();
    for (index, counter) in indices.iter().zip(dataplane::forwarded(ebpf, &indices)?) {
        ledger.insert(Counter::Packets(*index), counter.packets);
        ledger.insert(Counter::Bytes(*index), counter.bytes);
    }
    Ok(ledger)
}

fn moved(before: &Ledger, after: &Ledger) -> Ledger {
    let difference = |(counter, count): (&Counter, &u64)| {
        let by = count.wrapping_sub(before.get(counter).copied().unwrap_or_default());
        (by != 0).then_some((*counter, by))
    };
    after.iter().filter_map(difference).collect()
}

fn mapped_again(ebpf: &Ebpf) -> Result<Memory> {
    let capacity = &CAPACITY;
    Ok(Memory {
        control: region(ebpf, maps::CONTROL, 1)?,
        globals: region(ebpf, maps::GLOBALS, 2)?,
        vips4: region(ebpf, maps::VIPS4, capacity.vip_cells * 2)?,
        vips6: region(ebpf, maps::VIPS6, capacity.vip_cells * 2)?,
        ports: region(ebpf, maps::PORTS, capacity.port_cells * 2)?,
        services: region(ebpf, maps::SERVICES, capacity.services * 2)?,
        service_info: region(ebpf, maps::SERVICE_INFO, capacity.services * 2)?,
        slots: region(ebpf, maps::SLOTS, capacity.slots / 4)?,
        slot_meta: region(ebpf, maps::SLOT_META, capacity.slots / 2)?,
        candidates: region(ebpf, maps::CANDIDATES, capacity.slots)?,
        flows: region(ebpf, maps::FLOWS, capacity.flow_buckets)?,
        old_flows: region(ebpf, maps::FLOWS_OLD, capacity.old_flow_buckets)?,
        backends: region(ebpf, maps::BACKENDS, capacity.backends)?,
        backend_info: region(ebpf, maps::BACKEND_INFO, capacity.backends)?,
        quic: region(ebpf, maps::QUIC, 16)?,
        limits: region(ebpf, maps::LIMITS, capacity.limit_buckets)?,
        replies: region(ebpf, maps::REPLIES, capacity.reply_cells * 2)?,
    })
}

fn region<T: Pod>(ebpf: &Ebpf, name: &'static str, length: u32) -> Result<Region<T>> {
    let Some(Map::Array(data)) = ebpf.map(name) else { bail!("the object has no array {name}") };
    Region::map(data.fd().as_fd(), length as usize).with_context(|| format!("mapping {name} once more"))
}

/// Tries out how much headroom this kernel lets be taken away. Counts a packet.
fn least_headroom(program: &Xdp) -> usize {
    let most = FULL_HEADROOM - FULL_HEADROOM.min(MOST_METADATA);
    if run(program, &[0; 14], most).is_ok() { most } else { FULL_HEADROOM - MOST_METADATA_ONCE }
}

/// Runs a program once. Headroom is taken away by metadata, which the kernel keeps in front of the frame.
fn run(program: &Xdp, frame: &[u8], headroom: usize) -> Result<(Code, Vec<u8>)> {
    let metadata = FULL_HEADROOM - headroom;
    ensure!(metadata <= MOST_METADATA && metadata.is_multiple_of(4), "{metadata} bytes of metadata");
    let data = [vec![0; metadata], frame.to_vec()].concat();
    let mut context = [0u8; CONTEXT];
    // data, data_end and ingress_ifindex of `struct xdp_md` (include/uapi/linux/bpf.h).
    context[..4].copy_from_slice(&(metadata as u32).to_ne_bytes());
    context[4..8].copy_from_slice(&(data.len() as u32).to_ne_bytes());
    context[12..16].copy_from_slice(&INGRESS.to_ne_bytes());
    let mut output = vec![0; data.len() + FULL_HEADROOM];
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(&data),
            data_out: Some(&mut output),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        })
        .with_context(|| {
            format!("BPF_PROG_TEST_RUN of {} bytes with {metadata} bytes of metadata", frame.len())
        })?;
    let length = result.data_size_out as usize;
    let frame = output.get(metadata..length).context("the program left less than its metadata")?;
    Ok((Code::from(result.return_value), frame.to_vec()))
}

impl Machine for KernelBalancer {
    fn reset(&mut self) {
        self.memory.limits.as_mut_slice().fill([0; BUCKET_ENTRIES]);
        self.memory.flows.as_mut_slice().fill([0; BUCKET_ENTRIES]);
    }

    fn run(&mut self, frame: &[u8], headroom: usize) -> Result<Outcome> {
        let outcome = self.run_uncounted(frame, headroom)?;
        Ok(Outcome { moved: self.counted()?, ..outcome })
    }

    fn run_uncounted(&mut self, frame: &[u8], headroom: usize) -> Result<Outcome> {
        let program = balancer(&mut self.ebpf)?;
        let (code, output) = match &self.elsewhere {
            Some(namespace) => namespace.run(|| run(program, frame, headroom))?,
            None => run(program, frame, headroom)?,
        };
        Ok(Outcome { code, ifindex: None, output, moved: Ledger::new() })
    }

    fn counted(&mut self) -> Result<Ledger> {
        let counters = read_counters(&self.ebpf)?;
        let moved = moved(&self.counters, &counters);
        self.counters = counters;
        Ok(moved)
    }

    fn least_headroom(&self) -> usize {
        self.least_headroom
    }

    fn pass_time(&mut self, pause: Duration) {
        assert_eq!(pause, Duration::ZERO, "the kernel's clock cannot be set");
    }

    fn counter(&self, service: u64, member: u64) -> Option<u32> {
        self.installer.counter(service, member)
    }
}

/// An agent in the kernel.
pub struct KernelAgent {
    ebpf: Ebpf,
    counters: Ledger,
}

impl KernelAgent {
    /// Loads the object and tells it what [`super::agent`] says.
    ///
    /// # Errors
    /// When the kernel refuses the program or a map.
    pub fn new() -> Result<Self> {
        let mut ebpf = EbpfLoader::new().load(AGENT_OBJECT).context("loading the agent's object")?;
        agent(&mut ebpf)?.load().context("loading the agent")?;
        for (network, length) in SOURCES {
            match network {
                IpAddr::V4(a) => believe(&mut ebpf, maps::SOURCES4, length, a.octets())?,
                IpAddr::V6(a) => believe(&mut ebpf, maps::SOURCES6, length, a.octets())?,
            }
        }
        let map = ebpf.map_mut(maps::AGENT_VIPS).context("no map AGENT_VIPS")?;
        let mut vips: HashMap<&mut MapData, [u8; 16], u32> = HashMap::try_from(map)?;
        for vip in VIPS {
            let key = match vip {
                IpAddr::V4(a) => a.to_ipv6_mapped(),
                IpAddr::V6(a) => a,
            };
            vips.insert(key.octets(), 1, 0)?;
        }
        let map = ebpf.map_mut(maps::AGENT_SETTINGS).context("no map AGENT_SETTINGS")?;
        let mut settings: Array<&mut MapData, AgentSettings> = Array::try_from(map)?;
        settings.set(0, AgentSettings { gue_port: GUE_PORT, ..AgentSettings::default() }, 0)?;
        let map = ebpf.map_mut(maps::PEERS).context("no map PEERS")?;
        let mut peers: HashMap<&mut MapData, [u8; 16], Peer> = HashMap::try_from(map)?;
        for (address, way) in PEERS {
            let key = match address {
                IpAddr::V4(a) => a.to_ipv6_mapped(),
                IpAddr::V6(a) => a,
            };
            peers.insert(key.octets(), way, 0)?;
        }
        let counters = read_reasons(&ebpf)?;
        Ok(Self { ebpf, counters })
    }
}

fn believe<K: Pod>(ebpf: &mut Ebpf, map: &'static str, length: u32, network: K) -> Result<()> {
    let map = ebpf.map_mut(map).with_context(|| format!("no map {map}"))?;
    let mut sources: LpmTrie<&mut MapData, K, u32> = LpmTrie::try_from(map)?;
    Ok(sources.insert(&Key::new(length, network), 1, 0)?)
}

fn agent(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    Ok(ebpf.program_mut("agent").context("the object has no program agent")?.try_into()?)
}

impl Machine for KernelAgent {
    fn reset(&mut self) {}

    fn run(&mut self, frame: &[u8], headroom: usize) -> Result<Outcome> {
        let outcome = self.run_uncounted(frame, headroom)?;
        Ok(Outcome { moved: self.counted()?, ..outcome })
    }

    fn run_uncounted(&mut self, frame: &[u8], headroom: usize) -> Result<Outcome> {
        let (code, output) = run(agent(&mut self.ebpf)?, frame, headroom)?;
        Ok(Outcome { code, ifindex: None, output, moved: Ledger::new() })
    }

    fn counted(&mut self) -> Result<Ledger> {
        let counters = read_reasons(&self.ebpf)?;
        let moved = moved(&self.counters, &counters);
        self.counters = counters;
        Ok(moved)
    }

    fn least_headroom(&self) -> usize {
        FULL_HEADROOM
    }

    fn pass_time(&mut self, pause: Duration) {
        assert_eq!(pause, Duration::ZERO, "the kernel's clock cannot be set");
    }

    fn counter(&self, _service: u64, _member: u64) -> Option<u32> {
        None
    }
}
