//! How packets leave: MAC rewrite and the four kinds of IP-in-IP, by the same interface and by another.

use lb_common::abi::Reason::{NoHeadroom, TooBigTold};

use super::super::{
    case::{Case, answers, drops, redirects, sends},
    cast::{
        ACROSS, ACROSS4, ACROSS6, CHANCE4, CHANCE6, ELSEWHERE, FAR4, FAR6, GUE4, GUE6, NARROW, NARROW_GUE4,
        NARROW_GUE6, NARROW4, NARROW6, Pair, WEB, WIDE, tcp, udp,
    },
};
use super::too_big::told;
use crate::packet::Family;

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    let both =
        |f| [pairs(f), elsewhere(f), carried(f), untouched(f), padding(f), sizes(f), headroom(f)].concat();
    [Family::BOTH.into_iter().flat_map(both).collect(), options()].concat()
}

/// The ways of forwarding: what to call them, the VIP, and its backend.
const WAYS: [(&str, Pair, &str); 5] = [
    ("by new MAC addresses", WEB, "web/b1"),
    ("through IPv4", FAR4, "far4/f4"),
    ("through IPv6", FAR6, "far6/f6"),
    ("in GUE through IPv4", GUE4, "gue4/g4"),
    ("in GUE through IPv6", GUE6, "gue6/g6"),
];

fn pairs(f: Family) -> Vec<Case> {
    let tcp_rows =
        WAYS.map(|(way, vip, backend)| sends(format!("{f} TCP is sent {way}"), tcp(f, vip, 80), backend));
    let udp_rows = [FAR4, FAR6].into_iter().zip(["far4/f4", "far6/f6"]).zip(["IPv4", "IPv6"]).map(
        |((vip, backend), outer)| sends(format!("{f} UDP is sent through {outer}"), udp(f, vip, 80), backend),
    );
    tcp_rows.into_iter().chain(udp_rows).collect()
}

fn elsewhere(f: Family) -> Vec<Case> {
    let ways = [
        ("by new MAC addresses", ACROSS, "across/a1"),
        ("through IPv4", ACROSS4, "across4/a4"),
        ("through IPv6", ACROSS6, "across6/a6"),
    ];
    let row = |(way, vip, backend)| {
        vec![
            redirects(
                format!("{f} TCP is redirected to another interface {way}"),
                tcp(f, vip, 80),
                backend,
                ELSEWHERE,
            ),
            redirects(
                format!("{f} UDP is redirected to another interface {way}"),
                udp(f, vip, 80),
                backend,
                ELSEWHERE,
            ),
        ]
    };
    ways.into_iter().flat_map(row).collect()
}

/// What the outer header takes over from the inner one, and what it does not.
fn carried(f: Family) -> Vec<Case> {
    let row = |(way, vip, backend): (&str, Pair, &'static str)| {
        vec![
            sends(
                format!("the TOS byte of {f} (EF, CE) is carried over when sent {way}"),
                tcp(f, vip, 80).tos(0xbb),
                backend,
            ),
            sends(
                format!("a full TOS byte of {f} is carried over when sent {way}"),
                tcp(f, vip, 80).tos(0xff),
                backend,
            ),
            sends(format!("{f} with TTL 1 is sent {way}, TTL kept"), tcp(f, vip, 80).hops(1), backend),
            sends(format!("{f} with TTL 255 is sent {way}, TTL kept"), tcp(f, vip, 80).hops(255), backend),
        ]
    };
    let mut rows: Vec<Case> = WAYS.into_iter().flat_map(row).collect();
    if f == Family::V6 {
        rows.push(sends(
            "the flow label of IPv6 stays inside, the outer one is the hash",
            tcp(f, FAR6, 80).flow_label(0xfffff),
            "far6/f6",
        ));
    }
    rows
}

