//! Packets that do not fit the way to their backend: who is told, and what.

use lb_common::abi::Reason::{TooBig, TooBigToSplit, TooBigTold};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::{
    case::{Case, answers, drops},
    cast::{CLIENT, NARROW, NARROW4, NATTED_NARROW, Pair, tcp, udp},
};
use crate::packet::{self, Family, HERE, Packet, ROUTER};

/// That packets to this VIP may have `mtu` bytes, about one of its client's.
pub(super) fn told(f: Family, vip: Pair, about: &Packet, mtu: usize) -> Packet {
    let (kind, code, quoted) = if f == Family::V4 { (3, 4, 68) } else { (2, 0, 240) };
    let frame = about.frame();
    let word = (mtu as u32).to_be_bytes();
    packet::icmp(vip.of(f), CLIENT.of(f), kind, word, &frame.bytes()[14..14 + quoted])
        .code(code)
        .identification(0)
        .tos(0xc0)
        .hops(64)
        .macs(ROUTER, HERE)
}

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    [Family::BOTH.into_iter().flat_map(|f| [heard(f), mute(f)].concat()).collect(), ipv4_only(), ipv6_only()]
        .concat()
}

fn heard(f: Family) -> Vec<Case> {
    let row = |what: &str, packet: Packet| {
        let answer = told(f, NARROW4, &packet, 1380);
        answers(format!("the sender of {f} {what} is told how long it may be"), packet, TooBigTold, answer)
    };
    let odd = match f {
        Family::V4 => row("with options", tcp(f, NARROW4, 80).options(40).ip_length(1450)),
        Family::V6 => row("with extension headers", tcp(f, NARROW4, 80).extension(60, &[0; 8]).payload(1400)),
    };
    let once = || tcp(f, NARROW4, 80).ip_length(1381);
    let told_enough = drops(format!("an {f} sender is told 64 times at once, not more"), once(), TooBig)
        .after((0..64).map(|_| once()))
        .host_only("the kernel's clock cannot be set");
    let again = answers(
        format!("an {f} sender is told again after a while"),
        once(),
        TooBigTold,
        told(f, NARROW4, &once(), 1380),
    )
    .after((0..64).map(|_| once()))
    .later(std::time::Duration::from_millis(100));
    vec![
        row("of UDP", udp(f, NARROW4, 80).payload(1400)),
        row("of 1400 bytes", tcp(f, NARROW4, 80).ip_length(1400)),
        odd,
        told_enough,
        again,
    ]
}

fn mute(f: Family) -> Vec<Case> {
    let long = || tcp(f, NARROW, 80).ip_length(1500);
    let (group, nobody) = match f {
        Family::V4 => (Ipv4Addr::new(224, 0, 0, 1).into(), Ipv4Addr::UNSPECIFIED.into()),
        Family::V6 => (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(), Ipv6Addr::UNSPECIFIED.into()),
    };
    let group: std::net::IpAddr = group;
    let nobody: std::net::IpAddr = nobody;
    let room = f.header() + 8;
    vec![
        drops(format!("a group of {f} hosts is told nothing"), long().from(group), TooBig),
        drops(format!("nobody of {f} is told nothing"), long().from(nobody), TooBig),
        drops(
            format!("of {f} to a group's MAC address nobody is told"),
            long().macs([1, 0, 0x5e, 0, 0, 1], ROUTER),
            TooBig,
        ),
        drops(format!("without headroom no {f} sender is told"), long(), TooBig).headroom(room - 4),
        answers(
            format!("with just enough headroom an {f} sender is told"),
            long(),
            TooBigTold,
            told(f, NARROW, &long(), 1400),
        )
        .headroom(room),
    ]
}

fn ipv4_only() -> Vec<Case> {
    let f = Family::V4;
    let split = |what: &str, vip: Pair, packet: Packet, mtu| {
        let answer = told(f, vip, &packet, mtu);
        answers(format!("IPv4 {what} is not split, and its sender is told"), packet, TooBigToSplit, answer)
    };
    vec![
        split("that may be fragmented", NARROW4, tcp(f, NARROW4, 80).ip_length(1381).fragmentable(7), 1380),
        split(
            "that may be fragmented, to be translated,",
            NATTED_NARROW,
            tcp(f, NATTED_NARROW, 80).ip_length(1401).fragmentable(7),
            1400,
        ),
        split("that is a first fragment", NARROW4, udp(f, NARROW4, 80).payload(1480).fragment(0, true), 1380),
        drops(
            "about a later fragment of IPv4 nobody is told",
            udp(f, NARROW4, 80).payload(1480).fragment(185, true),
            TooBig,
        ),
    ]
}

fn ipv6_only() -> Vec<Case> {
    let f = Family::V6;
    let later = udp(f, NARROW4, 80).payload(1440).fragment_header(185, true);
    let answer = told(f, NARROW4, &later, 1380);
    vec![answers("about a later fragment of IPv6 its sender is told", later, TooBigTold, answer)]
}
