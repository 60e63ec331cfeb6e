//! NAT without a pool: towards the backend, and what comes back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::{
    abi::Reason::{NotService, NotTranslatable, Reply, ReplyByKernel, ReplyTooBig, TooBigTold},
    datapath::Action,
};

use super::super::{
    case::{Case, Output, answers, drops, passes, sends, translated},
    cast::{
        BEHIND, BEHIND_ANY, CLIENT, ELSEWHERE, NATTED, NATTED_ANY, NATTED_NARROW, OWN, Pair, STRANGER, other,
        tcp, udp,
    },
    expect, routes,
    worlds::World,
};
use super::too_big::told;
use crate::{
    packet::{self, Family, Packet, SOURCE_PORT},
    packet_frame,
};

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    let both = |f| [there(f), refused(f), back(f), routed(f), nobodys(f)].concat();
    [Family::BOTH.into_iter().flat_map(both).collect(), options()].concat()
}

const fn names(f: Family) -> [&'static str; 3] {
    match f {
        Family::V4 => ["nat4/n4", "nat-any4/na4", "nat-narrow4/nn4"],
        Family::V6 => ["nat6/n6", "nat-any6/na6", "nat-narrow6/nn6"],
    }
}

fn there(f: Family) -> Vec<Case> {
    let [one, any, narrow] = names(f);
    vec![
        sends(format!("{f} TCP is translated, port 80 to 8080"), tcp(f, NATTED, 80), one),
        sends(format!("{f} UDP is translated, port 80 to 8080"), udp(f, NATTED, 80), one),
        sends(format!("{f} TCP to any port is translated, its port kept"), tcp(f, NATTED_ANY, 6000), any),
        sends(format!("{f} UDP to any port is translated, its port kept"), udp(f, NATTED_ANY, 6000), any),
        sends(format!("{f} TCP with an odd payload is translated"), tcp(f, NATTED, 80).payload(333), one),
        sends(format!("{f} UDP with an odd payload is translated"), udp(f, NATTED, 80).payload(333), one),
        sends(format!("an empty {f} datagram is translated"), udp(f, NATTED, 80).payload(0), one),
        sends(
            format!("{f} UDP without a checksum stays without one when translated"),
            udp(f, NATTED, 80).no_checksum(),
            one,
        ),
        sends(
            format!("a wrong {f} TCP checksum stays wrong by the same difference"),
            tcp(f, NATTED, 80).frame().with(14 + f.header() + 16, &[0xde, 0xad]),
            one,
        ),
        sends(format!("{f} FIN is translated"), tcp(f, NATTED, 80).flags("F."), one),
        tagged(f, one),
        sends(
            format!("{f} of 1400 bytes just fits a translated way of 1400"),
            tcp(f, NATTED_NARROW, 80).ip_length(1400),
            narrow,
        ),
    ]
}

fn tagged(f: Family, backend: &'static str) -> Case {
    let site = World::Main.site().expect("a balancer's world");
    let (service, member) = site.backend(backend);
    let snapshot = site.snapshot.as_ref().expect("an installed world");
    let frame = tcp(f, NATTED, 80).frame();
    let output = expect::forwarded(snapshot, service, member, frame.bytes());
    let case = sends(format!("{f} TCP in a VLAN is translated, tag kept"), frame.tagged(0x8100, 7), backend);
    Case { output: Output::Exactly(packet_frame::bytes(&hex::encode(output)).tagged(0x8100, 7)), ..case }
}

fn refused(f: Family) -> Vec<Case> {
    vec![
        answers(
            format!("{f} of 1401 bytes does not fit a translated way of 1400, and its sender is told"),
            tcp(f, NATTED_NARROW, 80).ip_length(1401),
            TooBigTold,
            told(f, NATTED_NARROW, &tcp(f, NATTED_NARROW, 80).ip_length(1401), 1400),
        ),
        drops(format!("{f} SCTP cannot be translated"), other(f, NATTED_ANY, 132), NotTranslatable),
        drops(
            format!("the first {f} fragment of a datagram cannot be translated"),
            fragment(f, 0, true),
            NotTranslatable,
        ),
        drops(
            format!("a later {f} fragment of a datagram cannot be translated"),
            fragment(f, 9, false),
            NotTranslatable,
        ),
    ]
}

fn fragment(f: Family, offset: u16, more: bool) -> Packet {
    let packet = udp(f, NATTED_ANY, 80).payload(64);
    match f {
        Family::V4 => packet.fragment(offset, more),
        Family::V6 => packet.fragment_header(offset, more),
    }
}

/// What stands between the IP header and that of TCP is kept.
fn options() -> Vec<Case> {
    let f = Family::V6;
    let extended = |packet: Packet| packet.extension(0, &[0; 8]).extension(60, &[0, 0, 1, 4, 0, 0, 0, 0]);
    let six = vec![
        sends("IPv6 TCP behind extension headers is translated", extended(tcp(f, NATTED, 80)), "nat6/n6"),
        translated(
            "IPv6 TCP behind extension headers from a backend gets the VIP back",
            extended(answer(f, KINDS[0].1, BEHIND, 8080)),
            Action::Pass,
            ReplyByKernel,
            extended(answer(f, KINDS[0].1, NATTED, 80)),
        ),
    ];
    [4, 20, 40]
        .into_iter()
        .map(|bytes| {
            sends(
                format!("IPv4 with {bytes} bytes of options is translated, options kept"),
                tcp(Family::V4, NATTED, 80).options(bytes),
                "nat4/n4",
            )
        })
        .chain(six)
        .collect()
}

