//! VLAN tags: one, and two of a provider bridge. Everything is as without them, and they stay.

use lb_common::abi::Reason::{
    ArpReply, Malformed, NeighbourReply, NoHeadroom, NoNextHop, NoSuchPort, NotIp, NotService, RateLimited,
    TooBigTold,
};

use super::{
    super::{
        case::{Case, answers, drops, passes, redirects, sends},
        cast::{
            ACROSS, ACROSS4, ACROSS6, CLIENT, ELSEWHERE, FAR4, FAR6, FLOWS, LIMITED, NARROW4, Pair, STRANGER,
            UNRESOLVED, WEB, tcp, udp,
        },
        worlds::World,
    },
    announce, neighbours,
    too_big::told,
};
use crate::{
    packet::Family,
    packet_frame::{Frame, arp_request},
};

/// What tags a frame may have: their name, and EtherType and control information of each, the outer first.
const TAGS: [(&str, &[(u16, u16)]); 4] = [
    ("in a VLAN", &[(0x8100, 7)]),
    ("with a priority and VLAN 0", &[(0x8100, 0xa000)]),
    ("in a provider's VLAN", &[(0x88a8, 4094)]),
    ("in two VLANs", &[(0x88a8, 100), (0x8100, 7)]),
];

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    TAGS.into_iter().flat_map(|tags| [forwarded(tags), refused(tags), answered(tags)].concat()).collect()
}

type Tags = (&'static str, &'static [(u16, u16)]);

fn tag(frame: impl Into<Frame>, (_, tags): Tags) -> Frame {
    tags.iter().rev().fold(frame.into(), |frame, (ether_type, vlan)| frame.tagged(*ether_type, *vlan))
}

/// Every way to forward, out of both interfaces, both families.
fn forwarded(tags: Tags) -> Vec<Case> {
    let here: [(&str, Pair, &str); 3] = [
        ("by new MAC addresses", WEB, "web/b1"),
        ("through IPv4", FAR4, "far4/f4"),
        ("through IPv6", FAR6, "far6/f6"),
    ];
    let there: [(&str, Pair, &str); 3] = [
        ("by new MAC addresses", ACROSS, "across/a1"),
        ("through IPv4", ACROSS4, "across4/a4"),
        ("through IPv6", ACROSS6, "across6/a6"),
    ];
    let where_ = tags.0;
    let of = move |f: Family| {
        let near = here.map(|(way, vip, backend)| {
            sends(format!("{f} TCP {where_} is sent {way}"), tag(tcp(f, vip, 80), tags), backend)
        });
        let far = there.map(|(way, vip, backend)| {
            let name = format!("{f} UDP {where_} is redirected {way}");
            redirects(name, tag(udp(f, vip, 80), tags), backend, ELSEWHERE)
        });
        near.into_iter().chain(far).collect::<Vec<_>>()
    };
    let rest = [
        sends(
            format!("a padded IPv4 packet {where_} keeps its padding"),
            tag(tcp(Family::V4, FAR4, 80).frame().padded(60), tags),
            "far4/f4",
        ),
        sends(
            format!("IPv4 options {where_} are kept"),
            tag(tcp(Family::V4, FAR4, 80).options(12), tags),
            "far4/f4",
        ),
        sends(
            format!("IPv4 {where_} goes through IPv4 with just enough headroom"),
            tag(tcp(Family::V4, FAR4, 80), tags),
            "far4/f4",
        )
        .headroom(20),
    ];
    Family::BOTH.into_iter().flat_map(of).chain(rest).collect()
}

fn refused(tags: Tags) -> Vec<Case> {
    let where_ = tags.0;
    let of =
        move |f: Family| {
            let named = |what: &str| format!("{f} {where_} {what}");
            let slow = || tag(udp(f, LIMITED, 80), tags);
            vec![
                passes(named("for nobody we know passes"), tag(tcp(f, STRANGER, 80), tags), NotService),
                passes(named("to another port of a VIP passes"), tag(tcp(f, WEB, 81), tags), NoSuchPort),
                drops(
                    named("whose frame ends within the TCP flags is malformed"),
                    tag(tcp(f, WEB, 80).frame().cut(14 + f.header() + 13), tags),
                    Malformed,
                ),
                drops(
                    named("for a backend without a next hop is dropped"),
                    tag(tcp(f, UNRESOLVED, 80), tags),
                    NoNextHop,
                ),
                answers(
                    named("that does not fit the way is told so"),
                    tag(tcp(f, NARROW4, 80).ip_length(1381), tags),
                    TooBigTold,
                    tag(told(f, NARROW4, &tcp(f, NARROW4, 80).ip_length(1381), 1380), tags),
                ),
                drops(
                    named("cannot go through IPv6 with 36 bytes of headroom"),
                    tag(tcp(f, FAR6, 80), tags),
                    NoHeadroom,
                )
                .headroom(36),
                drops(named("is held to its source's rate"), slow(), RateLimited)
                    .world(World::Limited)
                    .after([slow(), slow(), slow()]),
                passes(
                    named("passes before anything is installed"),
                    tag(tcp(f, FLOWS, 80), tags),
                    lb_common::abi::Reason::NotConfigured,
                )
                .world(World::Unconfigured),
            ]
        };
    let ends = passes(
        format!("a frame {where_} that ends behind its tags passes"),
        {
            let bytes = 12 + 4 * tags.1.len();
            tag(tcp(Family::V4, WEB, 80), tags).cut(bytes)
        },
        NotIp,
    );
    Family::BOTH.into_iter().flat_map(of).chain([ends]).collect()
}

fn answered(tags: Tags) -> Vec<Case> {
    let where_ = tags.0;
    vec![
        answers(
            format!("an ARP request for a VIP {where_} is answered there"),
            tag(announce::request(), tags),
            ArpReply,
            tag(announce::reply(WEB.v4, CLIENT.v4), tags),
        ),
        passes(
            format!("an ARP request for a stranger {where_} passes"),
            tag(arp_request(CLIENT.v4, STRANGER.v4), tags),
            NotIp,
        ),
        answers(
            format!("a neighbour solicitation for a VIP {where_} is answered there"),
            tag(neighbours::request(), tags),
            NeighbourReply,
            tag(neighbours::reply(), tags),
        ),
        answers(
            format!("a bare neighbour solicitation for a VIP {where_} is answered there"),
            tag(neighbours::bare(CLIENT.v6, WEB.v6), tags),
            NeighbourReply,
            tag(neighbours::reply(), tags),
        ),
    ]
}
