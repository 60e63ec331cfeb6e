//! "Who has this VIP": neighbour discovery, and what else comes by ICMPv6.

use std::net::Ipv6Addr;

use lb_common::abi::Reason::{NeighbourReply, NoHeadroom, NoSuchPort, NotService};

use super::super::{
    case::{Case, answers, drops, passes},
    cast::{ANY_BOTH, CLIENT, STRANGER, WEB},
    worlds::World,
};
use crate::{
    packet::{self, HERE, Packet, ROUTER},
    packet_frame::Frame,
};

/// Types of RFC 4861 4: solicitation and advertisement of routers and neighbours, redirect.
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// Where the ICMPv6 message begins in the frame.
const MESSAGE: usize = 14 + 40;

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    [answered(), passed(), invalid(), to_the_vip(), other_types()].concat()
}

/// The solicited-node group of an address (RFC 4291 2.7.1).
fn group(target: Ipv6Addr) -> Ipv6Addr {
    let low = u128::from(target) & 0xff_ffff;
    Ipv6Addr::from(u128::from(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0)) | low)
}

fn group_mac(target: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c] = target.octets();
    [0x33, 0x33, 0xff, a, b, c]
}

/// A solicitation with the sender's link-layer address, as hosts resolve a neighbour.
fn solicitation(sender: Ipv6Addr, target: Ipv6Addr) -> Packet {
    message(sender, target, &[&target.octets()[..], &[1, 1], &ROUTER].concat())
}

/// One without options.
pub(super) fn bare(sender: Ipv6Addr, target: Ipv6Addr) -> Packet {
    message(sender, target, &target.octets())
}

fn message(sender: Ipv6Addr, target: Ipv6Addr, body: &[u8]) -> Packet {
    packet::icmp(sender, group(target), SOLICITATION, [0; 4], body).hops(255).macs(group_mac(target), ROUTER)
}

/// The advertisement that must come back. Flags as RFC 4861 4.4 places them: router, solicited, override.
fn advertisement(target: Ipv6Addr, to: Ipv6Addr, to_mac: [u8; 6], flags: u8) -> Packet {
    let body = [&target.octets()[..], &[2, 1], &HERE].concat();
    packet::icmp(target, to, ADVERTISEMENT, [flags, 0, 0, 0], &body).hops(255).macs(to_mac, HERE)
}

const SOLICITED: u8 = 0x60;
const UNSOLICITED: u8 = 0x20;

/// "Who has `WEB`", of the client.
pub(super) fn request() -> Packet {
    solicitation(CLIENT.v6, WEB.v6)
}

/// What must come back.
pub(super) fn reply() -> Packet {
    advertisement(WEB.v6, CLIENT.v6, ROUTER, SOLICITED)
}

fn answered() -> Vec<Case> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let probe = || bare(Ipv6Addr::UNSPECIFIED, WEB.v6);
    vec![
        answers("a neighbour solicitation for a VIP is answered", request(), NeighbourReply, reply()),
        answers(
            "a neighbour solicitation without options is answered with our address all the same",
            bare(CLIENT.v6, WEB.v6),
            NeighbourReply,
            reply(),
        ),
        answers(
            "duplicate address detection of a VIP is answered to all nodes: the address is taken",
            probe(),
            NeighbourReply,
            advertisement(WEB.v6, all_nodes, [0x33, 0x33, 0, 0, 0, 1], UNSOLICITED),
        ),
        answers(
            "a neighbour solicitation with a traffic class and flow label is answered",
            request().tos(0xe0).flow_label(0x12345),
            NeighbourReply,
            reply(),
        ),
        answers(
            "padding behind a neighbour solicitation stays behind the answer",
            request().frame().padded(100),
            NeighbourReply,
            reply().frame().padded(100),
        ),
        answers(
            "a neighbour solicitation from a link-local address is answered",
            solicitation(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9), WEB.v6),
            NeighbourReply,
            advertisement(WEB.v6, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9), ROUTER, SOLICITED),
        ),
        answers(
            "the answer to a bare solicitation takes exactly 8 bytes of headroom",
            bare(CLIENT.v6, WEB.v6),
            NeighbourReply,
            reply(),
        )
        .headroom(8),
        drops(
            "a bare solicitation cannot be answered with 4 bytes of headroom",
            bare(CLIENT.v6, WEB.v6),
            NoHeadroom,
        )
        .headroom(4),
    ]
}

fn passed() -> Vec<Case> {
    vec![
        passes(
            "a neighbour solicitation for a stranger passes",
            solicitation(CLIENT.v6, STRANGER.v6),
            NotService,
        ),
        passes(
            "a neighbour solicitation from a VIP for a stranger passes",
            solicitation(WEB.v6, STRANGER.v6),
            NotService,
        ),
        passes("a neighbour solicitation passes when nothing is announced", request(), NotService)
            .world(World::Quiet),
        passes(
            "a neighbour solicitation passes on an interface without a known MAC address",
            request(),
            NotService,
        )
        .world(World::Nameless),
        passes(
            "an unsolicited advertisement of a VIP by somebody else passes",
            packet::icmp(WEB.v6, group(WEB.v6), ADVERTISEMENT, [0x20, 0, 0, 0], &WEB.v6.octets()).hops(255),
            NotService,
        ),
    ]
}

