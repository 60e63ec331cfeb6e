//! "Who has this VIP": ARP.

use std::net::Ipv4Addr;

use etherparse::ArpOperation;
use lb_common::abi::Reason::{ArpReply, NotIp};

use super::super::{
    case::{Case, answers, passes},
    cast::{CLIENT, STRANGER, WEB},
    worlds::World,
};
use crate::{
    packet::{HERE, ROUTER},
    packet_frame::{Frame, arp, arp_request},
};

/// Another host on the link.
const NEIGHBOUR: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    [answered(), passed(), lies()].concat()
}

/// "I have `vip`", to the router.
pub(super) fn reply(vip: Ipv4Addr, to: Ipv4Addr) -> Frame {
    arp(ArpOperation::REPLY, ROUTER, (HERE, vip), (ROUTER, to))
}

/// "Who has `WEB`", of the client.
pub(super) fn request() -> Frame {
    arp_request(CLIENT.v4, WEB.v4)
}

fn answered() -> Vec<Case> {
    let padding = |frame: Frame| frame.padded(60);
    vec![
        answers("an ARP request for a VIP is answered", request(), ArpReply, reply(WEB.v4, CLIENT.v4)),
        answers(
            "an ARP request padded by Ethernet is answered, padding kept",
            padding(request()),
            ArpReply,
            padding(reply(WEB.v4, CLIENT.v4)),
        ),
        answers(
            "an ARP probe for a VIP is answered: the address is taken",
            arp_request(Ipv4Addr::UNSPECIFIED, WEB.v4),
            ArpReply,
            reply(WEB.v4, Ipv4Addr::UNSPECIFIED),
        ),
        answers(
            "an ARP request to our MAC address (a cache entry being confirmed) is answered",
            arp(ArpOperation::REQUEST, HERE, (ROUTER, CLIENT.v4), ([0; 6], WEB.v4)),
            ArpReply,
            reply(WEB.v4, CLIENT.v4),
        ),
        answers(
            "an ARP answer goes to the sender that the packet names, not to the frame's",
            arp(ArpOperation::REQUEST, [0xff; 6], (NEIGHBOUR, CLIENT.v4), ([0; 6], WEB.v4)).with(6, &ROUTER),
            ArpReply,
            arp(ArpOperation::REPLY, NEIGHBOUR, (HERE, WEB.v4), (NEIGHBOUR, CLIENT.v4)),
        ),
        answers(
            "an ARP request that already names a target MAC address is answered",
            arp(ArpOperation::REQUEST, [0xff; 6], (ROUTER, CLIENT.v4), (NEIGHBOUR, WEB.v4)),
            ArpReply,
            reply(WEB.v4, CLIENT.v4),
        ),
    ]
}

fn passed() -> Vec<Case> {
    vec![
        passes("an ARP request for a stranger passes", arp_request(CLIENT.v4, STRANGER.v4), NotIp),
        passes("an ARP request from a VIP for a stranger passes", arp_request(WEB.v4, STRANGER.v4), NotIp),
        passes("a gratuitous ARP request for a VIP passes", arp_request(WEB.v4, WEB.v4), NotIp),
        passes(
            "an ARP reply from a VIP passes",
            arp(ArpOperation::REPLY, HERE, (ROUTER, WEB.v4), (HERE, CLIENT.v4)),
            NotIp,
        ),
        passes(
            "an ARP reply to a VIP passes",
            arp(ArpOperation::REPLY, HERE, (ROUTER, CLIENT.v4), (HERE, WEB.v4)),
            NotIp,
        ),
        passes("an ARP request for a VIP passes when nothing is announced", request(), NotIp)
            .world(World::Quiet),
        passes(
            "an ARP request for a VIP passes on an interface without a known MAC address",
            request(),
            NotIp,
        )
        .world(World::Nameless),
    ]
}

fn lies() -> Vec<Case> {
    let with = |what: &str, offset: usize, bytes: &[u8]| {
        passes(format!("an ARP request with {what} passes"), request().with(offset, bytes), NotIp)
    };
    vec![
        passes("an ARP header without a packet passes", request().cut(14), NotIp),
        passes("an ARP packet cut within the target address passes", request().cut(40), NotIp),
        passes("an ARP packet one byte short passes", request().cut(41), NotIp),
        with("another hardware type", 14, &[0, 6]),
        with("another protocol type", 16, &[0x86, 0xdd]),
        with("another hardware address length", 18, &[8]),
        with("another protocol address length", 19, &[16]),
        with("operation 0", 20, &[0, 0]),
        with("the operation of RARP", 20, &[0, 3]),
        with("an operation of two bytes", 20, &[1, 1]),
    ]
}
