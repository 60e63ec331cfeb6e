//! `lb agent`, `lb agent status`, `lb agent detach`.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::{
    context::Context,
    detach::report,
    exit::Failure,
    hooks::{AgentOptions, AgentSource, Prepare},
    output::log_to_stderr,
};
use crate::config::{self, XdpMode};

/// Run the agent on a backend: take packets out of their tunnels.
///
/// Only tunnels from the named sources to the named VIPs are opened; everything else passes untouched.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Agent {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    source: Source,
    /// Also set what this host needs: VIPs on lo, ARP, reverse path, MTU
    #[arg(long)]
    prepare: bool,
    /// Undo exactly what --prepare set, and end
    #[arg(long, conflicts_with_all = ["prepare", "detach_on_exit"])]
    unprepare: bool,
    /// Remove the program when the agent stops
    #[arg(long)]
    detach_on_exit: bool,
}

#[derive(Debug, Args)]
struct Source {
    /// File with an [agent] section
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["from", "vips", "unprepare"],
          conflicts_with_all = ["from", "vips", "tunnel_sources", "interface", "xdp_mode", "gue_port", "peers"])]
    config: Option<PathBuf>,
    /// Balancer to ask for VIPs and tunnel sources: HOST, HOST:PORT, URL or the path of its socket
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["vips", "tunnel_sources", "xdp_mode", "gue_port", "peers"])]
    from: Option<String>,
    /// Interface on which tunnelled packets arrive
    #[arg(short, long, visible_alias = "iface", value_name = "IF")]
    interface: Option<String>,
    /// VIP to take packets out of tunnels for; may be given several times
    #[arg(long = "vip", value_name = "ADDRESS", value_parser = vip, requires_all = ["tunnel_sources", "interface"])]
    vips: Vec<IpAddr>,
    /// Outer sources that are believed; may be given several times
    #[arg(long = "tunnel-source", value_name = "PREFIX", value_parser = config::parse_prefix, requires = "vips")]
    tunnel_sources: Vec<IpNet>,
    /// Destination port of UDP with GUE
    #[arg(long, value_name = "PORT", default_value_t = config::defaults::GUE_PORT, requires = "vips",
          value_parser = clap::value_parser!(u16).range(1..))]
    gue_port: u16,
    /// Another backend, for connections that are not known here; may be given several times
    #[arg(long = "peer", value_name = "ADDRESS", value_parser = vip, requires = "vips")]
    peers: Vec<IpAddr>,
    /// Where the program runs [default: auto]
    #[arg(long, value_name = "MODE", requires = "vips")]
    xdp_mode: Option<Mode>,
}

/// By the rules of `vips` in the file.
fn vip(text: &str) -> Result<IpAddr, config::ValueError> {
    config::parse_address(text).and_then(|vip| config::check_destination(vip).map(|()| vip))
}

/// [`XdpMode`] as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Native, else generic
    Auto,
    /// In the driver, or not at all
    Native,
    /// In the stack
    Generic,
}

/// What can be done to an agent from outside.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Show what the agent does on this host
    Status,
    /// Take the agent's program and its state off this host
    Detach,
}

impl Agent {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        match &self.verb {
            Some(Verb::Status) => {
                let text = (cx.hooks.agent_status)(&cx.global.name, cx.out.json).map_err(Failure::Failed)?;
                cx.out.data(text)
            }
            Some(Verb::Detach) => {
                log_to_stderr("warn");
                let removed = (cx.hooks.agent_detach)(&cx.global.name).map_err(Failure::Failed)?;
                report(cx, "agent", &removed)
            }
            None => {
                log_to_stderr("info");
                (cx.hooks.agent)(self.options(cx)).map_err(Failure::Failed)
            }
        }
    }

    fn options(&self, cx: &Context<'_>) -> AgentOptions {
        let prepare = match (self.prepare, self.unprepare) {
            (_, true) => Prepare::Unprepare,
            (true, _) => Prepare::Prepare,
            _ => Prepare::Leave,
        };
        AgentOptions {
            source: self.source.chosen(),
            name: cx.global.name.clone(),
            prepare,
            detach_on_exit: self.detach_on_exit,
            json: cx.out.json,
        }
    }
}

impl Source {
    /// clap has seen to it that at most one is there and that it is complete.
    fn chosen(&self) -> Option<AgentSource> {
        if let Some(path) = &self.config {
            return Some(AgentSource::File(path.clone()));
        }
        if let Some(address) = &self.from {
            let (address, interface) = (address.clone(), self.interface.clone());
            return Some(AgentSource::Balancer { address, interface });
        }
        Some(AgentSource::Flags(config::Agent {
            interface: self.interface.clone().filter(|_| !self.vips.is_empty())?,
            vips: self.vips.clone(),
            tunnel_sources: self.tunnel_sources.clone(),
            gue_port: self.gue_port,
            peers: self.peers.clone(),
            xdp_mode: match self.xdp_mode {
                None | Some(Mode::Auto) => XdpMode::Auto,
                Some(Mode::Native) => XdpMode::Native,
                Some(Mode::Generic) => XdpMode::Generic,
            },
        }))
    }
}
