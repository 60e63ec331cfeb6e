//! The benchmark's object in the kernel: the wrapper, floors and `plain`, with maps of their own.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, ProgramArray},
    programs::{ProgramFd, Xdp},
};
use lb_common::abi::Counter;

use crate::{cases::cast::INGRESS, packet::Packet};

/// Words of a frame.
const WORDS: usize = 12;
/// Bytes of a frame.
pub(super) const BYTES: usize = WORDS * 8;
/// Where frames come from: the layout of `lb-ebpf/src/bench/source.rs`, word by word.
type Element = [u64; WORDS + 4];

/// What frames look like, and what of them varies.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) frame: Vec<u8>,
    /// How many sources, at random, from that of the frame on.
    pub(super) sources: u32,
    /// How many destinations.
    pub(super) destinations: u32,
    /// Interface that live frames are sent by.
    pub(super) ifindex: u32,
}

impl Source {
    /// This packet, always; made 96 bytes long.
    pub(super) fn new(packet: &Packet) -> Self {
        let frame = packet.clone().ip_length(BYTES - 14).frame().into_bytes();
        Self { frame, sources: 1, destinations: 1, ifindex: 0 }
    }

    pub(super) fn is_v6(&self) -> bool {
        self.frame[12..14] == [0x86, 0xdd]
    }

    /// Whether frames differ from each other.
    pub(super) fn varies(&self) -> bool {
        self.sources > 1 || self.destinations > 1
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(std::array::from_fn(|i| self.frame[at + i]))
    }

    fn element(&self) -> Element {
        let mut element = [0; WORDS + 4];
        for (word, bytes) in element.iter_mut().zip(self.frame.chunks_exact(8)) {
            *word = u64::from_ne_bytes(std::array::from_fn(|i| bytes[i]));
        }
        // Everything of the IPv4 header but checksum and addresses.
        let halves = (14..24).step_by(2).map(|at| self.word(at) >> 16).sum::<u32>();
        let first = if self.is_v6() { [0, self.word(50)] } else { [self.word(26), self.word(30)] };
        let family = if self.is_v6() { 6 } else { 4 };
        let two = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        element[WORDS] = two(0, self.sources);
        element[WORDS + 1] = two(self.destinations, family);
        element[WORDS + 2] = two(first[0], first[1]);
        element[WORDS + 3] = two(halves, self.ifindex);
        element
    }
}

/// Capacities of the LRU maps of `plain`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) flows: u32,
    pub(super) limits: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { flows: 1 << 16, limits: 1 << 10 }
    }
}

/// What one call of BPF_PROG_TEST_RUN gave.
pub(super) struct Ran {
    pub(super) code: u32,
    /// The kernel's mean for one repeat, in whole nanoseconds.
    pub(super) duration: Duration,
    /// The frame after the last repeat.
    pub(super) output: Vec<u8>,
}

/// The object, loaded, with programs and maps of its own.
pub(super) struct Bench {
    ebpf: Ebpf,
    pub(super) source: Source,
}

impl Bench {
    /// Loads the object with these sizes; frames come from `source`.
    pub(super) fn load(object: &Path, sizes: Sizes, source: Source) -> Result<Self> {
        let bytes = std::fs::read(object).with_context(|| {
            format!("the benchmark's object {} (made by `cargo xtask`)", object.display())
        })?;
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("PLAIN_FLOWS4", sizes.flows);
        loader.map_max_entries("PLAIN_FLOWS6", sizes.flows);
        loader.map_max_entries("PLAIN_LIMITS", sizes.limits);
        let ebpf = loader.load(&bytes).context("loading the benchmark's object")?;
        let mut bench = Self { ebpf, source };
        bench.write_source()?;
        Ok(bench)
    }

    /// Tells the programs where frames come from, and begins with the first again.
    pub(super) fn write_source(&mut self) -> Result<()> {
        ensure!(self.source.frame.len() == BYTES, "a frame of {} bytes", self.source.frame.len());
        let element = self.source.element();
        let mut map: Array<&mut MapData, Element> = Array::try_from(self.map("SOURCE")?)?;
        Ok(map.set(0, element, 0)?)
    }

