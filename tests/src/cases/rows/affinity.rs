//! Which member of seven gets a packet. The names are golden: another hash, or another choice of fields, moves every
//! client of every balancer, and these rows say so.

use super::super::{
    case::{Case, sends},
    cast::{CLIENT, FLOWS, Pair, SPREAD, SPREAD_TOO, STICKY, STICKY_TOO, client, tcp, udp},
    expect::in_network,
};
use crate::packet::{Family, Packet};

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    [addresses4(), addresses6(), source4(), source6(), flow4(), flow6()].concat()
}

const V4: Family = Family::V4;
const V6: Family = Family::V6;

/// The client's packets that differ in nothing but ports and protocol.
fn same_addresses(f: Family, to: Pair) -> [(&'static str, Packet); 5] {
    [
        ("a SYN", tcp(f, to, 80)),
        ("a SYN from another port", tcp(f, to, 80).source_port(1)),
        ("a SYN to another port", tcp(f, to, 81)),
        ("a datagram", udp(f, to, 80)),
        ("a segment with data, TOS and another TTL", tcp(f, to, 80).flags("P.").payload(99).tos(8).hops(7)),
    ]
}

fn named(
    kind: &str,
    f: Family,
    to: &str,
    rows: [(&'static str, Packet); 5],
    member: &'static str,
) -> Vec<Case> {
    rows.into_iter()
        .map(|(what, packet)| {
            sends(format!("affinity {kind}, {f}: {what} to {to} goes to {member}"), packet, member)
        })
        .collect()
}

fn addresses4() -> Vec<Case> {
    let mut rows = named("addresses", V4, "one VIP", same_addresses(V4, SPREAD), "spread/p3");
    rows.extend(named("addresses", V4, "the other VIP", same_addresses(V4, SPREAD_TOO), "spread/p5"));
    rows.extend([
        sends(
            "affinity addresses, IPv4: another client goes elsewhere",
            tcp(V4, SPREAD, 80).from(client(8).v4),
            "spread/p0",
        ),
        sends(
            "affinity addresses, IPv4: a third client goes elsewhere",
            tcp(V4, SPREAD, 80).from(client(7).v4),
            "spread/p6",
        ),
    ]);
    rows
}

fn addresses6() -> Vec<Case> {
    let mut rows = named("addresses", V6, "one VIP", same_addresses(V6, SPREAD), "spread/p6");
    rows.extend(named("addresses", V6, "the other VIP", same_addresses(V6, SPREAD_TOO), "spread/p5"));
    rows.extend([
        sends(
            "affinity addresses, IPv6: another client goes elsewhere",
            tcp(V6, SPREAD, 80).from(client(6).v6),
            "spread/p0",
        ),
        sends(
            "affinity addresses, IPv6: a neighbour in the same /64 goes elsewhere",
            tcp(V6, SPREAD, 80).from(in_network(CLIENT.v6, 2)),
            "spread/p2",
        ),
    ]);
    rows
}

fn source4() -> Vec<Case> {
    let mut rows = named("source", V4, "one VIP", same_addresses(V4, STICKY), "sticky/s3");
    rows.extend(named("source", V4, "the other VIP", same_addresses(V4, STICKY_TOO), "sticky/s3"));
    rows.push(sends(
        "affinity source, IPv4: another client goes elsewhere",
        tcp(V4, STICKY, 80).from(client(6).v4),
        "sticky/s6",
    ));
    rows
}

fn source6() -> Vec<Case> {
    let mut rows = named("source", V6, "one VIP", same_addresses(V6, STICKY), "sticky/s0");
    rows.extend(named("source", V6, "the other VIP", same_addresses(V6, STICKY_TOO), "sticky/s0"));
    rows.push(sends(
        "affinity source, IPv6: another client goes elsewhere",
        tcp(V6, STICKY, 80).from(client(6).v6),
        "sticky/s6",
    ));
    rows
}

fn flow4() -> Vec<Case> {
    vec![
        sends("affinity flow, IPv4: a SYN", tcp(V4, FLOWS, 80), "flows/f4"),
        sends(
            "affinity flow, IPv4: a later segment of the same flow",
            tcp(V4, FLOWS, 80).flags("P.").payload(99).tos(8).hops(7),
            "flows/f4",
        ),
        sends("affinity flow, IPv4: the segment with options", tcp(V4, FLOWS, 80).options(12), "flows/f4"),
        sends("affinity flow, IPv4: from another port", tcp(V4, FLOWS, 80).source_port(40_001), "flows/f5"),
        sends("affinity flow, IPv4: to another port", tcp(V4, FLOWS, 81), "flows/f3"),
        sends(
            "affinity flow, IPv4: with ports exchanged for bytes of each other",
            tcp(V4, FLOWS, 81).source_port(80),
            "flows/f3",
        ),
        sends("affinity flow, IPv4: the same ports over UDP", udp(V4, FLOWS, 80), "flows/f6"),
        sends("affinity flow, IPv4: from another client", tcp(V4, FLOWS, 80).from(client(6).v4), "flows/f2"),
    ]
}

fn flow6() -> Vec<Case> {
    vec![
        sends("affinity flow, IPv6: a SYN", tcp(V6, FLOWS, 80), "flows/f4"),
        sends(
            "affinity flow, IPv6: a later segment of the same flow",
            tcp(V6, FLOWS, 80).flags("P.").payload(99).flow_label(77),
            "flows/f4",
        ),
        sends("affinity flow, IPv6: from another port", tcp(V6, FLOWS, 80).source_port(40_001), "flows/f1"),
        sends("affinity flow, IPv6: to another port", tcp(V6, FLOWS, 81), "flows/f6"),
        sends("affinity flow, IPv6: the same ports over UDP", udp(V6, FLOWS, 80), "flows/f3"),
        sends("affinity flow, IPv6: from another client", tcp(V6, FLOWS, 80).from(client(6).v6), "flows/f0"),
    ]
}
