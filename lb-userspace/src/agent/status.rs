//! `lb agent status`: pins, host and record, read without an agent.

use std::{collections::BTreeMap, fmt::Write, net::IpAddr};

use anyhow::bail;
use ipnet::IpNet;
use lb_common::abi::{ABI_VERSION, Reason};
use serde::Serialize;

use super::{
    places::Places,
    prepare::{self, Owner, Owners, Place, Record, elsewhere, sysctl},
};
use crate::{
    dataplane::{self, AgentView, InstanceLock},
    net::{Netlink, links::Inventory, xdp_state},
};

/// What the agent does on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Status {
    /// Version of the layout of the maps.
    abi: u32,
    /// `--name`.
    name: String,
    /// Whether an agent process runs; the program works without one.
    running: bool,
    /// Interface that the program is attached to.
    pub(super) interface: Option<String>,
    /// `native` or `generic`; absent while no program is attached.
    pub(super) mode: Option<String>,
    /// Kernel id of the link; stays when the program is replaced.
    pub(super) link_id: Option<u32>,
    /// Kernel id of the program.
    pub(super) program_id: Option<u32>,
    /// Destinations that are taken out of tunnels.
    pub(super) vips: Vec<IpAddr>,
    /// Outer sources that are believed.
    pub(super) tunnel_sources: Vec<IpNet>,
    /// Destination port of GUE; absent before an agent ran.
    pub(super) gue_port: Option<u16>,
    /// Other backends, and whether the way to each is known.
    pub(super) peers: BTreeMap<IpAddr, bool>,
    /// Packets by Reason since the maps were made: those that an agent knows.
    pub(super) reasons: BTreeMap<&'static str, u64>,
    /// What `--prepare` changed.
    pub(super) prepared: Vec<Prepared>,
    /// What an operator should know, one sentence each.
    pub(super) warnings: Vec<String>,
}

/// A prepared setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Prepared {
    /// What it is.
    pub(super) setting: String,
    /// Value before `--prepare`.
    pub(super) before: String,
    /// Value that it was given.
    pub(super) set: String,
    /// Value now; absent: it is gone.
    pub(super) present: Option<String>,
}

/// Reads everything.
///
/// # Errors
/// When there is nothing of an agent of this name, or it cannot be read.
pub(super) async fn read(places: &Places) -> anyhow::Result<Status> {
    let view = AgentView::read(&places.pins)?;
    let record = Record::load(&places.record)?;
    if view.is_none() && record.is_none() {
        bail!(
            "there is no agent of the name {:?} on this host: start one with `lb agent --config FILE`, `lb agent --from \
             ADDRESS` or `lb agent --interface IF --vip A --tunnel-source P`",
            places.name
        );
    }
    let netlink = Netlink::connect()?;
    let inventory = Inventory::read(&netlink).await?;
    let mut status = Status {
        abi: ABI_VERSION,
        name: places.name.clone(),
        running: InstanceLock::is_held(&places.lock),
        interface: places.pins.linked_interfaces().into_iter().next(),
        mode: None,
        link_id: None,
        program_id: None,
        vips: Vec::new(),
        tunnel_sources: Vec::new(),
        gue_port: None,
        peers: BTreeMap::new(),
        reasons: BTreeMap::new(),
        prepared: Vec::new(),
        warnings: Vec::new(),
    };
    if let Some(view) = view {
        status.gue_port = Some(view.gue_port);
        status.peers = view.peers;
        status.vips = view.vips.into_iter().collect();
        status.tunnel_sources = view.sources.into_iter().collect();
        status.reasons =
            view.reasons.iter().filter(|(r, _)| is_of_agent(*r)).map(|(r, n)| (r.name(), *n)).collect();
    }
    status.attached(places, &netlink, &inventory).await?;
    status.addresses(&inventory);
    status.neighbours()?;
    if let Some(record) = record {
        status.settings(&netlink, &record).await?;
    }
    Ok(status)
}

