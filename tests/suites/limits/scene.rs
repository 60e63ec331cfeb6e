//! What the tests of this suite share.

use std::time::Duration;

use lb_common::abi::Reason;
use lb_tests::{
    flood::{Flood, Sink, allowed},
    lb_config::{LbConfig, Limit, Ports},
    site::{LIMIT, Site},
    topology::World,
};
use lb_userspace::config::{Forward, Protocol, Rate};

/// Where the sink is; the demo server leaves it alone.
pub(super) const PORT: u16 = 9;
/// How far the number of packets may be from what the limit allows.
const EXACT: f64 = 0.02;

/// One backend with a sink, both families, in the world with the fewest hops: what is lost is lost in the balancer.
pub(super) struct Scene {
    pub(super) sink: Sink,
    pub(super) site: Site,
}

pub(super) fn scene(limit: Option<Rate>) -> Scene {
    let world = World::two_arm().backends(1).prepared().build().unwrap();
    let mut config = LbConfig::web(&world, world.vip4.into(), Forward::L2, false);
    let mut six = LbConfig::web(&world, world.vip6.into(), Forward::L2, true).services.remove(0);
    six.name = "six".into();
    config.services.push(six);
    for service in &mut config.services {
        service.ports = Ports::Numbers(vec![80, PORT]);
        service.protocol = Protocol::Both;
        service.limit = limit.map(|anonymous| Limit { anonymous });
    }
    let sink = Sink::start(&world.backends[0].ns.entry(), PORT).unwrap();
    Scene { site: Site::start(world, config).unwrap(), sink }
}

impl Scene {
    /// Sends all floods at once. Returns the times of each.
    pub(super) fn send(&self, floods: &[Flood]) -> Vec<Vec<Duration>> {
        let client = self.site.world.client.ns.entry();
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                floods.iter().map(|flood| scope.spawn(|| flood.send(&client).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    /// Packets that the limit has refused so far.
    pub(super) fn refused(&self) -> u64 {
        self.site.view().unwrap().reason(Reason::RateLimited)
    }

    /// Waits until everything that was sent has been either refused or received.
    pub(super) fn all_accounted(&self, sent: usize, refused_before: u64) {
        let here = || self.sink.arrivals().values().map(Vec::len).sum::<usize>();
        self.site
            .wait(&format!("{sent} packets to be received or refused"), |view| {
                let refused = view.reason(Reason::RateLimited) - refused_before;
                here() + refused as usize >= sent
            })
            .unwrap();
        assert_eq!(here() + (self.refused() - refused_before) as usize, sent);
    }
}

/// `count` of the packets sent at `times` arrived: as many as `rate` allows, within 2 %.
pub(super) fn is_the_rate(times: &[Duration], count: usize, rate: Rate) {
    let expected = allowed(times, rate.rate, rate.burst);
    let difference = (count as f64 - expected as f64).abs();
    assert!(
        difference <= (expected as f64 * EXACT).max(1.0),
        "{count} of {} packets arrived, {expected} are allowed by {rate:?}",
        times.len()
    );
    // The flood was one: the limit is what decided.
    assert!(times.len() > 2 * count, "{} packets are no flood for {rate:?}", times.len());
    let span = (times[times.len() - 1] - times[0]).as_secs_f64();
    let bound = f64::from(rate.burst) + f64::from(rate.rate) * span;
    assert!(count as f64 <= bound * (1.0 + EXACT), "{count} packets in {span:.3} s, {bound:.0} are allowed");
}

/// As long as the suite's promise needs: enough packets for 2 % to be many.
pub(super) const FOR: Duration = Duration::from_secs(4);

pub(super) fn flood(site: &Site, source: std::net::IpAddr, per_second: u32) -> Flood {
    let target = if source.is_ipv4() { site.vip4(PORT) } else { site.vip6(PORT) };
    Flood { source: (source, 0).into(), target, per_second, duration: FOR, cpu: None }
}

pub(super) fn wait(sink: &Sink, source: std::net::IpAddr, count: usize) {
    sink.wait(source, count, LIMIT).unwrap();
}
