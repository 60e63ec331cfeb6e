//! What is not for a service leaves as it came, whatever is wrong with it.

use lb_common::abi::Reason::{NotConfigured, NotIp, NotService};

use super::super::{
    case::{Case, passes},
    cast::{ANY_BOTH, BESIDE, CLIENT, FAR4, STRANGER, TUNNEL, WEB, echo, other, tcp, udp},
    worlds::World,
};
use crate::{
    packet::{self, Family, tunnelled},
    packet_frame::{arp_request, ethernet},
};

const TOO_SHORT: &str = "BPF_PROG_TEST_RUN takes no frame shorter than an Ethernet header";

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    [not_ip(), runts(), strangers(), strange_headers(), near_misses(), not_configured()].concat()
}

fn not_ip() -> Vec<Case> {
    let to_vip = || tcp(Family::V4, WEB, 80).frame();
    let kind = |name: &str, number| passes(format!("{name} passes"), ethernet(number, 46), NotIp);
    vec![
        kind("a frame of an EtherType that is neither IP nor ARP", 0x88cc),
        kind("a frame with a length instead of an EtherType", 46),
        kind("an MPLS frame", 0x8847),
        kind("a PPPoE session frame", 0x8864),
        passes(
            "a packet for a VIP behind three VLAN tags passes",
            to_vip().tagged(0x8100, 7).tagged(0x8100, 8).tagged(0x88a8, 9),
            NotIp,
        ),
        passes(
            "a VLAN-tagged packet for nobody here passes",
            tcp(Family::V4, STRANGER, 80).frame().tagged(0x8100, 7),
            NotService,
        ),
        passes("an IPv4 packet under an unknown EtherType passes", to_vip().ether_type(0x0801), NotIp),
        passes(
            "an IPv6 packet under the EtherType of IPv4 is no VIP's",
            tcp(Family::V6, WEB, 80).frame().ether_type(0x0800),
            NotService,
        ),
        passes(
            "an IPv4 packet under the EtherType of IPv6 is no VIP's",
            tcp(Family::V4, WEB, 80).payload(40).frame().ether_type(0x86dd),
            NotService,
        ),
    ]
}

fn runts() -> Vec<Case> {
    let v4 = || tcp(Family::V4, WEB, 80).frame();
    let v6 = || tcp(Family::V6, WEB, 80).frame();
    vec![
        passes("an empty frame passes", v4().cut(0), NotIp).host_only(TOO_SHORT),
        passes("a frame of one byte passes", v4().cut(1), NotIp).host_only(TOO_SHORT),
        passes("a frame one byte short of an Ethernet header passes", v4().cut(13), NotIp)
            .host_only(TOO_SHORT),
        passes("an Ethernet header that promises IPv4 and ends there passes", v4().cut(14), NotIp),
        passes("an IPv4 header of one byte passes", v4().cut(15), NotIp),
        passes("an IPv4 header cut within the destination passes", v4().cut(32), NotIp),
        passes("an IPv4 header one byte short passes", v4().cut(33), NotIp),
        passes("an Ethernet header that promises IPv6 and ends there passes", v6().cut(14), NotIp),
        passes("an IPv6 header cut within the destination passes", v6().cut(46), NotIp),
        passes("an IPv6 header one byte short passes", v6().cut(53), NotIp),
    ]
}

fn strangers() -> Vec<Case> {
    let both = |f: Family| {
        vec![
            passes(format!("{f} TCP for nobody we know passes"), tcp(f, STRANGER, 80), NotService),
            passes(format!("{f} UDP for nobody we know passes"), udp(f, STRANGER, 53), NotService),
            passes(format!("an {f} echo request for nobody we know passes"), echo(f, STRANGER), NotService),
            passes(format!("{f} ESP for nobody we know passes"), other(f, STRANGER, 50), NotService),
            passes(
                format!("an {f} reply from a VIP passes"),
                packet::tcp(WEB.of(f), CLIENT.of(f), 40_000).source_port(80).flags("S."),
                NotService,
            ),
            passes(
                format!("an {f} tunnel around a packet for a VIP passes"),
                tunnelled(&tcp(f, WEB, 80), TUNNEL.of(f), STRANGER.of(f)),
                NotService,
            ),
            passes(
                format!("{f} TCP with TTL 1 for nobody we know passes"),
                tcp(f, STRANGER, 80).hops(1),
                NotService,
            ),
            passes(
                format!("{f} UDP with Ethernet padding for nobody we know passes"),
                udp(f, STRANGER, 53).payload(0).frame().padded(90),
                NotService,
            ),
        ]
    };
    Family::BOTH.into_iter().flat_map(both).collect()
}

