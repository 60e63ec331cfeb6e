//! Loads the balancer: creates or adopts the pinned maps, loads the program, maps the memory.

use std::{
    os::fd::AsFd,
    path::PathBuf,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader, TestRun, TestRunOptions,
    maps::{Array, Map, MapData, MapInfo},
    programs::Xdp,
};
use lb_common::abi::{Counter, Interface, Vip6, maps};

use super::{BALANCER_OBJECT, Capacity, Clock, DataplaneError, Memory, Pins, Region};

/// Array, per-CPU array and hash (include/uapi/linux/bpf.h).
const ARRAY: u32 = 2;
const PER_CPU_ARRAY: u32 = 6;
const HASH: u32 = 1;
const MMAPABLE: u32 = 1 << 10;

/// A map as this version wants it.
struct Spec {
    name: &'static str,
    map_type: u32,
    key_size: u32,
    value_size: usize,
    flags: u32,
}

const fn mapped(name: &'static str, value_size: usize) -> Spec {
    Spec { name, map_type: ARRAY, key_size: 4, value_size, flags: MMAPABLE }
}

/// Every pinned map of the balancer.
const SPECS: [Spec; 16] = [
    mapped(maps::CONTROL, size_of::<lb_common::abi::Control>()),
    mapped(maps::GLOBALS, size_of::<lb_common::abi::Globals>()),
    mapped(maps::VIPS4, 8),
    mapped(maps::VIPS6, size_of::<Vip6>()),
    mapped(maps::PORTS, 8),
    mapped(maps::SERVICES, size_of::<lb_common::abi::Service>()),
    mapped(maps::SERVICE_INFO, size_of::<lb_common::abi::ServiceInfo>()),
    mapped(maps::SLOTS, 8),
    mapped(maps::SLOT_META, 8),
    mapped(maps::FLOWS, 64),
    mapped(maps::BACKENDS, size_of::<lb_common::abi::Backend>()),
    mapped(maps::BACKEND_INFO, size_of::<lb_common::abi::BackendInfo>()),
    mapped(maps::LIMITS, 64),
    Spec {
        name: maps::COUNTERS,
        map_type: PER_CPU_ARRAY,
        key_size: 4,
        value_size: size_of::<Counter>(),
        flags: 0,
    },
    Spec { name: maps::REASONS, map_type: PER_CPU_ARRAY, key_size: 4, value_size: 8, flags: 0 },
    Spec {
        name: maps::INTERFACES,
        map_type: HASH,
        key_size: 4,
        value_size: size_of::<Interface>(),
        flags: 0,
    },
];

/// The loaded program with its maps.
pub struct Loaded {
    /// Program and maps.
    pub ebpf: Ebpf,
    /// The memory-mapped arrays.
    pub memory: Memory,
    /// The kernel's clocks.
    pub clock: Clock,
    /// Whether the maps were there before.
    pub adopted: bool,
}

