//! The life of an agent: checks, prepares, loads, attaches, follows its source, ends.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{
    Options, Prepare,
    out::Out,
    peers::Peers,
    places::Places,
    prepare::{self, Report},
    source::{Failed, Reader},
};
use crate::{
    config,
    dataplane::{self, AgentMaps, Attachment, DataplaneError},
    net::{
        Netlink,
        links::{Inventory, InventoryWatch, Link},
        xdp_state::{self, AttachMode},
    },
};

/// A balancer is asked again this long after an answer; also the longest wait between two tries.
const REFRESH: Duration = Duration::from_secs(30);
/// First wait after a failed try; doubles up to [`REFRESH`].
const RETRY: Duration = Duration::from_secs(1);

/// What the agent is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Read the source again.
    Reload,
    /// End.
    Stop,
}

/// Does what `lb agent` was told. Ends with [`Signal::Stop`], or when nobody can send one any more.
pub(super) async fn run(
    options: Options,
    places: &Places,
    mut signals: mpsc::Receiver<Signal>,
    out: &mut Out<'_>,
) -> anyhow::Result<()> {
    out.json(options.json);
    let _lock = places.lock()?;
    let netlink = Netlink::connect()?;
    if options.prepare == Prepare::Unprepare {
        let report = prepare::unprepare(&netlink, &places.record).await?;
        say_settings(out, "unprepared", &report);
        return Ok(());
    }
    let source = options.source.context("nothing says what to serve: give --config, --from or --vip")?;
    let reader = Reader::new(source, places, &netlink)?;
    let Some(first) = first(&reader, &mut signals).await? else { return Ok(()) };
    let prepares = options.prepare == Prepare::Prepare;
    let migrated = dataplane::migrate(&places.pins)?;
    let mut agent = Agent::start(places, netlink, prepares, first, out).await.inspect_err(|_| {
        if let Some(migrated) = &migrated {
            migrated.undo(&places.pins);
        }
    })?;
    agent.follow(&reader, &mut signals, out).await?;
    let removed = if options.detach_on_exit { Some(places.pins.remove()?) } else { None };
    let text = match &removed {
        Some(_) => format!("stopped, and the program is gone from {}", agent.config.interface),
        None => format!(
            "stopped; the program stays on {} and goes on taking packets out of tunnels (`lb agent detach` removes it)",
            agent.config.interface
        ),
    };
    out.say("stopped", &text, &json!({"detached": removed.is_some()}));
    Ok(())
}

/// What to begin with: waits for a balancer unless an earlier answer of it is there; `None`: told to stop.
async fn first(
    reader: &Reader,
    signals: &mut mpsc::Receiver<Signal>,
) -> anyhow::Result<Option<config::Agent>> {
    let mut wait = RETRY;
    loop {
        let error = match reader.read().await {
            Ok(config) => return Ok(Some(config)),
            Err(Failed::Forever(error)) => return Err(error),
            Err(Failed::Now(error)) => error,
        };
        if let Some(kept) = reader.kept() {
            log::warn!("{error:#}; beginning with its last answer");
            return Ok(Some(kept));
        }
        log::warn!("{error:#}; trying again in {} s", wait.as_secs());
        tokio::select! {
            signal = signals.recv() => match signal {
                Some(Signal::Reload) => {}
                Some(Signal::Stop) | None => return Ok(None),
            },
            () = sleep(wait) => {}
        }
        wait = (wait * 2).min(REFRESH);
    }
}

/// An agent that is attached.
struct Agent<'p> {
    places: &'p Places,
    netlink: Netlink,
    prepares: bool,
    maps: AgentMaps,
    config: config::Agent,
    peers: Peers,
    /// The interface as it was when last looked at; `None`: it is gone.
    link: Option<Link>,
}

impl<'p> Agent<'p> {
    /// Everything that can be refused is refused before anything is changed.
    async fn start(
        places: &'p Places,
        netlink: Netlink,
        prepares: bool,
        config: config::Agent,
        out: &mut Out<'_>,
    ) -> anyhow::Result<Self> {
        let (link, current) = check_interface(places, &netlink, &config.interface).await?;
        let maps = AgentMaps::load(&places.pins, config.vips.len())?;
        let peers = Peers::start().await?;
        let mut agent = Self { places, netlink, prepares, maps, config, peers, link: Some(link) };
        agent.prepare(out).await?;
        agent.fill()?;
        let attachment = agent.attach(current)?;
        agent.say_ready(out, "ready", &attachment);
        Ok(agent)
    }

