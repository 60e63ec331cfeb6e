//! From what is known (route, interface, neighbour) to the verdict on a target. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    NextHop, Resolution,
    entry::{Key, Neighbour, State},
};
use crate::net::{
    links::{Inventory, Link},
    route::{Route, Via},
};

/// What is known of a target by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The kernel's last answer.
    pub(super) route: Route,
    /// The interface of the last way out: when the route is gone, its state tells why.
    pub(super) last_oif: Option<u32>,
}

impl Target {
    /// The neighbour whose MAC address is needed, if the route leads to one.
    pub(super) fn neighbour(&self, ip: IpAddr) -> Option<Key> {
        match &self.route {
            Route::Via(via) => Some((via.oif, via.gateway.unwrap_or(ip))),
            Route::Local | Route::None(_) => None,
        }
    }
}

/// Judges one target; the second value says that its neighbour may still answer.
pub(super) fn judge(
    ip: IpAddr,
    target: &Target,
    links: &Inventory,
    neighbour: Option<&Neighbour>,
) -> (Resolution, bool) {
    let mut waiting = false;
    let resolution = match way_out(ip, target, links) {
        Ok((via, link, smac)) => match answer(ip, via, link, neighbour, &mut waiting) {
            Ok(dmac) => Resolution::Resolved(NextHop {
                ifindex: link.index,
                gateway: via.gateway.unwrap_or(ip),
                dmac,
                smac,
                source: via.source.unwrap_or(match ip {
                    IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                }),
                mtu: via.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
            }),
            Err(reason) => Resolution::Unresolved { reason },
        },
        Err(reason) => Resolution::Unresolved { reason },
    };
    (resolution, waiting)
}

/// The interface a target is reached through, if packets can leave it.
fn way_out<'a>(
    ip: IpAddr,
    target: &'a Target,
    links: &'a Inventory,
) -> Result<(&'a Via, &'a Link, crate::net::Mac), String> {
    let via = match &target.route {
        Route::Via(via) => via,
        Route::Local => {
            return Err(match links.owner(ip) {
                Some(link) => format!("{ip} is an address of this host, on {}", link.name),
                None => format!("{ip} is local to this host by a route of type local"),
            });
        }
        Route::None(reason) => {
            return Err(match link_down(ip, target, links) {
                Some(link) => format!("{ip}: {reason}, and {} is down", link.name),
                None => format!("{ip}: {reason}"),
            });
        }
    };
    let Some(link) = links.by_index(via.oif) else {
        return Err(format!("{ip}: its route leaves through interface {}, which is gone", via.oif));
    };
    if link.loopback {
        return Err(format!("{ip}: its route leads to {}, the loopback interface", link.name));
    }
    if !link.up {
        return Err(format!("{ip}: {} is down", link.name));
    }
    if !link.carrier {
        return Err(format!("{ip}: {} has no carrier", link.name));
    }
    let mac = link.ethernet().map_err(|error| format!("{ip}: {error}"))?;
    Ok((via, link, mac))
}

/// The interface that is down and with which the route to `ip` went away.
fn link_down<'a>(ip: IpAddr, target: &Target, links: &'a Inventory) -> Option<&'a Link> {
    let last = target.last_oif.and_then(|index| links.by_index(index));
    let subnet = match ip {
        IpAddr::V4(ip) => links.subnet_of(ip),
        IpAddr::V6(_) => None,
    };
    last.or(subnet).filter(|link| !link.up)
}

