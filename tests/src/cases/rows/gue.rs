//! The agent and GUE: what it takes out of UDP, what it leaves, and what it refuses.

use lb_common::abi::Reason::{
    HandedOn, MalformedTunnel, NotTunnel, SecondChance, Stranded, UnknownTunnelSource,
};

use super::super::{
    agent::GUE_PORT,
    case::{Case, decapsulates, drops, passes},
    cast::{BACKEND, CLIENT, DNS, STRANGER, TUNNEL, WEB, echo, other, tcp, udp},
    worlds::World,
};
use crate::{
    cases::{
        agent::{KNOWN_PORT, PEER_MACS},
        case::answers,
        cast::PEER,
    },
    packet::{Family, Packet, gue},
    packet_frame::Frame,
};

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    let pairs = Family::BOTH.into_iter().flat_map(|outer| Family::BOTH.map(|inner| (outer, inner)));
    let each = |(outer, inner)| {
        [taken(outer, inner), left(outer, inner), refused(outer, inner), listed(outer, inner)].concat()
    };
    pairs.flat_map(each).map(|row| row.world(World::Agent)).collect()
}

fn wrap(outer: Family, inner: &Packet) -> Packet {
    gue(inner, TUNNEL.of(outer), BACKEND.of(outer), GUE_PORT, &[])
}

/// Offset of the UDP header.
fn udp_at(outer: Family) -> usize {
    14 + outer.header()
}

/// Offset of the GUE header.
fn gue_at(outer: Family) -> usize {
    udp_at(outer) + 8
}

fn taken(outer: Family, f: Family) -> Vec<Case> {
    let row = |what: &str, inner: Packet| {
        decapsulates(format!("{f} in GUE in {outer}: {what} is taken out"), wrap(outer, &inner), inner)
    };
    let whole = || wrap(outer, &tcp(f, WEB, 80)).frame();
    let mut rows = vec![
        row("TCP", tcp(f, WEB, 80)),
        row("UDP to any port", udp(f, WEB, 9999).payload(900)),
        row("an echo request", echo(f, WEB)),
        row("a protocol that we do not know", other(f, WEB, 253)),
        row("TCP with a TOS byte and TTL 1", tcp(f, WEB, 80).tos(0xb9).hops(1)),
        decapsulates(
            format!("{f} in GUE in {outer}: a packet with Ethernet padding is taken out, padding kept"),
            whole().padded(150),
            tcp(f, WEB, 80).frame().padded(150 - outer.header() - 12),
        ),
        decapsulates(
            format!("{f} in GUE in {outer}: a wrong UDP checksum is nobody's business, for it has none"),
            whole().with(udp_at(outer) + 6, &[0xde, 0xad]),
            tcp(f, WEB, 80),
        ),
    ];
    rows.push(row(
        "a fragment",
        match f {
            Family::V4 => udp(f, WEB, 80).fragment(185, true),
            Family::V6 => udp(f, WEB, 80).fragment_header(185, true),
        },
    ));
    rows
}

fn left(outer: Family, f: Family) -> Vec<Case> {
    let whole = || wrap(outer, &tcp(f, WEB, 80)).frame();
    let row =
        |what: &str, frame: Frame| passes(format!("{f} in GUE in {outer}: {what} passes"), frame, NotTunnel);
    let at = gue_at(outer);
    vec![
        row("a VIP that is not ours", wrap(outer, &tcp(f, DNS, 80)).frame()),
        row(
            "another port of UDP",
            gue(&tcp(f, WEB, 80), TUNNEL.of(outer), BACKEND.of(outer), 6080, &[]).frame(),
        ),
        row("a control message", whole().with(at, &[0x20])),
        row("variant 1", whole().with(at, &[0x40])),
        row("a packet of neither IP version", whole().with(at + 1, &[6])),
        row("flags that we do not know", whole().with(at + 2, &[0x80])),
        row("a header of a length that we do not send", whole().with(at, &[1])),
        row("a datagram cut within UDP", whole().cut(udp_at(outer) + 7)),
        row("a datagram cut within GUE", whole().cut(at + 3)),
        row("a datagram cut within the inner destination", whole().cut(at + 4 + f.header() - 1)),
    ]
}