    async fn follow(
        &mut self,
        reader: &Reader,
        signals: &mut mpsc::Receiver<Signal>,
        out: &mut Out<'_>,
    ) -> anyhow::Result<()> {
        let links = InventoryWatch::start().await?;
        let mut changes: watch::Receiver<_> = links.subscribe();
        let mut next = Instant::now() + REFRESH;
        // Said once, not every 30 s.
        let mut trouble = String::new();
        loop {
            let mut read = false;
            tokio::select! {
                signal = signals.recv() => match signal {
                    Some(Signal::Reload) => read = true,
                    Some(Signal::Stop) | None => return Ok(()),
                },
                () = self.peers.changed() => {
                    if let Err(error) = self.fill_peers() {
                        log::warn!("{error:#}");
                    }
                }
                () = sleep_until(next), if reader.is_balancer() => read = true,
                Ok(()) = changes.changed() => {
                    let inventory = changes.borrow_and_update().clone();
                    if let Err(error) = self.follow_interface(&inventory, out).await {
                        log::warn!("{}: {error:#}", self.config.interface);
                    }
                }
            }
            if !read {
                continue;
            }
            next = Instant::now() + REFRESH;
            let outcome = match reader.read().await {
                Ok(config) => self.change(config, out).await,
                Err(Failed::Now(error) | Failed::Forever(error)) => Err(error),
            };
            match outcome {
                Ok(()) if !trouble.is_empty() => {
                    log::info!("{} is read again", reader.words());
                    trouble.clear();
                }
                Ok(()) => {}
                Err(error) => {
                    let words = format!("{error:#}");
                    if words != trouble {
                        log::warn!("{words}; going on with what was there");
                        trouble = words;
                    }
                }
            }
        }
    }

    /// Goes over to another configuration; on an error the old one stays, as far as nothing was changed yet.
    async fn change(&mut self, config: config::Agent, out: &mut Out<'_>) -> anyhow::Result<()> {
        if config == self.config {
            return Ok(());
        }
        let (link, current) = check_interface(self.places, &self.netlink, &config.interface).await?;
        let elsewhere = config.interface != self.config.interface;
        let old = std::mem::replace(&mut self.config, config);
        let outcome = async {
            self.prepare(out).await?;
            self.fill()?;
            if elsewhere { self.attach(current).map(Some) } else { Ok(None) }
        };
        match outcome.await {
            Ok(attachment) => {
                self.link = Some(link);
                match attachment {
                    Some(attachment) => self.say_ready(out, "changed", &attachment),
                    None => self.say_changed(out),
                }
                Ok(())
            }
            Err(error) => {
                // So that the next reading tries again.
                self.config = old;
                Err(error)
            }
        }
    }

    /// A new interface of our name gets the program; another MTU means other segments.
    async fn follow_interface(&mut self, inventory: &Inventory, out: &mut Out<'_>) -> anyhow::Result<()> {
        let Ok(link) = inventory.by_name(&self.config.interface) else {
            if self.link.take().is_some() {
                bail!("the interface is gone; waiting for it");
            }
            return Ok(());
        };
        let before = self.link.as_ref().map(|link| (link.index, link.mtu));
        if before == Some((link.index, link.mtu)) {
            return Ok(());
        }
        let (link, current) = check_interface(self.places, &self.netlink, &self.config.interface).await?;
        let anew = before.is_none_or(|(index, _)| index != link.index);
        self.link = Some(link);
        self.prepare(out).await?;
        if anew {
            let attachment = self.attach(current)?;
            self.say_ready(out, "ready", &attachment);
        }
        Ok(())
    }

    async fn prepare(&self, out: &mut Out<'_>) -> anyhow::Result<()> {
        if self.prepares {
            let report = prepare::prepare(&self.netlink, &self.places.record, &self.config).await?;
            say_settings(out, "prepared", &report);
        }
        Ok(())
    }

