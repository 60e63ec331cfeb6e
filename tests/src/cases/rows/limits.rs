//! Rate limits per source. In [`World::Limited`] time does not matter; in [`World::Refilling`] the host's clock is set.

use std::{net::Ipv6Addr, time::Duration};

use lb_common::abi::Reason::{Malformed, NoSuchPort, RateLimited};

use super::super::{
    case::{Case, drops, passes, sends},
    cast::{CLIENT, LIMITED, LIMITED_TOO, Pair, SINGLE, UNLIMITED, client, tcp, udp},
    expect::in_network,
    worlds::World,
};
use crate::packet::{Family, Packet};

/// Packets that a limited service takes at once.
const BURST: usize = 3;

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    let both = |f| [burst(f), apart(f), refill(f)].concat();
    [Family::BOTH.into_iter().flat_map(both).collect(), prefixes(), crowd()].concat()
}

fn times(packet: &Packet, count: usize) -> Vec<Packet> {
    vec![packet.clone(); count]
}

fn burst(f: Family) -> Vec<Case> {
    let one = tcp(f, LIMITED, 80);
    let single = tcp(f, SINGLE, 80);
    let rows = vec![
        sends(format!("{f}: the first packet of a source is within its burst"), one.clone(), "limited/m1"),
        sends(format!("{f}: the last packet of a burst of three is within it"), one.clone(), "limited/m1")
            .after(times(&one, BURST - 1)),
        drops(format!("{f}: the fourth packet of a burst of three is refused"), one.clone(), RateLimited)
            .after(times(&one, BURST)),
        drops(format!("{f}: packets go on being refused"), one.clone(), RateLimited)
            .after(times(&one, BURST + 5)),
        drops(
            format!("{f}: another port and flow of the same source is refused too"),
            udp(f, LIMITED, 80).source_port(9),
            RateLimited,
        )
        .after(times(&one, BURST)),
        sends(format!("{f}: a burst of one takes one packet"), single.clone(), "single/m3"),
        drops(
            format!("{f}: a burst of one refuses the second packet, by the fine clock"),
            single.clone(),
            RateLimited,
        )
        .after(times(&single, 1)),
    ];
    rows.into_iter().map(|row| row.world(World::Limited)).collect()
}

/// What a source over its limit does not lose, and what others do not lose by it.
fn apart(f: Family) -> Vec<Case> {
    let one = tcp(f, LIMITED, 80);
    let flood = || times(&one, BURST + 2);
    let rows = vec![
        sends(
            format!("{f}: the neighbour of a source over its limit loses nothing"),
            one.clone().from(client(6).of(f)),
            "limited/m1",
        )
        .after(flood()),
        drops(
            format!("{f}: the neighbour of a source over its limit has a limit too"),
            one.clone().from(client(6).of(f)),
            RateLimited,
        )
        .after(flood().into_iter().chain(times(&one.clone().from(client(6).of(f)), BURST))),
        sends(
            format!("{f}: a source over one service's limit has its own at another"),
            tcp(f, LIMITED_TOO, 80),
            "limited-too/m2",
        )
        .after(flood()),
        sends(
            format!("{f}: a source over its limit reaches a service without one"),
            tcp(f, UNLIMITED, 80),
            "unlimited/m4",
        )
        .after(flood()),
        passes(format!("{f}: a port without service is not limited"), tcp(f, LIMITED, 81), NoSuchPort)
            .after(flood()),
        sends(format!("{f}: packets to a port without service cost nothing"), one.clone(), "limited/m1")
            .after(times(&tcp(f, LIMITED, 81), BURST + 2)),
        drops(
            format!("{f}: what is malformed is malformed first"),
            one.frame().cut(14 + f.header() + 9).honest(),
            Malformed,
        )
        .after(flood()),
        sends(
            format!("{f}: a service without limit takes a hundred packets"),
            tcp(f, UNLIMITED, 80),
            "unlimited/m4",
        )
        .after(times(&tcp(f, UNLIMITED, 80), 99)),
    ];
    rows.into_iter().map(|row| row.world(World::Limited)).collect()
}

