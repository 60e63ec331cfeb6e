//! The cast: every address that a case may name. A [`Pair`] is one actor with an address of each family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::{self, Family, Packet};

/// Interface that all frames come in by: the loopback of whatever namespace the suite runs in, because
/// BPF_PROG_TEST_RUN wants one that exists.
pub const INGRESS: u32 = 1;
/// Another interface.
pub const ELSEWHERE: u32 = 2;

/// One actor, both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address.
    pub v6: Ipv6Addr,
}

impl Pair {
    /// The address of one family.
    pub fn of(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// Both addresses.
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

const fn ip6(site: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, site, 0, 0, 0, 0, host)
}

/// A VIP: 192.0.2.`n` and 2001:db8:1::`n`.
const fn vip(n: u8) -> Pair {
    Pair { v4: Ipv4Addr::new(192, 0, 2, n), v6: ip6(1, n as u16) }
}

/// The `n`th client: 203.0.113.`n` and 2001:db8:c:`n`::1, each in a /64 of its own.
pub const fn client(n: u8) -> Pair {
    Pair { v4: Ipv4Addr::new(203, 0, 113, n), v6: Ipv6Addr::new(0x2001, 0xdb8, 0xc, n as u16, 0, 0, 0, 1) }
}

/// The client that sends unless a case says otherwise.
pub const CLIENT: Pair = client(5);
/// Somebody who is no service of ours.
pub const STRANGER: Pair = Pair { v4: Ipv4Addr::new(198, 51, 100, 200), v6: ip6(0xb, 200) };
/// Source of outer headers: inside [`super::worlds`]' tunnel prefixes.
pub const TUNNEL: Pair = Pair { v4: Ipv4Addr::new(198, 51, 100, 2), v6: ip6(0xb, 2) };
/// A backend.
pub const BACKEND: Pair = Pair { v4: Ipv4Addr::new(198, 51, 100, 18), v6: ip6(0xb, 0x12) };

/// Another backend, which is a peer of the agent.
pub const PEER: Pair = Pair { v4: Ipv4Addr::new(198, 51, 100, 19), v6: ip6(0xb, 0x13) };

/// TCP port 80 and UDP port 80, each with a backend of its own, on one link.
pub const WEB: Pair = vip(10);
/// UDP port 53.
pub const DNS: Pair = vip(11);
/// IPIP to an IPv4 backend.
pub const FAR4: Pair = vip(20);
/// IPIP to an IPv6 backend.
pub const FAR6: Pair = vip(21);
/// GUE to an IPv4 backend.
pub const GUE4: Pair = vip(22);
/// GUE to an IPv6 backend.
pub const GUE6: Pair = vip(23);
/// GUE to IPv4 backends, candidates named.
pub const CHANCE4: Pair = vip(24);
/// GUE to IPv6 backends, candidates named.
pub const CHANCE6: Pair = vip(25);
/// MAC rewrite to another interface.
pub const ACROSS: Pair = vip(30);
/// IPIP to an IPv4 backend on another interface.
pub const ACROSS4: Pair = vip(31);
/// IPIP to an IPv6 backend on another interface.
pub const ACROSS6: Pair = vip(32);
/// MAC rewrite over a link of 1,400 bytes.
pub const NARROW: Pair = vip(40);
/// IPIP over IPv4 on a link of 1,400 bytes.
pub const NARROW4: Pair = vip(41);
/// IPIP over IPv6 on a link of 1,400 bytes.
pub const NARROW6: Pair = vip(42);
/// GUE in IPv4 on a link of 1,400 bytes.
pub const NARROW_GUE4: Pair = vip(44);
/// GUE in IPv6 on a link of 1,400 bytes.
pub const NARROW_GUE6: Pair = vip(45);
/// IPIP over a link that takes the longest packet there is.
pub const WIDE: Pair = vip(43);
/// Affinity by addresses, seven members; [`SPREAD_TOO`] is the same service.
pub const SPREAD: Pair = vip(50);
/// The second VIP of that service.
pub const SPREAD_TOO: Pair = vip(51);
/// Affinity by source, seven members; [`STICKY_TOO`] is the same service.
pub const STICKY: Pair = vip(52);
/// The second VIP of that service.
pub const STICKY_TOO: Pair = vip(53);
/// Affinity by flow, seven members.
pub const FLOWS: Pair = vip(54);
/// UDP port 443, affinity by QUIC connection ID, seven members with the server IDs 1 to 7; the last has failed.
pub const QUIC: Pair = vip(55);
/// TCP ports 80, 443 and 8000 to 8003.
pub const LISTED: Pair = vip(60);
/// TCP, any port.
pub const ANY_TCP: Pair = vip(61);
/// UDP, any port.
pub const ANY_UDP: Pair = vip(62);
/// TCP and UDP, any port: every protocol.
pub const ANY_BOTH: Pair = vip(63);
/// TCP, any port, and a service of its own for port 443.
pub const BESIDE: Pair = vip(64);
/// Every slot is empty.
pub const NOBODY: Pair = vip(70);
/// A table without slots.
pub const TABLELESS: Pair = vip(71);
/// Every slot names a member beyond the list.
pub const BEYOND: Pair = vip(72);
/// Every slot names a free member index.
pub const HOLE: Pair = vip(73);
/// A backend whose next hop is not known.
pub const UNRESOLVED: Pair = vip(74);
/// Every slot has changed its owner, the one before has failed, and the service resets connections.
pub const RESETS: Pair = vip(75);
/// The same of a service that does not.
pub const REHASHES: Pair = vip(76);
/// A limit of three packets at once.
pub const LIMITED: Pair = vip(80);
/// Another service with the same limit.
pub const LIMITED_TOO: Pair = vip(81);
/// A limit of one packet at once: needs the fine clock.
pub const SINGLE: Pair = vip(82);
/// No limit, beside the limited ones.
pub const UNLIMITED: Pair = vip(83);
/// NAT: TCP and UDP port 80, port 8080 on backends of the VIP's family.
pub const NATTED: Pair = vip(85);
/// NAT: any port of TCP and UDP, the same port on the backends.
pub const NATTED_ANY: Pair = vip(86);
/// NAT over a link of 1,400 bytes.
pub const NATTED_NARROW: Pair = vip(87);
/// The backend of [`NATTED`].
pub const BEHIND: Pair = Pair { v4: Ipv4Addr::new(198, 51, 100, 21), v6: ip6(0xb, 0x21) };
/// The backend of [`NATTED_ANY`].
pub const BEHIND_ANY: Pair = Pair { v4: Ipv4Addr::new(198, 51, 100, 22), v6: ip6(0xb, 0x22) };
/// The backend of [`NATTED_NARROW`].
pub const BEHIND_NARROW: Pair = Pair { v4: Ipv4Addr::new(198, 51, 100, 23), v6: ip6(0xb, 0x23) };
/// An address of the balancer itself, where its kernel knows ways at all.
pub const OWN: Pair = client(77);

/// A backend with a forward mode that does not exist.
pub const STRANGE: Pair = vip(90);
/// A table outside the arena of slots.
pub const SLOTLESS: Pair = vip(91);
/// Members outside the records.
pub const MEMBERLESS: Pair = vip(92);
/// A port that leads to a service outside the records.
pub const SERVICELESS: Pair = vip(93);

/// A SYN of the client to `to`.
pub fn tcp(family: Family, to: Pair, port: u16) -> Packet {
    packet::tcp(CLIENT.of(family), to.of(family), port)
}

/// A datagram of the client to `to`.
pub fn udp(family: Family, to: Pair, port: u16) -> Packet {
    packet::udp(CLIENT.of(family), to.of(family), port)
}

/// An echo request of the client to `to`.
pub fn echo(family: Family, to: Pair) -> Packet {
    packet::echo_request(CLIENT.of(family), to.of(family))
}

/// 24 bytes of another protocol from the client to `to`.
pub fn other(family: Family, to: Pair, protocol: u8) -> Packet {
    packet::ip(CLIENT.of(family), to.of(family), protocol, &[0x5a; 24])
}
