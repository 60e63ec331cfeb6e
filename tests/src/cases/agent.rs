//! What the agent of [`super::worlds::World::Agent`] was told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::abi::Peer;

use super::cast::{INGRESS, PEER, WEB};

/// Prefixes of outer sources that it believes: network and length.
pub const SOURCES: [(IpAddr, u32); 2] = [
    (IpAddr::V4(Ipv4Addr::new(198, 51, 100, 0)), 28),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0)), 124),
];

/// Destination port of GUE: another one than everybody has.
pub const GUE_PORT: u16 = 6081;

/// Source port of the connections that the agent's host has. Only on the host: the kernel's suite has no sockets.
pub const KNOWN_PORT: u16 = 50_000;

/// MAC addresses of the way to the peers.
pub const PEER_MACS: ([u8; 6], [u8; 6]) = ([0x02, 0xcc, 0, 0, 0, 0x02], [0x02, 0xcc, 0, 0, 0, 0x01]);

/// Backends that it hands packets on to, and the ways: 1,500 bytes by the interface that frames come in by.
pub const PEERS: [(IpAddr, Peer); 2] = {
    let macs = [
        u32::from_ne_bytes([0x02, 0xcc, 0, 0]),
        u32::from_ne_bytes([0, 0x02, 0x02, 0xcc]),
        u32::from_ne_bytes([0, 0, 0, 0x01]),
    ];
    let way = Peer { macs, ifindex: INGRESS, mtu: 1500 };
    [(IpAddr::V4(PEER.v4), way), (IpAddr::V6(PEER.v6), way)]
};

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