/// An answer of `backend` from `port` to the client.
fn answer(f: Family, kind: Kind, backend: Pair, port: u16) -> Packet {
    let (from, to) = (backend.of(f), CLIENT.of(f));
    kind(from, to, SOURCE_PORT).source_port(port).flags("S.")
}

type Kind = fn(IpAddr, IpAddr, u16) -> Packet;

const KINDS: [(&str, Kind); 2] = [
    ("TCP", |from, to, port| packet::tcp(from, to, port)),
    ("UDP", |from, to, port| packet::udp(from, to, port)),
];

/// The kernel does not route: it gets what is translated.
fn back(f: Family) -> Vec<Case> {
    let row = |(name, kind): (&str, Kind)| {
        let by_kernel = |name: String, packet: Packet, want: Packet| {
            translated(name, packet, Action::Pass, ReplyByKernel, want)
        };
        vec![
            by_kernel(
                format!("{f} {name} from a translated port of a backend gets the VIP back"),
                answer(f, kind, BEHIND, 8080),
                answer(f, kind, NATTED, 80),
            ),
            by_kernel(
                format!("{f} {name} from any port of a backend gets the VIP back"),
                answer(f, kind, BEHIND_ANY, 6000),
                answer(f, kind, NATTED_ANY, 6000),
            ),
        ]
    };
    KINDS.into_iter().flat_map(row).collect()
}

/// The kernel knows the way.
fn routed(f: Family) -> Vec<Case> {
    let there = |packet: Packet| packet.macs(routes::GATEWAY, routes::OUT);
    let row = |(name, kind): (&str, Kind)| {
        let answer = |backend, port, length| answer(f, kind, backend, port).ip_length(length);
        vec![
            translated(
                format!("{f} {name} from a backend is sent back to the client"),
                answer(BEHIND, 8080, 700),
                Action::Redirect(ELSEWHERE),
                Reply,
                there(answer(NATTED, 80, 700)),
            ),
            translated(
                format!("{f} {name} of 1400 bytes from a backend just fits the way back"),
                answer(BEHIND, 8080, 1400),
                Action::Redirect(ELSEWHERE),
                Reply,
                there(answer(NATTED, 80, 1400)),
            ),
            passes(
                format!("{f} {name} of 1401 bytes from a backend is left to the kernel, which tells it"),
                answer(BEHIND, 8080, 1401),
                ReplyTooBig,
            ),
            passes(
                format!("{f} {name} from a backend to this host is no answer to a client"),
                to_us(f, kind),
                NotService,
            ),
        ]
        .into_iter()
        .map(|case| case.world(World::Routed))
    };
    let mut rows: Vec<Case> = KINDS.into_iter().flat_map(row).collect();
    let tagged =
        |from| answer(f, KINDS[0].1, from, if from == BEHIND { 8080 } else { 80 }).frame().tagged(0x8100, 7);
    rows.push(
        translated(
            format!("{f} TCP from a backend in a VLAN is translated, tag kept, and left to the kernel"),
            tagged(BEHIND),
            Action::Pass,
            ReplyByKernel,
            tagged(NATTED),
        )
        .world(World::Routed),
    );
    if f == Family::V4 {
        let (name, kind) = KINDS[1];
        let answer = |backend, port| answer(f, kind, backend, port).ip_length(1401).fragmentable(7);
        rows.push(
            translated(
                format!(
                    "{f} {name} of 1401 bytes that may be fragmented is translated, and cut by the kernel"
                ),
                answer(BEHIND, 8080),
                Action::Pass,
                ReplyByKernel,
                answer(NATTED, 80),
            )
            .world(World::Routed),
        );
    }
    rows
}

fn to_us(f: Family, kind: Kind) -> Packet {
    kind(BEHIND.of(f), OWN.of(f), SOURCE_PORT).source_port(8080)
}

fn nobodys(f: Family) -> Vec<Case> {
    let row = |name: String, packet: Packet| passes(name, packet, NotService);
    let tcp: Kind = KINDS[0].1;
    vec![
        row(
            format!("{f} from another port of a backend behind NAT is not ours"),
            answer(f, tcp, BEHIND, 8081),
        ),
        row(format!("{f} from somebody else's port 8080 is not ours"), answer(f, tcp, STRANGER, 8080)),
        row(
            format!("{f} SCTP from a backend behind NAT is not ours"),
            packet::ip(BEHIND_ANY.of(f), CLIENT.of(f), 132, &[0x5a; 24]),
        ),
        row(
            format!("{f} UDP from a backend behind NAT to a group is not ours"),
            packet::udp(BEHIND.of(f), group(f), SOURCE_PORT).source_port(8080),
        ),
        passes(
            format!("{f} TCP from a backend behind NAT, cut short, is not ours"),
            answer(f, tcp, BEHIND, 8080).frame().cut(14 + f.header() + 10),
            NotService,
        ),
    ]
}

/// All hosts of a link.
fn group(f: Family) -> IpAddr {
    match f {
        Family::V4 => Ipv4Addr::new(224, 0, 0, 1).into(),
        Family::V6 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
    }
}
