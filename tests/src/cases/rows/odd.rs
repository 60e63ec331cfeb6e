//! What is not plain TCP or UDP: fragments, IPv6 extension headers, echo requests.

use std::net::{Ipv4Addr, Ipv6Addr};

use lb_common::abi::Reason::{
    EchoReply, ExtensionHeaders, Fragment, Malformed, NoNextHop, NoSuchPort, RateLimited,
};

use super::super::{
    case::{Case, answers, drops, passes, redirects, sends},
    cast::{
        ACROSS4, ANY_BOTH, ANY_UDP, BESIDE, CLIENT, ELSEWHERE, FAR4, FAR6, FLOWS, LIMITED, Pair, UNRESOLVED,
        WEB, echo, other, tcp, udp,
    },
    worlds::World,
};
use crate::packet::{self, Family, HERE, Packet, ROUTER};

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    let both = |f| [fragments(f), other_fragments(f), echoes(f), unanswered(f)].concat();
    [Family::BOTH.into_iter().flat_map(both).collect(), ipv4_only(), extensions(), too_many()].concat()
}

fn cut(f: Family, packet: Packet, offset: u16, more: bool) -> Packet {
    match f {
        Family::V4 => packet.fragment(offset, more),
        Family::V6 => packet.fragment_header(offset, more),
    }
}

/// First, middle, last and farthest.
const PARTS: [(&str, u16, bool); 4] =
    [("first", 0, true), ("second", 185, true), ("last", 370, false), ("farthest", 8191, false)];

/// Where every fragment of a protocol has one service.
fn fragments(f: Family) -> Vec<Case> {
    let ways: [(&str, Pair, &str); 3] = [
        ("by new MAC addresses", WEB, "web-udp/u1"),
        ("through IPv4", FAR4, "far4/f4"),
        ("through IPv6", FAR6, "far6/f6"),
    ];
    let part = move |(what, offset, more): (&str, u16, bool)| {
        ways.map(|(way, vip, backend)| {
            let packet = cut(f, udp(f, vip, 80).payload(64), offset, more);
            sends(format!("the {what} {f} fragment of a datagram is sent {way}"), packet, backend)
        })
    };
    let rest = vec![
        sends(format!("an {f} fragment of TCP is sent"), cut(f, tcp(f, WEB, 80), 0, true), "web/b1"),
        redirects(
            format!("an {f} fragment is redirected"),
            cut(f, udp(f, ACROSS4, 80), 20, false),
            "across4/a4",
            ELSEWHERE,
        ),
        passes(
            format!("the first {f} fragment for a closed port passes"),
            cut(f, udp(f, WEB, 81).payload(64), 0, true),
            NoSuchPort,
        ),
        sends(
            format!("a later {f} fragment goes by addresses, whatever its bytes say"),
            cut(f, udp(f, WEB, 81).payload(64), 3, false),
            "web-udp/u1",
        ),
        drops(
            format!("the first {f} fragment without a whole TCP header is malformed"),
            cut(f, tcp(f, WEB, 80), 0, true).frame().cut(if f == Family::V4 { 53 } else { 81 }).honest(),
            Malformed,
        ),
        sends(format!("any {f} port takes fragments"), cut(f, udp(f, ANY_UDP, 7), 9, true), "any-udp/t2"),
        sends(
            format!("a VIP of every protocol takes {f} fragments"),
            cut(f, udp(f, ANY_BOTH, 81), 185, false),
            "any-both/t3",
        ),
        drops(
            format!("an {f} fragment for a backend without a next hop is dropped"),
            cut(f, tcp(f, UNRESOLVED, 80), 4, true),
            NoNextHop,
        ),
    ];
    PARTS.into_iter().flat_map(part).chain(rest).collect()
}

