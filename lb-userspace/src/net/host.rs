//! What is changed on a backend host: addresses on loopback, the segment size that routes announce.
//!
//! Nothing here decides what is to be changed, and nothing remembers it: that is the agent's business.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo},
        link::{LinkFlags, LinkMessage},
        route::{
            RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
            RouteNextHopFlags, RouteProtocol, RouteType, RouteVia,
        },
    },
};

use super::{
    NetError, Netlink,
    links::{Inventory, Link},
    route::{self, Route},
};

/// Lifetime of an address that does not end (`INFINITY_LIFE_TIME` of net/addrconf.h).
const FOREVER: u32 = u32::MAX;

/// Index of the interface that packets to `ip` leave by; `None` when none do.
///
/// # Errors
/// When the kernel does not answer.
pub async fn outgoing(netlink: &Netlink, ip: IpAddr) -> Result<Option<u32>, NetError> {
    Ok(match route::lookup(netlink, ip).await? {
        Route::Via(via) => Some(via.oif),
        Route::Local | Route::None(_) => None,
    })
}

/// Adds `ip` alone (/32 or /128) to an interface so that this host takes packets to it, and never picks it as the
/// source of a connection of its own: IPv4 by the scope, IPv6 by a preferred lifetime of zero.
///
/// # Errors
/// When the kernel refuses.
pub async fn add_address(netlink: &Netlink, index: u32, ip: IpAddr) -> Result<(), NetError> {
    let mut message = address_message(index, ip);
    message.header.flags = AddressHeaderFlags::Nodad;
    match ip {
        IpAddr::V4(_) => message.header.scope = AddressScope::Host,
        IpAddr::V6(_) => {
            let mut lifetime = CacheInfo::default();
            (lifetime.ifa_preferred, lifetime.ifa_valid) = (0, FOREVER);
            message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
    }
    let what = format!("add {ip} to interface {index}");
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    netlink.request(&what, RouteNetlinkMessage::NewAddress(message), flags).await.map(drop)
}

/// Removes `ip` alone (/32 or /128) from an interface.
///
/// # Errors
/// When the kernel refuses, which it does when the address is not there.
pub async fn remove_address(netlink: &Netlink, index: u32, ip: IpAddr) -> Result<(), NetError> {
    let message = RouteNetlinkMessage::DelAddress(address_message(index, ip));
    netlink.request(&format!("remove {ip} from interface {index}"), message, NLM_F_ACK).await.map(drop)
}

fn address_message(index: u32, ip: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = IpNet::from(ip).prefix_len();
    message.header.family = family(ip);
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Sets an interface up or down.
///
/// # Errors
/// When the kernel refuses.
pub async fn set_up(netlink: &Netlink, link: &Link, up: bool) -> Result<(), NetError> {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.header.change_mask = LinkFlags::Up;
    if up {
        message.header.flags = LinkFlags::Up;
    }
    let what = format!("set {} {}", link.name, if up { "up" } else { "down" });
    netlink.request(&what, RouteNetlinkMessage::SetLink(message), NLM_F_ACK).await.map(drop)
}

/// A route of the main table by which packets leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// The route in the words of `ip route`: tells it from every other, and stays when its metrics change.
    pub words: String,
    /// Where it leads.
    pub destination: IpNet,
    /// Interfaces that it leaves by.
    pub interfaces: Vec<u32>,
    /// `mtu` of the route in bytes, if it has one.
    pub mtu: Option<u32>,
    /// `advmss` of the route in bytes, if it has one.
    pub advmss: Option<u32>,
    /// Why the route cannot be changed: whoever made it will make it again.
    pub fixed: Option<&'static str>,
    message: RouteMessage,
}

/// The unicast routes of the main table of one family.
///
/// # Errors
/// When the kernel does not answer.
pub async fn routes(
    netlink: &Netlink,
    inventory: &Inventory,
    ipv6: bool,
) -> Result<Vec<HostRoute>, NetError> {
    let mut request = RouteMessage::default();
    request.header.address_family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let request = RouteNetlinkMessage::GetRoute(request);
    let mut routes: Vec<HostRoute> = netlink
        .dump("list routes", &request, |routes: &mut Vec<_>, message| {
            if let RouteNetlinkMessage::NewRoute(message) = message {
                routes.extend(interpret(message, inventory));
            }
        })
        .await?;
    mark_ambiguous(&mut routes);
    Ok(routes)
}

/// Gives a route another `advmss`, or none.
///
/// # Errors
/// When the kernel refuses.
pub async fn set_advmss(netlink: &Netlink, route: &HostRoute, advmss: Option<u32>) -> Result<(), NetError> {
    let message = with_advmss(&route.message, advmss);
    let what = format!("change the route {}", route.words);
    netlink.request(&what, RouteNetlinkMessage::NewRoute(message), NLM_F_ACK | NLM_F_REPLACE).await.map(drop)
}

/// The request that makes a listed route again with another `advmss`.
fn with_advmss(listed: &RouteMessage, advmss: Option<u32>) -> RouteMessage {
    let mut message = listed.clone();
    message.header.flags &= RouteFlags::Onlink;
    // A next hop object brings its own; the list repeats what it holds.
    let by_object = message.attributes.iter().any(|a| matches!(a, RouteAttribute::NhId(_)));
    message.attributes.retain(|attribute| match attribute {
        RouteAttribute::CacheInfo(_) | RouteAttribute::Uid(_) => false,
        RouteAttribute::Oif(_)
        | RouteAttribute::Gateway(_)
        | RouteAttribute::Via(_)
        | RouteAttribute::MultiPath(_) => !by_object,
        _ => true,
    });
    let mut metrics = Vec::new();
    for attribute in &mut message.attributes {
        match attribute {
            RouteAttribute::Metrics(found) => metrics.append(found),
            RouteAttribute::MultiPath(hops) => {
                hops.iter_mut().for_each(|hop| hop.flags &= RouteNextHopFlags::Onlink);
            }
            _ => {}
        }
    }
    message.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Metrics(_)));
    metrics.retain(|metric| !matches!(metric, RouteMetric::Advmss(_)));
    metrics.extend(advmss.map(RouteMetric::Advmss));
    if !metrics.is_empty() {
        message.attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

fn interpret(message: RouteMessage, inventory: &Inventory) -> Option<HostRoute> {
    let header = &message.header;
    let ipv6 = header.address_family == AddressFamily::Inet6;
    if header.kind != RouteType::Unicast || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let any = if ipv6 { IpAddr::from([0; 16]) } else { IpAddr::from([0; 4]) };
    let (mut destination, mut table, mut priority) = (any, u32::from(header.table), 0);
    let (mut mtu, mut advmss, mut expires) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(number) => priority = *number,
            RouteAttribute::CacheInfo(info) => expires = info.expires != 0,
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(value) => mtu = Some(*value),
                        RouteMetric::Advmss(value) => advmss = Some(*value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let fixed = if header.protocol == RouteProtocol::Ra || expires {
        Some("it comes from router advertisements, which would make it anew")
    } else {
        None
    };
    let (hops, interfaces) = hops(&message, inventory);
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    let target = if destination.prefix_len() == 0 { "default".to_owned() } else { destination.to_string() };
    let mut words = format!("{target}{hops}");
    if header.tos != 0 {
        words += &format!(" tos {:#x}", header.tos);
    }
    if priority != 0 {
        words += &format!(" metric {priority}");
    }
    if destination.prefix_len() == 0 {
        words += if ipv6 { " (IPv6)" } else { " (IPv4)" };
    }
    Some(HostRoute { words, destination, interfaces, mtu, advmss, fixed, message })
}

/// The ways out in words, and their interfaces.
fn hops(message: &RouteMessage, inventory: &Inventory) -> (String, Vec<u32>) {
    let (mut words, mut interfaces) = (String::new(), Vec::new());
    let mut hop = |gateway: Option<IpAddr>, oif: Option<u32>| {
        if let Some(gateway) = gateway {
            words += &format!(" via {gateway}");
        }
        if let Some(oif) = oif {
            let name = inventory.by_index(oif).map_or_else(|| format!("#{oif}"), |link| link.name.clone());
            words += &format!(" dev {name}");
            interfaces.push(oif);
        }
    };
    for attribute in &message.attributes {
        if let RouteAttribute::MultiPath(hops) = attribute {
            for next in hops {
                hop(gateway(&next.attributes), Some(next.interface_index));
            }
            return (words, interfaces);
        }
    }
    let oif = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    hop(gateway(&message.attributes), oif);
    (words, interfaces)
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Via(RouteVia::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

/// The kernel replaces a route by destination, metric and type of service: where several have the same, the first one
/// would go, whichever was meant.
fn mark_ambiguous(routes: &mut [HostRoute]) {
    let key = |route: &HostRoute| {
        let priority = route.message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Priority(number) => Some(*number),
            _ => None,
        });
        (route.destination, priority, route.message.header.tos)
    };
    let mut count: HashMap<_, usize> = HashMap::new();
    for route in &*routes {
        *count.entry(key(route)).or_default() += 1;
    }
    for route in routes {
        if count[&key(route)] > 1 {
            route.fixed.get_or_insert("another route has the same destination and metric");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.kind = RouteType::Unicast;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.attributes = attributes;
        message
    }

    fn via(last: u8) -> RouteAttribute {
        RouteAttribute::Gateway(IpAddr::from([198, 51, 100, last]).into())
    }

    fn understood(message: RouteMessage) -> Option<HostRoute> {
        interpret(message, &Inventory::default())
    }

    #[test]
    fn a_route_is_named_as_people_write_it_and_the_name_survives_a_change() {
        let message = listed(vec![via(1), RouteAttribute::Oif(7), RouteAttribute::Priority(100)]);
        let route = understood(message).unwrap();
        assert_eq!(route.words, "default via 198.51.100.1 dev #7 metric 100 (IPv4)");
        assert_eq!((route.interfaces.as_slice(), route.advmss, route.fixed), (&[7][..], None, None));
        let changed = understood(with_advmss(&route.message, Some(1440))).unwrap();
        assert_eq!((changed.words, changed.advmss), (route.words.clone(), Some(1440)));
        assert_eq!(with_advmss(&changed.message, None), route.message, "and back");
    }

    #[test]
    fn other_metrics_stay_and_what_only_the_kernel_says_is_left_out() {
        let metrics = vec![RouteMetric::Mtu(1400), RouteMetric::Advmss(1300)];
        let mut message = listed(vec![RouteAttribute::NhId(5), via(1), RouteAttribute::Oif(7)]);
        message.attributes.push(RouteAttribute::Metrics(metrics));
        message.header.flags = RouteFlags::Linkdown | RouteFlags::Onlink;
        let request = with_advmss(&message, Some(1200));
        assert_eq!(request.header.flags, RouteFlags::Onlink);
        assert_eq!(
            request.attributes,
            [
                RouteAttribute::NhId(5),
                RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400), RouteMetric::Advmss(1200)])
            ]
        );
    }

    #[test]
    fn what_is_not_ours_to_change_says_why() {
        let mut advertised = listed(vec![via(1)]);
        advertised.header.protocol = RouteProtocol::Ra;
        assert!(understood(advertised).unwrap().fixed.unwrap().contains("router advertisements"));
        let mut twins =
            vec![understood(listed(vec![via(1)])).unwrap(), understood(listed(vec![via(2)])).unwrap()];
        mark_ambiguous(&mut twins);
        assert!(twins.iter().all(|route| route.fixed.unwrap().contains("same destination")));
        let mut local = listed(vec![]);
        local.header.kind = RouteType::Local;
        assert_eq!(understood(local), None);
        assert_eq!(understood(listed(vec![RouteAttribute::Table(100)])), None, "of another table");
    }
}
