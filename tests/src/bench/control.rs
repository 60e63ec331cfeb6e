//! The suite `control`: how long a change takes from the API to the datapath, and what many services cost to start.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use hyper::Method;
use lb_common::abi::{Control, maps};
use lb_userspace::{api::Client, config::Forward, dataplane::Pins};

use super::{
    memory::memlock,
    report::{Figure, Report},
    rounds::Series,
    say, world,
};
use crate::{
    lb_config::{Health, LbConfig, Service},
    lb_process::LbProcess,
    topology::World,
};

const SUITE: &str = "control";

/// What a daemon is started with, and what is aimed at.
struct Size {
    services: u32,
    changes: u32,
    /// Milliseconds of a change, 99th percentile.
    change: f64,
    /// Milliseconds until the first answer.
    start: Option<f64>,
    /// Megabytes of daemon and maps without the flow table.
    memory: Option<f64>,
}

const SIZES: [Size; 2] = [
    Size { services: 100, changes: 300, change: 10.0, start: None, memory: None },
    Size { services: 10_000, changes: 200, change: 20.0, start: Some(10_000.0), memory: Some(300.0) },
];
const FIGURES: [&str; 6] =
    ["change_p50", "change_p99", "answer_p50", "start", "daemon_memory", "daemon_and_maps_memory"];
/// Between two changes: a daemon is not changed in a loop, and the last grace period is over then.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two looks at the generation: what a time may be too long by.
const LOOK: Duration = Duration::from_micros(20);
/// How long an answer may take before it is an error.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names of all cases.
pub(super) fn names() -> Vec<String> {
    let of = |services: u32| FIGURES.map(|what| format!("{what}_{services}_services"));
    SIZES.iter().flat_map(|size| of(size.services)).collect()
}

/// The VIP of a service.
fn vip(i: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 19, 0, 0)) + i))
}

/// Some services with three backends; each has weights of its own, so that each has a table of its own.
fn few(world: &World, services: u32) -> Result<String> {
    let mut config = LbConfig::web(world, world.vip4.into(), Forward::L2, false);
    let like = config.services.remove(0);
    let service = |i: u32| {
        let mut service: Service = like.clone();
        service.name = format!("s{i}");
        service.addresses = vec![vip(i)];
        service.health = Health { kind: "none".into(), path: None, ..Health::default() };
        for (at, backend) in (0u32..).zip(&mut service.backends) {
            backend.weight = 50 + ((i / 50u32.pow(at)) % 50) as u16;
        }
        service
    };
    config.services = (0..services).map(service).collect();
    config.to_toml()
}

/// Many services of 1,021 slots with one backend each, which no other has.
fn many(services: u32) -> String {
    let service = |i: u32| {
        format!(
            "[[service]]\nname = \"s{i}\"\naddresses = [\"{}\"]\nports = [80]\nforward = \"ipip\"\ntable_slots = \
             1021\n\n[service.health]\ntype = \"none\"\n\n[[service.backend]]\nname = \"b1\"\naddress = \"{}\"\n\n",
            vip(i),
            world::address(i)
        )
    };
    (0..services).map(service).collect()
}

/// Runs the cases whose name is wanted.
pub(super) fn run(wanted: &dyn Fn(&str) -> bool, report: &mut Report) -> Result<()> {
    for size in SIZES {
        let name = |what: &str| format!("{what}_{}_services", size.services);
        if FIGURES.iter().any(|what| wanted(&name(what))) {
            let figures = measure(&size)?;
            report.figures.extend(figures.into_iter().filter(|figure| wanted(&figure.case)));
        }
    }
    Ok(())
}

