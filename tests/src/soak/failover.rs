//! Two balancers that share nothing but a configuration: one is lost and comes back with empty tables, routers change
//! their minds about every flow, and backends come and go meanwhile.
//!
//! No backend fails and none is removed, so no connection may break.

use std::{collections::BTreeSet, fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use lb_userspace::config::Forward;
use serde::Serialize;
use serde_json::Value;

use super::{
    LINES, Outcome, Size,
    connections::{OVER_V4, OVER_V6},
    many_files, say,
    talkers::{Lives, Plan, Talkers},
};
use crate::{
    backend::Backend,
    cleanup::Folder,
    lb_config::{AgentConfig, Health, LbConfig, Ports},
    lb_process::{AgentProcess, LbProcess},
    random::source::Random,
    site::{SEED, at_once},
    topology::{World, world::Host},
    view::View,
    wait::wait_for,
};

/// Servers that run; the services begin with fewer.
const SERVERS: u8 = 8;
const FIRST: usize = 6;
/// Backends that drain at the same time.
const DRAINING: usize = 2;
/// For what a busy machine does sooner or later.
const LIMIT: Duration = Duration::from_secs(120);
const QUOTED: usize = 10;

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Connections at any time.
    pub connections: usize,
    /// Balancers that were killed, each with its datapath, and came back.
    pub balancers_lost: usize,
    /// Times that the router gave flows to another balancer.
    pub reshuffles: usize,
    /// Times that a backend was added, drained or enabled, on either balancer.
    pub changes: usize,
    /// Agents that were killed and started again.
    pub agents_killed: usize,
    /// Connections that broke because their backend was taken away: none is.
    pub broken_expected: usize,
    /// Connections that broke.
    pub broken_unexpected: usize,
    /// Connections that were opened in all.
    pub opened: usize,
    /// Lines that were answered.
    pub lines: u64,
    /// Attempts to connect that came to nothing, while a balancer was lost.
    pub refused: u64,
    /// Packets that agents handed on.
    pub handed_on: u64,
    /// Packets that found their connection at another backend than the balancer had named first.
    pub second_chance: u64,
    /// Packets of connections that no candidate knew.
    pub stranded: u64,
    /// The first broken connections, in words.
    pub unexpected: Vec<String>,
}

impl Outcome for Report {
    fn complaints(&self) -> Vec<String> {
        let mut complaints = self.unexpected.clone();
        if self.broken_unexpected > 0 {
            complaints.push(format!("{} connections broke without cause", self.broken_unexpected));
        }
        if self.opened < self.connections {
            complaints.push(format!("only {} of {} connections came about", self.opened, self.connections));
        }
        if self.second_chance == 0 {
            complaints.push("no packet needed a second chance: nothing was tried".into());
        }
        complaints
    }
}

/// Runs it.
///
/// # Errors
/// When a part of the group does not do its part.
pub fn run(size: Size, seed: u64) -> Result<Report> {
    let (connections, rounds) = match size {
        Size::Ci => (200, 1),
        Size::Full => (2000, 6),
    };
    many_files()?;
    let mut group = Group::start(Random::new(seed))?;
    let client = group.world.client.ns.entry();
    // Four fifths from the start; the others begin while the balancers disagree.
    let mut plans = group.plans(connections);
    let young = plans.split_off(connections * 4 / 5);
    let old = Talkers::start(&client, plans)?;
    old.wait_round(LIMIT)?;
    say(&format!("{} connections", old.living()));
    let mut young = Some(young);
    let mut others = None;
    for round in 0..rounds {
        let lost = round % 2;
        group.lose(lost, &old)?;
        group.look("one was lost")?;
        group.change_one(1 - lost)?;
        old.wait_round(LIMIT)?;
        group.look("the other one changed")?;
        group.restore(lost)?;
        group.spread(&[lost, 1 - lost])?;
        old.wait_round(LIMIT)?;
        group.look("both have flows again")?;
        group.change_both(lost, &old, || {
            if let Some(plans) = young.take() {
                others = Some(Talkers::start(&client, plans)?);
            }
            Ok(())
        })?;
        everybody(&old, others.as_ref())?;
        group.look("both changed")?;
        group.kill_an_agent()?;
        everybody(&old, others.as_ref())?;
        group.look("an agent was killed")?;
        group.spread(&[lost, 1 - lost])?;
        everybody(&old, others.as_ref())?;
    }
    let mut lives = vec![old.finish()?];
    lives.extend(others.map(Talkers::finish).transpose()?);
    group.report(connections, &lives)
}

/// Waits until everybody was answered.
fn everybody(old: &Talkers, others: Option<&Talkers>) -> Result<()> {
    [Some(old), others].into_iter().flatten().try_for_each(|talkers| talkers.wait_round(LIMIT))
}

/// The balancers and all that is behind them, in the order in which they go.
struct Group {
    lbs: [LbProcess; 2],
    agents: Vec<AgentProcess>,
    _servers: Vec<Backend>,
    world: World,
    _folder: Folder,
    random: Random,
    /// Backends of both services, by number: those that take new connections, and those that drain.
    up: BTreeSet<usize>,
    draining: BTreeSet<usize>,
    /// Packets of connections that no candidate knew, by backend, when last looked at.
    stranded: [u64; SERVERS as usize],
    done: Report,
}

