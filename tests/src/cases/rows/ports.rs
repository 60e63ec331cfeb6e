//! Which service a packet for a VIP belongs to: protocols, ports, and the order in which they are tried.

use lb_common::abi::Reason::{Malformed, NoSuchPort};

use super::super::{
    case::{Case, drops, passes, sends},
    cast::{ANY_BOTH, ANY_TCP, ANY_UDP, BESIDE, DNS, LISTED, WEB, echo, other, tcp, udp},
};
use crate::packet::Family;

/// SCTP, ESP and GRE (IANA protocol numbers): protocols whose ports, if any, we do not read.
const SCTP: u8 = 132;
const ESP: u8 = 50;
const GRE: u8 = 47;

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    let both = |f| [one_port(f), listed(f), any_port(f), any_protocol(f), exact_first(f)].concat();
    Family::BOTH.into_iter().flat_map(both).chain(protocol_0()).collect()
}

/// Found by random frames: it was taken for the entry that a service of one port does not have. In IPv6, next header 0 is
/// a header of hop-by-hop options (RFC 8200 section 4.3), and the payload here is none.
fn protocol_0() -> Vec<Case> {
    let named = |f, rest| format!("{f} protocol 0 to a VIP {rest}");
    [("of TCP and UDP services", WEB), ("of one port", DNS)]
        .into_iter()
        .flat_map(|(what, vip)| {
            [
                passes(named(Family::V4, format!("{what} passes")), other(Family::V4, vip, 0), NoSuchPort),
                drops(named(Family::V6, format!("{what} is refused")), other(Family::V6, vip, 0), Malformed),
            ]
        })
        .collect()
}

fn one_port(f: Family) -> Vec<Case> {
    vec![
        passes(format!("{f} TCP to another port of a VIP passes"), tcp(f, WEB, 81), NoSuchPort),
        passes(format!("{f} TCP to port 0 of a VIP passes"), tcp(f, WEB, 0), NoSuchPort),
        passes(format!("{f} UDP to another port of a VIP passes"), udp(f, WEB, 81), NoSuchPort),
        passes(format!("{f} TCP to the port of a UDP service passes"), tcp(f, DNS, 53), NoSuchPort),
        passes(format!("{f} SCTP to a VIP of TCP and UDP services passes"), other(f, WEB, SCTP), NoSuchPort),
        passes(format!("{f} ESP to a VIP of TCP and UDP services passes"), other(f, WEB, ESP), NoSuchPort),
        passes(format!("{f} GRE to a VIP of TCP and UDP services passes"), other(f, WEB, GRE), NoSuchPort),
        passes(
            format!("{f} TCP whose bytes would be our port, were they TCP's, passes as protocol 255"),
            {
                let bytes = tcp(f, WEB, 80).frame().into_bytes();
                crate::packet::ip(super::super::cast::CLIENT.of(f), WEB.of(f), 255, &bytes[14 + f.header()..])
            },
            NoSuchPort,
        ),
        sends(format!("{f} TCP goes to the TCP service of a VIP"), tcp(f, WEB, 80), "web/b1"),
        sends(
            format!("{f} UDP to the same port of the same VIP goes to another service"),
            udp(f, WEB, 80),
            "web-udp/u1",
        ),
    ]
}

fn listed(f: Family) -> Vec<Case> {
    let inside = [80, 443, 8000, 8001, 8003].map(|port| {
        sends(
            format!("{f} TCP to port {port}, which is listed, is balanced"),
            tcp(f, LISTED, port),
            "listed/l1",
        )
    });
    let outside = [0, 79, 81, 442, 444, 7999, 8004, 65_535].map(|port| {
        passes(
            format!("{f} TCP to port {port}, which is not listed, passes"),
            tcp(f, LISTED, port),
            NoSuchPort,
        )
    });
    [inside.to_vec(), outside.to_vec()].concat()
}

fn any_port(f: Family) -> Vec<Case> {
    let ports = [0, 1, 80, 65_535];
    let tcp_rows = ports.map(|port| {
        sends(format!("{f} TCP to port {port} belongs to any TCP port"), tcp(f, ANY_TCP, port), "any-tcp/t1")
    });
    let udp_rows = ports.map(|port| {
        sends(format!("{f} UDP to port {port} belongs to any UDP port"), udp(f, ANY_UDP, port), "any-udp/t2")
    });
    let others = vec![
        passes(format!("{f} UDP to a VIP of any TCP port passes"), udp(f, ANY_TCP, 80), NoSuchPort),
        passes(format!("{f} TCP to a VIP of any UDP port passes"), tcp(f, ANY_UDP, 80), NoSuchPort),
        passes(format!("{f} SCTP to a VIP of any TCP port passes"), other(f, ANY_TCP, SCTP), NoSuchPort),
    ];
    [tcp_rows.to_vec(), udp_rows.to_vec(), others].concat()
}

fn any_protocol(f: Family) -> Vec<Case> {
    let to = "any-both/t3";
    vec![
        sends(format!("{f} TCP to a VIP of every protocol is balanced"), tcp(f, ANY_BOTH, 4321), to),
        sends(format!("{f} UDP to a VIP of every protocol is balanced"), udp(f, ANY_BOTH, 4321), to),
        sends(format!("{f} SCTP to a VIP of every protocol is balanced"), other(f, ANY_BOTH, SCTP), to),
        sends(format!("{f} ESP to a VIP of every protocol is balanced"), other(f, ANY_BOTH, ESP), to),
        sends(format!("{f} GRE to a VIP of every protocol is balanced"), other(f, ANY_BOTH, GRE), to),
        sends(
            format!("{f} protocol 255 to a VIP of every protocol is balanced"),
            other(f, ANY_BOTH, 255),
            to,
        ),
        sends(format!("an {f} echo request to a VIP of every protocol is balanced"), echo(f, ANY_BOTH), to),
        sends(
            format!("an {f} packet without payload to a VIP of every protocol is balanced"),
            other(f, ANY_BOTH, ESP).payload(0),
            to,
        ),
    ]
}

fn exact_first(f: Family) -> Vec<Case> {
    vec![
        sends(
            format!("{f} TCP to the exact port beside any port goes to its service"),
            tcp(f, BESIDE, 443),
            "exact/t5",
        ),
        sends(format!("{f} TCP below the exact port goes to any port's"), tcp(f, BESIDE, 442), "beside/t4"),
        sends(format!("{f} TCP above the exact port goes to any port's"), tcp(f, BESIDE, 444), "beside/t4"),
        passes(
            format!("{f} UDP to the exact TCP port beside any port passes"),
            udp(f, BESIDE, 443),
            NoSuchPort,
        ),
    ]
}