/// Starts a daemon of this size and changes it.
fn measure(size: &Size) -> Result<Vec<Figure>> {
    let Size { services, changes, .. } = *size;
    say(&format!("a daemon with {services} services, {changes} changes"));
    let world = World::one_arm().backends(3).build()?;
    let is_many = services > 1000;
    let text = if is_many { many(services) } else { few(&world, services)? };
    if is_many {
        // All backends are behind the first: one neighbour, as with a router in between.
        let route = format!("route add 172.16.0.0/16 via {}", world.backend(1)?.v4);
        let output = world.lb.ns.command("ip").args(route.split(' ')).output().context("ip")?;
        ensure!(output.status.success(), "ip {route}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let start = Instant::now();
    let mut lb = LbProcess::start(&world.lb, &text)?;
    let started = start.elapsed().as_secs_f64() * 1e3;
    let memory = resident(lb.process().id())?;
    let maps = kernel_memory(&lb)?;
    let Times { datapath, answer } = changed(&lb, size, is_many)?;

    let figure = |what: &str, value: f64, unit: &str, target: Option<f64>, note: String| {
        let mut figure = Figure::value(SUITE, &format!("{what}_{services}_services"), value, unit);
        figure.target = target;
        figure.note = Some(note);
        figure
    };
    let kind = if is_many { "backends drained and brought back" } else { "weights changed" };
    let note = format!("{changes} {kind}, from the call of the API until the maps have the new generation");
    let mut median = figure("change_p50", datapath.median(), "ms", None, note.clone());
    median.spread = datapath.spread();
    Ok(vec![
        median,
        figure("change_p99", datapath.quantile(0.99), "ms", Some(size.change), note),
        figure(
            "answer_p50",
            answer.median(),
            "ms",
            None,
            "until the answer: file and history are on disk".into(),
        ),
        figure(
            "start",
            started,
            "ms",
            size.start,
            "from the call of `lb run` until `lb status` has answered".into(),
        ),
        figure("daemon_memory", memory, "MB", None, "resident, maps not included".into()),
        figure(
            "daemon_and_maps_memory",
            memory + maps,
            "MB",
            size.memory,
            "the same and all maps but the flow table".into(),
        ),
    ])
}

/// Milliseconds of every change.
struct Times {
    datapath: Series,
    answer: Series,
}

/// Changes services all over the file, one after the other, and watches the generation in the maps.
fn changed(lb: &LbProcess, size: &Size, is_many: bool) -> Result<Times> {
    let data = MapData::from_pin(Pins::balancer(lb.name()).map(maps::CONTROL))?;
    let control: Array<MapData, Control> = Array::try_from(Map::Array(data))?;
    let generation = || -> Result<u64> { Ok(u64::from(control.get(&0, 0)?.generation)) };
    let mut times = Times { datapath: Series::default(), answer: Series::default() };
    for n in 0..size.changes {
        // Every service twice, one change after the other, where that brings it back.
        let service = (n / 2).wrapping_mul(7919) % size.services;
        let body = match (is_many, n % 2) {
            (false, _) => serde_json::json!({ "weight": 200 + n }),
            (true, 0) => serde_json::json!({ "state": "drain" }),
            (true, _) => serde_json::json!({ "state": "up" }),
        };
        let path = format!("/v1/services/s{service}/backends/b1");
        let mut seen = vec![(generation()?, 0.0)];
        let start = Instant::now();
        let elapsed = || start.elapsed().as_secs_f64() * 1e3;
        let answer = thread::scope(|scope| -> Result<serde_json::Value> {
            let asked = scope.spawn(|| -> Result<_> {
                let client = Client::new("", Some(lb.socket())).within(PATIENCE);
                let answer = client.call(&Method::PATCH, &path, Some(&body))?;
                Ok((answer.json()?, elapsed()))
            });
            loop {
                let done = asked.is_finished();
                let now = generation()?;
                if seen.last().is_none_or(|(last, _)| *last != now) {
                    seen.push((now, elapsed()));
                }
                if done {
                    break;
                }
                thread::sleep(LOOK);
            }
            let (answer, time) = asked.join().map_err(|_| anyhow::anyhow!("the caller panicked"))??;
            times.answer.push(time);
            Ok(answer)
        })?;
        ensure!(answer["changed"] == true && answer["slots_moved"].as_u64() > Some(0), "{path}: {answer}");
        let in_force = seen.iter().skip(1).find(|(generation, _)| answer["generation"] == *generation);
        let (_, time) = in_force.with_context(|| format!("{path}: {answer}, but the maps had {seen:?}"))?;
        times.datapath.push(*time);
        thread::sleep(PAUSE);
    }
    Ok(times)
}

/// Megabytes of a process that are in memory, without the maps that it has mapped.
fn resident(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut is_map, mut kilobytes) = (false, 0.0);
    for line in text.lines() {
        match line.strip_prefix("Rss:") {
            Some(rest) if !is_map => kilobytes += rest.trim().trim_end_matches(" kB").parse::<f64>()?,
            Some(_) => {}
            // The first line of a mapping begins with its addresses.
            None if !line.split(' ').next().unwrap_or_default().ends_with(':') => {
                is_map = line.ends_with("bpf-map");
            }
            None => {}
        }
    }
    Ok(kilobytes / 1e3)
}

/// Megabytes of the instance's maps, the flow table left out.
fn kernel_memory(lb: &LbProcess) -> Result<f64> {
    let pins = Pins::balancer(lb.name());
    let mut bytes = 0;
    for entry in fs::read_dir(pins.directory())? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        // Links are pinned beside the maps.
        if name != maps::FLOWS && !name.starts_with("link-") {
            bytes += memlock(MapData::from_pin(pins.map(&name))?.fd().as_fd())?;
        }
    }
    Ok(bytes as f64 / 1e6)
}
