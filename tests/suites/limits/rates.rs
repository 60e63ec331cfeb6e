//! How many packets of a flood arrive.

use std::net::{IpAddr, Ipv6Addr};

use lb_tests::{flood::Flood, topology::World};
use lb_userspace::config::Rate;

use crate::scene::{Scene, flood, is_the_rate, scene};

/// A burst of half a second: the coarse clock is enough, and the sender may oversleep a little.
const COARSE: Rate = Rate { rate: 500, burst: 250 };
/// Not one packet early: only the fine clock tells.
const FINE: Rate = Rate { rate: 100, burst: 1 };

/// One source floods, a neighbour stays below the limit; both at once.
fn limits_one_and_spares_the_other(
    limit: Rate,
    source: IpAddr,
    neighbour: IpAddr,
    per_second: u32,
    slow: u32,
) {
    let scene = scene(Some(limit));
    let [loud, quiet] = [flood(&scene.site, source, per_second), flood(&scene.site, neighbour, slow)];
    let times = scene.send(&[loud, quiet]);
    scene.all_accounted(times[0].len() + times[1].len(), 0);
    let arrivals = scene.sink.arrivals();
    is_the_rate(&times[0], arrivals[&source].len(), limit);
    assert_eq!(arrivals[&neighbour].len(), times[1].len(), "the neighbour lost something");
}

#[test]
fn a_source_gets_its_rate_and_its_neighbour_loses_nothing() {
    limits_one_and_spares_the_other(COARSE, World::source_v4(1), World::source_v4(2), 2000, 100);
}

#[test]
fn the_same_for_ipv6() {
    limits_one_and_spares_the_other(COARSE, World::source_v6(1), World::source_v6(2), 2000, 100);
}

#[test]
fn a_burst_of_one_is_counted_by_the_fine_clock() {
    limits_one_and_spares_the_other(FINE, World::source_v4(1), World::source_v4(2), 3000, 5);
}

#[test]
fn a_burst_of_one_for_ipv6() {
    limits_one_and_spares_the_other(FINE, World::source_v6(1), World::source_v6(2), 3000, 5);
}

/// Two floods that count as one source.
fn share_one_limit(scene: &Scene, limit: Rate, floods: &[Flood]) {
    let mut times: Vec<_> = scene.send(floods).into_iter().flatten().collect();
    times.sort();
    scene.all_accounted(times.len(), 0);
    let arrivals = scene.sink.arrivals();
    is_the_rate(&times, arrivals.values().map(Vec::len).sum(), limit);
}

#[test]
fn addresses_of_one_64_share_a_limit() {
    let scene = scene(Some(COARSE));
    let in_64 = |host: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xc0, 5, 0, 0, 0, host));
    let floods = [flood(&scene.site, in_64(1), 1000), flood(&scene.site, in_64(0xffff), 1000)];
    share_one_limit(&scene, COARSE, &floods);
    assert_eq!(scene.sink.arrivals().len(), 2, "each of them got something");
}

#[test]
fn all_processors_count_together() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    assert!(cpus > 1, "this test needs two processors");
    for limit in [COARSE, FINE] {
        let scene = scene(Some(limit));
        let source = World::source_v4(1);
        let floods: Vec<_> =
            (0..2).map(|cpu| Flood { cpu: Some(cpu), ..flood(&scene.site, source, 1500) }).collect();
        share_one_limit(&scene, limit, &floods);
    }
}

#[test]
fn without_a_limit_nothing_is_refused() {
    let scene = scene(None);
    let source = World::source_v4(1);
    let times = scene.send(&[flood(&scene.site, source, 2000)]);
    scene.all_accounted(times[0].len(), 0);
    assert_eq!(scene.refused(), 0);
    assert_eq!(scene.sink.arrivals()[&source].len(), times[0].len());
}

#[test]
fn services_count_separately() {
    let limit = Rate { rate: 1, burst: 20 };
    let scene = scene(Some(limit));
    // The two services have VIPs of different families, so it is two addresses of one client as well.
    for source in [World::source_v4(1), World::source_v6(1)] {
        let few =
            Flood { duration: std::time::Duration::from_millis(200), ..flood(&scene.site, source, 500) };
        let times = scene.send(std::slice::from_ref(&few));
        scene.sink.wait(source, 20, lb_tests::site::LIMIT).unwrap();
        is_the_rate(&times[0], scene.sink.arrivals()[&source].len(), limit);
    }
}
