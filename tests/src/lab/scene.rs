//! A whole scene: the one-arm world with servers, agents and the balancer running in it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, ensure};
use lb_userspace::config::{Announce, Forward};
use serde::Serialize;
use serde_json::Value;

use crate::{
    backend::Backend,
    cleanup::Folder,
    lb_config::{AgentConfig, LbConfig},
    lb_process::{AgentProcess, LbProcess, has_xdp},
    site::{SEED, at_once},
    topology::{World, world::Host},
    view::View,
    wait::wait_for,
};

/// Addresses that the client sends from.
pub(super) const CLIENTS: u16 = 300;
/// For `rise` checks of every backend, on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// What is balanced, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// IPv4, backends reached by their MAC address
    L2,
    /// IPv4 in IPv4
    Ipip,
    /// IPv6 in IPv6
    Ipv6,
    /// IPv4 in UDP, with a GUE header
    Gue,
}

/// How many there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) backends: u8,
    /// 1 or 2.
    pub(super) balancers: u8,
}

/// The parts, in the order in which they go.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) lb: LbProcess,
    /// A second balancer, where one was asked for.
    pub(super) lb2: Option<LbProcess>,
    pub(super) agents: Vec<AgentProcess>,
    _servers: Vec<Backend>,
    pub(super) world: World,
    _folder: Folder,
    mode: Mode,
}

impl Mode {
    pub(super) const ALL: [Self; 4] = [Self::L2, Self::Ipip, Self::Ipv6, Self::Gue];

    /// As the command line and the output call it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::Ipip => "ipip",
            Self::Ipv6 => "ipv6",
            Self::Gue => "gue",
        }
    }

    fn forward(self) -> Forward {
        match self {
            Self::L2 => Forward::L2,
            Self::Ipip | Self::Ipv6 => Forward::Ipip,
            Self::Gue => Forward::Gue,
        }
    }
}

impl Scene {
    /// Builds it and waits until every backend is in service.
    pub(super) fn build(mode: Mode, size: Size, announce: Announce) -> Result<Self> {
        let Size { backends, balancers } = size;
        eprintln!(
            "lab: namespaces for a client, a router, balancers ({balancers}) and backends ({backends}) …"
        );
        let mut plan = World::one_arm().backends(backends);
        if balancers == 2 {
            plan = plan.two_balancers();
        }
        if announce == Announce::Arp {
            plan = plan.vip_on_lan();
        }
        if mode.forward() == Forward::L2 {
            plan = plan.prepared();
        }
        let world = plan.build()?;
        let folder = Folder::new("logs")?;
        eprintln!("lab: demo servers …");
        let servers = at_once(&world.backends, |host| Backend::start(host, folder.path()))?;
        let agents = if mode.forward() != Forward::L2 {
            eprintln!("lab: agents …");
            let config = AgentConfig::of(&world).to_toml()?;
            at_once(&world.backends, |host| AgentProcess::start(host, &config))?
        } else {
            Vec::new()
        };
        eprintln!("lab: the balancer …");
        let mut config = LbConfig::web(&world, vip(&world, mode), mode.forward(), mode == Mode::Ipv6);
        config.daemon.announce = announce;
        if balancers == 2 {
            // Without it each would make up its own.
            config.daemon.hash_seed = Some(SEED.into());
        }
        let text = config.to_toml()?;
        let start = |host: &Host| {
            LbProcess::start_with(host, &text, &["--interface", &host.interface, "--detach-on-exit"])
        };
        let (lb, lb2) = (start(&world.lb)?, world.lb2.as_ref().map(start).transpose()?);
        for lb in [Some(&lb), lb2.as_ref()].into_iter().flatten() {
            wait_for("every backend to be in service", READY_LIMIT, || {
                // By the command, as its user would: what `lb` is here may be a stand-in.
                lb.status().is_ok_and(|status| View(status).is_settled())
            })?;
        }
        Ok(Self { lb, lb2, agents, _servers: servers, world, _folder: folder, mode })
    }

    /// Ends the balancers as an operator would; the rest goes with the scene.
    ///
    /// # Errors
    /// When the balancer ends badly or leaves its program behind.
    pub(super) fn end(mut self) -> Result<()> {
        let Self { lb, lb2, world, .. } = &mut self;
        let second = lb2.as_mut().zip(world.lb2.as_ref());
        for (lb, Host { ns, name, interface, .. }) in [(lb, &world.lb)].into_iter().chain(second) {
            lb.stop()?;
            ensure!(
                !has_xdp(&ns.entry(), interface)?,
                "lb run --detach-on-exit has left an XDP program on {interface} of {name}"
            );
        }
        Ok(())
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Where clients send their requests.
    pub(super) fn target(&self) -> SocketAddr {
        (vip(&self.world, self.mode), 80).into()
    }

    /// The client addresses that they come from.
    pub(super) fn sources(&self) -> Vec<IpAddr> {
        World::sources_for(self.target().ip(), CLIENTS)
    }

    /// The daemon's word for the state of each backend, and why; empty when it does not answer.
    pub(super) fn states(&self) -> Vec<(String, String)> {
        let Ok(view) = self.lb.status().map(View) else { return Vec::new() };
        let word = |backend: &Value, key: &str| backend[key].as_str().unwrap_or_default().to_owned();
        view.backends()
            .map(|backend| {
                let (state, reason) = (word(backend, "state"), word(backend, "reason"));
                let shown = if reason.is_empty() { state } else { format!("{state}: {reason}") };
                (word(backend, "name"), shown)
            })
            .collect()
    }
}

fn vip(world: &World, mode: Mode) -> IpAddr {
    match mode {
        Mode::L2 | Mode::Ipip | Mode::Gue => world.vip4.into(),
        Mode::Ipv6 => world.vip6.into(),
    }
}