/// What RFC 4861 7.1.1 tells receivers to discard, and forms that hosts do not send.
fn invalid() -> Vec<Case> {
    let row = |what: &str, frame: Frame| {
        passes(format!("a neighbour solicitation {what} passes"), frame, NotService)
    };
    let whole = || request().frame();
    let bare_whole = || bare(CLIENT.v6, WEB.v6).frame();
    let long = [&WEB.v6.octets()[..], &[1, 1], &ROUTER, &[14, 1, 0, 0, 0, 0, 0, 0]].concat();
    vec![
        row("with hop limit 254", request().hops(254).frame()),
        row("with hop limit 0", request().hops(0).frame()),
        row("with code 1", request().code(1).frame()),
        row("with a wrong checksum", whole().with(MESSAGE + 2, &[0xde, 0xad])),
        row("without a checksum", whole().with(MESSAGE + 2, &[0, 0])),
        row("without options and with a wrong checksum", bare_whole().with(MESSAGE + 2, &[0xde, 0xad])),
        row("whose target was changed on the way", whole().with(14 + 40 + 8 + 15, &[11])),
        row("whose link-layer address was changed on the way", whole().with(MESSAGE + 26, &[1, 2, 3])),
        row("of one byte", whole().cut(MESSAGE + 1)),
        row("cut within the target", whole().cut(MESSAGE + 20)),
        row("cut one byte before the end of the target", bare_whole().cut(MESSAGE + 23)),
        row("cut within its option", whole().cut(MESSAGE + 31)),
        row("of 23 bytes by its own account", bare_whole().payload_length(23)),
        row("whose option is left out of the length", whole().payload_length(24)),
        row("with two options", message(CLIENT.v6, WEB.v6, &long).frame()),
        row("behind a hop-by-hop header", request().extension(0, &[0; 8]).frame()),
    ]
}

/// A solicitation sent to the VIP itself: a neighbour confirms that we are still there.
fn to_the_vip() -> Vec<Case> {
    let unicast = |target: Ipv6Addr| {
        let body = [&target.octets()[..], &[1, 1], &ROUTER].concat();
        packet::icmp(CLIENT.v6, target, SOLICITATION, [0; 4], &body).hops(255)
    };
    let bare_unicast = packet::icmp(CLIENT.v6, WEB.v6, SOLICITATION, [0; 4], &WEB.v6.octets()).hops(255);
    vec![
        answers(
            "a neighbour solicitation to the VIP itself is answered",
            unicast(WEB.v6),
            NeighbourReply,
            reply(),
        ),
        answers(
            "a bare neighbour solicitation to the VIP itself is answered",
            bare_unicast,
            NeighbourReply,
            reply(),
        ),
        answers(
            "a neighbour solicitation to a VIP of every protocol is answered, not balanced",
            unicast(ANY_BOTH.v6),
            NeighbourReply,
            advertisement(ANY_BOTH.v6, CLIENT.v6, ROUTER, SOLICITED),
        ),
        passes(
            "a neighbour solicitation to the VIP itself passes when nothing is announced",
            unicast(WEB.v6),
            NoSuchPort,
        )
        .world(World::Quiet),
        passes(
            "an invalid neighbour solicitation to the VIP itself passes",
            unicast(WEB.v6).hops(64),
            NoSuchPort,
        ),
        passes(
            "an invalid neighbour solicitation to a VIP of every protocol passes, not balanced",
            unicast(ANY_BOTH.v6).hops(64),
            NoSuchPort,
        ),
    ]
}

fn other_types() -> Vec<Case> {
    let discovery = [ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, ADVERTISEMENT, REDIRECT];
    let link = discovery.into_iter().flat_map(|kind| {
        let message = |to| packet::icmp(CLIENT.v6, to, kind, [0; 4], &WEB.v6.octets()).hops(255);
        [
            passes(format!("ICMPv6 type {kind} to a VIP passes"), message(WEB.v6), NoSuchPort),
            passes(
                format!("ICMPv6 type {kind} to a VIP of every protocol passes: it is the link's"),
                message(ANY_BOTH.v6),
                NoSuchPort,
            ),
        ]
    });
    let errors = [(1, "unreachable"), (2, "packet too big"), (3, "time exceeded"), (4, "parameter problem")];
    let errors = errors.map(|(kind, name)| {
        passes(
            format!("ICMPv6 {name} to a VIP of TCP and UDP services passes"),
            packet::icmp(CLIENT.v6, WEB.v6, kind, [0; 4], &[0x60; 48]),
            NoSuchPort,
        )
    });
    link.chain(errors).collect()
}
