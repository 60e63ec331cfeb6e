//! Packets for a VIP that are cut short or contradict themselves, in each way there is.

use lb_common::abi::Reason::{Malformed, NoSuchPort};

use super::super::{
    case::{Case, drops, passes, sends},
    cast::{ANY_BOTH, WEB, echo, other, tcp, udp},
};
use crate::{packet::Family, packet_frame::Frame};

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    let both = |f| [cut_frames(f), cut_packets(f), without_ports(f)].concat();
    [Family::BOTH.into_iter().flat_map(both).collect(), ipv4_header(), ipv6_header()].concat()
}

/// The frame ends early; the IP header still promises the whole packet.
fn cut_frames(f: Family) -> Vec<Case> {
    let ip = f.header();
    let tcp_row = |held: usize, place: &str| {
        drops(
            format!("{f} TCP whose frame ends {place} is malformed"),
            tcp(f, WEB, 80).payload(10).frame().cut(14 + ip + held),
            Malformed,
        )
    };
    let udp_row = |held: usize, place: &str| {
        drops(
            format!("{f} UDP whose frame ends {place} is malformed"),
            udp(f, WEB, 80).payload(10).frame().cut(14 + ip + held),
            Malformed,
        )
    };
    vec![
        tcp_row(0, "with the IP header"),
        tcp_row(1, "after one byte of the header"),
        tcp_row(3, "within the destination port"),
        tcp_row(4, "after the ports"),
        tcp_row(13, "within the flags"),
        tcp_row(19, "one byte before the end of the header"),
        tcp_row(20, "with the header"),
        tcp_row(29, "one byte early"),
        udp_row(0, "with the IP header"),
        udp_row(3, "within the destination port"),
        udp_row(4, "after the ports"),
        udp_row(7, "one byte before the end of the header"),
        udp_row(8, "with the header"),
        udp_row(17, "one byte early"),
    ]
}

/// The packet ends early and its IP header says so.
fn cut_packets(f: Family) -> Vec<Case> {
    let ip = f.header();
    let tcp_frame = |held: usize| tcp(f, WEB, 80).frame().cut(14 + ip + held).honest();
    let udp_frame = |held: usize| udp(f, WEB, 80).frame().cut(14 + ip + held).honest();
    let tcp_rows = [0, 1, 2, 3, 4, 12, 14, 19].map(|held| {
        drops(
            format!("an {f} packet with {held} bytes of TCP header is malformed"),
            tcp_frame(held),
            Malformed,
        )
    });
    let udp_rows = [0, 1, 2, 3, 4, 6, 7].map(|held| {
        drops(
            format!("an {f} packet with {held} bytes of UDP header is malformed"),
            udp_frame(held),
            Malformed,
        )
    });
    let rest = vec![
        drops(
            format!("{f} TCP cut short but padded by Ethernet is malformed"),
            tcp_frame(19).padded(14 + ip + 40),
            Malformed,
        ),
        drops(
            format!("{f} UDP cut short but padded by Ethernet is malformed"),
            udp_frame(7).padded(14 + ip + 40),
            Malformed,
        ),
        sends(format!("{f} TCP of exactly its header is sent"), tcp_frame(20), "web/b1"),
        sends(format!("{f} UDP of exactly its header is sent"), udp_frame(8), "web-udp/u1"),
        drops(
            format!("{f} TCP cut short is malformed even for a port without service"),
            tcp(f, WEB, 81).frame().cut(14 + ip + 19).honest(),
            Malformed,
        ),
    ];
    [tcp_rows.to_vec(), udp_rows.to_vec(), rest].concat()
}

/// Protocols whose headers we do not read.
fn without_ports(f: Family) -> Vec<Case> {
    let ip = f.header();
    vec![
        drops(
            format!("an {f} echo request whose frame ends early is malformed"),
            echo(f, WEB).frame().cut(14 + ip + 9),
            Malformed,
        ),
        passes(
            format!("an {f} echo request of one byte passes to the kernel"),
            echo(f, WEB).frame().cut(14 + ip + 1).honest(),
            NoSuchPort,
        ),
        passes(
            format!("an {f} packet of ICMP without a byte of it passes to the kernel"),
            echo(f, WEB).frame().cut(14 + ip).honest(),
            NoSuchPort,
        ),
        drops(
            format!("{f} ESP whose frame ends early is malformed for a VIP of every protocol"),
            other(f, ANY_BOTH, 50).frame().cut(14 + ip + 9),
            Malformed,
        ),
        sends(
            format!("{f} ESP of one byte is sent for a VIP of every protocol"),
            other(f, ANY_BOTH, 50).frame().cut(14 + ip + 1).honest(),
            "any-both/t3",
        ),
        drops(
            format!("{f} TCP cut short is malformed for a VIP of every protocol"),
            tcp(f, ANY_BOTH, 80).frame().cut(14 + ip + 4).honest(),
            Malformed,
        ),
    ]
}

