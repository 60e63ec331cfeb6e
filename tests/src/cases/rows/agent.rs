//! The agent: what it takes out of tunnels, what it leaves, and what it refuses.

use std::net::IpAddr;

use lb_common::abi::Reason::{MalformedTunnel, NotTunnel, UnknownTunnelSource};

use super::super::{
    case::{Case, decapsulates, drops, passes},
    cast::{BACKEND, CLIENT, DNS, STRANGER, TUNNEL, WEB, echo, other, tcp, udp},
    worlds::World,
};
use crate::{
    packet::{self, Family, Packet, tunnelled},
    packet_frame::{Frame, arp_request, ethernet},
};

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    let pairs = Family::BOTH.into_iter().flat_map(|outer| Family::BOTH.map(|inner| (outer, inner)));
    let each = |(outer, inner)| [taken(outer, inner), left(outer, inner), refused(outer, inner)].concat();
    let rows: Vec<Case> =
        pairs.flat_map(each).chain(not_tunnels()).chain(outer_headers()).chain(mapped()).collect();
    rows.into_iter().map(|row| row.world(World::Agent)).collect()
}

fn wrap(outer: Family, inner: &Packet) -> Packet {
    tunnelled(inner, TUNNEL.of(outer), BACKEND.of(outer))
}

/// Taken out of a tunnel.
fn taken(outer: Family, f: Family) -> Vec<Case> {
    let row = |what: &str, inner: Packet| {
        decapsulates(format!("{f} in {outer}: {what} is taken out"), wrap(outer, &inner), inner)
    };
    let padded = tcp(f, WEB, 80);
    vec![
        row("TCP", tcp(f, WEB, 80)),
        row("UDP to any port", udp(f, WEB, 9999).payload(900)),
        row("an echo request", echo(f, WEB)),
        row("a protocol that we do not know", other(f, WEB, 253)),
        row("TCP with a TOS byte and TTL 1", tcp(f, WEB, 80).tos(0xb9).hops(1)),
        row("an empty packet", other(f, WEB, 59).payload(0)),
        decapsulates(
            format!("{f} in {outer}: a packet with Ethernet padding is taken out, padding kept"),
            wrap(outer, &padded).frame().padded(130),
            padded.frame().padded(130 - outer.header()),
        ),
        decapsulates(
            format!("{f} in {outer}: a packet shorter than its tunnel is taken out"),
            wrap(outer, &udp(f, WEB, 80)).frame().padded(120).honest(),
            udp(f, WEB, 80).frame().padded(120 - outer.header()),
        ),
        row(
            "a fragment",
            match f {
                Family::V4 => udp(f, WEB, 80).fragment(185, true),
                Family::V6 => udp(f, WEB, 80).fragment_header(185, true),
            },
        ),
    ]
}

/// Left alone: somebody else's tunnel.
fn left(outer: Family, f: Family) -> Vec<Case> {
    let ip = outer.header();
    let whole = || wrap(outer, &tcp(f, WEB, 80)).frame();
    let cut = |what: &str, length: usize| {
        passes(format!("{f} in {outer}: a tunnel cut {what} passes"), whole().cut(length), NotTunnel)
    };
    vec![
        passes(
            format!("{f} in {outer}: a tunnel to a VIP that is not ours passes"),
            wrap(outer, &tcp(f, DNS, 80)),
            NotTunnel,
        ),
        passes(
            format!("{f} in {outer}: a stranger's tunnel to a VIP that is not ours passes"),
            tunnelled(&tcp(f, DNS, 80), STRANGER.of(outer), BACKEND.of(outer)),
            NotTunnel,
        ),
        cut("within the outer header", 14 + ip - 1),
        cut("behind the outer header", 14 + ip),
        cut("within the inner destination", 14 + ip + f.header() - 2),
        cut("one byte before the end of the inner header", 14 + ip + f.header() - 1),
    ]
}

/// Found by random frames: IPv4 VIPs stand in the agent's table as IPv6 has them, and an IPv6 packet to such an address
/// was taken out.
fn mapped() -> Vec<Case> {
    let inner = packet::tcp(CLIENT.v6, WEB.v4.to_ipv6_mapped(), 80);
    let row = |outer: Family| {
        let name = format!("IPv6 to an IPv4 VIP's mapped address in {outer} passes");
        passes(name, wrap(outer, &inner), NotTunnel)
    };
    Family::BOTH.map(row).to_vec()
}