/// What is the endpoints' business.
fn untouched(f: Family) -> Vec<Case> {
    let flags = ["S", "S.", ".", "P.", "F.", "R", "R.", "", "SFRP.U"];
    let mut rows: Vec<Case> = flags
        .iter()
        .map(|flags| {
            sends(
                format!("{f} TCP with flags [{flags}] goes where a SYN goes"),
                tcp(f, FAR4, 80).flags(flags).payload(9),
                "far4/f4",
            )
        })
        .collect();
    let transport = 14 + f.header();
    rows.extend([
        sends(
            format!("{f} UDP without a checksum stays without one"),
            udp(f, FAR4, 80).no_checksum(),
            "far4/f4",
        ),
        sends(format!("an empty {f} datagram is sent"), udp(f, FAR6, 80).payload(0), "far6/f6"),
        sends(
            format!("a wrong {f} TCP checksum is the backend's business"),
            tcp(f, FAR4, 80).frame().with(transport + 16, &[0xde, 0xad]),
            "far4/f4",
        ),
        sends(
            format!("an {f} TCP data offset beyond the packet is the backend's business"),
            tcp(f, WEB, 80).frame().with(transport + 12, &[0xf0]),
            "web/b1",
        ),
        sends(
            format!("an {f} UDP length beyond the packet is the backend's business"),
            udp(f, WEB, 80).frame().with(transport + 4, &[0xff, 0xff]),
            "web-udp/u1",
        ),
        sends(format!("{f} TCP from port 0 is sent"), tcp(f, WEB, 80).source_port(0), "web/b1"),
        sends(
            format!("{f} TCP for somebody else's MAC address is sent"),
            tcp(f, WEB, 80).macs([0xff; 6], [0x02, 9, 9, 9, 9, 9]),
            "web/b1",
        ),
    ]);
    if f == Family::V4 {
        rows.push(sends(
            "a wrong IPv4 header checksum is the backend's business",
            tcp(f, FAR4, 80).frame().with(24, &[0xde, 0xad]),
            "far4/f4",
        ));
        rows.push(sends(
            "an IPv4 packet that may be fragmented gets an outer header that may not",
            udp(f, FAR4, 80).fragmentable(0xabcd),
            "far4/f4",
        ));
    }
    rows
}

fn options() -> Vec<Case> {
    let row = |bytes: usize| {
        WAYS.map(|(way, vip, backend)| {
            sends(
                format!("IPv4 with {bytes} bytes of options is sent {way}, ports found behind them"),
                tcp(Family::V4, vip, 80).options(bytes),
                backend,
            )
        })
    };
    [4, 20, 40].into_iter().flat_map(row).collect()
}

/// Ethernet pads short frames; lengths in headers must come from the packet.
fn padding(f: Family) -> Vec<Case> {
    let row = |(way, vip, backend): (&str, Pair, &'static str)| {
        let packet = tcp(f, vip, 80).frame();
        let short = packet.bytes().len();
        vec![
            sends(
                format!("a short {f} packet padded by Ethernet is sent {way}, its own length kept"),
                packet.clone().padded(short.max(54) + 6),
                backend,
            ),
            sends(format!("one byte of padding behind {f} is sent {way}"), packet.padded(short + 1), backend),
        ]
    };
    WAYS.into_iter().flat_map(row).collect()
}

