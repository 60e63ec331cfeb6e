//! From the model to the records of the ABI.

use std::net::IpAddr;

use lb_common::{
    abi::{
        self, BackendInfo, QuicConfig, affinity, backend_flags, forward, quic_config, service_flags, tracking,
    },
    aes,
    datapath::limit,
    wire::checksum,
};

use super::memory::Clock;
use crate::{
    config::{Affinity, Forward, OnFailure, Quic, Rate, Tracking},
    control::model::{Member, Service},
};

/// An address as words of memory: IPv4 in the first.
pub(super) fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(a) => [u32::from_ne_bytes(a.octets()), 0, 0, 0],
        IpAddr::V6(a) => {
            let mut words = [0; 4];
            for (word, bytes) in words.iter_mut().zip(a.octets().chunks_exact(4)) {
                *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            words
        }
    }
}

/// The record of a member; a free index has one that nothing is sent to.
pub(super) fn backend(member: Option<&Member>, counter: u32) -> abi::Backend {
    let Some(member) = member else { return abi::Backend::default() };
    let mode = match (member.forward, member.address) {
        (Forward::L2, _) => forward::L2,
        (Forward::Ipip, IpAddr::V4(_)) => forward::IPIP4,
        (Forward::Ipip, IpAddr::V6(_)) => forward::IPIP6,
        (Forward::Gue, IpAddr::V4(_)) => forward::GUE4,
        (Forward::Gue, IpAddr::V6(_)) => forward::GUE6,
        (Forward::Nat, IpAddr::V4(_)) => forward::NAT4,
        (Forward::Nat, IpAddr::V6(_)) => forward::NAT6,
    };
    let mut record =
        abi::Backend { address: words(member.address), forward: mode, counter, ..Default::default() };
    record.port = match member.forward {
        Forward::Gue => member.gue_port,
        Forward::Nat => member.port.unwrap_or_default().to_be(),
        Forward::L2 | Forward::Ipip => 0,
    };
    if member.alive {
        record.flags |= backend_flags::ALIVE;
    }
    if let Some(hop) = member.hop {
        record.macs = macs(hop.dmac, hop.smac);
        record.source = words(hop.source);
        record.ifindex = hop.ifindex;
        record.mtu = u16::try_from(hop.mtu).unwrap_or(u16::MAX);
        record.flags |= backend_flags::RESOLVED;
        record.outer_sum = outer_sum(hop.source, member.address);
    }
    record
}

/// Destination and source MAC address as words of memory.
pub(super) fn macs(destination: [u8; 6], source: [u8; 6]) -> [u32; 3] {
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&destination);
    macs[6..].copy_from_slice(&source);
    let word = |i: usize| u32::from_ne_bytes([macs[i], macs[i + 1], macs[i + 2], macs[i + 3]]);
    [word(0), word(4), word(8)]
}

/// The part of the outer IPv4 header's sum that never changes: version and length, don't-fragment, addresses.
fn outer_sum(source: IpAddr, destination: IpAddr) -> u32 {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else { return 0 };
    let sum = checksum::add(0x4500 + 0x4000, &source.octets());
    u32::from(checksum::fold(checksum::add(sum, &destination.octets())))
}

/// What is needed to recognise the member after a restart.
pub(super) fn backend_info(member: Option<&Member>) -> BackendInfo {
    member.map_or_else(BackendInfo::default, |m| BackendInfo {
        identity: m.identity,
        since: m.since,
        health: m.health,
        ..Default::default()
    })
}

/// `Service::affinity`.
pub(super) fn affinity(affinity: Affinity) -> u8 {
    match affinity {
        Affinity::Addresses => affinity::ADDRESSES,
        Affinity::Source => affinity::SOURCE,
        Affinity::Flow => affinity::FLOW,
        Affinity::Quic => affinity::QUIC,
    }
}

/// A configuration of connection IDs, with the keys of all rounds.
pub(super) fn quic(config: &Quic) -> QuicConfig {
    let mut record = QuicConfig {
        state: quic_config::PLAIN,
        server_id: config.server_id_bytes,
        nonce: config.nonce_bytes,
        ..QuicConfig::default()
    };
    if let Some(key) = config.key {
        record.state = quic_config::ENCRYPTED;
        record.encrypt = aes::schedule(key.0);
        record.decrypt = aes::for_decryption(&record.encrypt);
    }
    record
}

/// `Service::tracking`.
pub(super) fn tracking(tracking: Tracking) -> u8 {
    match tracking {
        Tracking::Changes => tracking::CHANGES,
        Tracking::Always => tracking::ALWAYS,
        Tracking::Never => tracking::NEVER,
    }
}

/// `Service::flags`; `fine`: the limit needs the fine clock.
pub(super) fn flags(service: &Service, fine: bool) -> u8 {
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    flag(fine, service_flags::LIMIT_FINE_CLOCK)
        | flag(service.candidates.is_some(), service_flags::CANDIDATES)
        | flag(service.on_failure == OnFailure::Reset, service_flags::RESET_LOST)
}

/// Below this many ticks of burst the coarse clock would starve a source between two ticks.
const COARSE_TICKS: u64 = 4;

/// Cost of a packet and tolerance in rate-limit time units, and whether the fine clock is needed.
pub(super) fn limit(rate: Option<Rate>, clock: &Clock) -> (u32, u32, bool) {
    let Some(rate) = rate else { return (0, 0, false) };
    let second = clock.units_per_second();
    let cost =
        ((second + u64::from(rate.rate) / 2) / u64::from(rate.rate.max(1))).clamp(1, u64::from(u32::MAX));
    let tolerance = (cost * u64::from(rate.burst.max(1) - 1)).min(u64::from(u32::MAX));
    let fine = tolerance < COARSE_TICKS << limit::UNITS_PER_TICK_BITS;
    (cost as u32, tolerance as u32, fine)
}

#[cfg(test)]
mod tests {
    use super::limit;
    use crate::{config::Rate, dataplane::memory::Clock};

    const CLOCK: Clock = Clock { ticks_per_second: 250, jiffies: 1000, nanoseconds: 5_000_000 };

    #[test]
    fn rates_become_costs() {
        assert_eq!(limit(None, &CLOCK), (0, 0, false));
        // 250 ticks × 2^18 units in a second.
        assert_eq!(limit(Some(Rate { rate: 1000, burst: 2000 }), &CLOCK), (65_536, 65_536 * 1999, false));
        let (cost, tolerance, fine) = limit(Some(Rate { rate: 1000, burst: 1 }), &CLOCK);
        assert_eq!((cost, tolerance, fine), (65_536, 0, true), "a burst of one needs the fine clock");
        assert_eq!(limit(Some(Rate { rate: 1, burst: u32::MAX }), &CLOCK).1, u32::MAX, "saturates");
    }

    #[test]
    fn both_clocks_agree_when_they_were_read() {
        use lb_common::{abi::Globals, datapath::limit};
        let globals = Globals {
            limit_time_mult: CLOCK.multiplier(),
            limit_time_offset: CLOCK.offset(),
            ..Globals::default()
        };
        assert_eq!(limit::fine_time(&globals, CLOCK.nanoseconds), limit::coarse_time(CLOCK.jiffies));
        // One second later: within 0.01 %.
        let later = limit::ahead(
            limit::fine_time(&globals, CLOCK.nanoseconds + 1_000_000_000),
            limit::coarse_time(CLOCK.jiffies + 250),
        );
        assert!(later.unsigned_abs() < CLOCK.units_per_second() / 10_000, "{later}");
    }
}
