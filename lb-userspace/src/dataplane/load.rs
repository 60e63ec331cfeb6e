//! Loads the balancer: creates or adopts the pinned maps, loads the program, maps the memory.

use std::{
    collections::BTreeMap,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader, TestRun, TestRunOptions,
    maps::{Array, Map, MapData},
    programs::Xdp,
};
use lb_common::abi::{Counter, Interface, Reply, Vip6, maps};

use super::{
    BALANCER_OBJECT, Capacity, Clock, DataplaneError, Memory, Pins, Region,
    memory::QUIC_ELEMENTS,
    spec::{self, HASH, Spec},
};

/// Every pinned map of the balancer.
const SPECS: [Spec; 21] = [
    Spec::mapped(maps::CONTROL, size_of::<lb_common::abi::Control>()),
    Spec::mapped(maps::GLOBALS, size_of::<lb_common::abi::Globals>()),
    Spec::mapped(maps::VIPS4, 8),
    Spec::mapped(maps::VIPS6, size_of::<Vip6>()),
    Spec::mapped(maps::PORTS, 8),
    Spec::mapped(maps::SERVICES, size_of::<lb_common::abi::Service>()),
    Spec::mapped(maps::SERVICE_INFO, size_of::<lb_common::abi::ServiceInfo>()),
    Spec::mapped(maps::SLOTS, 8),
    Spec::mapped(maps::SLOT_META, 8),
    Spec::mapped(maps::CANDIDATES, 8),
    Spec::mapped(maps::FLOWS, 64),
    Spec::mapped(maps::FLOWS_OLD, 64).since(2, 1),
    Spec::mapped(maps::BACKENDS, size_of::<lb_common::abi::Backend>()),
    Spec::mapped(maps::BACKEND_INFO, size_of::<lb_common::abi::BackendInfo>()),
    Spec::mapped(maps::QUIC, size_of::<lb_common::abi::QuicConfig>()),
    Spec::mapped(maps::LIMITS, 64),
    Spec::mapped(maps::REPLIES, size_of::<Reply>()),
    Spec::per_cpu(maps::COUNTERS, size_of::<Counter>()),
    Spec::per_cpu(maps::REASONS, 8),
    Spec::per_cpu(maps::FLOW_EVENTS, 8),
    Spec::keyed(maps::INTERFACES, HASH, 4, size_of::<Interface>()),
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
    let mut adopted = false;
    let mut capacity = *wanted;
    if let Some(elements) = pins.map(|pins| spec::adopt(pins, &SPECS)).transpose()?.flatten() {
        adopted = true;
        capacity = adopted_capacity(&elements);
    }
    let (mut ebpf, memory) = load_with(pins, &capacity)?;
    let clock = calibrate(&mut ebpf)?;
    Ok(Loaded { ebpf, memory, clock, adopted })
}

/// Program and maps; those that are pinned already are used as they are, which must be of this capacity.
pub(super) fn load_with(pins: Option<&Pins>, capacity: &Capacity) -> Result<(Ebpf, Memory), DataplaneError> {
    let mut loader = EbpfLoader::new();
    for spec in &SPECS {
        if let Some(pins) = pins {
            loader.map_pin_path(spec.name, pins.map(spec.name));
        }
        if let Some(elements) = capacity.elements(spec.name) {
            loader.map_max_entries(spec.name, elements);
        }
    }
    let mut ebpf = loader.load(BALANCER_OBJECT).map_err(DataplaneError::from_load)?;
    program(&mut ebpf, "balancer")?.load().map_err(DataplaneError::from_program)?;
    let memory = map_memory(&ebpf, capacity)?;
    Ok((ebpf, memory))
}

/// The XDP program with this name.
pub(super) fn program<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, DataplaneError> {
    let program = ebpf.program_mut(name).ok_or(DataplaneError::Object { what: name })?;
    program.try_into().map_err(DataplaneError::from_program)
}

