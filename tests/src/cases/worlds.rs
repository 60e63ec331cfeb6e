//! The named worlds that cases happen in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::abi::port_entry;
use lb_userspace::{
    config::{Affinity, Protocol},
    control::model::Member,
    dataplane::Memory,
};

use super::{
    cast::{
        ACROSS, ACROSS4, ACROSS6, ANY_BOTH, ANY_TCP, ANY_UDP, BEHIND, BEHIND_ANY, BEHIND_NARROW, BESIDE,
        BEYOND, CHANCE4, CHANCE6, DNS, ELSEWHERE, FAR4, FAR6, FLOWS, GUE4, GUE6, HOLE, LIMITED, LIMITED_TOO,
        LISTED, MEMBERLESS, NARROW, NARROW_GUE4, NARROW_GUE6, NARROW4, NARROW6, NATTED, NATTED_ANY,
        NATTED_NARROW, NOBODY, QUIC, REHASHES, RESETS, SERVICELESS, SINGLE, SLOTLESS, SPREAD, SPREAD_TOO,
        STICKY, STICKY_TOO, STRANGE, TABLELESS, UNLIMITED, UNRESOLVED, WEB, WIDE,
    },
    routes,
    site::{
        MemberExt, ServiceBuilder, Site, gue4, gue6, ipip4, ipip6, l2, member_record, nat4, nat6, service,
        service_at, service_record,
    },
};
use crate::packet::Family;

/// A world: what is installed when a case begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum World {
    /// A balancer with a service of every kind; it announces its VIPs.
    Main,
    /// The same, not announcing.
    Quiet,
    /// Announcing, but never told its interface's MAC address.
    Nameless,
    /// Nothing was ever installed.
    Unconfigured,
    /// Rate limits so slow that the time between two packets does not matter.
    Limited,
    /// Rate limits of ten packets per second (one of 300). Only on the host, where the clock stands still.
    Refilling,
    /// The main world on a host that routes: see [`super::routes`].
    Routed,
    /// Records that this version never writes.
    Broken,
    /// A backend with the agent.
    Agent,
}

impl World {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Main,
        Self::Quiet,
        Self::Nameless,
        Self::Unconfigured,
        Self::Limited,
        Self::Refilling,
        Self::Routed,
        Self::Broken,
        Self::Agent,
    ];

    /// What a balancer has installed in this world; `None` for the agent's.
    pub fn site(self) -> Option<Site> {
        Some(match self {
            Self::Main => Site::new(main()),
            Self::Quiet => {
                let mut site = Site::new(main());
                if let Some(snapshot) = &mut site.snapshot {
                    snapshot.announce = false;
                }
                site
            }
            Self::Nameless => Site { mac: None, ..Site::new(main()) },
            Self::Unconfigured => Site { snapshot: None, ..Site::new(Vec::new()) },
            Self::Limited => Site { patch: slow_limits, ..Site::new(limited()) },
            Self::Refilling => Site::new(limited()),
            Self::Routed => Site { routes: Some(routes::answer), ..Site::new(main()) },
            Self::Broken => Site { patch: break_records, ..Site::new(broken()) },
            Self::Agent => return None,
        })
    }
}

fn main() -> Vec<ServiceBuilder> {
    [plain(), narrow(), spread(), ports(), nowhere(), translated(), lost()].concat()
}

fn plain() -> Vec<ServiceBuilder> {
    let both = |name, vip: super::cast::Pair| service(name, vip.both()).ports(Protocol::Both, &[80..=80]);
    vec![
        service("web", WEB.both()).members([l2("b1")]),
        service("web-udp", WEB.both()).ports(Protocol::Udp, &[80..=80]).members([l2("u1")]),
        service("dns", DNS.both()).ports(Protocol::Udp, &[53..=53]).members([l2("d1")]),
        both("far4", FAR4).members([ipip4("f4")]),
        both("far6", FAR6).members([ipip6("f6")]),
        both("gue4", GUE4).members([gue4("g4")]),
        both("gue6", GUE6).members([gue6("g6")]),
        both("chance4", CHANCE4).members(several(gue4)).candidates([2, 1, 0x3fff]),
        both("chance6", CHANCE6).members(several(gue6)).candidates([2, 1, 0x3fff]),
        both("across", ACROSS).members([l2("a1").by(ELSEWHERE)]),
        both("across4", ACROSS4).members([ipip4("a4").by(ELSEWHERE)]),
        both("across6", ACROSS6).members([ipip6("a6").by(ELSEWHERE)]),
    ]
}

