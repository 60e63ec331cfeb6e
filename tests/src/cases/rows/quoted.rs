//! ICMP and ICMPv6 errors to a VIP: they follow the flow that they quote.

use lb_common::abi::Reason::{
    ExtensionHeaders, Fragment, Malformed, NoNextHop, NoSuchPort, NotTranslatable, RateLimited, TooBig,
};

use super::super::{
    case::{Case, drops, passes, redirects, sends},
    cast::{
        ACROSS4, ANY_BOTH, CHANCE4, CLIENT, ELSEWHERE, FAR4, FAR6, FLOWS, GUE4, GUE6, LIMITED, NARROW,
        NATTED, NOBODY, Pair, SPREAD, STICKY, STRANGER, UNRESOLVED, WEB, client,
    },
    worlds::World,
};
use crate::packet::{self, Family, Packet, SOURCE_PORT};

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    let both = |f| [kinds(f), ways(f), owners(f), quotes(f), broken(f), others(f)].concat();
    [Family::BOTH.into_iter().flat_map(both).collect(), ipv4_only(), ipv6_only()].concat()
}

/// Type and code of "packet too big".
fn too_big(f: Family) -> (u8, u8) {
    if f == Family::V4 { (3, 4) } else { (2, 0) }
}

/// An error of a router about the first `bytes` bytes of an IP packet.
fn error_of(f: Family, (kind, code): (u8, u8), to: Pair, about: &Packet, bytes: usize) -> Packet {
    let frame = about.frame();
    let quote = &frame.bytes()[14..];
    let quote = &quote[..bytes.min(quote.len())];
    packet::icmp(STRANGER.of(f), to.of(f), kind, [0, 0, 5, 0], quote).code(code)
}

/// That a packet of 548 bytes was too big.
fn error(f: Family, to: Pair, about: &Packet) -> Packet {
    error_of(f, too_big(f), to, about, 548)
}

/// What a backend of this VIP answers the client.
fn answer(f: Family, from: Pair, port: u16) -> Packet {
    packet::tcp(from.of(f), CLIENT.of(f), SOURCE_PORT).source_port(port).flags("P.").payload(1400)
}

/// The same over UDP.
fn datagram(f: Family, from: Pair, port: u16) -> Packet {
    packet::udp(from.of(f), CLIENT.of(f), SOURCE_PORT).source_port(port).payload(1400)
}

fn kinds(f: Family) -> Vec<Case> {
    let all: &[(&str, (u8, u8))] = match f {
        Family::V4 => &[
            ("that a fragment would be needed", (3, 4)),
            ("that a host is unreachable", (3, 1)),
            ("that it is forbidden", (3, 13)),
            ("that the time is exceeded", (11, 0)),
            ("of a parameter problem", (12, 0)),
        ],
        Family::V6 => &[
            ("that a packet is too big", (2, 0)),
            ("that there is no way", (1, 0)),
            ("that a port is closed", (1, 4)),
            ("that the time is exceeded", (3, 0)),
            ("of a parameter problem", (4, 1)),
        ],
    };
    let row = |(what, head): &(&str, (u8, u8))| {
        sends(
            format!("an {f} error {what} is sent"),
            error_of(f, *head, WEB, &answer(f, WEB, 80), 548),
            "web/b1",
        )
    };
    all.iter().map(row).collect()
}

fn ways(f: Family) -> Vec<Case> {
    let all = [
        ("through IPv4", FAR4, "far4/f4"),
        ("through IPv6", FAR6, "far6/f6"),
        ("in GUE over IPv4", GUE4, "gue4/g4"),
        ("in GUE over IPv6", GUE6, "gue6/g6"),
        ("in GUE with candidates", CHANCE4, "chance4/c1"),
    ];
    let way = |(how, vip, backend): (&str, Pair, &'static str)| {
        sends(format!("an {f} error is sent {how}"), error(f, vip, &answer(f, vip, 80)), backend)
    };
    let rest = vec![
        redirects(
            format!("an {f} error is redirected"),
            error(f, ACROSS4, &answer(f, ACROSS4, 80)),
            "across4/a4",
            ELSEWHERE,
        ),
        sends(
            format!("an {f} error in a VLAN is sent there"),
            error(f, WEB, &answer(f, WEB, 80)).frame().tagged(0x8100, 7),
            "web/b1",
        ),
        sends(
            format!("an {f} error about a datagram is sent"),
            error(f, WEB, &datagram(f, WEB, 80)),
            "web-udp/u1",
        ),
    ];
    all.into_iter().map(way).chain(rest).collect()
}