/// Whether an agent gives this reason.
fn is_of_agent(reason: Reason) -> bool {
    use Reason::{
        Decapsulated, HandedOn, MalformedTunnel, NotTunnel, SecondChance, Stranded, UnknownTunnelSource,
    };
    matches!(
        reason,
        NotTunnel | Decapsulated | UnknownTunnelSource | MalformedTunnel | HandedOn | SecondChance | Stranded
    )
}

impl Status {
    async fn attached(
        &mut self,
        places: &Places,
        netlink: &Netlink,
        inventory: &Inventory,
    ) -> anyhow::Result<()> {
        let Some(interface) = self.interface.clone() else {
            self.warnings.push("no program is attached: packets are not taken out of tunnels".into());
            return Ok(());
        };
        let Some(pinned) = dataplane::pinned_program(&places.pins, &interface)? else { return Ok(()) };
        self.link_id = Some(pinned.link);
        self.program_id = Some(pinned.program);
        let Ok(link) = inventory.by_name(&interface) else {
            self.warnings.push(format!(
                "there is no interface {interface} here: it was removed, or is in another network namespace"
            ));
            return Ok(());
        };
        let attached = xdp_state::attached_programs(netlink, link.index).await?;
        match attached.iter().find(|program| program.id == pinned.program) {
            Some(program) => self.mode = Some(program.mode.to_string()),
            None => self.warnings.push(format!(
                "the program is not on {interface}: the interface was made anew; start the agent again"
            )),
        }
        Ok(())
    }

