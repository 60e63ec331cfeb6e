//! The suite `control`: how long a change takes from the API to the datapath, and how long many services take to start.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use hyper::Method;
use lb_userspace::{api::Client, config::Forward};

use super::{
    report::{Figure, Report},
    rounds::Series,
    say,
};
use crate::{
    lb_config::{Health, LbConfig, Service},
    lb_process::LbProcess,
    topology::World,
};

const SUITE: &str = "control";
/// Services, changes that are measured, and the milliseconds that are aimed at.
const SIZES: [(u32, u32, f64); 2] = [(100, 300, 10.0), (10_000, 60, 20.0)];
/// Between two changes: a daemon is not changed in a loop, and the last grace period is over then.
const PAUSE: Duration = Duration::from_millis(20);
/// How long an answer may take before it is an error.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names of all cases.
pub(super) fn names() -> Vec<String> {
    let of = |services: u32| {
        ["change_p50", "change_p99", "start", "daemon_memory"]
            .map(|what| format!("{what}_{services}_services"))
    };
    SIZES.iter().flat_map(|(services, ..)| of(*services)).collect()
}

/// So many services; each has weights of its own, so that each has a table of its own.
fn config(world: &World, services: u32) -> LbConfig {
    let mut config = LbConfig::web(world, world.vip4.into(), Forward::L2, false);
    let like = config.services.remove(0);
    let service = |i: u32| {
        let mut service: Service = like.clone();
        service.name = format!("s{i}");
        service.addresses = vec![IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 19, 0, 0)) + i))];
        service.health = Health { kind: "none".into(), path: None, ..Health::default() };
        for (at, backend) in (0u32..).zip(&mut service.backends) {
            backend.weight = 50 + ((i / 50u32.pow(at)) % 50) as u16;
        }
        service
    };
    config.services = (0..services).map(service).collect();
    config
}

/// Runs the cases whose name is wanted.
pub(super) fn run(wanted: &dyn Fn(&str) -> bool, report: &mut Report) -> Result<()> {
    for (services, changes, target) in SIZES {
        let name = |what: &str| format!("{what}_{services}_services");
        if !["change_p50", "change_p99", "start", "daemon_memory"].iter().any(|what| wanted(&name(what))) {
            continue;
        }
        say(&format!("a daemon with {services} services, {changes} changes"));
        let world = World::one_arm().backends(3).build()?;
        let text = text_of(&config(&world, services))?;
        let start = Instant::now();
        let mut lb = LbProcess::start(&world.lb, &text)?;
        let started = start.elapsed();
        let times = changed(&lb, services, changes)?;
        let memory = resident(lb.process().id())?;
        let mut add = |what: &str, value: f64, unit: &str, target: Option<f64>, note: &str| {
            if wanted(&name(what)) {
                let mut figure = Figure::value(SUITE, &name(what), value, unit);
                figure.target = target;
                figure.note = Some(note.to_owned());
                if what == "change_p50" {
                    figure.spread = times.spread();
                }
                report.figures.push(figure);
            }
        };
        let note = format!(
            "{changes} weights changed by the API; the answer comes when the change is in force and in the file"
        );
        add("change_p50", times.median(), "ms", None, &note);
        add("change_p99", times.quantile(0.99), "ms", Some(target), &note);
        add(
            "start",
            started.as_secs_f64() * 1e3,
            "ms",
            None,
            "from the call of `lb run` to its first answer",
        );
        add("daemon_memory", memory, "MB", None, "resident, maps included");
    }
    Ok(())
}

/// The file. Tables of many services are short: these are about the number.
fn text_of(config: &LbConfig) -> Result<String> {
    let text = config.to_toml()?;
    if config.services.len() < 1000 {
        return Ok(text);
    }
    // A key before the first table of a service belongs to it.
    Ok(text.replace("[[service]]\n", "[[service]]\ntable_slots = 1021\n"))
}

/// Milliseconds of so many changes, one after the other, of services all over the file.
fn changed(lb: &LbProcess, services: u32, changes: u32) -> Result<Series> {
    let client = Client::new("", Some(lb.socket())).within(PATIENCE);
    let mut times = Series::default();
    for n in 0..changes {
        let service = n.wrapping_mul(7919) % services;
        let body = serde_json::json!({ "weight": 200 + n });
        let path = format!("/v1/services/s{service}/backends/b1");
        let start = Instant::now();
        let answer = client.call(&Method::PATCH, &path, Some(&body))?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        let answer: serde_json::Value = answer.json()?;
        ensure!(answer["changed"] == true && answer["slots_moved"].as_u64() > Some(0), "{path}: {answer}");
        std::thread::sleep(PAUSE);
    }
    Ok(times)
}

/// Megabytes of a process that are in memory.
fn resident(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(kilobytes.unwrap_or_default().trim().parse::<f64>().unwrap_or(f64::NAN) / 1e3)
}