fn ipv4_header() -> Vec<Case> {
    let whole = || tcp(Family::V4, WEB, 80).payload(40).frame();
    let row = |what: &str, frame: Frame| drops(format!("IPv4 with {what} is malformed"), frame, Malformed);
    let versions = [0, 1, 3, 5, 6, 15].map(|v| row(&format!("version {v}"), whole().version(v)));
    let words = [0, 1, 2, 3, 4].map(|w| row(&format!("a header of {w} words"), whole().header_words(w)));
    let lengths = [0, 1, 19].map(|l| row(&format!("a total length of {l}"), whole().total_length(l)));
    let rest = vec![
        row("a header of 15 words in a packet of 40 bytes", {
            tcp(Family::V4, WEB, 80).frame().header_words(15)
        }),
        row("a header of 15 words in a packet of exactly 60 bytes", {
            tcp(Family::V4, WEB, 80).payload(20).frame().header_words(15)
        }),
        row("a total length that ends in the options", {
            tcp(Family::V4, WEB, 80).options(40).frame().total_length(59)
        }),
        row("a total length that ends with the options", {
            tcp(Family::V4, WEB, 80).options(40).frame().total_length(60)
        }),
        row("options that leave 19 bytes of TCP", {
            tcp(Family::V4, WEB, 80).options(8).frame().total_length(28 + 19)
        }),
        row("a total length one byte beyond the frame", whole().total_length(81)),
        row("a total length of 65535 in a short frame", whole().total_length(65_535)),
        row("a frame that ends with its header", whole().cut(34)),
        row("a frame that ends within its options", {
            tcp(Family::V4, WEB, 80).options(40).frame().cut(14 + 59)
        }),
        sends(
            "IPv4 with one word of the TCP header taken for options is balanced by what is read as ports",
            // The words of the TCP header behind the ports are taken for them: the sequence number's.
            tcp(Family::V4, ANY_BOTH, 80).payload(40).frame().header_words(6),
            "any-both/t3",
        ),
    ];
    [versions.to_vec(), words.to_vec(), lengths.to_vec(), rest].concat()
}

fn ipv6_header() -> Vec<Case> {
    let whole = || tcp(Family::V6, WEB, 80).payload(40).frame();
    let row = |what: &str, frame: Frame| drops(format!("IPv6 with {what} is malformed"), frame, Malformed);
    let versions = [0, 4, 5, 7, 15].map(|v| row(&format!("version {v}"), whole().version(v)));
    let rest = vec![
        row("a payload length one byte beyond the frame", whole().payload_length(61)),
        row("a payload length of 65535 in a short frame", whole().payload_length(65_535)),
        row("a payload length of 0 and TCP", whole().payload_length(0)),
        row("a payload length of 19 and TCP", whole().payload_length(19)),
        row("a frame that ends with its header", whole().cut(54)),
        passes("IPv6 without a next header passes", other(Family::V6, WEB, 59), NoSuchPort),
        sends(
            "IPv6 with a hop-by-hop header goes to a VIP of every protocol",
            tcp(Family::V6, ANY_BOTH, 80).extension(0, &[0; 8]),
            "any-both/t3",
        ),
        drops(
            "an IPv6 fragment header cut short is malformed if the packet says it is longer",
            udp(Family::V6, WEB, 80).fragment_header(0, true).frame().cut(14 + 40 + 7),
            Malformed,
        ),
        drops(
            "an IPv6 fragment header cut short is malformed, however honest",
            udp(Family::V6, WEB, 80).fragment_header(0, true).frame().cut(14 + 40 + 7).honest(),
            Malformed,
        ),
    ];
    [versions.to_vec(), rest].concat()
}