/// Where ports would be needed, and protocols without.
fn other_fragments(f: Family) -> Vec<Case> {
    let flows = |(what, offset, more): (&str, u16, bool)| {
        drops(
            format!("the {what} {f} fragment is dropped where affinity needs ports"),
            cut(f, udp(f, FLOWS, 80).payload(64), offset, more),
            Fragment,
        )
    };
    let fragment = || cut(f, udp(f, LIMITED, 80), 2, true);
    let rest = vec![
        drops(
            format!("an {f} fragment is dropped where two services share VIP and protocol"),
            cut(f, tcp(f, BESIDE, 443), 1, true),
            Fragment,
        ),
        sends(
            format!("an {f} fragment of ESP goes by addresses"),
            cut(f, other(f, ANY_BOTH, 50), 6, true),
            "any-both/t3",
        ),
        passes(
            format!("an {f} fragment of ESP passes where no service takes it"),
            cut(f, other(f, WEB, 50), 6, true),
            NoSuchPort,
        ),
        passes(
            format!("the first {f} fragment of an echo request passes"),
            cut(f, echo(f, WEB), 0, true),
            NoSuchPort,
        ),
        drops(format!("{f} fragments are held to their source's rate"), fragment(), RateLimited)
            .world(World::Limited)
            .after([fragment(), fragment(), fragment()]),
    ];
    PARTS.into_iter().map(flows).chain(rest).collect()
}

fn ipv4_only() -> Vec<Case> {
    let f = Family::V4;
    vec![
        sends(
            "an IPv4 fragment that may not be fragmented is a fragment all the same",
            udp(f, FAR4, 80).fragment(3, true).dont_fragment(),
            "far4/f4",
        ),
        sends(
            "an IPv4 fragment with options is sent",
            udp(f, FAR4, 80).options(8).fragment(3, true),
            "far4/f4",
        ),
        drops(
            "an IPv4 fragment longer than its frame is malformed",
            udp(f, WEB, 80).fragment(0, true).frame().total_length(600),
            Malformed,
        ),
        sends(
            "the reserved flag of IPv4 makes no fragment",
            tcp(f, WEB, 80).frame().with(20, &[0x80]),
            "web/b1",
        ),
        answers(
            "an IPv4 echo request with options is answered, options kept",
            echo(f, WEB).options(12),
            EchoReply,
            reply(f, WEB).options(12),
        ),
        passes(
            "an echo request from a group of hosts passes",
            echo(f, WEB).from(Ipv4Addr::new(224, 0, 0, 1)),
            NoSuchPort,
        ),
        passes("an echo request from everybody passes", echo(f, WEB).from(Ipv4Addr::BROADCAST), NoSuchPort),
        passes(
            "an IPv4 echo request from nobody passes",
            echo(f, WEB).from(Ipv4Addr::UNSPECIFIED),
            NoSuchPort,
        ),
        passes(
            "an IPv6 echo request from nobody passes",
            echo(Family::V6, WEB).from(Ipv6Addr::UNSPECIFIED),
            NoSuchPort,
        ),
    ]
}

/// The answer to [`echo`].
fn reply(f: Family, from: Pair) -> Packet {
    let kind = if f == Family::V4 { 0 } else { 129 };
    packet::icmp(from.of(f), CLIENT.of(f), kind, [0, 1, 0, 2], b"are you there?").hops(64).macs(ROUTER, HERE)
}

fn echoes(f: Family) -> Vec<Case> {
    let row = |what: &str, request: Packet, answer: Packet| {
        answers(format!("an {f} echo request {what}"), request, EchoReply, answer)
    };
    let odd = |packet: Packet, bytes| packet.payload(bytes);
    let mut rows = vec![
        row("to a VIP is answered", echo(f, WEB), reply(f, WEB)),
        row("to a VIP of any UDP port is answered", echo(f, ANY_UDP), reply(f, ANY_UDP)),
        row("without payload is answered", odd(echo(f, WEB), 0), odd(reply(f, WEB), 0)),
        row("of an odd number of bytes is answered", odd(echo(f, WEB), 57), odd(reply(f, WEB), 57)),
        row("of 1400 bytes is answered", odd(echo(f, WEB), 1400), odd(reply(f, WEB), 1400)),
        row("with TTL 1 is answered: it has arrived", echo(f, WEB).hops(1), reply(f, WEB)),
        row("with a TOS is answered with it", echo(f, WEB).tos(0xb8), reply(f, WEB).tos(0xb8)),
    ];
    // Sums of all values near the end of the range, where one and zero are easily mistaken.
    rows.extend((0..=16u16).map(|i| {
        let word = (0xf7f8 + i).to_be_bytes();
        let with = |kind, from: Pair, to: Pair| {
            packet::icmp(from.of(f), to.of(f), kind, [word[0], word[1], 0, 0], &[])
        };
        let (asks, says) = if f == Family::V4 { (8, 0) } else { (128, 129) };
        answers(
            format!("an {f} echo request with identifier {:#06x} is answered", 0xf7f8 + i),
            with(asks, CLIENT, WEB),
            EchoReply,
            with(says, WEB, CLIENT).hops(64).macs(ROUTER, HERE),
        )
    }));
    rows
}