    fn map(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("the benchmark's object has no map {name}"))
    }

    /// A program of the object, loaded.
    pub(super) fn program(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
        let program: &mut Xdp = program.try_into()?;
        if program.fd().is_err() {
            program.load().with_context(|| format!("loading {name}"))?;
        }
        Ok(program)
    }

    /// Makes the wrapper jump to this program of the object.
    pub(super) fn under_test(&mut self, name: &str) -> Result<()> {
        let fd = self.program(name)?.fd()?.try_clone()?;
        self.jump_to(&fd)
    }

    /// Makes the wrapper jump to this program.
    pub(super) fn jump_to(&mut self, program: &ProgramFd) -> Result<()> {
        let mut map: ProgramArray<&mut MapData> = ProgramArray::try_from(self.map("UNDER_TEST")?)?;
        Ok(map.set(0, program, 0)?)
    }

    /// Runs the wrapper so often.
    pub(super) fn run(&mut self, repeat: u32) -> Result<Ran> {
        let frame = self.source.frame.clone();
        run(self.program("wrap")?, &frame, repeat)
    }

    /// Runs a program of the object without the wrapper.
    pub(super) fn run_bare(&mut self, name: &str, repeat: u32) -> Result<Ran> {
        let frame = self.source.frame.clone();
        run(self.program(name)?, &frame, repeat)
    }

    /// Makes `plain` balance the frame's service over these backends.
    pub(super) fn set_plain(&mut self, service: Service, reals: &[(Ipv4Addr, [u8; 6])]) -> Result<()> {
        let port = u32::from_ne_bytes([0, 0, service.port.to_be_bytes()[0], service.port.to_be_bytes()[1]]);
        let number: u32 = 1;
        match service.address {
            IpAddr::V4(address) => {
                let key = [0, u32::from_ne_bytes(address.octets()), port, u32::from(service.protocol)];
                let mut map: HashMap<&mut MapData, [u32; 4], u32> =
                    HashMap::try_from(self.map("PLAIN_SERVICE4")?)?;
                map.insert(key, number, 0)?;
            }
            IpAddr::V6(address) => {
                let octets = address.octets();
                let word = |at: usize| u64::from(u32::from_ne_bytes(std::array::from_fn(|i| octets[at + i])));
                let last = u64::from(port) | u64::from(service.protocol) << 32;
                let key = [word(0) << 32 | word(4), word(8) << 32 | word(12), last];
                let mut map: HashMap<&mut MapData, [u64; 3], u32> =
                    HashMap::try_from(self.map("PLAIN_SERVICE6")?)?;
                map.insert(key, number, 0)?;
            }
        }
        let mut map: Array<&mut MapData, [u32; 4]> = Array::try_from(self.map("PLAIN_REALS")?)?;
        for (index, (address, mac)) in (1..).zip(reals) {
            let [a, b, c, d, e, f] = *mac;
            let mac = [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, 0, 0])];
            let source = u32::from_ne_bytes(super::world::TUNNEL.octets());
            map.set(index, [source, u32::from_ne_bytes(address.octets()), mac[0], mac[1]], 0)?;
        }
        let mut map: Array<&mut MapData, u32> = Array::try_from(self.map("PLAIN_SLOTS")?)?;
        for index in 0..map.len() {
            map.set(index, 1 + index % reals.len() as u32, 0)?;
        }
        Ok(())
    }

    /// Packets that `plain` counted for its service.
    pub(super) fn plain_packets(&mut self) -> Result<u64> {
        self.counted("PLAIN_COUNT", 1)
    }

    /// Packets that came to the sink.
    pub(super) fn back(&mut self) -> Result<u64> {
        self.counted("BACK", 0)
    }

    fn counted(&mut self, map: &str, index: u32) -> Result<u64> {
        let map: PerCpuArray<&mut MapData, Counter> = PerCpuArray::try_from(self.map(map)?)?;
        Ok(map.get(&index, 0)?.iter().map(|counter| counter.packets).sum())
    }
}

/// What `plain` balances.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    pub(super) address: IpAddr,
    pub(super) protocol: u8,
    pub(super) port: u16,
}

/// BPF_PROG_TEST_RUN of a program on a frame that came in by the loopback.
pub(super) fn run(program: &mut Xdp, frame: &[u8], repeat: u32) -> Result<Ran> {
    // data, data_end and ingress_ifindex of `struct xdp_md` (include/uapi/linux/bpf.h).
    let mut context = [0u8; 24];
    context[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
    context[12..16].copy_from_slice(&INGRESS.to_ne_bytes());
    let mut output = vec![0; frame.len() + 256];
    let ran = program
        .test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut output),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::default()
        })
        .context("BPF_PROG_TEST_RUN")?;
    output.truncate(ran.data_size_out as usize);
    Ok(Ran { code: ran.return_value, duration: ran.duration, output })
}