    /// Warns of VIPs that packets would leave for again.
    fn addresses(&mut self, inventory: &Inventory) {
        let owners = Owners::of(inventory);
        let mut missing = Vec::new();
        for vip in &self.vips {
            match owners.of_vip(*vip) {
                Owner::Loopback | Owner::Prefix => {}
                Owner::Other(link) => self.warnings.push(elsewhere(*vip, link)),
                Owner::Nobody => missing.push(vip.to_string()),
            }
        }
        if let Some(first) = missing.first() {
            let more = match missing.len() {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            self.warnings.push(format!(
                "{first}{more} is not on lo, so packets for it are not taken: run `lb agent --prepare …`"
            ));
        }
    }

    /// Warns of settings with which a backend harms its link or loses packets.
    fn neighbours(&mut self) -> anyhow::Result<()> {
        let Some(interface) = &self.interface else { return Ok(()) };
        if !self.vips.iter().any(IpAddr::is_ipv4) {
            return Ok(());
        }
        let read = |place: &str, name: &str| -> anyhow::Result<u32> {
            let value = sysctl(&format!("net/ipv4/conf/{place}/{name}"))?;
            Ok(value.and_then(|value| value.parse().ok()).unwrap_or(0))
        };
        // The kernel takes the larger one of the two.
        let both = |name: &str| Ok::<_, anyhow::Error>(read("all", name)?.max(read(interface, name)?));
        if both("arp_ignore")? == 0 {
            self.warnings.push(format!(
                "this host answers ARP requests for its VIPs (arp_ignore is 0 for {interface}): run `lb agent --prepare …`"
            ));
        }
        if both("rp_filter")? == 1 {
            self.warnings.push(format!(
                "packets may be dropped as not coming by the way back (rp_filter is 1 for {interface}): run \
                 `lb agent --prepare …`"
            ));
        }
        Ok(())
    }

    async fn settings(&mut self, netlink: &Netlink, record: &Record) -> anyhow::Result<()> {
        if record.place != Place::here()? {
            let text = "what was prepared is gone: the host was restarted since, or this is another network namespace; \
                        run `lb agent --prepare …`";
            self.warnings.push(text.into());
            return Ok(());
        }
        for (change, present) in prepare::recorded(netlink, record).await? {
            if present.as_deref() != Some(change.set.as_str()) {
                let now = present.as_deref().unwrap_or("gone");
                self.warnings.push(format!(
                    "{} is {now}, but was prepared as {}: run `lb agent --prepare …`",
                    change.setting, change.set
                ));
            }
            let setting = change.setting.to_string();
            self.prepared.push(Prepared { setting, before: change.before, set: change.set, present });
        }
        Ok(())
    }

    /// As JSON, or as text for people.
    pub(super) fn render(&self, json: bool) -> anyhow::Result<String> {
        if json {
            return Ok(serde_json::to_string(self)?);
        }
        let mut text = String::new();
        let process = if self.running { "running" } else { "no process (the program works without)" };
        let place = match (&self.interface, &self.mode) {
            (Some(interface), Some(mode)) => format!("on {interface} in {mode} mode"),
            (Some(interface), None) => format!("not on {interface}"),
            (None, _) => "not attached".into(),
        };
        writeln!(text, "agent {}: {place}, {process}", self.name)?;
        writeln!(text, "VIPs            {}", list(&self.vips))?;
        writeln!(text, "tunnel sources  {}", list(&self.tunnel_sources))?;
        if let Some(port) = self.gue_port {
            writeln!(text, "GUE port        {port}")?;
        }
        if !self.peers.is_empty() {
            let unknown = self.peers.values().filter(|known| !**known).count();
            writeln!(text, "peers           {}, {unknown} without a known way", self.peers.len())?;
        }
        let counts: Vec<_> = self.reasons.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(text, "packets         {}", list(&counts))?;
        for (n, Prepared { setting, before, set, present }) in self.prepared.iter().enumerate() {
            let head = if n == 0 { "prepared" } else { "" };
            let now = match present {
                Some(present) if present == set => String::new(),
                Some(present) => format!(", now {present}"),
                None => ", gone".into(),
            };
            writeln!(text, "{head:<16}{setting} = {set} (before: {before}{now})")?;
        }
        for (n, warning) in self.warnings.iter().enumerate() {
            writeln!(text, "{:<16}{warning}", if n == 0 { "warnings" } else { "" })?;
        }
        Ok(text)
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".into();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_of_an_agent_are_its_own() {
        let names: Vec<_> =
            Reason::ALL.iter().copied().filter(|r| is_of_agent(*r)).map(Reason::name).collect();
        assert_eq!(
            names,
            [
                "not_tunnel",
                "decapsulated",
                "unknown_tunnel_source",
                "malformed_tunnel",
                "handed_on",
                "second_chance",
                "stranded"
            ]
        );
    }

    #[test]
    fn people_see_what_was_set_and_what_became_of_it() {
        let prepared = |setting: &str, present: Option<&str>| Prepared {
            setting: setting.into(),
            before: "0".into(),
            set: "1".into(),
            present: present.map(Into::into),
        };
        let status = Status {
            abi: 1,
            name: "main".into(),
            running: false,
            interface: Some("eth0".into()),
            mode: Some("native".into()),
            link_id: Some(1),
            program_id: Some(2),
            vips: vec!["192.0.2.10".parse().unwrap()],
            tunnel_sources: vec!["198.51.100.0/28".parse().unwrap()],
            gue_port: Some(6080),
            peers: [("198.51.100.12".parse().unwrap(), true)].into(),
            reasons: [("decapsulated", 5)].into(),
            prepared: vec![prepared("a", Some("1")), prepared("b", Some("2")), prepared("c", None)],
            warnings: vec!["careful".into()],
        };
        assert_eq!(
            status.render(false).unwrap(),
            "agent main: on eth0 in native mode, no process (the program works without)\n\
             VIPs            192.0.2.10\n\
             tunnel sources  198.51.100.0/28\n\
             GUE port        6080\n\
             peers           1, 0 without a known way\n\
             packets         decapsulated 5\n\
             prepared        a = 1 (before: 0)\n                b = 1 (before: 0, now 2)\n                c = 1 (before: 0, gone)\n\
             warnings        careful\n"
        );
        let json: serde_json::Value = serde_json::from_str(&status.render(true).unwrap()).unwrap();
        assert_eq!(json["reasons"]["decapsulated"], 5);
        assert_eq!(json["tunnel_sources"][0], "198.51.100.0/28");
    }
}
