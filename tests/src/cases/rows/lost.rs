//! Connections whose backend has failed: a reset in its name, or another backend.

use std::net::Ipv4Addr;

use lb_common::abi::Reason::{ConnectionReset, NoBackend};

use super::super::{
    case::{Case, answers, drops, sends},
    cast::{CLIENT, REHASHES, RESETS, tcp, udp},
};
use crate::{
    packet::{self, Family, HERE, Packet, ROUTER, SOURCE_PORT},
    packet_frame::Frame,
};

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    let both = |f| [answered(f), not_answered(f)].concat();
    [Family::BOTH.into_iter().flat_map(both).collect(), odd()].concat()
}

/// A packet in mid-connection.
fn segment(f: Family) -> Packet {
    tcp(f, RESETS, 80).flags("P.").numbers(0x1122_3344, 0x5566_7788)
}

/// RFC 9293 3.10.7.1: the sequence number is the acknowledgement that came.
fn reset(f: Family) -> Packet {
    packet::tcp(RESETS.of(f), CLIENT.of(f), SOURCE_PORT)
        .source_port(80)
        .flags("R")
        .numbers(0x5566_7788, 0)
        .window(0)
        .identification(0)
        .hops(64)
        .macs(ROUTER, HERE)
}

/// That, from a frame that was longer.
fn cut_reset(f: Family) -> Frame {
    if f == Family::V4 { reset(f).frame().padded(60) } else { reset(f).frame() }
}

fn answered(f: Family) -> Vec<Case> {
    let row = |what: &str, segment: Packet| {
        answers(
            format!("{f} TCP of a lost connection {what} is answered with a reset"),
            segment,
            ConnectionReset,
            cut_reset(f),
        )
    };
    vec![
        answers(
            format!("{f} TCP of a lost connection is answered with a reset"),
            segment(f),
            ConnectionReset,
            reset(f),
        ),
        row("with 500 bytes of payload", segment(f).payload(500)),
        row("with seven bytes of payload and a TOS", segment(f).payload(7).tos(0xb9)),
        row("that is urgent", segment(f).flags(".U").payload(6)),
        row("with an answer to a SYN", segment(f).flags("S.").payload(60)),
        row("after another of it", segment(f).payload(9)).after([segment(f), segment(f)]),
        answers(
            format!("{f} TCP of a lost connection in a VLAN is answered in it"),
            segment(f).payload(99).frame().tagged(0x8100, 7),
            ConnectionReset,
            cut_reset(f).tagged(0x8100, 7),
        ),
    ]
}

fn not_answered(f: Family) -> Vec<Case> {
    let row =
        |what: &str, packet: Packet| sends(format!("{f} {what} is sent to the owner"), packet, "resets/k1");
    vec![
        row("TCP that begins a connection", tcp(f, RESETS, 80)),
        row("TCP that ends a lost connection", segment(f).flags("F.")),
        row("TCP that resets a lost connection", segment(f).flags("R.")),
        row("TCP of a lost connection without ACK", segment(f).flags("P")),
        row("UDP of a slot whose owner before failed", udp(f, RESETS, 80)),
        sends(format!("{f} TCP of a connection that began anew is sent"), segment(f), "resets/k1")
            .after([tcp(f, RESETS, 80)]),
        sends(
            format!("{f} TCP of a lost connection is sent to the owner where nothing is reset"),
            tcp(f, REHASHES, 80).flags("."),
            "rehashes/k3",
        ),
        drops(
            format!("{f} TCP of a lost connection to a group of stations is dropped"),
            segment(f).macs([3, 0, 0, 0, 0, 1], ROUTER),
            NoBackend,
        ),
    ]
}

fn odd() -> Vec<Case> {
    let (v4, v6) = (Family::V4, Family::V6);
    vec![
        answers(
            "IPv4 TCP with options of a lost connection is answered without them",
            segment(v4).options(8),
            ConnectionReset,
            cut_reset(v4),
        ),
        answers(
            "IPv6 TCP behind extension headers of a lost connection is answered without them",
            segment(v6).extension(0, &[0; 8]).extension(60, &[0; 8]),
            ConnectionReset,
            reset(v6),
        ),
        sends(
            "a later IPv4 fragment of a lost connection is sent to the owner",
            segment(v4).payload(64).fragment(3, false),
            "resets/k1",
        ),
        drops(
            "TCP of a lost connection from a group of hosts is dropped",
            segment(v4).from(Ipv4Addr::new(224, 0, 0, 1)),
            NoBackend,
        ),
    ]
}