/// Whose flow it is decides, not who tells.
fn owners(f: Family) -> Vec<Case> {
    let v4 = f == Family::V4;
    let pick = |a, b| if v4 { a } else { b };
    let from_port = answer(f, FLOWS, 80);
    let other_port = packet::tcp(FLOWS.of(f), CLIENT.of(f), 40_001).source_port(80).flags("P.").payload(1400);
    let other_client =
        packet::tcp(SPREAD.of(f), client(6).of(f), SOURCE_PORT).source_port(80).flags("P.").payload(1400);
    let sixth = if v4 {
        sends(
            "an IPv4 error about another client goes elsewhere",
            error(f, SPREAD, &packet::tcp(SPREAD.v4, client(8).v4, 1).source_port(80).flags(".")),
            "spread/p0",
        )
    } else {
        sends(
            "an IPv6 error about another client goes elsewhere",
            error(f, SPREAD, &other_client),
            "spread/p0",
        )
    };
    vec![
        sends(
            format!("affinity flow: an {f} error goes where its flow goes"),
            error(f, FLOWS, &from_port),
            "flows/f4",
        ),
        sends(
            format!("affinity flow: an {f} error about eight bytes goes there too"),
            error_of(f, too_big(f), FLOWS, &from_port, f.header() + 8),
            "flows/f4",
        ),
        sends(
            format!("affinity flow: an {f} error about another port goes elsewhere"),
            error(f, FLOWS, &other_port),
            pick("flows/f5", "flows/f1"),
        ),
        sends(
            format!("affinity flow: an {f} error about UDP goes where UDP goes"),
            error(f, FLOWS, &datagram(f, FLOWS, 80)),
            pick("flows/f6", "flows/f3"),
        ),
        sends(
            format!("affinity addresses: an {f} error goes where its client's packets go"),
            error(f, SPREAD, &answer(f, SPREAD, 80)),
            pick("spread/p3", "spread/p6"),
        ),
        sends(
            format!("affinity source: an {f} error goes where its client's packets go"),
            error(f, STICKY, &answer(f, STICKY, 80)),
            pick("sticky/s3", "sticky/s0"),
        ),
        sixth,
    ]
}

fn cut(f: Family, packet: Packet, offset: u16, more: bool) -> Packet {
    match f {
        Family::V4 => packet.fragment(offset, more),
        Family::V6 => packet.fragment_header(offset, more),
    }
}

/// What is quoted.
fn quotes(f: Family) -> Vec<Case> {
    let head = too_big(f);
    let esp = |from: Pair| packet::ip(from.of(f), CLIENT.of(f), 50, &[0x5a; 600]);
    vec![
        sends(
            format!("an {f} error about four bytes of TCP is sent"),
            error_of(f, head, WEB, &answer(f, WEB, 80), f.header() + 4),
            "web/b1",
        ),
        sends(
            format!("an {f} error about the first fragment goes where its flow goes"),
            error(f, FLOWS, &cut(f, answer(f, FLOWS, 80), 0, true)),
            "flows/f4",
        ),
        sends(
            format!("an {f} error about a later fragment goes by addresses"),
            error(f, FAR4, &cut(f, datagram(f, FAR4, 80), 185, true)),
            "far4/f4",
        ),
        drops(
            format!("an {f} error about a later fragment is dropped where affinity needs ports"),
            error(f, FLOWS, &cut(f, datagram(f, FLOWS, 80), 185, true)),
            Fragment,
        ),
        sends(
            format!("an {f} error about ESP is sent where every protocol is"),
            error(f, ANY_BOTH, &esp(ANY_BOTH)),
            "any-both/t3",
        ),
        passes(
            format!("an {f} error about ESP passes where no service takes it"),
            error(f, WEB, &esp(WEB)),
            NoSuchPort,
        ),
        passes(
            format!("an {f} error about a closed port passes"),
            error(f, WEB, &answer(f, WEB, 81)),
            NoSuchPort,
        ),
        passes(
            format!("an {f} error about somebody else's packet passes"),
            error(f, WEB, &answer(f, STRANGER, 80)),
            NoSuchPort,
        ),
        sends(
            format!("an {f} error about somebody else's packet is sent where every protocol is"),
            error(f, ANY_BOTH, &answer(f, STRANGER, 80)),
            "any-both/t3",
        ),
    ]
}