/// The capacities that maps of these sizes have.
fn adopted_capacity(elements: &BTreeMap<&'static str, u32>) -> Capacity {
    Capacity {
        vip_cells: elements[maps::VIPS4] / 2,
        port_cells: elements[maps::PORTS] / 2,
        services: elements[maps::SERVICES] / 2,
        slots: elements[maps::SLOTS] * 4,
        backends: elements[maps::BACKENDS],
        limit_buckets: elements[maps::LIMITS],
        flow_buckets: elements[maps::FLOWS],
        reply_cells: elements[maps::REPLIES] / 2,
        old_flow_buckets: elements[maps::FLOWS_OLD],
    }
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
        candidates: region(ebpf, maps::CANDIDATES, elements(maps::CANDIDATES))?,
        flows: region(ebpf, maps::FLOWS, elements(maps::FLOWS))?,
        old_flows: region(ebpf, maps::FLOWS_OLD, elements(maps::FLOWS_OLD))?,
        backends: region(ebpf, maps::BACKENDS, elements(maps::BACKENDS))?,
        backend_info: region(ebpf, maps::BACKEND_INFO, elements(maps::BACKEND_INFO))?,
        quic: region(ebpf, maps::QUIC, QUIC_ELEMENTS)?,
        limits: region(ebpf, maps::LIMITS, elements(maps::LIMITS))?,
        replies: region(ebpf, maps::REPLIES, elements(maps::REPLIES))?,
    })
}

/// Between two readings of the clocks.
const CALIBRATION: Duration = Duration::from_millis(60);
/// When no further reading is taken.
const CALIBRATION_LIMIT: Duration = Duration::from_secs(2);
/// Tick rates of kernel/Kconfig.hz, which every architecture with a BPF compiler uses.
const TICK_RATES: [u32; 4] = [100, 250, 300, 1000];

/// Finds the kernel's tick rate, which user space cannot read: the program `clocks` reads both clocks, at moments when
/// the tick just changed, until the readings fit one rate only.
fn calibrate(ebpf: &mut Ebpf) -> Result<Clock, DataplaneError> {
    program(ebpf, "clocks")?.load().map_err(DataplaneError::from_program)?;
    let first = at_tick(ebpf)?;
    let deadline = Instant::now() + CALIBRATION_LIMIT;
    loop {
        std::thread::sleep(CALIBRATION);
        let (jiffies, nanoseconds) = at_tick(ebpf)?;
        let (ticks, elapsed) = (jiffies - first.0, nanoseconds - first.1);
        if let Some(ticks_per_second) = tick_rate(ticks, elapsed) {
            return Ok(Clock { ticks_per_second, jiffies, nanoseconds });
        }
        if Instant::now() >= deadline {
            return Err(DataplaneError::Clock { measured: ticks as f64 * 1e9 / elapsed as f64 });
        }
    }
}

/// The only rate at which there can be this many ticks in this many nanoseconds; `None` while there are several, or none.
///
/// On a busy machine a reading comes up to a tick late, and a virtual CPU that was not running counts its ticks late.
fn tick_rate(ticks: u64, elapsed: u64) -> Option<u32> {
    let ticks = ticks as f64;
    let uncertain = 1.5 + ticks * 0.04;
    let fits = |rate: &u32| (f64::from(*rate) * elapsed as f64 / 1e9 - ticks).abs() <= uncertain;
    let mut fitting = TICK_RATES.iter().copied().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(rate), None) => Some(rate),
        _ => None,
    }
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

pub(super) fn check_kernel() -> Result<(), DataplaneError> {
    let release =
        nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST { Err(DataplaneError::OldKernel { release }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::{TICK_RATES, tick_rate};

    #[test]
    fn a_reading_that_comes_late_does_not_change_the_tick_rate() {
        // Seen on a busy machine of 250 ticks: 265 measured. It might be 300, until the next reading.
        assert_eq!(tick_rate(15, 56_540_000), None);
        assert_eq!(tick_rate(30, 116_540_000), Some(250));
        for rate in TICK_RATES {
            let tick = 1_000_000_000 / u64::from(rate);
            let ticks = u64::from(rate) / 5;
            for late in 0..10 {
                assert_eq!(
                    tick_rate(ticks, ticks * tick + late * tick / 10),
                    Some(rate),
                    "{late} tenths late"
                );
                assert_eq!(
                    tick_rate(ticks, ticks * tick - late * tick / 10),
                    Some(rate),
                    "{late} tenths early"
                );
            }
        }
    }

    #[test]
    fn too_few_ticks_say_nothing_and_strange_rates_are_refused() {
        assert_eq!(tick_rate(1, 4_000_000), None);
        assert_eq!(tick_rate(200, 1_000_000_000), None);
        assert_eq!(tick_rate(0, 1_000_000_000), None);
    }
}
