//! The agent and GUE: what it takes out of UDP, what it leaves, and what it refuses.

use lb_common::abi::Reason::{MalformedTunnel, NotTunnel, UnknownTunnelSource};

use super::super::{
    agent::GUE_PORT,
    case::{Case, decapsulates, drops, passes},
    cast::{BACKEND, CLIENT, DNS, STRANGER, TUNNEL, WEB, echo, other, tcp, udp},
    worlds::World,
};
use crate::{
    packet::{Family, Packet, gue},
    packet_frame::Frame,
};

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    let pairs = Family::BOTH.into_iter().flat_map(|outer| Family::BOTH.map(|inner| (outer, inner)));
    let each = |(outer, inner)| [taken(outer, inner), left(outer, inner), refused(outer, inner)].concat();
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