/// For a VIP of ours, but wrong.
fn refused(outer: Family, f: Family) -> Vec<Case> {
    let ip = outer.header();
    let whole = || wrap(outer, &tcp(f, WEB, 80)).frame();
    let bytes = whole().bytes().len();
    let row =
        |what: &str, frame: Frame, reason| drops(format!("{f} in {outer}: {what} is refused"), frame, reason);
    let from = |source: IpAddr| tunnelled(&tcp(f, WEB, 80), source, BACKEND.of(outer)).frame();
    let inner_at = 14 + ip;
    let mut rows = vec![
        row("a tunnel from a stranger", from(STRANGER.of(outer)), UnknownTunnelSource),
        row("a tunnel from a client", from(CLIENT.of(outer)), UnknownTunnelSource),
        row("a tunnel from just outside the prefix", from(BACKEND.of(outer)), UnknownTunnelSource),
        row("a frame that ends with the inner header", whole().cut(inner_at + f.header()), MalformedTunnel),
        row("a frame that ends one byte early", whole().cut(bytes - 1), MalformedTunnel),
        row("a cut tunnel whose outer header is honest", whole().cut(bytes - 1).honest(), MalformedTunnel),
        row("inner version 0", inner_version(whole(), inner_at, 0), MalformedTunnel),
        row("inner version 15", inner_version(whole(), inner_at, 15), MalformedTunnel),
    ];
    let (version, length_at) = match f {
        Family::V4 => (6, inner_at + 2),
        Family::V6 => (4, inner_at + 4),
    };
    rows.push(row(
        "the other family's inner version",
        inner_version(whole(), inner_at, version),
        MalformedTunnel,
    ));
    rows.push(row("an inner length of 65535", whole().with(length_at, &[0xff, 0xff]), MalformedTunnel));
    if f == Family::V4 {
        rows.extend([
            row("an inner header of four words", whole().with(inner_at, &[0x44]), MalformedTunnel),
            row("an inner header of 15 words in 40 bytes", whole().with(inner_at, &[0x4f]), MalformedTunnel),
            row("an inner length of 0", whole().with(length_at, &[0, 0]), MalformedTunnel),
            row("an inner length of 19", whole().with(length_at, &[0, 19]), MalformedTunnel),
        ]);
    }
    rows.push(match outer {
        Family::V4 => row("an outer length below its header", whole().total_length(19), MalformedTunnel),
        Family::V6 => row("an outer length of 0", whole().payload_length(0), MalformedTunnel),
    });
    rows.push(row(
        "an outer length one byte too short",
        match outer {
            Family::V4 => whole().total_length(bytes - 15),
            Family::V6 => whole().payload_length(bytes - 14 - ip - 1),
        },
        MalformedTunnel,
    ));
    rows
}

fn inner_version(frame: Frame, at: usize, version: u8) -> Frame {
    let byte = version << 4 | frame.bytes()[at] & 0x0f;
    frame.with(at, &[byte])
}

fn not_tunnels() -> Vec<Case> {
    let both = |f: Family| {
        vec![
            passes(format!("the agent lets {f} TCP to a VIP pass"), tcp(f, WEB, 80), NotTunnel),
            passes(format!("the agent lets {f} UDP to a stranger pass"), udp(f, STRANGER, 53), NotTunnel),
            passes(format!("the agent lets {f} GRE pass"), other(f, BACKEND, 47), NotTunnel),
            passes(
                format!("the agent lets an {f} runt pass"),
                tcp(f, WEB, 80).frame().cut(14 + f.header() - 1),
                NotTunnel,
            ),
            passes(
                format!("the agent takes one tunnel off {f}, not two"),
                wrap(Family::V4, &tunnelled(&tcp(f, WEB, 80), TUNNEL.of(f), BACKEND.of(f))),
                NotTunnel,
            ),
        ]
    };
    let rest = [
        passes("the agent lets ARP pass", arp_request(CLIENT.v4, WEB.v4), NotTunnel),
        passes("the agent lets an unknown EtherType pass", ethernet(0x88cc, 46), NotTunnel),
        passes(
            "the agent lets a VLAN-tagged tunnel pass",
            wrap(Family::V4, &tcp(Family::V4, WEB, 80)).frame().tagged(0x8100, 7),
            NotTunnel,
        ),
        passes("the agent lets a bare Ethernet header pass", ethernet(0x0800, 0), NotTunnel),
        passes("the agent lets an empty frame pass", ethernet(0x0800, 0).cut(0), NotTunnel)
            .host_only("BPF_PROG_TEST_RUN takes no frame shorter than an Ethernet header"),
    ];
    Family::BOTH.into_iter().flat_map(both).chain(rest).collect()
}

/// Outer headers that our balancers never send.
fn outer_headers() -> Vec<Case> {
    let v4 = || wrap(Family::V4, &tcp(Family::V4, WEB, 80));
    let v6 = || wrap(Family::V6, &tcp(Family::V4, WEB, 80));
    let inner = tcp(Family::V4, WEB, 80).frame().into_bytes();
    vec![
        passes("a tunnel with options in its IPv4 header passes", v4().options(4), NotTunnel),
        passes("the first fragment of an IPv4 tunnel passes", v4().fragment(0, true), NotTunnel),
        passes("a later fragment of an IPv4 tunnel passes", v4().fragment(100, false), NotTunnel),
        passes("an IPv4 tunnel of version 5 passes", v4().frame().version(5), NotTunnel),
        passes("an IPv4 tunnel with a header of four words passes", v4().frame().header_words(4), NotTunnel),
        passes("a fragment of an IPv6 tunnel passes", v6().fragment_header(0, true), NotTunnel),
        passes(
            "an IPv6 tunnel behind a destination-options header passes",
            v6().extension(60, &[0; 8]),
            NotTunnel,
        ),
        passes("an IPv6 tunnel of version 4 passes", v6().frame().version(4), NotTunnel),
        decapsulates(
            "an IPv4 tunnel that may be fragmented is taken apart",
            v4().fragmentable(0x4321),
            tcp(Family::V4, WEB, 80),
        ),
        decapsulates(
            "a tunnel with another TTL, TOS and a wrong outer checksum is taken apart",
            v4().hops(3).tos(0x20).frame().with(24, &[0xde, 0xad]),
            tcp(Family::V4, WEB, 80),
        ),
        decapsulates(
            "an IPv6 tunnel with a flow label is taken apart",
            v6().flow_label(0xabcde),
            tcp(Family::V4, WEB, 80),
        ),
        passes(
            "IPv4 in IPv4 that claims to be IPv6 is nobody's",
            packet::ip(TUNNEL.v4, BACKEND.v4, 41, &inner[14..]),
            NotTunnel,
        ),
    ]
}