fn refused(outer: Family, f: Family) -> Vec<Case> {
    let whole = || wrap(outer, &tcp(f, WEB, 80)).frame();
    let bytes = whole().bytes().len();
    let row = |what: &str, frame: Frame, reason| {
        drops(format!("{f} in GUE in {outer}: {what} is refused"), frame, reason)
    };
    let from = |who: super::super::cast::Pair| {
        gue(&tcp(f, WEB, 80), who.of(outer), BACKEND.of(outer), GUE_PORT, &[]).frame()
    };
    let length = |wrong: i32| {
        let right = (bytes - udp_at(outer)) as i32;
        whole().with(udp_at(outer) + 4, &((right + wrong) as u16).to_be_bytes())
    };
    vec![
        row("a stranger", from(STRANGER), UnknownTunnelSource),
        row("a client", from(CLIENT), UnknownTunnelSource),
        row("a frame that ends one byte early", whole().cut(bytes - 1), MalformedTunnel),
        row("a datagram shorter than IP says", length(-1), MalformedTunnel),
        row("a datagram longer than IP says", length(1), MalformedTunnel),
        row("inner version 0", whole().with(gue_at(outer) + 4, &[0x05]), MalformedTunnel),
        row(
            "an outer length one byte too short",
            match outer {
                Family::V4 => whole().total_length(bytes - 15),
                Family::V6 => whole().payload_length(bytes - 14 - 40 - 1),
            },
            MalformedTunnel,
        ),
    ]
}

/// Private data: a list of candidates, the one at `next` being the next.
fn list(outer: Family, next: u8, candidates: [super::super::cast::Pair; 3]) -> Vec<u8> {
    let address = |pair: super::super::cast::Pair| match outer {
        Family::V4 => pair.v4.octets().to_vec(),
        Family::V6 => pair.v6.octets().to_vec(),
    };
    [vec![1, next, 0, 0], candidates.map(address).concat()].concat()
}

/// With a list of candidates.
fn listed(outer: Family, f: Family) -> Vec<Case> {
    let only_peer = [STRANGER, PEER, STRANGER];
    let from = |who: super::super::cast::Pair, inner: &Packet, next, candidates| {
        let private = list(outer, next, candidates);
        gue(inner, who.of(outer), BACKEND.of(outer), GUE_PORT, &private)
    };
    let wrapped = |inner: &Packet, next| from(TUNNEL, inner, next, only_peer);
    let middle = || tcp(f, WEB, 80).flags(".").payload(20);
    let ours = || middle().source_port(KNOWN_PORT);
    let handed_on = |inner: &Packet, next: u8| {
        let private = list(outer, next, only_peer);
        let out = gue(inner, BACKEND.of(outer), PEER.of(outer), GUE_PORT, &private);
        out.macs(PEER_MACS.0, PEER_MACS.1)
    };
    let name = |what: &str| format!("{f} in GUE in {outer} with candidates: {what}");
    let taken = |what: &str, inner: Packet| decapsulates(name(what), wrapped(&inner, 0), inner);
    let taken_as = |what: &str, frame: Packet, inner: Packet, reason| {
        let row = decapsulates(name(what), frame, inner);
        Case { counted: super::super::case::Counted::Reason(reason), ..row }
    };
    const SOCKETS: &str = "no socket stands for the connection";
    vec![
        taken("a SYN is taken out", tcp(f, WEB, 80)),
        taken("UDP is taken out", udp(f, WEB, 80)),
        taken("a connection of this host is taken out", ours()).host_only(SOCKETS),
        answers(
            name("a strange connection is handed on"),
            wrapped(&middle(), 0),
            HandedOn,
            handed_on(&middle(), 2),
        ),
        answers(
            name("the reset of a strange connection is handed on"),
            wrapped(&middle().flags("R"), 1),
            HandedOn,
            handed_on(&middle().flags("R"), 2),
        ),
        taken_as(
            "a strange connection stays at the end of the list",
            wrapped(&middle(), 2),
            middle(),
            Stranded,
        ),
        taken_as("a place beyond the list is its end", wrapped(&middle(), 255), middle(), Stranded),
        taken_as(
            "nobody known is handed anything",
            from(TUNNEL, &middle(), 0, [STRANGER; 3]),
            middle(),
            Stranded,
        ),
        taken_as("a peer may hand on", from(PEER, &ours(), 2, only_peer), ours(), SecondChance)
            .host_only(SOCKETS),
        taken_as(
            "a SYN that a peer handed on is taken out",
            from(PEER, &tcp(f, WEB, 80), 2, only_peer),
            tcp(f, WEB, 80),
            SecondChance,
        ),
        drops(
            name("a stranger may not hand on"),
            from(STRANGER, &middle(), 1, only_peer),
            UnknownTunnelSource,
        ),
        drops(
            name("a peer has nothing to say without a list"),
            gue(&middle(), PEER.of(outer), BACKEND.of(outer), GUE_PORT, &[]),
            UnknownTunnelSource,
        ),
        {
            let private = [&[7, 0, 0, 0][..], &list(outer, 0, only_peer)[4..]].concat();
            let frame = gue(&middle(), TUNNEL.of(outer), BACKEND.of(outer), GUE_PORT, &private);
            decapsulates(name("other private data of that length mean nothing"), frame, middle())
        },
    ]
}
