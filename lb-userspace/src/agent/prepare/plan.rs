//! What a backend needs, as settings and their values.
//!
//! | setting | why |
//! |---|---|
//! | `arp_ignore` 1, `arp_announce` 2 | the VIP is an address of every backend and of no link: nobody here may answer for it or name it |
//! | `rp_filter` not 1 | packets for the VIP come from clients by the balancer's way, not by the way back |
//! | VIP on `lo` | packets for it are taken as this host's own |
//! | `advmss` of routes to clients | a full segment must fit the way from the balancer with the outer header around it |
//!
//! IPv6 needs no counterpart to the first line: the kernel answers a neighbour solicitation only for an address of the
//! very interface that it came in by (`ndisc_recv_ns` looks there alone), and asks with none but such an address. The
//! test `root_neighbours_hear_nothing_of_a_prepared_vip` watches both.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;
use lb_common::wire::gue;

use super::{
    host::{advmss_word, sysctl},
    record::{PRESENT, Setting, UP},
};
use crate::{
    config,
    net::{
        Netlink,
        host::{self, HostRoute},
        links::{Inventory, Link},
    },
};

/// Most routes whose `advmss` is changed: a backend that carries a full routing table has other ways.
const ROUTES: usize = 256;
/// Bytes of IP and TCP header before a segment.
const HEADERS4: u32 = 40;
const HEADERS6: u32 = 60;
/// Bytes of the largest outer headers: GUE with candidates, so that a service can go over from IP-in-IP at any time.
const OUTER4: u32 = (gue::OUTER4 + gue::LIST4) as u32;
const OUTER6: u32 = (gue::OUTER6 + gue::LIST6) as u32;

/// What is to be, and what an operator should know.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) settings: Vec<(Setting, String)>,
    pub(super) remarks: Vec<String>,
}

/// Looks at this host and says what it needs. Changes nothing.
///
/// # Errors
/// When the host cannot have it: no such interface, IPv6 switched off.
pub(super) async fn plan(netlink: &Netlink, wanted: &config::Agent) -> anyhow::Result<Plan> {
    let inventory = Inventory::read(netlink).await?;
    let link = inventory.by_name(&wanted.interface)?;
    let mut plan = Plan::default();
    let (ipv4, ipv6) = families(&wanted.vips);
    if ipv4 {
        plan.arp(&wanted.interface)?;
        plan.reverse_path(&wanted.interface)?;
    }
    if ipv6 {
        // The kernel's own words ("permission denied") would mislead.
        anyhow::ensure!(
            sysctl("net/ipv6/conf/lo/disable_ipv6")?.as_deref() == Some("0"),
            "IPv6 is switched off on lo, so it cannot have IPv6 VIPs: set net.ipv6.conf.lo.disable_ipv6 to 0, or leave \
             out the IPv6 VIPs"
        );
    }
    plan.settings.push((Setting::Link { interface: "lo".into() }, UP.into()));
    plan.addresses(&inventory, &wanted.vips);
    for (is_there, is_ipv6) in [(ipv4, false), (ipv6, true)] {
        if is_there {
            let routes = host::routes(netlink, &inventory, is_ipv6).await?;
            plan.segments(&routes, &inventory, link, outer(&wanted.tunnel_sources), is_ipv6);
        }
    }
    Ok(plan)
}

/// Whether there are addresses of IPv4 and of IPv6.
pub(super) fn families(vips: &[IpAddr]) -> (bool, bool) {
    (vips.iter().any(IpAddr::is_ipv4), vips.iter().any(IpAddr::is_ipv6))
}

/// Bytes of the largest outer header that these sources send.
fn outer(sources: &[IpNet]) -> u32 {
    if sources.iter().any(|source| matches!(source, IpNet::V6(_))) { OUTER6 } else { OUTER4 }
}

impl Plan {
    /// Sets a number unless the present one will do. A setting that will do is planned too, with the value that it has:
    /// it may be ours from before.
    fn number(&mut self, name: String, wanted: &str, will_do: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        let present = sysctl(&name)?.unwrap_or_default();
        let value = if will_do(&present) { present } else { wanted.to_owned() };
        self.settings.push((Setting::Sysctl { name }, value));
        Ok(())
    }

    /// `all` and the interface count together (the larger one); `lo` is set for good measure, as every guide says.
    fn arp(&mut self, interface: &str) -> anyhow::Result<()> {
        for place in ["all", "lo", interface] {
            // Every other mode is stricter; 3 goes by scope, and the VIPs have the scope of the host.
            self.number(format!("net/ipv4/conf/{place}/arp_ignore"), "1", |present| present != "0")?;
            self.number(format!("net/ipv4/conf/{place}/arp_announce"), "2", |present| present == "2")?;
        }
        Ok(())
    }

    /// Strict (1) becomes loose (2) on this one interface, which wins over a 1 in `all`: other interfaces keep theirs.
    fn reverse_path(&mut self, interface: &str) -> anyhow::Result<()> {
        let all = sysctl("net/ipv4/conf/all/rp_filter")?;
        let strict = |present: &str| present == "1" || (present == "0" && all.as_deref() == Some("1"));
        self.number(format!("net/ipv4/conf/{interface}/rp_filter"), "2", |present| !strict(present))
    }