    fn fill(&mut self) -> anyhow::Result<bool> {
        let vips = self.config.vips.iter().copied().collect();
        let sources = self.config.tunnel_sources.iter().copied().collect();
        let changed = self.maps.fill(&vips, &sources, self.config.gue_port)?;
        self.peers.set(&self.config.peers);
        self.fill_peers()?;
        Ok(changed)
    }

    fn fill_peers(&mut self) -> anyhow::Result<()> {
        Ok(self.maps.set_peers(&self.peers.ways())?)
    }

    /// Attaches here, then lets go of every other interface.
    fn attach(&mut self, current: Option<&'static str>) -> anyhow::Result<Attachment> {
        let config::Agent { interface, xdp_mode, .. } = &self.config;
        let attachment = self.maps.attach(&self.places.pins, interface, *xdp_mode, current)?;
        let asked = match xdp_mode {
            config::XdpMode::Auto => attachment.mode,
            config::XdpMode::Native => "native",
            config::XdpMode::Generic => "generic",
        };
        if asked != attachment.mode {
            log::warn!(
                "{interface} stays in {} mode: a running program keeps its mode; `{}` first gives {asked} mode",
                attachment.mode,
                self.places.pins.detach_command()
            );
        }
        for other in self.places.pins.linked_interfaces().iter().filter(|other| *other != interface) {
            self.places.pins.remove_link(other)?;
            log::info!("detached from {other}");
        }
        Ok(attachment)
    }

    fn say_ready(&self, out: &mut Out<'_>, event: &str, attachment: &Attachment) {
        let Attachment { interface, mode, reason, replaced, .. } = attachment;
        let how = if *replaced { "replaced the program on" } else { "attached to" };
        let text = format!("{how} {interface} in {mode} mode ({reason}), {}", self.serves());
        let details = json!({
            "interface": interface, "mode": mode, "mode_reason": reason, "replaced": replaced,
            "adopted": self.maps.adopted, "vips": self.config.vips, "tunnel_sources": self.config.tunnel_sources,
        });
        out.say(event, &text, &details);
    }

    fn say_changed(&self, out: &mut Out<'_>) {
        let details = json!({
            "interface": self.config.interface, "vips": self.config.vips,
            "tunnel_sources": self.config.tunnel_sources,
        });
        out.say("changed", &format!("changed: {}", self.serves()), &details);
    }

    fn serves(&self) -> String {
        let (vips, sources) = (self.config.vips.len(), self.config.tunnel_sources.len());
        format!(
            "{vips} VIP{} from {sources} tunnel source{}",
            if vips == 1 { "" } else { "s" },
            if sources == 1 { "" } else { "s" }
        )
    }
}

/// The interface and the mode of our program there, if it is there.
///
/// # Errors
/// When there is no such interface, it is not Ethernet, or somebody else's program is on it.
async fn check_interface(
    places: &Places,
    netlink: &Netlink,
    name: &str,
) -> anyhow::Result<(Link, Option<&'static str>)> {
    let inventory = Inventory::read(netlink).await?;
    let link = inventory.by_name(name)?;
    link.ethernet()?;
    let ours = dataplane::pinned_program(&places.pins, name)?;
    let mut current = None;
    for program in xdp_state::attached_programs(netlink, link.index).await? {
        if ours.is_none_or(|ours| ours.program != program.id) {
            return Err(DataplaneError::Occupied { interface: name.into(), owner: program.describe() }.into());
        }
        current = Some(match program.mode {
            AttachMode::Generic => "generic",
            AttachMode::Native | AttachMode::Offloaded => "native",
        });
    }
    Ok((link.clone(), current))
}

/// Says what `--prepare` or `--unprepare` did.
fn say_settings(out: &mut Out<'_>, event: &str, report: &Report) {
    let mut lines = Vec::new();
    for change in &report.changed {
        lines.push(format!("set {}: {} (before: {})", change.setting, change.set, change.before));
    }
    for change in &report.undone {
        lines.push(format!("undone {}: {} (was {})", change.setting, change.before, change.set));
    }
    let kept = report.kept.len();
    if lines.is_empty() && kept == 0 {
        lines.push(format!("{event}: nothing had to be changed"));
    } else if lines.is_empty() {
        lines.push(format!("{event}: all {kept} settings are as they were set"));
    }
    for remark in &report.remarks {
        log::warn!("{remark}");
    }
    out.say(event, &lines.join("\n"), report);
}
