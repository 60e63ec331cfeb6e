//! `lab run --exit`: so many requests in every mode, the spread, and a verdict.

use std::{
    process::{self, ExitCode},
    time::Duration,
};

use anyhow::Result;
use lb_userspace::config::Announce;
use serde::Serialize;

use super::{
    numbers::{Part, parts, table},
    scene::{CLIENTS, Mode, Scene, Size},
};
use crate::{
    cleanup::namespaces_of,
    traffic::{Spread, SpreadReport, spread},
};

/// With fewer client addresses per backend, one without any may be chance.
const CLIENTS_PER_BACKEND: usize = 20;

/// What one mode did.
#[derive(Debug, Serialize)]
struct Measured {
    mode: Mode,
    /// Sent.
    requests: usize,
    /// Answered with status 200.
    answered: usize,
    /// Not answered, or with another status.
    failed: usize,
    /// Client addresses that got an answer.
    clients: usize,
    /// Client addresses that more than one backend has answered.
    wandering: usize,
    /// Longest time for an answer, in milliseconds.
    slowest_ms: u128,
    backends: Vec<Part>,
    /// What is wrong, one sentence each; empty when all went well.
    complaints: Vec<String>,
}

/// The whole output of `--json`.
#[derive(Debug, Serialize)]
struct Verdict {
    ok: bool,
    modes: Vec<Measured>,
    /// Namespaces that are left behind.
    left: Vec<String>,
}

/// Measures all `modes`, prints, and says by the exit code whether all went well.
pub(super) fn main(
    modes: &[Mode],
    size: Size,
    announce: Announce,
    requests: usize,
    json: bool,
) -> Result<ExitCode> {
    let mut measured = Vec::new();
    for &mode in modes {
        let one = measure(Scene::build(mode, size, announce)?, requests)?;
        if !json {
            one.print();
        }
        measured.push(one);
    }
    let left = namespaces_of(process::id());
    let ok = left.is_empty() && measured.iter().all(|one| one.complaints.is_empty());
    if !json {
        for name in &left {
            println!("left behind: namespace {name}");
        }
        println!("{}", if ok { "All is well; nothing is left behind." } else { "NOT all is well." });
    } else {
        println!("{}", serde_json::to_string_pretty(&Verdict { ok, modes: measured, left })?);
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Takes the scene, so that it is gone before anybody looks at what is left.
fn measure(scene: Scene, requests: usize) -> Result<Measured> {
    eprintln!("lab: {requests} requests from {CLIENTS} client addresses to {} …", scene.target());
    let sources = scene.sources();
    let report = spread(&scene.world.client.ns.entry(), &Spread::new(requests, &sources, scene.target()))?;
    let names: Vec<_> = scene.world.backends.iter().map(|host| host.name.clone()).collect();
    let mut measured = Measured::new(scene.mode(), requests, &report, &names);
    if let Err(error) = scene.end() {
        measured.complaints.push(format!("{error:#}"));
    }
    Ok(measured)
}

impl Measured {
    fn new(mode: Mode, requests: usize, report: &SpreadReport, names: &[String]) -> Self {
        let mut measured = Self {
            mode,
            requests,
            answered: report.answered(),
            failed: report.failed,
            clients: report.answers.len(),
            wandering: report.wanderers().len(),
            slowest_ms: report.slowest.as_millis(),
            backends: parts(report, names),
            complaints: Vec::new(),
        };
        measured.complaints = measured.complain(report);
        measured
    }

    fn complain(&self, report: &SpreadReport) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.answered != self.requests {
            complaints.push(format!("{} of {} requests were not answered", self.failed, self.requests));
            complaints.extend(report.failures.iter().map(|why| format!("  {why}")));
        }
        for source in report.wanderers() {
            let backends = report.answers.get(&source).map(|seen| seen.keys().cloned().collect::<Vec<_>>());
            let backends = backends.unwrap_or_default().join(", ");
            complaints.push(format!("client address {source} saw more than one backend: {backends}"));
        }
        if self.clients >= CLIENTS_PER_BACKEND * self.backends.len() {
            let idle = self.backends.iter().filter(|part| part.requests == 0);
            complaints.extend(idle.map(|part| format!("{} answered nobody", part.name)));
        }
        complaints
    }

    fn print(&self) {
        println!("{}: {} of {} requests answered with 200", self.mode.word(), self.answered, self.requests);
        print!("{}", table(&self.backends, &[]));
        let steady = self.clients - self.wandering;
        println!(
            "  {steady} of {} client addresses saw one backend only; slowest answer {:?}",
            self.clients,
            Duration::from_millis(u64::try_from(self.slowest_ms).unwrap_or(u64::MAX))
        );
        for complaint in &self.complaints {
            println!("  WRONG: {complaint}");
        }
        println!();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::topology::World;

    /// A hundred clients with three answers each, in turn from `names`.
    fn report(names: &[&str]) -> SpreadReport {
        let mut report = SpreadReport::default();
        for (i, source) in World::sources_for(IpAddr::from([0, 0, 0, 0]), 100).into_iter().enumerate() {
            report.answers.entry(source).or_default().insert(names[i % names.len()].into(), 3);
        }
        report
    }

    fn complaints(report: &SpreadReport) -> Vec<String> {
        Measured::new(Mode::L2, 300, report, &["b1".into(), "b2".into(), "b3".into()]).complaints
    }

    #[test]
    fn an_even_and_steady_spread_is_well() {
        assert_eq!(complaints(&report(&["b1", "b2", "b3"])), [""; 0]);
    }

    #[test]
    fn a_lost_request_is_wrong() {
        let mut report = report(&["b1", "b2", "b3"]);
        *report.answers.get_mut(&World::source_v4(0)).unwrap().get_mut("b1").unwrap() -= 1;
        report.add(World::source_v4(0), Err(anyhow::anyhow!("refused")));
        let complaints = complaints(&report);
        assert!(complaints[0].contains("1 of 300") && complaints[1].contains("refused"), "{complaints:?}");
    }

    #[test]
    fn a_wandering_client_is_wrong() {
        let mut report = report(&["b1", "b2", "b3"]);
        report.answers.insert(World::source_v4(0), [("b1".into(), 2), ("b2".into(), 1)].into());
        let complaints = complaints(&report);
        assert!(complaints.len() == 1 && complaints[0].contains("198.19.0.0"), "{complaints:?}");
    }

    #[test]
    fn an_idle_backend_is_wrong() {
        assert_eq!(complaints(&report(&["b1", "b3"])), ["b2 answered nobody"]);
    }
}