/// Three backends at addresses of their own; the first owns all slots.
fn several(member: fn(&str) -> Member) -> Vec<Member> {
    let one = |n: u8| {
        let mut member = member(&format!("c{n}"));
        member.address = match member.address {
            IpAddr::V4(a) => Ipv4Addr::from(u32::from(a) + u32::from(n)).into(),
            IpAddr::V6(a) => Ipv6Addr::from(u128::from(a) + u128::from(n)).into(),
        };
        member
    };
    (1..=3).map(one).collect()
}

fn narrow() -> Vec<ServiceBuilder> {
    vec![
        service("narrow", NARROW.both()).members([l2("n1").mtu(1400)]),
        service("narrow4", NARROW4.both()).ports(Protocol::Both, &[80..=80]).members([ipip4("n4").mtu(1400)]),
        service("narrow6", NARROW6.both()).members([ipip6("n6").mtu(1400)]),
        service("narrow-gue4", NARROW_GUE4.both()).members([gue4("ng4").mtu(1400)]),
        service("narrow-gue6", NARROW_GUE6.both()).members([gue6("ng6").mtu(1400)]),
        // The loopback's MTU does not fit 16 bits.
        service("wide", WIDE.both()).members([ipip4("w4").mtu(65_536)]),
    ]
}

fn spread() -> Vec<ServiceBuilder> {
    let seven = |name: &str| (0..7).map(|i| l2(&format!("{name}{i}"))).collect::<Vec<_>>();
    let pair = |a: super::cast::Pair, b: super::cast::Pair| [a.both(), b.both()].concat();
    let both = |name, addresses: Vec<_>| service(name, addresses).ports(Protocol::Both, &[80..=81]);
    vec![
        both("spread", pair(SPREAD, SPREAD_TOO)).members(seven("p")),
        both("sticky", pair(STICKY, STICKY_TOO)).affinity(Affinity::Source).members(seven("s")),
        both("flows", FLOWS.both().to_vec()).affinity(Affinity::Flow).members(seven("f")),
        service("quic", QUIC.both()).ports(Protocol::Udp, &[443..=443]).affinity(Affinity::Quic).members(
            (1u16..=7).zip(seven("q")).map(|(id, member)| {
                let member = member.server_id(id);
                if id == 7 { member.dead() } else { member }
            }),
        ),
    ]
}

fn ports() -> Vec<ServiceBuilder> {
    vec![
        service("listed", LISTED.both())
            .ports(Protocol::Tcp, &[80..=80, 443..=443, 8000..=8003])
            .members([l2("l1")]),
        service("any-tcp", ANY_TCP.both()).any_port(Protocol::Tcp).members([l2("t1")]),
        service("any-udp", ANY_UDP.both()).any_port(Protocol::Udp).members([l2("t2")]),
        service("any-both", ANY_BOTH.both()).any_port(Protocol::Both).members([l2("t3")]),
        service("beside", BESIDE.both()).any_port(Protocol::Tcp).members([l2("t4")]),
        service("exact", BESIDE.both()).ports(Protocol::Tcp, &[443..=443]).members([l2("t5")]),
    ]
}

