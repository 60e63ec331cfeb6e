//! `lab run`: once with a verdict, or live until Ctrl-C.

use std::{process::ExitCode, slice};

use anyhow::{Result, bail};
use clap::ValueEnum;
use lb_userspace::config::Announce;

use super::{
    live, measure,
    scene::{Mode, Scene, Size},
    state::StateFile,
};
use crate::netns::require_root;

/// Requests of one mode when nothing else is said.
const REQUESTS: usize = 3000;

/// Command line of `lab run`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Stop sending after this many requests (with --exit: per mode, default 3000)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    requests: Option<u32>,
    /// Send the requests, print who answered, and end: 0 only if all went well
    #[arg(long)]
    exit: bool,
    /// What to balance; default: all with --exit, ipip without
    #[arg(long, value_enum)]
    mode: Option<ModeChoice>,
    /// Number of backends
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=240))]
    backends: u8,
    /// Number of balancers; the router spreads flows over two (ECMP)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    balancers: u8,
    /// How the VIP reaches the balancer: by a route, or announced by ARP on the LAN
    #[arg(long, value_enum, default_value_t = Announcement::None)]
    announce: Announcement,
    /// Requests per second while live
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: u32,
    /// JSON on standard output: one object with --exit, one per second without
    #[arg(long)]
    json: bool,
    /// Name of a live lab; a second one needs another
    #[arg(long, default_value = super::state::DEFAULT_NAME)]
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeChoice {
    /// IPv4, backends reached by their MAC address
    L2,
    /// IPv4 in IPv4
    Ipip,
    /// IPv6 in IPv6
    Ipv6,
    /// IPv4 in UDP, with a GUE header
    Gue,
    /// One after the other
    All,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Announcement {
    None,
    Arp,
}

impl ModeChoice {
    /// The mode, unless it is all of them.
    fn one(self) -> Option<Mode> {
        match self {
            Self::L2 => Some(Mode::L2),
            Self::Ipip => Some(Mode::Ipip),
            Self::Ipv6 => Some(Mode::Ipv6),
            Self::Gue => Some(Mode::Gue),
            Self::All => None,
        }
    }
}

impl From<Announcement> for Announce {
    fn from(announcement: Announcement) -> Self {
        match announcement {
            Announcement::None => Self::None,
            Announcement::Arp => Self::Arp,
        }
    }
}

/// Runs it.
pub(super) fn main(options: &Options) -> Result<ExitCode> {
    require_root()?;
    let announce = options.announce.into();
    let requests = options.requests.map(|n| n as usize);
    let size = Size { backends: options.backends, balancers: options.balancers };
    if size.balancers == 2 && announce == Announce::Arp {
        bail!("two balancers cannot both announce the VIP by ARP: leave --announce arp out");
    }
    if options.exit {
        let one = options.mode.and_then(ModeChoice::one);
        let modes = one.as_ref().map_or(&Mode::ALL[..], slice::from_ref);
        return measure::main(modes, size, announce, requests.unwrap_or(REQUESTS), options.json);
    }
    let Some(mode) = options.mode.unwrap_or(ModeChoice::Ipip).one() else {
        bail!("a live lab runs one mode: use --mode l2, ipip, ipv6 or gue, or add --exit");
    };
    let state = StateFile::claim(&options.name)?;
    let settings = live::Settings { rate: options.rate, requests, json: options.json };
    live::main(&settings, &state, || Scene::build(mode, size, announce))?;
    Ok(ExitCode::SUCCESS)
}
