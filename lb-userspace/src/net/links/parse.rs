//! From link and address messages to what is kept of them.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
};

use super::Link;
use crate::net::Mac;

/// Whether the message is about the interface itself. Bridges announce their ports with link messages of their own
/// family: an interface that leaves a bridge sends a "deleted" one and lives on.
pub(super) fn is_about_the_link(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

/// The interface a message describes, without addresses; `None` for messages that describe something else or only
/// a part (wireless events carry no name).
pub(super) fn link(message: &LinkMessage) -> Option<Link> {
    if !is_about_the_link(message) {
        return None;
    }
    let flags = message.header.flags;
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let (mut name, mut mac, mut mtu, mut kind) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Mtu(value) => mtu = Some(*value),
            LinkAttribute::Address(value) if ethernet => mac = Mac::try_from(value.as_slice()).ok(),
            LinkAttribute::LinkInfo(infos) => kind = infos.iter().find_map(kind_of),
            _ => {}
        }
    }
    Some(Link {
        index: message.header.index,
        name: name?,
        mac,
        mtu: mtu?,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::Running),
        loopback: flags.contains(LinkFlags::Loopback),
        kind,
        addresses: Vec::new(),
    })
}

fn kind_of(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

/// The unicast address and prefix of a message.
pub(super) fn address(message: &AddressMessage) -> Option<IpNet> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    let local = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    };
    let address = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    };
    // On point-to-point interfaces ADDRESS is the other end and LOCAL ours; else they are equal, and IPv6 sends
    // ADDRESS only.
    let ip = find(local).or_else(|| find(address))?;
    // `ip address add … autojoin` puts multicast groups into this table.
    if ip.is_multicast() {
        return None;
    }
    IpNet::new(ip, message.header.prefix_len).ok()
}
