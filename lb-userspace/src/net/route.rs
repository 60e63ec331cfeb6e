//! One route look-up: what would the kernel do with a packet to this address?
//!
//! The kernel is asked (`RTM_GETROUTE`) instead of reading its tables, because only it applies rules, metrics, next
//! hop objects and path MTU exceptions the way it forwards.

use std::net::{IpAddr, Ipv6Addr};

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};

use super::{NetError, Netlink};

/// What the kernel said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Packets leave through an interface.
    Via(Via),
    /// The address is this host's own.
    Local,
    /// No packet would leave; why, in words that continue "ADDRESS: ".
    None(String),
}

/// A way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Via {
    /// Interface index.
    pub(super) oif: u32,
    /// The router, possibly of the other family (RFC 5549); `None`: the target is on the link.
    pub(super) gateway: Option<IpAddr>,
    /// Source address the kernel would use; `None` when the host has none of that family.
    pub(super) source: Option<IpAddr>,
    /// MTU of the route in bytes, where it has one (metric or path MTU exception).
    pub(super) mtu: Option<u32>,
}

/// Asks the kernel. With several equal routes (ECMP) it picks one by its own hash, the same one each time.
///
/// # Errors
/// When there is no answer at all; "no route" is an answer.
pub(super) async fn lookup(netlink: &Netlink, ip: IpAddr) -> Result<Route, NetError> {
    if matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        // Every interface has this subnet; the kernel would pick whichever it finds first.
        return Ok(Route::None("a link-local address, which does not say the interface".to_owned()));
    }
    if ip.is_multicast() {
        return Ok(Route::None("a multicast address".to_owned()));
    }
    let mut request = RouteMessage::default();
    (request.header.address_family, request.header.destination_prefix_length) = match ip {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    request.attributes.push(RouteAttribute::Destination(ip.into()));
    match netlink.request("look up a route", RouteNetlinkMessage::GetRoute(request), 0).await {
        Ok(Some(RouteNetlinkMessage::NewRoute(message))) => Ok(interpret(&message)),
        Ok(_) => Ok(Route::None("the kernel gave no route".to_owned())),
        Err(error) => match error.refusal() {
            Some(errno) => Ok(Route::None(refusal(errno))),
            None => Err(error),
        },
    }
}

/// The kernel's error numbers for routes that lead nowhere (`fib_props` in net/ipv4/fib_semantics.c).
fn refusal(errno: i32) -> String {
    match errno {
        libc::ENETUNREACH => "no route".to_owned(),
        libc::EHOSTUNREACH => "the route is of type unreachable".to_owned(),
        libc::EACCES => "the route is of type prohibit".to_owned(),
        libc::EINVAL => "the route is of type blackhole".to_owned(),
        other => format!("the kernel gave no route: {}", std::io::Error::from_raw_os_error(other)),
    }
}

fn interpret(message: &RouteMessage) -> Route {
    let no = |reason: &str| Route::None(reason.to_owned());
    match message.header.kind {
        RouteType::Local => return Route::Local,
        RouteType::Unicast => {}
        RouteType::Broadcast => return no("a broadcast address here"),
        RouteType::Anycast => return no("an anycast address here"),
        RouteType::Multicast => return no("a multicast address"),
        // IPv6 answers with the dead end itself where IPv4 answers with an error.
        RouteType::BlackHole => return Route::None(refusal(libc::EINVAL)),
        RouteType::Unreachable => return Route::None(refusal(libc::ENETUNREACH)),
        RouteType::Prohibit => return Route::None(refusal(libc::EACCES)),
        other => return Route::None(format!("the route is of type {other:?}")),
    }
    let (mut oif, mut gateway, mut source, mut mtu) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip_of(address),
            RouteAttribute::Via(RouteVia::Inet(ip)) => gateway = Some(IpAddr::V4(*ip)),
            RouteAttribute::Via(RouteVia::Inet6(ip)) => gateway = Some(IpAddr::V6(*ip)),
            RouteAttribute::PrefSource(address) => source = ip_of(address),
            RouteAttribute::Metrics(metrics) => mtu = metrics.iter().find_map(mtu_of),
            // Sending there takes more than an Ethernet header: the kernel would encapsulate, XDP would not.
            RouteAttribute::EncapType(kind) => {
                return Route::None(format!("the route encapsulates ({kind:?}), which XDP cannot do"));
            }
            _ => {}
        }
    }
    match oif {
        Some(oif) => Route::Via(Via { oif, gateway, source, mtu }),
        None => no("the route names no interface"),
    }
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(Ipv6Addr::UNSPECIFIED) => None,
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn mtu_of(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::route::RouteLwEnCapType;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn unicast(attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        message.attributes = attributes;
        message
    }

    #[test]
    fn a_route_through_a_gateway_with_everything() {
        let message = unicast(vec![
            RouteAttribute::Oif(3),
            RouteAttribute::Gateway(ip("192.0.2.254").into()),
            RouteAttribute::PrefSource(ip("192.0.2.1").into()),
            RouteAttribute::Metrics(vec![RouteMetric::Hoplimit(3), RouteMetric::Mtu(1400)]),
        ]);
        let expected =
            Via { oif: 3, gateway: Some(ip("192.0.2.254")), source: Some(ip("192.0.2.1")), mtu: Some(1400) };
        assert_eq!(interpret(&message), Route::Via(expected));
    }

    #[test]
    fn an_ipv4_route_may_go_through_an_ipv6_router() {
        let message =
            unicast(vec![RouteAttribute::Oif(3), RouteAttribute::Via(RouteVia::from(ip("2001:db8::fe")))]);
        let Route::Via(via) = interpret(&message) else { panic!("not a way out") };
        assert_eq!(via.gateway, Some(ip("2001:db8::fe")));
        assert_eq!((via.source, via.mtu), (None, None));
    }

    #[test]
    fn routes_that_lead_nowhere_say_so() {
        let reason = |kind| {
            let mut message = unicast(vec![RouteAttribute::Oif(1)]);
            message.header.kind = kind;
            interpret(&message)
        };
        assert_eq!(reason(RouteType::Local), Route::Local);
        let none = |text: &str| Route::None(text.to_owned());
        assert_eq!(reason(RouteType::BlackHole), none("the route is of type blackhole"));
        assert_eq!(reason(RouteType::Prohibit), none("the route is of type prohibit"));
        assert_eq!(reason(RouteType::Broadcast), none("a broadcast address here"));
        assert_eq!(interpret(&unicast(vec![])), none("the route names no interface"));
        let tunnel = unicast(vec![RouteAttribute::Oif(1), RouteAttribute::EncapType(RouteLwEnCapType::Mpls)]);
        assert_eq!(interpret(&tunnel), none("the route encapsulates (Mpls), which XDP cannot do"));
    }
}