fn unanswered(f: Family) -> Vec<Case> {
    vec![
        passes(format!("an {f} echo request with a code passes"), echo(f, WEB).code(1), NoSuchPort),
        passes(
            format!("an {f} echo request to a group's MAC address passes"),
            echo(f, WEB).macs([1, 0, 0x5e, 0, 0, 1], ROUTER),
            NoSuchPort,
        ),
        passes(
            format!("an {f} echo reply to a VIP passes"),
            packet::icmp(CLIENT.of(f), WEB.of(f), if f == Family::V4 { 0 } else { 129 }, [0; 4], b"yes"),
            NoSuchPort,
        ),
    ]
}

/// IPv6 extension headers before TCP: their names, numbers and bytes.
fn extensions() -> Vec<Case> {
    let f = Family::V6;
    let kinds: [(&str, u8, &[u8]); 5] = [
        ("a hop-by-hop header", 0, &[0; 8]),
        (
            "a destination-options header of 24 bytes",
            60,
            &[0, 2, 1, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        ("a routing header", 43, &[0; 8]),
        (
            "an authentication header",
            51,
            &[0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        ),
        ("a fragment header of a whole datagram", 44, &[0; 8]),
    ];
    let row = |(what, number, bytes): (&str, u8, &'static [u8])| {
        vec![
            sends(
                format!("IPv6 TCP behind {what} is sent"),
                tcp(f, WEB, 80).extension(number, bytes),
                "web/b1",
            ),
            sends(
                format!("IPv6 UDP behind {what} is sent through IPv4"),
                udp(f, FAR4, 80).extension(number, bytes),
                "far4/f4",
            ),
            passes(
                format!("IPv6 TCP behind {what} to a closed port passes"),
                tcp(f, WEB, 81).extension(number, bytes),
                NoSuchPort,
            ),
            answers(
                format!("an IPv6 echo request behind {what} is answered"),
                echo(f, WEB).extension(number, bytes),
                EchoReply,
                reply(f, WEB).extension(number, bytes),
            ),
        ]
    };
    let rest = vec![
        sends(
            "IPv6 TCP behind four extension headers is sent",
            tcp(f, WEB, 80)
                .extension(0, &[0; 8])
                .extension(60, &[0; 8])
                .extension(43, &[0; 8])
                .extension(60, &[0; 8]),
            "web/b1",
        ),
        sends(
            "a later fragment of IPv6 behind a hop-by-hop header is sent",
            udp(f, WEB, 80).extension(0, &[0; 8]).fragment_header(185, true),
            "web-udp/u1",
        ),
        sends(
            "the first fragment of IPv6 with destination options in it is sent",
            udp(f, WEB, 80).fragment_header(0, true).extension(60, &[0; 8]),
            "web-udp/u1",
        ),
        drops(
            "an extension header longer than its packet is malformed",
            tcp(f, WEB, 80).extension(0, &[0, 20, 0, 0, 0, 0, 0, 0]),
            Malformed,
        ),
    ];
    kinds.into_iter().flat_map(row).chain(rest).collect()
}

fn too_many() -> Vec<Case> {
    let chain = |headers: usize| (0..headers).fold(tcp(Family::V6, WEB, 80), |p, _| p.extension(60, &[0; 8]));
    let mut long = vec![0; 264];
    long[1] = 32;
    vec![
        sends("six extension headers are followed", chain(6), "web/b1"),
        drops("seven extension headers are not followed", chain(7), ExtensionHeaders),
        drops(
            "more than 512 bytes of extension headers are not followed",
            tcp(Family::V6, WEB, 80).extension(60, &long).extension(60, &long).extension(60, &[0; 8]),
            ExtensionHeaders,
        ),
    ]
}
