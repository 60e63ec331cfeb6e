//! Thousands of connections through random scale events: none breaks but those whose backend failed or was taken out.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use lb_userspace::config::Forward;
use serde::Serialize;

use super::{
    LINES, Outcome, Size,
    events::Events,
    many_files, say,
    talkers::{Plan, Talkers},
};
use crate::{
    lb_config::{Health, LbConfig, Ports},
    random::source::Random,
    site::Site,
    topology::World,
};

/// The service over IPv6, which settles soon: what is settled and what is forgotten is played as well.
pub(super) const OVER_V6: &str = "six";
/// The service over IPv4.
pub(super) const OVER_V4: &str = "web";
const SOON: &str = "20s";
/// Servers that run; the services begin with fewer.
const SERVERS: u8 = 8;
const FIRST: usize = 6;
/// For what a busy machine does sooner or later.
const LIMIT: Duration = Duration::from_secs(120);
/// Unexpected ends that a message quotes.
const QUOTED: usize = 10;

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Connections at any time.
    pub connections: usize,
    /// Scale events.
    pub events: usize,
    /// Connections that broke because their backend failed, was removed or set down.
    pub broken_expected: usize,
    /// Connections that broke for no such reason.
    pub broken_unexpected: usize,
    /// Connections that were opened in all.
    pub opened: usize,
    /// Lines that were answered.
    pub lines: u64,
    /// Attempts to connect that came to nothing, while their backend failed.
    pub refused: u64,
    /// Backends that the balancer took for failed though nobody had killed them.
    pub unplanned_failures: u64,
    /// The first unexpected ends, in words.
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
        complaints
    }
}

/// Runs it.
///
/// # Errors
/// When a part of the site does not do its part.
pub fn run(size: Size, seed: u64) -> Result<Report> {
    let (connections, events) = match size {
        Size::Ci => (200, 14),
        Size::Full => (2000, 50),
    };
    many_files()?;
    let mut site = site()?;
    let talkers = Talkers::start(&site.world.client.ns.entry(), plans(&site, connections))?;
    talkers.wait_round(LIMIT)?;
    say(&format!("{} connections", talkers.living()));
    let mut random = Random::new(seed);
    let mut happenings = Events::new(random.clone(), &[(OVER_V4, FIRST), (OVER_V6, FIRST)]);
    for number in 1..=events {
        let words = happenings.next(&mut site)?;
        say(&format!("{number}/{events}: {words}"));
        // From several within a second to one in a few, by what the connections get done.
        let share = 1 + random.below(if size == Size::Full { 40 } else { 15 }) as u64;
        talkers.wait_lines(connections as u64 * share / 10, LIMIT)?;
        happenings.look(&site)?;
    }
    talkers.wait_round(LIMIT)?;
    let lives = talkers.finish()?;
    let broken: Vec<_> = lives.all.iter().filter(|life| life.broken.is_some()).collect();
    let unexpected: Vec<_> = broken.iter().filter(|life| !happenings.explains(life)).collect();
    Ok(Report {
        connections,
        events,
        broken_expected: broken.len() - unexpected.len(),
        broken_unexpected: unexpected.len(),
        opened: lives.all.len(),
        lines: lives.lines,
        refused: lives.refused,
        unplanned_failures: happenings.unplanned,
        unexpected: unexpected.iter().take(QUOTED).map(|life| format!("{life:?}")).collect(),
    })
}

fn site() -> Result<Site> {
    let world = World::one_arm().backends(SERVERS).prepared().build()?;
    let mut config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    config.services.extend(LbConfig::web(&world, world.vip6.into(), Forward::L2, true).services);
    for service in &mut config.services {
        service.ports = Ports::Numbers(vec![LINES]);
        service.backends.truncate(FIRST);
        // Only what is killed shall fail, however busy the machine.
        service.health = Health { interval: "2s".into(), timeout: "2s".into(), ..Health::default() };
    }
    config.services[1].name = OVER_V6.into();
    config.services[1].settle = Some(SOON.into());
    Site::start(world, config)
}

fn plans(site: &Site, connections: usize) -> Vec<Plan> {
    let plan = |i: usize| {
        let number = (i / 2) as u16;
        if i.is_multiple_of(2) {
            let source = SocketAddr::from((World::source_v4(number), 0));
            Plan { service: OVER_V4, source, target: site.vip4(LINES) }
        } else {
            let source = SocketAddr::from((World::source_v6(number), 0));
            Plan { service: OVER_V6, source, target: site.vip6(LINES) }
        }
    };
    (0..connections).map(plan).collect()
}
