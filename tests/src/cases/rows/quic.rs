//! Connection IDs that name a server: whoever sends a packet with one, and from wherever, it goes there.

use super::super::{
    case::{Case, sends},
    cast::{CLIENT, Pair, QUIC, client},
    site::connection_id as id,
};
use crate::packet::{self, Family, Packet};

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    Family::BOTH.into_iter().flat_map(|f| [named(f), elsewhere(f)].concat()).collect()
}

/// A short header: one byte, the ID, and what is encrypted.
fn short(f: Family, from: Pair, id: &[u8]) -> Packet {
    let message = [&[0x43][..], id, &[0x5c; 30]].concat();
    packet::udp(from.of(f), QUIC.of(f), 443).bytes(&message)
}

/// A long header of version 1: type, version, the ID with its length, a source ID, and the rest.
fn long(f: Family, from: Pair, kind: u8, id: &[u8]) -> Packet {
    let head = [0xc0 | kind << 4, 0, 0, 0, 1, id.len() as u8];
    let message = [&head[..], id, &[4, 1, 2, 3, 4, 0, 0x40, 0x20], &[0x5c; 40]].concat();
    packet::udp(from.of(f), QUIC.of(f), 443).bytes(&message)
}

fn named(f: Family) -> Vec<Case> {
    let kinds = [
        "in plain sight",
        "encrypted, an odd number of bytes",
        "encrypted, longer than a half",
        "encrypted as one block",
        "encrypted, of the greatest length",
    ];
    let mut rows = Vec::new();
    for (config, kind) in kinds.into_iter().enumerate() {
        let row = |what: &str, packet: Packet, member| {
            sends(format!("QUIC, {f}: {what} with a server ID {kind} goes to {member}"), packet, member)
        };
        let elsewhere = short(f, client(77), &id(config, 3)).source_port(999);
        rows.extend([
            row("a short header", short(f, CLIENT, &id(config, 3)), "quic/q2"),
            row("a short header from another address and port", elsewhere, "quic/q2"),
            row("a short header for another server", short(f, CLIENT, &id(config, 6)), "quic/q5"),
            row("a handshake packet", long(f, CLIENT, 2, &id(config, 1)), "quic/q0"),
            row("an initial packet", long(f, client(9), 0, &id(config, 2)), "quic/q1"),
        ]);
    }
    rows
}

/// By the flow: to the member that the 5-tuple gives, whatever the ID.
fn elsewhere(f: Family) -> Vec<Case> {
    let member = match f {
        Family::V4 => "quic/q2",
        Family::V6 => "quic/q5",
    };
    let by_flow = |what: &str, packet: Packet| {
        sends(format!("QUIC, {f}: {what} goes by the flow, to {member}"), packet, member)
    };
    let unroutable = [0xe8, 1, 2, 3, 4, 5, 6, 7, 8];
    vec![
        by_flow("an initial packet with an ID that the client chose", long(f, CLIENT, 0, &unroutable)),
        by_flow("an ID that names no server", short(f, CLIENT, &unroutable)),
        by_flow("an ID of a configuration that nobody has", short(f, CLIENT, &[0x68; 20])),
        by_flow("an ID of a server that nobody is", short(f, CLIENT, &id(0, 8))),
        by_flow("an encrypted ID of a server that nobody is", short(f, CLIENT, &id(1, 70_000))),
        by_flow("an ID of server 0", short(f, CLIENT, &id(0, 0))),
        by_flow("an ID of a server that has failed", short(f, CLIENT, &id(3, 7))),
        by_flow("a long header with an ID cut short", long(f, CLIENT, 2, &id(0, 5)[..8])),
        by_flow("a long header without an ID", long(f, CLIENT, 2, &[])),
        by_flow("an empty datagram", packet::udp(CLIENT.of(f), QUIC.of(f), 443).bytes(&[])),
        by_flow("a datagram of one byte", packet::udp(CLIENT.of(f), QUIC.of(f), 443).bytes(&[0x40])),
        by_flow(
            "an ID at the end of the frame",
            packet::udp(CLIENT.of(f), QUIC.of(f), 443).bytes(&[&[0x43][..], &id(3, 5)[..16]].concat()),
        ),
    ]
}