fn sizes(f: Family) -> Vec<Case> {
    let ways = [
        ("by new MAC addresses", NARROW, "narrow/n1", 1400),
        ("through IPv4", NARROW4, "narrow4/n4", 1380),
        ("through IPv6", NARROW6, "narrow6/n6", 1360),
        // Room for candidates is kept, whether there are any or not.
        ("in GUE through IPv4", NARROW_GUE4, "narrow-gue4/ng4", 1400 - 48),
        ("in GUE through IPv6", NARROW_GUE6, "narrow-gue6/ng6", 1400 - 104),
    ];
    let row = |(way, vip, backend, most): (&str, Pair, &'static str, usize)| {
        vec![
            sends(
                format!("{f} of {most} bytes just fits a way of 1400 {way}"),
                tcp(f, vip, 80).ip_length(most),
                backend,
            ),
            answers(
                format!("{f} of {} bytes does not fit a way of 1400 {way}, and its sender is told", most + 1),
                tcp(f, vip, 80).ip_length(most + 1),
                TooBigTold,
                told(f, vip, &tcp(f, vip, 80).ip_length(most + 1), most),
            ),
            sends(
                format!("padding behind {f} of {most} bytes does not count {way}"),
                tcp(f, vip, 80).ip_length(most).frame().padded(most + 14 + 30),
                backend,
            ),
        ]
    };
    let mut rows: Vec<Case> = ways.into_iter().flat_map(row).collect();
    rows.push(sends(
        format!("{f} of 3000 bytes fits a wide way"),
        tcp(f, WIDE, 80).ip_length(3000),
        "wide/w4",
    ));
    rows.push(
        answers(
            format!("{f} of 65535 bytes fits no way through a tunnel"),
            tcp(f, WIDE, 80).ip_length(65_535),
            TooBigTold,
            told(f, WIDE, &tcp(f, WIDE, 80).ip_length(65_535), 65_515),
        )
        .host_only("BPF_PROG_TEST_RUN takes no frame longer than a page"),
    );
    rows
}

fn headroom(f: Family) -> Vec<Case> {
    vec![
        sends(
            format!("{f} goes through IPv4 with exactly 20 bytes of headroom"),
            tcp(f, FAR4, 80),
            "far4/f4",
        )
        .headroom(20),
        drops(format!("{f} cannot go through IPv4 with 16 bytes of headroom"), tcp(f, FAR4, 80), NoHeadroom)
            .headroom(16),
        sends(
            format!("{f} goes through IPv6 with exactly 40 bytes of headroom"),
            tcp(f, FAR6, 80),
            "far6/f6",
        )
        .headroom(40),
        drops(format!("{f} cannot go through IPv6 with 36 bytes of headroom"), tcp(f, FAR6, 80), NoHeadroom)
            .headroom(36),
        sends(
            format!("{f} goes into GUE through IPv4 with exactly 32 bytes of headroom"),
            tcp(f, GUE4, 80),
            "gue4/g4",
        )
        .headroom(32),
        drops(
            format!("{f} cannot go into GUE through IPv4 with 28 bytes of headroom"),
            tcp(f, GUE4, 80),
            NoHeadroom,
        )
        .headroom(28),
        sends(
            format!("{f} goes into GUE through IPv6 with exactly 52 bytes of headroom"),
            tcp(f, GUE6, 80),
            "gue6/g6",
        )
        .headroom(52),
        drops(
            format!("{f} cannot go into GUE through IPv6 with 48 bytes of headroom"),
            tcp(f, GUE6, 80),
            NoHeadroom,
        )
        .headroom(48),
        sends(format!("{f} TCP names its candidates in IPv4"), tcp(f, CHANCE4, 80), "chance4/c1"),
        sends(
            format!("{f} TCP in mid-connection names its candidates in IPv6"),
            tcp(f, CHANCE6, 80).flags(".").payload(99),
            "chance6/c1",
        ),
        sends(format!("{f} UDP names no candidates"), udp(f, CHANCE6, 80), "chance6/c1"),
        sends(
            format!("{f} TCP names its candidates in IPv6 with exactly 104 bytes of headroom"),
            tcp(f, CHANCE6, 80),
            "chance6/c1",
        )
        .headroom(104),
        drops(
            format!("{f} TCP cannot name its candidates in IPv6 with 100 bytes of headroom"),
            tcp(f, CHANCE6, 80),
            NoHeadroom,
        )
        .headroom(100),
        sends(
            format!("the ports of {f} UDP become the source port of GUE"),
            udp(f, GUE4, 80).source_port(7),
            "gue4/g4",
        ),
    ]
}
