//! What the agent of [`super::worlds::World::Agent`] was told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::cast::WEB;

/// Prefixes of outer sources that it believes: network and length.
pub const SOURCES: [(IpAddr, u32); 2] = [
    (IpAddr::V4(Ipv4Addr::new(198, 51, 100, 0)), 28),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0)), 124),
];

/// Destination port of GUE: another one than everybody has.
pub const GUE_PORT: u16 = 6081;

/// Inner destinations that it takes out of tunnels.
pub const VIPS: [IpAddr; 2] = [IpAddr::V4(WEB.v4), IpAddr::V6(WEB.v6)];

/// Whether an outer source lies in one of the prefixes.
pub fn believes(source: IpAddr) -> bool {
    SOURCES.iter().any(|(network, length)| match (network, source) {
        (IpAddr::V4(network), IpAddr::V4(source)) => {
            (u32::from(*network) ^ u32::from(source)).leading_zeros() >= *length
        }
        (IpAddr::V6(network), IpAddr::V6(source)) => {
            (u128::from(*network) ^ u128::from(source)).leading_zeros() >= *length
        }
        _ => false,
    })
}
