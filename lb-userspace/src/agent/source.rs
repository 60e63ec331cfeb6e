//! Reads what the agent is to serve, from wherever it was told, and checks it by the rules of `[agent]`.

use std::{collections::HashSet, hash::Hash};

use anyhow::{Context, bail};

use super::{
    Source,
    balancer::{self, Answered, Endpoint},
    places::Places,
};
use crate::{
    config::{self, Config, check_destination, check_interface, limits, parse_prefix},
    net::{Netlink, host, links::Inventory},
};

/// Why nothing was read.
#[derive(Debug)]
pub(super) enum Failed {
    /// It may go better later.
    Now(anyhow::Error),
    /// It will not.
    Forever(anyhow::Error),
}

/// Where to read.
pub(super) struct Reader {
    source: Source,
    /// Parsed once, for a balancer.
    endpoint: Option<Endpoint>,
    places: Places,
    netlink: Netlink,
}

impl Reader {
    /// # Errors
    /// When the address of a balancer is none.
    pub(super) fn new(source: Source, places: &Places, netlink: &Netlink) -> anyhow::Result<Self> {
        let endpoint = match &source {
            Source::Balancer { address, .. } => Some(address.parse()?),
            Source::File(_) | Source::Flags(_) => None,
        };
        Ok(Self { source, endpoint, places: places.clone(), netlink: netlink.clone() })
    }

    /// Whether the source changes without telling us.
    pub(super) fn is_balancer(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Where the configuration comes from, in words.
    pub(super) fn words(&self) -> String {
        match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Balancer { address, .. } => format!("the balancer {address}"),
            Source::Flags(_) => "the command line".into(),
        }
    }

    /// Reads once. The answer of a balancer is kept for a start without it.
    pub(super) async fn read(&self) -> Result<config::Agent, Failed> {
        match (&self.source, &self.endpoint) {
            (Source::Balancer { address, interface }, Some(endpoint)) => {
                let failed =
                    |error: anyhow::Error| Failed::Now(error.context(format!("the balancer {address}")));
                let answer = endpoint.ask().await.map_err(failed)?;
                let agent = self.of_answer(answer, interface.as_deref()).await?;
                let agent = checked(agent).map_err(failed)?;
                if let Err(error) = balancer::keep(&self.places.answer, address, &agent) {
                    log::warn!("the answer of the balancer is not kept for a start without it: {error:#}");
                }
                Ok(agent)
            }
            (Source::Flags(agent), _) => checked(agent.clone()).map_err(Failed::Forever),
            (Source::File(path), _) => {
                let config = Config::load(path).map_err(|e| Failed::Forever(e.into()))?;
                let agent = config.agent.with_context(|| {
                    format!(
                        "{} has no [agent] section: add one (docs/configuration.md), or ask a balancer with --from",
                        path.display()
                    )
                });
                agent.map_err(Failed::Forever)
            }
            (Source::Balancer { address, .. }, None) => {
                Err(Failed::Forever(anyhow::anyhow!("{address} was not understood")))
            }
        }
    }

    /// The last answer of the balancer, if there is one.
    pub(super) fn kept(&self) -> Option<config::Agent> {
        let Source::Balancer { address, interface } = &self.source else { return None };
        let kept = balancer::kept(&self.places.answer, address, interface.as_deref());
        kept.and_then(|kept| kept.map(checked).transpose())
            .map_err(|error| log::warn!("the last answer of the balancer is of no use: {error:#}"))
            .ok()
            .flatten()
    }

    async fn of_answer(&self, answer: Answered, interface: Option<&str>) -> Result<config::Agent, Failed> {
        let interface = match interface {
            Some(interface) => interface.to_owned(),
            None => self.way_to(&answer).await?,
        };
        Ok(config::Agent {
            interface,
            vips: answer.info.vips,
            tunnel_sources: answer.info.tunnel_sources,
            gue_port: answer.info.gue_port,
            peers: answer.info.peers,
            xdp_mode: config::XdpMode::Auto,
        })
    }

