//! A whole site at work: a world with demo servers on its backends, agents where the configuration tunnels, and a
//! balancer that has found everybody ready.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    panic::resume_unwind,
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;
use lb_userspace::config::Forward;

use crate::{
    backend::Backend,
    cleanup::Folder,
    lb_config::{AgentConfig, LbConfig},
    lb_process::{AgentProcess, LbProcess},
    topology::{World, world::Host},
    traffic::{Spread, SpreadReport, ask_everybody, spread},
    view::View,
    wait::wait_for,
};

/// Seed of every site that does not bring its own, so that a test moves the same clients every time.
pub const SEED: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// For anything that a busy machine does sooner or later.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The parts, in the order in which they go.
#[derive(Debug)]
pub struct Site {
    /// The balancer.
    pub lb: LbProcess,
    /// One per backend, or none.
    pub agents: Vec<AgentProcess>,
    /// One per backend of the world, configured or not.
    pub servers: Vec<Backend>,
    /// Where it all is.
    pub world: World,
    /// Logs of the servers.
    pub folder: Folder,
    /// The next source port of a spread.
    next_port: AtomicU16,
}

/// Source ports of spreads, below those that the kernel gives away: none is used twice, so that no request looks like
/// the repetition of an earlier one.
const FIRST_PORT: u16 = 10_000;

impl Site {
    /// Starts everything on the balancer's interface and waits until every configured backend is in service.
    ///
    /// # Errors
    /// When a part does not come up; nothing is left behind then.
    pub fn start(world: World, config: LbConfig) -> Result<Self> {
        let interface = world.lb.interface.clone();
        Self::start_with(world, config, &["--interface", &interface])
    }

    /// The same with other arguments after `lb run --config … --name …`.
    ///
    /// # Errors
    /// When a part does not come up; nothing is left behind then.
    pub fn start_with(world: World, mut config: LbConfig, arguments: &[&str]) -> Result<Self> {
        config.daemon.hash_seed.get_or_insert_with(|| SEED.to_owned());
        let tunnels =
            config.services.iter().any(|service| matches!(service.forward, Forward::Ipip | Forward::Gue));
        let agents = if tunnels {
            let mut agent = AgentConfig::of(&world);
            agent.agent.vips = config.services.iter().flat_map(|service| service.addresses.clone()).collect();
            let text = agent.to_toml()?;
            at_once(&world.backends, |host| AgentProcess::start(host, &text))?
        } else {
            Vec::new()
        };
        Self::start_text(world, agents, &config.to_toml()?, arguments)
    }

    /// The same with the text of the balancer's file as a user would write it, and agents that run already.
    ///
    /// # Errors
    /// When a part does not come up; nothing is left behind then.
    pub fn start_text(
        world: World,
        agents: Vec<AgentProcess>,
        text: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let folder = Folder::new("logs")?;
        let servers = at_once(&world.backends, |host| Backend::start(host, folder.path()))?;
        let lb = LbProcess::start_with(&world.lb, text, arguments)?;
        let next_port = AtomicU16::new(FIRST_PORT);
        let site = Self { lb, agents, servers, world, folder, next_port };
        site.wait_settled()?;
        Ok(site)
    }

    /// What the balancer says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn view(&self) -> Result<View> {
        self.lb.view()
    }

    /// Waits until every configured backend is in service, by the table that follows from it.
    ///
    /// # Errors
    /// When that takes longer than [`LIMIT`]; the message carries what the balancer said last.
    pub fn wait_settled(&self) -> Result<()> {
        self.wait("every backend to be in service", View::is_settled)
    }

    /// Waits until `condition` is true of what the balancer says.
    ///
    /// # Errors
    /// When it is not within [`LIMIT`]; the message carries what the balancer said last.
    pub fn wait(&self, what: &str, mut condition: impl FnMut(&View) -> bool) -> Result<()> {
        let mut last = None;
        let result = wait_for(what, LIMIT, || {
            last = Some(self.view());
            matches!(&last, Some(Ok(view)) if condition(view))
        });
        result.map_err(|error| match last {
            Some(Ok(view)) => error.context(format!("the last status: {:#}", view.0)),
            Some(Err(failure)) => error.context(format!("{failure:#}")),
            None => error,
        })
    }

    /// Sends requests to `target`, one after the other from `clients` addresses.
    ///
    /// # Errors
    /// When there is no client address.
    pub fn spread(&self, requests: usize, clients: u16, target: SocketAddr) -> Result<SpreadReport> {
        self.spread_from(requests, &World::sources_for(target.ip(), clients), target)
    }

    /// The same from given addresses.
    ///
    /// # Errors
    /// When there is none.
    pub fn spread_from(
        &self,
        requests: usize,
        sources: &[IpAddr],
        target: SocketAddr,
    ) -> Result<SpreadReport> {
        let rounds = requests.div_ceil(sources.len().max(1)) as u16;
        let first_port = Some(self.next_port.fetch_add(rounds, Ordering::Relaxed));
        let plan = Spread { first_port, ..Spread::new(requests, sources, target) };
        spread(&self.world.client.ns.entry(), &plan)
    }

    /// The backend that echoes a datagram to `target`, for the first `clients` addresses.
    ///
    /// # Errors
    /// When one is not echoed.
    pub fn owners_by_udp(&self, clients: u16, target: SocketAddr) -> Result<BTreeMap<IpAddr, String>> {
        let sources = World::sources_for(target.ip(), clients);
        ask_everybody(&self.world.client.ns.entry(), &sources, target, LIMIT)
    }

    /// The IPv4 VIP with a port.
    #[must_use]
    pub fn vip4(&self, port: u16) -> SocketAddr {
        (self.world.vip4, port).into()
    }

    /// The IPv6 VIP with a port.
    #[must_use]
    pub fn vip6(&self, port: u16) -> SocketAddr {
        (self.world.vip6, port).into()
    }
}

/// Starts something for every host at once.
///
/// # Errors
/// The first error of `start`.
pub fn at_once<T: Send>(hosts: &[Host], start: impl Fn(&Host) -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let threads: Vec<_> = hosts.iter().map(|host| scope.spawn(|| start(host))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}