fn nowhere() -> Vec<ServiceBuilder> {
    vec![
        service("nobody", NOBODY.both()).members([l2("x1")]).empty_slots(),
        service("tableless", TABLELESS.both()).members([l2("x2")]).no_slots(),
        service("beyond", BEYOND.both()).members([l2("x3")]).every_slot(1),
        service("hole", HOLE.both()).members([l2("x4")]).with_hole().every_slot(1),
        service("unresolved", UNRESOLVED.both()).members([l2("x5").unresolved()]),
    ]
}

fn translated() -> Vec<ServiceBuilder> {
    let mut services = Vec::new();
    for (f, name) in [(Family::V4, "4"), (Family::V6, "6")] {
        let member = |name: &str, to: super::cast::Pair| match f {
            Family::V4 => nat4(name, to.v4),
            Family::V6 => nat6(name, to.v6),
        };
        services.extend([
            service(&format!("nat{name}"), [NATTED.of(f)])
                .ports(Protocol::Both, &[80..=80])
                .members([member(&format!("n{name}"), BEHIND).port(8080)]),
            service(&format!("nat-any{name}"), [NATTED_ANY.of(f)])
                .any_port(Protocol::Both)
                .members([member(&format!("na{name}"), BEHIND_ANY)]),
            service(&format!("nat-narrow{name}"), [NATTED_NARROW.of(f)]).members([member(
                &format!("nn{name}"),
                BEHIND_NARROW,
            )
            .mtu(1400)]),
        ]);
    }
    services
}

/// What was on the second member may be on its way still.
fn lost() -> Vec<ServiceBuilder> {
    let both = |name, vip: super::cast::Pair| service(name, vip.both()).ports(Protocol::Both, &[80..=80]);
    vec![
        both("resets", RESETS).members([l2("k1"), l2("k2").failed()]).changed_from(1).resets(),
        both("rehashes", REHASHES).members([l2("k3"), l2("k4").failed()]).changed_from(1),
    ]
}

/// Ten packets per second: at 250 ticks, one every 25.
const RATE: u32 = 10;

/// One packet every 3.3 ms: less than a tick of 4 ms.
const FAST: u32 = 300;

fn limited() -> Vec<ServiceBuilder> {
    let both = |name, vip: super::cast::Pair| service(name, vip.both()).ports(Protocol::Both, &[80..=80]);
    vec![
        both("limited", LIMITED).limit(RATE, 3).members([l2("m1")]),
        both("limited-too", LIMITED_TOO).limit(RATE, 3).members([l2("m2")]),
        both("single", SINGLE).limit(FAST, 1).members([l2("m3")]),
        both("unlimited", UNLIMITED).members([l2("m4")]),
    ]
}

/// The slowest that the records can hold: 16 seconds of 250 ticks per packet, 65 where one packet is all.
fn slow_limits(memory: &mut Memory) {
    for name in ["limited", "limited-too"] {
        let record = service_record(memory, name);
        record.limit_cost = 1 << 30;
        record.limit_tolerance = 2 << 30;
    }
    service_record(memory, "single").limit_cost = u32::MAX;
}

fn broken() -> Vec<ServiceBuilder> {
    let at = |name, vip: super::cast::Pair, member| service(name, vip.both()).members([l2(member)]);
    vec![
        at("strange", STRANGE, "z1"),
        at("slotless", SLOTLESS, "z2"),
        at("memberless", MEMBERLESS, "z3"),
        // Three ports, so that the port table leads there.
        at("serviceless", SERVICELESS, "z4").ports(Protocol::Tcp, &[80..=82]),
    ]
}

fn break_records(memory: &mut Memory) {
    member_record(memory, "z1").forward = 99;
    service_record(memory, "slotless").table_base = u32::MAX - 400;
    service_record(memory, "memberless").backend_base = u32::MAX - 400;
    let globals = memory.globals().expect("a generation is in force");
    let number = service_at(memory, "serviceless") as u32 - globals.service_base;
    for cell in memory.ports.as_mut_slice() {
        if port_entry::service(*cell) == number {
            *cell = port_entry::new(port_entry::key(*cell), 0xff_fff0);
        }
    }
}