/// Loads the balancer; maps that are pinned already are adopted, with the sizes they have.
///
/// # Errors
/// [`DataplaneError`]; nothing that was pinned before is changed.
pub fn load(pins: Option<&Pins>, wanted: &Capacity) -> Result<Loaded, DataplaneError> {
    check_kernel()?;
    let mut loader = EbpfLoader::new();
    let mut adopted = false;
    let mut capacity = *wanted;
    let paths: Vec<(&'static str, PathBuf)> =
        pins.map(|pins| SPECS.iter().map(|s| (s.name, pins.map(s.name))).collect()).unwrap_or_default();
    if let Some(pins) = pins {
        pins.prepare()?;
        let there = paths.iter().filter(|(_, p)| p.exists()).count();
        adopted = there == SPECS.len();
        if there > 0 && !adopted {
            // A start that was interrupted while it made the maps: nothing is attached yet, or it would have all.
            if !pins.linked_interfaces().is_empty() {
                return Err(DataplaneError::Incomplete {
                    name: pins.name().into(),
                    found: there,
                    expected: SPECS.len(),
                });
            }
            pins.remove()?;
            pins.prepare()?;
        }
        if adopted {
            capacity = adopted_capacity(pins)?;
        }
        for (name, path) in &paths {
            loader.map_pin_path(name, path.as_path());
        }
    }
    for spec in &SPECS {
        if let Some(elements) = capacity.elements(spec.name) {
            loader.map_max_entries(spec.name, elements);
        }
    }
    let mut ebpf = loader.load(BALANCER_OBJECT).map_err(DataplaneError::from_load)?;
    program(&mut ebpf, "balancer")?.load().map_err(DataplaneError::from_program)?;
    let clock = calibrate(&mut ebpf)?;
    let memory = map_memory(&ebpf, &capacity)?;
    Ok(Loaded { ebpf, memory, clock, adopted })
}

/// The XDP program with this name.
pub(super) fn program<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, DataplaneError> {
    let program = ebpf.program_mut(name).ok_or(DataplaneError::Object { what: name })?;
    program.try_into().map_err(DataplaneError::from_program)
}

/// Compares the pinned maps with what this version wants: aya would use them unseen.
fn adopted_capacity(pins: &Pins) -> Result<Capacity, DataplaneError> {
    let mut elements = std::collections::BTreeMap::new();
    for spec in &SPECS {
        let path = pins.map(spec.name);
        let info = MapInfo::from_pin(&path)
            .map_err(|e| DataplaneError::Map { name: spec.name, error: e.to_string() })?;
        let found = (info.map_type().map(|t| t as u32).ok(), info.key_size(), info.value_size() as usize);
        if found != (Some(spec.map_type), spec.key_size, spec.value_size)
            || info.map_flags() & MMAPABLE != spec.flags
        {
            return Err(DataplaneError::ForeignMap {
                path,
                found: format!("type {:?}, key {} bytes, value {} bytes", found.0, found.1, found.2),
                expected: format!(
                    "type {}, key {} bytes, value {} bytes",
                    spec.map_type, spec.key_size, spec.value_size
                ),
            });
        }
        elements.insert(spec.name, info.max_entries());
    }
    Ok(Capacity {
        vip_cells: elements[maps::VIPS4] / 2,
        port_cells: elements[maps::PORTS] / 2,
        services: elements[maps::SERVICES] / 2,
        slots: elements[maps::SLOTS] * 4,
        backends: elements[maps::BACKENDS],
        limit_buckets: elements[maps::LIMITS],
        flow_buckets: elements[maps::FLOWS],
    })
}

fn region<T: aya::Pod>(ebpf: &Ebpf, name: &'static str, length: u32) -> Result<Region<T>, DataplaneError> {
    let Some(Map::Array(data)) = ebpf.map(name) else { return Err(DataplaneError::Object { what: name }) };
    Region::map(data.fd().as_fd(), length as usize)
        .map_err(|error| DataplaneError::Map { name, error: error.to_string() })
}

fn map_memory(ebpf: &Ebpf, capacity: &Capacity) -> Result<Memory, DataplaneError> {
    let elements = |name| capacity.elements(name).unwrap_or_default();
    Ok(Memory {
        control: region(ebpf, maps::CONTROL, 1)?,
        globals: region(ebpf, maps::GLOBALS, 2)?,
        vips4: region(ebpf, maps::VIPS4, elements(maps::VIPS4))?,
        vips6: region(ebpf, maps::VIPS6, elements(maps::VIPS6))?,
        ports: region(ebpf, maps::PORTS, elements(maps::PORTS))?,
        services: region(ebpf, maps::SERVICES, elements(maps::SERVICES))?,
        service_info: region(ebpf, maps::SERVICE_INFO, elements(maps::SERVICE_INFO))?,
        slots: region(ebpf, maps::SLOTS, elements(maps::SLOTS))?,
        slot_meta: region(ebpf, maps::SLOT_META, elements(maps::SLOT_META))?,
        flows: region(ebpf, maps::FLOWS, elements(maps::FLOWS))?,
        backends: region(ebpf, maps::BACKENDS, elements(maps::BACKENDS))?,
        backend_info: region(ebpf, maps::BACKEND_INFO, elements(maps::BACKEND_INFO))?,
        limits: region(ebpf, maps::LIMITS, elements(maps::LIMITS))?,
    })
}

/// How long two readings of the clocks are apart.
const CALIBRATION: Duration = Duration::from_millis(60);
/// Tick rates that kernels are built with (kernel/Kconfig.hz and the architectures' own).
const TICK_RATES: [u32; 7] = [100, 128, 250, 256, 300, 1000, 1024];

/// Finds the kernel's tick rate, which user space cannot read: the program `clocks` reads both clocks, at two moments
/// when the tick just changed.
fn calibrate(ebpf: &mut Ebpf) -> Result<Clock, DataplaneError> {
    program(ebpf, "clocks")?.load().map_err(DataplaneError::from_program)?;
    let first = at_tick(ebpf)?;
    std::thread::sleep(CALIBRATION);
    let second = at_tick(ebpf)?;
    let (ticks, elapsed) = (second.0 - first.0, second.1 - first.1);
    let measured = ticks as f64 * 1e9 / elapsed as f64;
    let nearest = TICK_RATES
        .iter()
        .copied()
        .min_by(|a, b| (f64::from(*a) - measured).abs().total_cmp(&(f64::from(*b) - measured).abs()));
    let ticks_per_second = nearest.unwrap_or(250);
    if (f64::from(ticks_per_second) - measured).abs() > measured * 0.02 {
        return Err(DataplaneError::Clock { measured });
    }
    Ok(Clock { ticks_per_second, jiffies: second.0, nanoseconds: second.1 })
}

/// Both clocks right after a tick.
fn at_tick(ebpf: &mut Ebpf) -> Result<(u64, u64), DataplaneError> {
    let start = read_clocks(ebpf)?;
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        let now = read_clocks(ebpf)?;
        if now.0 != start.0 {
            return Ok(now);
        }
    }
    Err(DataplaneError::Clock { measured: 0.0 })
}

fn read_clocks(ebpf: &mut Ebpf) -> Result<(u64, u64), DataplaneError> {
    let frame = [0u8; 64];
    program(ebpf, "clocks")?
        .test_run(TestRunOptions { data_in: Some(&frame), repeat: 1, ..Default::default() })
        .map_err(DataplaneError::from_program)?;
    let map = ebpf.map("CLOCKS").ok_or(DataplaneError::Object { what: "CLOCKS" })?;
    let error = |e: aya::maps::MapError| DataplaneError::Map { name: "CLOCKS", error: e.to_string() };
    let clocks: Array<&MapData, [u64; 2]> = Array::try_from(map).map_err(error)?;
    let [jiffies, nanoseconds] = clocks.get(&0, 0).map_err(error)?;
    Ok((jiffies, nanoseconds))
}

/// The oldest kernel that has all we need (Debian 12's).
const OLDEST: (u32, u32) = (6, 1);

fn check_kernel() -> Result<(), DataplaneError> {
    let release =
        nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST { Err(DataplaneError::OldKernel { release }) } else { Ok(()) }
}
