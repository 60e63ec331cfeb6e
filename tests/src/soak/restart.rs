//! Connections and a stream of numbered datagrams while the daemon is killed, stopped, started and replaced.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_userspace::config::{Forward, Protocol};
use serde::Serialize;

use super::{
    LINES, Outcome, Size, many_files, say,
    talkers::{Plan, Talkers},
};
use crate::{
    lb_config::{Health, LbConfig, Ports},
    load::Numbered,
    process::output_of,
    random::source::Random,
    site::Site,
    topology::World,
};

/// Port of the demo server's echo.
const ECHO: u16 = 7;
const DATAGRAMS_PER_SECOND: u32 = 200;
/// For what a busy machine does sooner or later.
const LIMIT: Duration = Duration::from_secs(120);
const CALL_LIMIT: Duration = Duration::from_secs(10);
const QUOTED: usize = 10;

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Connections at any time.
    pub connections: usize,
    /// Daemons that were killed and started again.
    pub kills: usize,
    /// Daemons that were stopped and started again.
    pub restarts: usize,
    /// XDP programs that another one took the place of.
    pub programs_replaced: usize,
    /// Connections that broke.
    pub lost_connections: usize,
    /// Datagrams that were sent.
    pub sequence_numbers: u64,
    /// Datagrams that never came back.
    pub missing_sequence_numbers: usize,
    /// Lines that were answered.
    pub lines: u64,
    /// The first ends of connections, in words.
    pub lost: Vec<String>,
}

impl Outcome for Report {
    fn complaints(&self) -> Vec<String> {
        let mut complaints = self.lost.clone();
        if self.lost_connections > 0 {
            complaints.push(format!("{} connections broke", self.lost_connections));
        }
        if self.missing_sequence_numbers > 0 {
            complaints.push(format!("{} datagrams never came back", self.missing_sequence_numbers));
        }
        if self.programs_replaced < self.kills + self.restarts {
            complaints.push("a start has not put its own program on the interface".into());
        }
        complaints
    }
}

/// How a daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    Stopped,
}

/// Runs it.
///
/// # Errors
/// When a part of the site does not do its part.
pub fn run(size: Size, seed: u64) -> Result<Report> {
    let (connections, rounds) = match size {
        Size::Ci => (100, 1),
        Size::Full => (1000, 5),
    };
    many_files()?;
    let mut site = site()?;
    let client = site.world.client.ns.entry();
    let plan = |i: usize| {
        let source = SocketAddr::from((World::source_v4(i as u16), 0));
        Plan { service: "web", source, target: site.vip4(LINES) }
    };
    let talkers = Talkers::start(&client, (0..connections).map(plan).collect())?;
    talkers.wait_round(LIMIT)?;
    let source = SocketAddr::from((World::source_v4(60_000), 0));
    let stream = Numbered::start(&client, source, site.vip4(ECHO), DATAGRAMS_PER_SECOND)?;
    say(&format!("{} connections and a stream of datagrams", talkers.living()));

    let mut random = Random::new(seed);
    let mut programs = BTreeSet::from([program(&site)?]);
    let mut ends: Vec<End> = (0..rounds).flat_map(|_| [End::Killed, End::Stopped]).collect();
    for i in (1..ends.len()).rev() {
        ends.swap(i, random.below(i + 1));
    }
    for (round, end) in ends.iter().enumerate() {
        // Something to remember, so that a daemon that knew nothing would break connections.
        let target = format!("web/b{}", 1 + random.below(3));
        let weight = [20, 60, 140, 300][round % 4].to_string();
        site.lb.cli(&["backend", "set", &target, "--weight", &weight])?;
        talkers.wait_round(LIMIT)?;
        match end {
            End::Killed => site.lb.kill()?,
            End::Stopped => site.lb.stop()?,
        }
        say(&format!("{}/{}: {end:?}", round + 1, ends.len()));
        talkers.wait_round(LIMIT)?;
        site.lb.start_again()?;
        talkers.wait_round(LIMIT)?;
        programs.insert(program(&site)?);
    }
    talkers.wait_round(LIMIT)?;
    let echoes = stream.finish()?;
    let lives = talkers.finish()?;
    let lost: Vec<_> = lives.all.iter().filter(|life| life.broken.is_some()).collect();
    let count = |which: End| ends.iter().filter(|end| **end == which).count();
    Ok(Report {
        connections,
        kills: count(End::Killed),
        restarts: count(End::Stopped),
        programs_replaced: programs.len() - 1,
        lost_connections: lost.len(),
        sequence_numbers: echoes.sent,
        missing_sequence_numbers: echoes.missing.len(),
        lines: lives.lines,
        lost: lost.iter().take(QUOTED).map(|life| format!("{life:?}")).collect(),
    })
}

fn site() -> Result<Site> {
    let world = World::one_arm().backends(3).prepared().build()?;
    let mut config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    config.services[0].ports = Ports::Numbers(vec![LINES]);
    let mut echo = config.services[0].clone();
    echo.name = "echo".into();
    echo.protocol = Protocol::Udp;
    echo.ports = Ports::Numbers(vec![ECHO]);
    config.services.push(echo);
    for service in &mut config.services {
        service.health = Health { interval: "2s".into(), timeout: "2s".into(), ..Health::default() };
    }
    Site::start(world, config)
}

/// Number of the XDP program on the balancer's interface.
fn program(site: &Site) -> Result<u64> {
    let host = &site.world.lb;
    let mut command = host.ns.command("ip");
    command.args(["-json", "link", "show", "dev", &host.interface]);
    let text = output_of(command, CALL_LIMIT)?;
    let links: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("ip -json link printed {text:?}"))?;
    let id = links[0]["xdp"]["prog"]["id"].as_u64();
    ensure!(id.is_some(), "no XDP program on {}", host.interface);
    Ok(id.unwrap_or_default())
}