fn broken(f: Family) -> Vec<Case> {
    let head = too_big(f);
    let about = |bytes| error_of(f, head, WEB, &answer(f, WEB, 80), bytes);
    let quote = 14 + f.header() + 8;
    vec![
        drops(format!("an {f} error about nothing is malformed"), about(0), Malformed),
        drops(format!("an {f} error about half a header is malformed"), about(f.header() - 1), Malformed),
        drops(
            format!("an {f} error about three bytes of TCP is malformed"),
            about(f.header() + 3),
            Malformed,
        ),
        drops(
            format!("an {f} error about a packet of version 5 is malformed"),
            about(548).frame().with(quote, &[0x55]),
            Malformed,
        ),
        drops(
            format!("an {f} error about bytes behind its packet is malformed"),
            about(f.header()).frame().padded(600),
            Malformed,
        ),
    ]
}

fn others(f: Family) -> Vec<Case> {
    let limited = || error(f, LIMITED, &answer(f, LIMITED, 80));
    let from_client = || packet::tcp(CLIENT.of(f), LIMITED.of(f), 80);
    vec![
        passes(
            format!("a fragment of an {f} error passes"),
            cut(f, error(f, WEB, &answer(f, WEB, 80)), 0, true),
            NoSuchPort,
        ),
        drops(
            format!(
                "an {f} error for a backend behind NAT is dropped: its quote would have to be translated too"
            ),
            error(f, NATTED, &answer(f, NATTED, 80)),
            NotTranslatable,
        ),
        drops(
            format!("an {f} error for a backend without a next hop is dropped"),
            error(f, UNRESOLVED, &answer(f, UNRESOLVED, 80)),
            NoNextHop,
        ),
        drops(
            format!("an {f} error where nobody takes packets is dropped"),
            error(f, NOBODY, &answer(f, NOBODY, 80)),
            lb_common::abi::Reason::NoBackend,
        ),
        drops(
            format!("an {f} error too long for the way is dropped"),
            error_of(f, too_big(f), NARROW, &answer(f, NARROW, 80), 1400),
            TooBig,
        ),
        drops(format!("{f} errors are held to their sender's rate"), limited(), RateLimited)
            .world(World::Limited)
            .after([limited(), limited(), limited()]),
        sends(format!("{f} errors are not held to the rate of whom they are about"), limited(), "limited/m1")
            .world(World::Limited)
            .after([from_client(), from_client(), from_client(), from_client()]),
    ]
}

fn ipv4_only() -> Vec<Case> {
    let f = Family::V4;
    let old = |what: &str, kind| {
        passes(
            format!("an ICMP {what} passes"),
            error_of(f, (kind, 0), WEB, &answer(f, WEB, 80), 548),
            NoSuchPort,
        )
    };
    vec![
        old("source quench", 4),
        old("redirect", 5),
        sends(
            "an ICMP error about a packet with options is sent",
            error(f, FLOWS, &answer(f, FLOWS, 80).options(12)),
            "flows/f4",
        ),
        sends(
            "an ICMP error with options is sent",
            error(f, FLOWS, &answer(f, FLOWS, 80)).options(8),
            "flows/f4",
        ),
        drops(
            "an ICMP error about a header of four words is malformed",
            error(f, WEB, &answer(f, WEB, 80)).frame().with(42, &[0x44]),
            Malformed,
        ),
    ]
}

fn ipv6_only() -> Vec<Case> {
    let f = Family::V6;
    let chain = |headers| (0..headers).fold(answer(f, FLOWS, 80), |p, _| p.extension(60, &[0; 8]));
    vec![
        sends(
            "an ICMPv6 error about a packet with extension headers is sent",
            error(f, FLOWS, &chain(3)),
            "flows/f4",
        ),
        sends(
            "an ICMPv6 error behind extension headers is sent",
            error(f, FLOWS, &answer(f, FLOWS, 80)).extension(60, &[0; 8]).extension(0, &[0; 8]),
            "flows/f4",
        ),
        drops(
            "an ICMPv6 error about too many extension headers is dropped",
            error(f, FLOWS, &chain(7)),
            ExtensionHeaders,
        ),
        drops(
            "an ICMPv6 error whose quote ends in an extension header is malformed",
            error_of(f, (2, 0), FLOWS, &chain(1), 44),
            Malformed,
        ),
        passes(
            "an ICMPv6 message of a kind that is no error passes",
            error_of(f, (100, 0), WEB, &answer(f, WEB, 80), 548),
            NoSuchPort,
        ),
    ]
}
