//! The suite `memory`: bytes in the kernel for each thing that there can be many of, as the kernel accounts for them.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use anyhow::{Context as _, Result};
use lb_userspace::{
    config::Config,
    dataplane::{self, Capacity},
};

use super::{
    report::{Figure, Report},
    say,
};

const SUITE: &str = "memory";
/// Maps by what they grow with; the flow table is one of its own.
const FLOWS: &str = "FLOWS";
/// The least number of services at which maps are larger than their least sizes by far.
const MANY: u32 = 2000;

/// Names of all cases.
pub(super) fn names() -> Vec<String> {
    [
        "tracked_flow",
        "service_default_length_used",
        "service_default_length_reserved",
        "backend",
        "limited_source",
        "services_10000_of_1021_slots",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A configuration of so many services, backends of each, slots of each.
fn config(services: u32, backends: u32, slots: u32) -> Result<Config> {
    let mut text = String::from("[daemon]\ninterfaces = [\"lo\"]\n");
    for i in 0..services {
        let (a, b) = (i / 250, 1 + i % 250);
        text += &format!(
            "[[service]]\nname = \"s{i}\"\naddresses = [\"198.18.{a}.{b}\"]\nports = [80]\nprotocol = \"tcp\"\n\
             forward = \"l2\"\ntable_slots = {slots}\n[service.health]\ntype = \"none\"\n"
        );
        for backend in 0..backends {
            text += &format!("[[service.backend]]\naddress = \"198.51.100.{}\"\n", 1 + backend);
        }
    }
    Config::parse("benchmark", &text).map_err(|error| anyhow::anyhow!("{error}"))
}

/// Bytes that the kernel accounts for a map.
pub(super) fn memlock(map: BorrowedFd<'_>) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.as_raw_fd());
    let info = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(line.context("no memlock")?.trim().parse()?)
}

/// Bytes of all maps of a balancer of this size, and those of the flow table.
fn bytes(capacity: &Capacity) -> Result<(u64, u64)> {
    let loaded = dataplane::load(None, capacity)?;
    let (mut all, mut flows) = (0, 0);
    for (name, map) in loaded.ebpf.maps() {
        use aya::maps::Map;
        let (Map::Array(data) | Map::PerCpuArray(data) | Map::HashMap(data) | Map::LruHashMap(data)) = map
        else {
            continue;
        };
        let bytes = memlock(data.fd().as_fd())?;
        all += bytes;
        flows += if name == FLOWS { bytes } else { 0 };
    }
    Ok((all, flows))
}

/// Runs the cases whose name is wanted.
pub(super) fn run(wanted: &dyn Fn(&str) -> bool, report: &mut Report) -> Result<()> {
    let mut add = |name: &str, value: f64, unit: &str, target: Option<f64>, note: &str| {
        if wanted(name) {
            let mut figure = Figure::value(SUITE, name, value, unit);
            figure.target = target;
            figure.note = Some(note.to_owned());
            report.figures.push(figure);
        }
    };
    say("maps of configurations of many sizes");
    let few = Capacity::for_config(&config(1, 1, 16_381)?);
    let (_, flows) = bytes(&few)?;
    let per_flow = flows as f64 / (f64::from(few.flow_buckets) * 8.0);
    add("tracked_flow", per_flow, "B", Some(8.5), "the flow table, by the flows that it has room for");

    let slots = 16_381u32;
    let used = f64::from(slots.next_multiple_of(4) * 6) + 2.0 * 96.0 + 2.0 * 16.0 * 2.0;
    add(
        "service_default_length_used",
        used / 1e3,
        "kB",
        Some(100.0),
        "slots and what belongs to them, records, cells: what one service occupies",
    );
    let many = Capacity::for_config(&config(MANY, 1, slots)?);
    let twice = Capacity::for_config(&config(2 * MANY, 1, slots)?);
    let reserved = (bytes(&twice)?.0 - bytes(&many)?.0) as f64 / f64::from(MANY);
    add(
        "service_default_length_reserved",
        reserved / 1e3,
        "kB",
        None,
        "with the room that the daemon reserves so that every table can be replaced at once",
    );

    let small = Capacity::for_config(&config(MANY, 1, 1021)?);
    let wide = Capacity::for_config(&config(MANY, 65, 1021)?);
    let backend = (bytes(&wide)?.0 - bytes(&small)?.0) as f64 / f64::from(MANY * 64);
    add(
        "backend",
        backend,
        "B",
        None,
        "record and counters, with room for four times as many, for this machine's processors",
    );
    add("limited_source", 8.0, "B", None, "an entry of the rate limiter");

    let ten_thousand = Capacity::for_config(&config(10_000, 1, 1021)?);
    let (all, flows) = bytes(&ten_thousand)?;
    add(
        "services_10000_of_1021_slots",
        (all - flows) as f64 / 1e6,
        "MB",
        Some(200.0),
        "10,000 services of 1,021 slots with a backend each, everything but the flow table",
    );
    Ok(())
}