/// What counts as one source in IPv6.
fn prefixes() -> Vec<Case> {
    let one = tcp(Family::V6, LIMITED, 80);
    let host = |n| one.clone().from(in_network(CLIENT.v6, n));
    let next = Ipv6Addr::from(u128::from(CLIENT.v6) + (1 << 64));
    let far_end = Ipv6Addr::from(u128::from(CLIENT.v6) | u128::from(u64::MAX));
    let rows = vec![
        drops("IPv6: all addresses of a /64 share one limit", host(9), RateLimited).after([
            host(1),
            host(2),
            host(3),
        ]),
        drops("IPv6: both ends of a /64 share one limit", one.clone().from(far_end), RateLimited)
            .after(times(&one, BURST)),
        sends("IPv6: the next /64 has a limit of its own", one.clone().from(next), "limited/m1")
            .after(times(&one, BURST + 1)),
    ];
    rows.into_iter().map(|row| row.world(World::Limited)).collect()
}

/// A bucket holds eight sources; this world has one bucket.
fn crowd() -> Vec<Case> {
    let from = |n: u8| tcp(Family::V4, LIMITED, 80).from(client(n).v4);
    // Seven sources with a debt of two packets, one with a debt of one.
    let eight = || (10..17).flat_map(|n| times(&from(n), 2)).chain([from(17)]);
    let rows = vec![
        sends("when a bucket is full a ninth source is let in", from(30), "limited/m1").after(eight()),
        drops("a source that was let into a full bucket is limited as any other", from(30), RateLimited)
            .after(eight().chain(times(&from(30), BURST))),
        drops(
            "when a bucket is full the source with the least debt goes, the others keep theirs",
            from(10),
            RateLimited,
        )
        .after(eight().chain([from(30), from(10)])),
        sends("the source with the least debt begins anew when it was forgotten", from(17), "limited/m1")
            .after(eight().chain(times(&from(30), 3)).chain(times(&from(17), 2))),
    ];
    rows.into_iter().map(|row| row.world(World::Limited)).collect()
}

/// Ten packets per second: one is free again every 100 ms.
fn refill(f: Family) -> Vec<Case> {
    let row = |name: &str, to: Pair, sent: usize, pause: Duration, member: Option<&'static str>| {
        let packet = tcp(f, to, 80);
        let case = match member {
            Some(member) => sends(format!("{f}: {name}"), packet.clone(), member),
            None => drops(format!("{f}: {name}"), packet.clone(), RateLimited),
        };
        case.world(World::Refilling).after(times(&packet, sent)).later(pause)
    };
    let (ms, us, hours) =
        (Duration::from_millis, Duration::from_micros, |hours: u64| Duration::from_secs(hours * 3600));
    let one = Some("limited/m1");
    vec![
        row("a source over its limit has nothing back after 96 ms", LIMITED, 4, ms(96), None),
        row("a source over its limit has one packet back after 100 ms", LIMITED, 4, ms(100), one),
        row("refused packets cost nothing", LIMITED, 50, ms(100), one),
        row("a burst of one has nothing back after 3.3 ms", SINGLE, 2, us(3300), None),
        // The coarse clock still shows the tick of the first packet.
        row(
            "a burst of one has its packet back after 3.4 ms, within one tick",
            SINGLE,
            2,
            us(3400),
            Some("single/m3"),
        ),
        row("an hour of silence is no debt", LIMITED, 4, hours(1), one),
        // Time stamps of 44 bits come round after 74 hours of 250 ticks: half of that looks like the future.
        row("two days of silence are no debt", LIMITED, 4, hours(48), one),
        row("a year of silence is no debt", LIMITED, 4, hours(365 * 24), one),
    ]
}