/// What happens to the backends of both services: one begins to drain, another to take connections.
#[derive(Clone, Copy, Debug)]
enum Change {
    Add(usize),
    Drain(usize),
    Enable(usize),
}

impl Group {
    fn start(random: Random) -> Result<Self> {
        let world = World::one_arm().backends(SERVERS).two_balancers().build()?;
        let folder = Folder::new("logs")?;
        let servers = at_once(&world.backends, |host| Backend::start(host, folder.path()))?;
        let agent = AgentConfig::of(&world).to_toml()?;
        let agents = at_once(&world.backends, |host| AgentProcess::start(host, &agent))?;
        let text = config(&world).to_toml()?;
        let second = world.lb2.as_ref().context("a world with two balancers")?;
        let lbs = [LbProcess::start(&world.lb, &text)?, LbProcess::start(second, &text)?];
        let group = Self {
            lbs,
            agents,
            _servers: servers,
            world,
            _folder: folder,
            random,
            up: (1..=FIRST).collect(),
            draining: BTreeSet::new(),
            stranded: [0; SERVERS as usize],
            done: Report::default(),
        };
        for lb in &group.lbs {
            wait_for("every backend to be in service", LIMIT, || {
                lb.view().is_ok_and(|view| view.is_settled())
            })?;
        }
        group.wait_same()?;
        Ok(group)
    }

    fn plans(&self, connections: usize) -> Vec<Plan> {
        let plan = |i: usize| {
            let number = (i / 2) as u16;
            if i.is_multiple_of(2) {
                let source = SocketAddr::from((World::source_v4(number), 0));
                Plan { service: OVER_V4, source, target: (self.world.vip4, LINES).into() }
            } else {
                let source = SocketAddr::from((World::source_v6(number), 0));
                Plan { service: OVER_V6, source, target: (self.world.vip6, LINES).into() }
            }
        };
        (0..connections).map(plan).collect()
    }

    fn host(&self, balancer: usize) -> &Host {
        self.world.lb2.as_ref().filter(|_| balancer == 1).unwrap_or(&self.world.lb)
    }

    /// A balancer is gone with everything that it knew; the router notices a moment later.
    fn lose(&mut self, balancer: usize, talkers: &Talkers) -> Result<()> {
        say(&format!("{} is lost", self.host(balancer).name));
        self.lbs[balancer].lose()?;
        self.done.balancers_lost += 1;
        talkers.wait_lines(talkers.living() as u64 / 8, LIMIT)?;
        self.spread(&[1 - balancer])?;
        talkers.wait_round(LIMIT)
    }

    /// It is back with the file that the other one has, and gets flows when it has found the same backends.
    fn restore(&mut self, balancer: usize) -> Result<()> {
        fs::copy(self.lbs[1 - balancer].config_path(), self.lbs[balancer].config_path())
            .context("the file of the other balancer")?;
        self.lbs[balancer].start_again()?;
        self.wait_same()?;
        say(&format!("{} is back", self.host(balancer).name));
        Ok(())
    }

    /// The router gives flows to these balancers, in this order.
    fn spread(&mut self, balancers: &[usize]) -> Result<()> {
        let hosts: Vec<&Host> = balancers.iter().map(|balancer| self.host(*balancer)).collect();
        self.world.spread_over(&hosts)?;
        self.done.reshuffles += 1;
        Ok(())
    }

    /// A drain and an addition that overlap, on the balancer that is left.
    fn change_one(&mut self, balancer: usize) -> Result<()> {
        for change in self.choose() {
            self.apply(balancer, change)?;
        }
        self.wait_in_service(balancer)
    }

    /// The same on both, first on one, about a second later on the other; in between the router gives every flow to
    /// the balancer that it was not given to, and new connections begin.
    fn change_both(
        &mut self,
        first: usize,
        talkers: &Talkers,
        meanwhile: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let changes = self.choose();
        for change in changes {
            self.apply(first, change)?;
        }
        meanwhile()?;
        // Each connection says a line a second.
        talkers.wait_lines(talkers.living() as u64 / 2, LIMIT)?;
        self.spread(&[1 - first, first])?;
        talkers.wait_lines(talkers.living() as u64 / 2, LIMIT)?;
        for change in changes {
            self.apply(1 - first, change)?;
        }
        self.wait_in_service(first)?;
        self.wait_in_service(1 - first)?;
        self.wait_same()
    }

    /// One backend more, from those that are not configured or else from those that drain; and another one drains.
    fn choose(&mut self) -> [Change; 2] {
        let absent: Vec<usize> = (1..=usize::from(SERVERS))
            .filter(|n| !self.up.contains(n) && !self.draining.contains(n))
            .collect();
        let up: Vec<usize> = self.up.iter().copied().collect();
        let drained = self.random.one_of(&up);
        let draining: Vec<usize> = self.draining.iter().copied().collect();
        let comes = match absent.first() {
            Some(number) if draining.len() < DRAINING => Change::Add(*number),
            _ => Change::Enable(self.random.one_of(&draining)),
        };
        for change in [comes, Change::Drain(drained)] {
            match change {
                Change::Add(number) | Change::Enable(number) => {
                    self.draining.remove(&number);
                    self.up.insert(number);
                }
                Change::Drain(number) => {
                    self.up.remove(&number);
                    self.draining.insert(number);
                }
            }
        }
        [Change::Drain(drained), comes]
    }

