//! Every default of `lb.toml`, in one place. `docs/configuration.md` repeats them; a test compares.

use std::{ops::RangeInclusive, time::Duration};

use super::types::{
    AdminState, Affinity, Announce, Check, Forward, Health, Mass, OnFailure, Protocol, Tracking, XdpMode,
};

/// `daemon.xdp_mode` and `agent.xdp_mode`: native where the driver can, generic otherwise, and said.
pub const XDP_MODE: XdpMode = XdpMode::Auto;
/// `daemon.announce`: VIPs are routed; nothing answers for them unasked.
pub const ANNOUNCE: Announce = Announce::None;
/// `daemon.gue_port` and `agent.gue_port`: what IANA gave to GUE.
pub const GUE_PORT: u16 = 6080;
/// `flow_table.capacity`: 8 MiB.
pub const FLOW_CAPACITY: u32 = 1 << 20;
/// `limit_table.capacity`: enough sources that a flood cannot easily push out real ones.
pub const LIMIT_CAPACITY: u32 = 1 << 18;
/// `quic.config`.
pub const CODEPOINT: u8 = 0;
/// `quic.server_id_bytes`: as many servers as `server_id` can tell apart.
pub const SERVER_ID_BYTES: u8 = 2;
/// `quic.nonce_bytes`: makes connection IDs of 11 bytes, and never runs out.
pub const NONCE_BYTES: u8 = 8;
/// `service.protocol`.
pub const PROTOCOL: Protocol = Protocol::Tcp;
/// `service.affinity`: needs no ports, so fragments follow their flow.
pub const AFFINITY: Affinity = Affinity::Addresses;
/// `service.forward`: works over any number of routers.
pub const FORWARD: Forward = Forward::Ipip;
/// `service.table_slots`: removing one of ten backends moves 0.5 % more than that backend's share.
pub const TABLE_SLOTS: u32 = 16_381;
/// `service.settle` where TCP is carried: longer than most idle connections live.
pub const SETTLE_TCP: Duration = Duration::from_secs(15 * 60);
/// `service.settle` for UDP alone.
pub const SETTLE_UDP: Duration = Duration::from_secs(60);
/// `service.slow_start`: none.
pub const SLOW_START: Duration = Duration::ZERO;
/// `service.on_failure`: nothing is answered in the name of a backend that nobody asked for it.
pub const ON_FAILURE: OnFailure = OnFailure::Rehash;
/// `backend.weight`: leaves room on both sides.
pub const WEIGHT: u16 = 100;
/// `backend.state`.
pub const STATE: AdminState = AdminState::Up;
/// `health.type` of a `[service.health]` that names none. Without that table nothing is checked.
pub const HEALTH_TYPE: &str = "tcp";
/// `health.path`.
pub const PATH: &str = "/";
/// `health.expect`.
pub const EXPECT: RangeInclusive<u16> = 200..=299;
/// `health.interval`.
pub const INTERVAL: Duration = Duration::from_secs(2);
/// `health.timeout`; a shorter interval shortens it.
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// `health.rise`.
pub const RISE: u32 = 2;
/// `health.max_ejected`, `health.panic_below` and `health.min_ready`: checks are believed, whatever they say.
pub const MASS: Mass = Mass { max_ejected: 100, panic_below: 0, min_ready: 1 };
/// `backend.sorry`.
pub const SORRY: bool = false;
/// `health.fall`.
pub const FALL: u32 = 3;

/// `service.tracking`: TCP has SYNs that tell new flows from old ones. UDP has none: hashed by flow, every flow is
/// remembered; with the other affinities a change of owner is enough. A service of both follows its UDP half.
#[must_use]
pub fn tracking(protocol: Protocol, affinity: Affinity) -> Tracking {
    match (protocol, affinity) {
        (Protocol::Udp | Protocol::Both, Affinity::Flow) => Tracking::Always,
        _ => Tracking::Changes,
    }
}

/// `service.settle`: the longer one when both protocols are carried.
#[must_use]
pub fn settle(protocol: Protocol) -> Duration {
    match protocol {
        Protocol::Tcp | Protocol::Both => SETTLE_TCP,
        Protocol::Udp => SETTLE_UDP,
    }
}

/// `health.timeout` for an interval.
#[must_use]
pub fn timeout(interval: Duration) -> Duration {
    TIMEOUT.min(interval)
}

/// Health of a service without `[service.health]`: every backend is always ready.
#[must_use]
pub fn health() -> Health {
    Health {
        check: Check::None,
        port: None,
        interval: INTERVAL,
        timeout: timeout(INTERVAL),
        rise: RISE,
        fall: FALL,
        mass: MASS,
    }
}