    fn addresses(&mut self, inventory: &Inventory, vips: &[IpAddr]) {
        let owners = Owners::of(inventory);
        for vip in vips {
            match owners.of_vip(*vip) {
                Owner::Other(link) => self.remarks.push(elsewhere(*vip, link)),
                Owner::Prefix => {}
                Owner::Loopback | Owner::Nobody => {
                    self.settings.push((Setting::Address { address: *vip }, PRESENT.into()));
                }
            }
        }
    }

    /// Routes that may lead to clients announce a segment that fits with an outer header around it.
    fn segments(
        &mut self,
        routes: &[HostRoute],
        inventory: &Inventory,
        tunnel: &Link,
        outer: u32,
        ipv6: bool,
    ) {
        let routes: Vec<&HostRoute> = routes.iter().filter(|route| leads_to_clients(route, tunnel)).collect();
        if routes.len() > ROUTES {
            self.remarks.push(format!(
                "{} has {} routes: `advmss` is not set on so many; give clients' routes an MTU of {} at most, or the way \
                 from the balancer an MTU of {outer} more",
                tunnel.name,
                routes.len(),
                tunnel.mtu.saturating_sub(outer)
            ));
            return;
        }
        for route in routes {
            let out =
                route.interfaces.iter().filter_map(|index| inventory.by_index(*index)).map(|l| l.mtu).min();
            let Some(wanted) = segment(route, out.unwrap_or(tunnel.mtu), tunnel.mtu, outer, ipv6) else {
                // Will do as it is; may be ours from before.
                let setting = Setting::Advmss { route: route.words.clone() };
                self.settings.push((setting, advmss_word(route.advmss)));
                continue;
            };
            match route.fixed {
                None => {
                    let setting = Setting::Advmss { route: route.words.clone() };
                    self.settings.push((setting, wanted.to_string()));
                }
                Some(why) => self.remarks.push(format!(
                    "the route {} is left as it is: {why}; clients behind it need `advmss {wanted}`, or the way from \
                     the balancer an MTU of {} at least",
                    route.words,
                    tunnel.mtu + outer
                )),
            }
        }
    }
}

/// Which interface has which address, for looking up many.
pub(in crate::agent) struct Owners<'i> {
    /// With the address's prefix.
    exact: HashMap<IpAddr, (IpNet, &'i Link)>,
    /// Of loopback: all their addresses are local.
    prefixes: Vec<IpNet>,
}

/// Who has a VIP.
pub(in crate::agent) enum Owner<'i> {
    /// Loopback, as an address alone.
    Loopback,
    /// A prefix of loopback.
    Prefix,
    /// Another interface.
    Other(&'i Link),
    /// No interface.
    Nobody,
}

impl<'i> Owners<'i> {
    pub(in crate::agent) fn of(inventory: &'i Inventory) -> Self {
        let mut exact = HashMap::new();
        for link in inventory.iter() {
            for net in &link.addresses {
                let held = exact.entry(net.addr()).or_insert((*net, link));
                if link.loopback {
                    *held = (*net, link);
                }
            }
        }
        let loopback = inventory.iter().filter(|link| link.loopback).flat_map(|link| &link.addresses);
        let wide = |net: &&IpNet| matches!(net, IpNet::V4(net) if net.prefix_len() < 32);
        Self { exact, prefixes: loopback.filter(wide).copied().collect() }
    }

    pub(in crate::agent) fn of_vip(&self, vip: IpAddr) -> Owner<'i> {
        match self.exact.get(&vip) {
            Some((_, link)) if !link.loopback => Owner::Other(link),
            Some((net, _)) if *net == IpNet::from(vip) => Owner::Loopback,
            Some(_) => Owner::Prefix,
            None if self.prefixes.iter().any(|net| net.contains(&vip)) => Owner::Prefix,
            None => Owner::Nobody,
        }
    }
}

/// A VIP that another interface has.
pub(in crate::agent) fn elsewhere(vip: IpAddr, owner: &Link) -> String {
    format!(
        "{vip} is an address of {}, so this host answers for it there: remove it from {0} and run \
         `lb agent --prepare` again",
        owner.name
    )
}

/// Default routes, and every other by the interface of the tunnels; not those of one link or of groups.
fn leads_to_clients(route: &HostRoute, tunnel: &Link) -> bool {
    let address = route.destination.addr();
    let confined = match address {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    };
    let default = route.destination.prefix_len() == 0;
    !confined && (default || route.interfaces.contains(&tunnel.index))
}

/// The largest segment, in bytes, that fits the tunnel's interface with an outer header; `None` when the route announces
/// no larger one already. `out` is the MTU of the interface that replies leave by: what is announced by default comes from
/// it.
fn segment(route: &HostRoute, out: u32, tunnel: u32, outer: u32, ipv6: bool) -> Option<u32> {
    let headers = if ipv6 { HEADERS6 } else { HEADERS4 };
    let fits = tunnel.saturating_sub(outer + headers);
    let announced = match route.advmss {
        Some(advmss) => advmss,
        None => route.mtu.unwrap_or(out).min(out).saturating_sub(headers),
    };
    (announced > fits && fits > 0).then_some(fits)
}