    fn apply(&mut self, balancer: usize, change: Change) -> Result<()> {
        say(&format!("{}: {change:?}", self.host(balancer).name));
        for service in [OVER_V4, OVER_V6] {
            let target = |number: usize| format!("{service}/b{number}");
            let lb = &self.lbs[balancer];
            match change {
                Change::Add(number) => {
                    let host = self.world.backend(number)?;
                    let address = if service == OVER_V6 { host.v6.to_string() } else { host.v4.to_string() };
                    lb.cli(&["backend", "add", &target(number), "--address", &address])?
                }
                Change::Drain(number) => lb.cli(&["backend", "drain", &target(number)])?,
                Change::Enable(number) => lb.cli(&["backend", "enable", &target(number)])?,
            };
            self.done.changes += 1;
        }
        Ok(())
    }

    /// Waits until every backend that may takes new connections.
    fn wait_in_service(&self, balancer: usize) -> Result<()> {
        let in_service = |view: &View| {
            [OVER_V4, OVER_V6].iter().all(|service| {
                self.up.iter().all(|number| {
                    let target = format!("{service}/b{number}");
                    view.state(&target) == "ready" && view.slots(&target) > 0
                })
            })
        };
        wait_for("every backend to be in service", LIMIT, || {
            self.lbs[balancer].view().is_ok_and(|view| in_service(&view))
        })
    }

    /// Waits until both balancers have the same tables, by the command that compares them.
    fn wait_same(&self) -> Result<()> {
        let peer = self.lbs[1].socket();
        let peer = peer.to_str().context("the path of a socket")?;
        let mut last = String::new();
        let result = wait_for("both balancers to have the same tables", LIMIT, || {
            let Ok(output) = self.lbs[0].try_cli(&["status", "--peer", peer, "--json"]) else { return false };
            last = output.stdout;
            let Ok(compared) = serde_json::from_str::<Value>(&last) else { return false };
            let services = compared["services"].as_array().map(Vec::as_slice).unwrap_or_default();
            services.len() == 2 && services.iter().all(|service| service["installed_same"] == true)
        });
        result.with_context(|| format!("the last comparison: {last}"))
    }

    fn kill_an_agent(&mut self) -> Result<()> {
        let number = self.random.below(self.agents.len());
        say(&format!("the agent of b{} is killed and started again", number + 1));
        self.agents[number].kill()?;
        self.agents[number].start_again()?;
        self.done.agents_killed += 1;
        Ok(())
    }

    /// Says at which backends connections ended up that no candidate knew, since the last look.
    fn look(&mut self, when: &str) -> Result<()> {
        for (i, agent) in self.agents.iter().enumerate() {
            let stranded = agent.status()?["reasons"]["stranded"].as_u64().unwrap_or_default();
            let before = std::mem::replace(&mut self.stranded[i], stranded);
            if stranded > before {
                say(&format!("{when}: {} packets stranded at b{}", stranded - before, i + 1));
            }
        }
        Ok(())
    }

    fn report(self, connections: usize, lives: &[Lives]) -> Result<Report> {
        let mut report = Report { connections, ..self.done };
        for agent in &self.agents {
            let status = agent.status()?;
            let count = |reason: &str| status["reasons"][reason].as_u64().unwrap_or_default();
            report.handed_on += count("handed_on");
            report.second_chance += count("second_chance");
            report.stranded += count("stranded");
        }
        let broken: Vec<_> = lives.iter().flat_map(|l| &l.all).filter(|life| life.broken.is_some()).collect();
        report.broken_unexpected = broken.len();
        report.opened = lives.iter().map(|l| l.all.len()).sum();
        report.lines = lives.iter().map(|l| l.lines).sum();
        report.refused = lives.iter().map(|l| l.refused).sum();
        report.unexpected = broken.iter().take(QUOTED).map(|life| format!("{life:?}")).collect();
        Ok(report)
    }
}

fn config(world: &World) -> LbConfig {
    let mut config = LbConfig::web(world, world.vip4.into(), Forward::Gue, false);
    config.services.extend(LbConfig::web(world, world.vip6.into(), Forward::Gue, true).services);
    config.daemon.hash_seed = Some(SEED.into());
    for service in &mut config.services {
        service.ports = Ports::Numbers(vec![LINES]);
        service.backends.truncate(FIRST);
        // None of them is killed, so none shall fail, however busy the machine.
        service.health =
            Health { interval: "1s".into(), timeout: "1s".into(), fall: 20, ..Health::default() };
    }
    config.services[0].name = OVER_V4.into();
    config.services[1].name = OVER_V6.into();
    config
}