/// The MAC address of the neighbour, or why there is none.
fn answer(
    ip: IpAddr,
    via: &Via,
    link: &Link,
    neighbour: Option<&Neighbour>,
    waiting: &mut bool,
) -> Result<crate::net::Mac, String> {
    let (who, question) = match via.gateway {
        Some(gateway) => (format!("{ip}: gateway {gateway}"), gateway),
        None => (ip.to_string(), ip),
    };
    let protocol = if question.is_ipv4() { "ARP" } else { "neighbour discovery" };
    let name = &link.name;
    let unknown = Neighbour::default();
    let neighbour = neighbour.unwrap_or(&unknown);
    match (&neighbour.state, &neighbour.refusal) {
        (State::Known(mac), _) => Ok(*mac),
        (_, Some(refusal)) => Err(format!("{who}: {refusal}")),
        (State::Failed, None) => Err(format!("{who}: no {protocol} answer on {name}")),
        (State::Unusable(what), None) => Err(format!("{who}: {what} ({name})")),
        (State::Absent | State::Asking, None) => {
            *waiting = true;
            Err(format!("{who}: waiting for the first {protocol} answer on {name}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: crate::net::Mac = [2, 0, 0, 0, 0, 9];
    const OWN: crate::net::Mac = [2, 0, 0, 0, 0, 1];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn eth0() -> Link {
        Link {
            index: 2,
            name: "eth0".to_owned(),
            mac: Some(OWN),
            mtu: 1500,
            up: true,
            carrier: true,
            loopback: false,
            kind: None,
            addresses: vec!["198.51.100.1/24".parse().unwrap()],
        }
    }

    fn via(gateway: Option<&str>, mtu: Option<u32>) -> Target {
        let via = Via { oif: 2, gateway: gateway.map(ip), source: Some(ip("198.51.100.1")), mtu };
        Target { route: Route::Via(via), last_oif: Some(2) }
    }

    /// Judges 198.51.100.11 and gives the reason.
    fn reason(target: &Target, link: Link, state: State) -> (String, bool) {
        let links = Inventory::of([link]);
        match judge(ip("198.51.100.11"), target, &links, Some(&Neighbour::of(state, None))) {
            (Resolution::Unresolved { reason }, waiting) => (reason, waiting),
            (resolved, _) => panic!("resolved: {resolved:?}"),
        }
    }

    #[test]
    fn a_known_neighbour_makes_a_next_hop() {
        let links = Inventory::of([eth0()]);
        let known = Neighbour::of(State::Known(MAC), None);
        let (resolution, waiting) = judge(ip("198.51.100.11"), &via(None, None), &links, Some(&known));
        let mut expected = NextHop {
            ifindex: 2,
            gateway: ip("198.51.100.11"),
            dmac: MAC,
            smac: OWN,
            source: ip("198.51.100.1"),
            mtu: 1500,
        };
        assert_eq!((resolution, waiting), (Resolution::Resolved(expected), false));
        let target = via(Some("198.51.100.254"), Some(1400));
        expected = NextHop { gateway: ip("198.51.100.254"), mtu: 1400, ..expected };
        assert_eq!(judge(ip("203.0.113.1"), &target, &links, Some(&known)).0, Resolution::Resolved(expected));
        let (jumbo, _) = judge(ip("203.0.113.1"), &via(None, Some(9000)), &links, Some(&known));
        assert_eq!(jumbo.next_hop().unwrap().mtu, 1500, "never more than the interface takes");
    }

    #[test]
    fn a_silent_neighbour_is_named_with_its_interface() {
        let silent = |gateway, state| reason(&via(gateway, None), eth0(), state);
        let failed = ("198.51.100.11: no ARP answer on eth0".to_owned(), false);
        assert_eq!(silent(None, State::Failed), failed);
        let failed = "198.51.100.11: gateway 2001:db8::fe: no neighbour discovery answer on eth0".to_owned();
        assert_eq!(silent(Some("2001:db8::fe"), State::Failed), (failed, false));
        let asking = "198.51.100.11: waiting for the first ARP answer on eth0".to_owned();
        assert_eq!(silent(None, State::Asking), (asking.clone(), true));
        assert_eq!(silent(None, State::Absent), (asking, true));
    }

    #[test]
    fn what_the_kernel_refuses_is_told_unless_it_knows_the_neighbour_anyway() {
        let links = Inventory::of([eth0()]);
        let refused = |state| Neighbour::of(state, Some("full"));
        let target = via(None, None);
        let (resolution, waiting) =
            judge(ip("198.51.100.11"), &target, &links, Some(&refused(State::Absent)));
        let reason = "198.51.100.11: full".to_owned();
        assert_eq!((resolution, waiting), (Resolution::Unresolved { reason }, false));
        let (resolution, _) = judge(ip("198.51.100.11"), &target, &links, Some(&refused(State::Known(MAC))));
        assert_eq!(resolution.next_hop().unwrap().dmac, MAC);
    }

    #[test]
    fn an_interface_that_cannot_send_is_the_reason() {
        let of = |link: Link| reason(&via(None, None), link, State::Known(MAC)).0;
        assert_eq!(of(Link { up: false, ..eth0() }), "198.51.100.11: eth0 is down");
        assert_eq!(of(Link { carrier: false, ..eth0() }), "198.51.100.11: eth0 has no carrier");
        assert_eq!(
            of(Link { loopback: true, ..eth0() }),
            "198.51.100.11: its route leads to eth0, the loopback interface"
        );
        assert_eq!(
            of(Link { index: 3, ..eth0() }),
            "198.51.100.11: its route leaves through interface 2, which is gone"
        );
        let tunnel = Link { mac: None, kind: Some("tun".to_owned()), ..eth0() };
        assert_eq!(
            of(tunnel),
            "198.51.100.11: interface eth0 (tun) has no Ethernet address; use an Ethernet interface"
        );
    }

    #[test]
    fn a_missing_route_is_explained_by_the_interface_that_went_down() {
        let none = |last_oif| Target { route: Route::None("no route".to_owned()), last_oif };
        let of = |target: &Target, link: Link| reason(target, link, State::Absent).0;
        let down = Link { up: false, ..eth0() };
        assert_eq!(of(&none(Some(2)), down.clone()), "198.51.100.11: no route, and eth0 is down");
        assert_eq!(of(&none(None), down), "198.51.100.11: no route, and eth0 is down", "by its subnet");
        assert_eq!(of(&none(Some(2)), eth0()), "198.51.100.11: no route");
        let elsewhere = Link { up: false, addresses: Vec::new(), ..eth0() };
        assert_eq!(of(&none(None), elsewhere), "198.51.100.11: no route");
    }

    #[test]
    fn an_address_of_this_host_is_no_backend() {
        let local = Target { route: Route::Local, last_oif: None };
        let links = Inventory::of([eth0()]);
        let of = |address: &str| judge(ip(address), &local, &links, None).0;
        let reason = "198.51.100.1 is an address of this host, on eth0".to_owned();
        assert_eq!(of("198.51.100.1"), Resolution::Unresolved { reason });
        let reason = "203.0.113.1 is local to this host by a route of type local".to_owned();
        assert_eq!(of("203.0.113.1"), Resolution::Unresolved { reason });
    }
}