    /// Name of the interface that the route to the balancer takes.
    async fn way_to(&self, answer: &Answered) -> Result<String, Failed> {
        let now = |error: crate::net::NetError| Failed::Now(error.into());
        let Some(peer) = answer.peer else {
            return Err(Failed::Forever(anyhow::anyhow!(
                "a socket does not tell which way packets come in: name the interface with --interface"
            )));
        };
        let index = host::outgoing(&self.netlink, peer).await.map_err(now)?;
        let inventory = Inventory::read(&self.netlink).await.map_err(now)?;
        match index.and_then(|index| inventory.by_index(index)) {
            Some(link) => Ok(link.name.clone()),
            None => Err(Failed::Forever(anyhow::anyhow!(
                "the balancer {peer} is on this host or has no route, so the interface of its packets is not known: name \
                 it with --interface"
            ))),
        }
    }
}

/// Holds flags and answers to the rules that the file is held to; what is named twice counts once.
fn checked(mut agent: config::Agent) -> anyhow::Result<config::Agent> {
    check_interface(&agent.interface).map_err(|e| anyhow::anyhow!("interface: {e}"))?;
    for vip in &agent.vips {
        check_destination(*vip).map_err(|e| anyhow::anyhow!("VIP: {e}"))?;
    }
    for source in &agent.tunnel_sources {
        parse_prefix(&source.to_string()).map_err(|e| anyhow::anyhow!("tunnel source: {e}"))?;
    }
    once(&mut agent.vips);
    once(&mut agent.tunnel_sources);
    bounds("VIPs", agent.vips.len(), limits::AGENT_VIPS)?;
    bounds("tunnel sources", agent.tunnel_sources.len(), limits::AGENT_SOURCES)?;
    Ok(agent)
}

fn once<T: Copy + Eq + Hash>(list: &mut Vec<T>) {
    let mut seen = HashSet::new();
    list.retain(|item| seen.insert(*item));
}

fn bounds(what: &str, found: usize, most: usize) -> anyhow::Result<()> {
    if found == 0 {
        bail!("found no {what}, expected at least one: without them no packet is taken out of a tunnel");
    }
    anyhow::ensure!(found <= most, "found {found} {what}, expected at most {most}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(vips: &[&str], sources: &[&str]) -> config::Agent {
        config::Agent {
            interface: "eth0".into(),
            vips: vips.iter().map(|v| v.parse().unwrap()).collect(),
            tunnel_sources: sources.iter().map(|s| s.parse().unwrap()).collect(),
            gue_port: config::defaults::GUE_PORT,
            peers: Vec::new(),
            xdp_mode: config::XdpMode::Auto,
        }
    }

    #[test]
    fn what_is_given_twice_counts_once() {
        let got = checked(agent(&["192.0.2.1", "192.0.2.1"], &["198.51.100.0/28", "198.51.100.0/28"]));
        assert_eq!(got.unwrap(), agent(&["192.0.2.1"], &["198.51.100.0/28"]));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        for (vips, sources, want) in [
            (&[][..], &["198.51.100.0/28"][..], "found no VIPs, expected at least one"),
            (&["192.0.2.1"], &[], "found no tunnel sources, expected at least one"),
            (&["224.0.0.1"], &["198.51.100.0/28"], "VIP: found 224.0.0.1, a multicast address"),
            (&["192.0.2.1"], &["0.0.0.0/0"], "tunnel source: found \"0.0.0.0/0\""),
            (&["192.0.2.1"], &["198.51.100.1/28"], "write \"198.51.100.0/28\""),
        ] {
            let error = checked(agent(vips, sources)).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        let nameless =
            config::Agent { interface: String::new(), ..agent(&["192.0.2.1"], &["198.51.100.0/28"]) };
        assert!(checked(nameless).unwrap_err().to_string().starts_with("interface: "));
    }
}