fn strange_headers() -> Vec<Case> {
    let v4 = || tcp(Family::V4, STRANGER, 80);
    let v6 = || tcp(Family::V6, STRANGER, 80);
    vec![
        passes("IPv4 options for nobody we know pass", v4().options(12), NotService),
        passes("a first IPv4 fragment for nobody we know passes", v4().fragment(0, true), NotService),
        passes("a later IPv4 fragment for nobody we know passes", v4().fragment(185, false), NotService),
        passes("IPv4 version 5 for nobody we know passes", v4().frame().version(5), NotService),
        passes(
            "an IPv4 header of four words for nobody we know passes",
            v4().frame().header_words(4),
            NotService,
        ),
        passes(
            "an IPv4 packet shorter than it says for nobody we know passes",
            v4().frame().total_length(1500),
            NotService,
        ),
        passes("a TCP header cut short for nobody we know passes", v4().frame().cut(40), NotService),
        passes("an IPv6 fragment for nobody we know passes", v6().fragment_header(0, true), NotService),
        passes("an IPv6 hop-by-hop header for nobody we know passes", v6().extension(0, &[0; 8]), NotService),
        passes(
            "an IPv6 packet shorter than it says for nobody we know passes",
            v6().frame().payload_length(1500),
            NotService,
        ),
        passes("IPv6 version 4 for nobody we know passes", v6().frame().version(4), NotService),
    ]
}

fn near_misses() -> Vec<Case> {
    let v4 = |address: [u8; 4]| packet::tcp(CLIENT.v4, std::net::Ipv4Addr::from(address), 80);
    let v6 = |address: std::net::Ipv6Addr| packet::tcp(CLIENT.v6, address, 80);
    let vip = u128::from(BESIDE.v6);
    vec![
        passes("an IPv4 address one bit away from a VIP is none", v4([192, 0, 2, 138]), NotService),
        passes("0.0.0.0 is no VIP, though empty cells are zero", v4([0; 4]), NotService),
        passes("the IPv4 broadcast address is no VIP", v4([255; 4]), NotService),
        passes("an IPv4 multicast group is no VIP", v4([224, 0, 0, 1]), NotService),
        passes(
            "an IPv6 address that differs from a VIP in its last bit is none",
            v6((vip ^ 1).into()),
            NotService,
        ),
        passes(
            "an IPv6 address that differs from a VIP in its first bit is none",
            v6((vip ^ 1 << 127).into()),
            NotService,
        ),
        passes(
            "the unspecified IPv6 address is no VIP, though empty cells are zero",
            v6(0.into()),
            NotService,
        ),
        passes("a VIP mapped into IPv6 is none", v6(WEB.v4.to_ipv6_mapped()), NotService),
    ]
}

fn not_configured() -> Vec<Case> {
    let case = |name: &str, frame: crate::packet_frame::Frame| {
        passes(format!("{name} passes before anything is installed"), frame, NotConfigured)
            .world(World::Unconfigured)
    };
    vec![
        case("IPv4 TCP for what will be a VIP", tcp(Family::V4, WEB, 80).frame()),
        case("IPv6 UDP for what will be a VIP", udp(Family::V6, FAR4, 80).frame()),
        case("an ARP request for what will be a VIP", arp_request(CLIENT.v4, ANY_BOTH.v4)),
        case("a frame that is not IP", ethernet(0x88cc, 46)),
        case("a malformed packet", tcp(Family::V4, WEB, 80).frame().cut(40)),
    ]
}
