//! Tunnelled packets, made by hand, through the attached program to a socket on the VIP.

use std::{io, net::IpAddr, os::fd::OwnedFd};

use etherparse::{IpNumber, PacketBuilder};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket};
use tokio::{net::UdpSocket, time::timeout};

use super::{Options, Prepare, Source, TestPlaces, options, served, with_agent};
use crate::net::testing::{DEADLINE, TestNet, in_namespace};

const PAYLOAD: &[u8] = b"through the tunnel";

/// A UDP datagram from a client to `vip`, port 9000, without link header.
fn inner(vip: IpAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    let udp = |builder: etherparse::PacketBuilderStep<etherparse::IpHeaders>| builder.udp(4000, 9000);
    match vip {
        IpAddr::V4(vip) => udp(PacketBuilder::ipv4([203, 0, 113, 7], vip.octets(), 60)),
        IpAddr::V6(vip) => {
            let client: std::net::Ipv6Addr = "2001:db8:c::7".parse().unwrap();
            udp(PacketBuilder::ipv6(client.octets(), vip.octets(), 60))
        }
    }
    .write(&mut bytes, PAYLOAD)
    .unwrap();
    bytes
}

/// The datagram in a tunnel from `source` to this host, with an Ethernet header.
fn tunnelled(to: [u8; 6], source: IpAddr, vip: IpAddr) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], to);
    let protocol = if vip.is_ipv4() { IpNumber::IPV4 } else { IpNumber::IPV6 };
    let mut bytes = Vec::new();
    match source {
        IpAddr::V4(source) => ethernet.ipv4(source.octets(), [198, 51, 100, 1], 60),
        IpAddr::V6(source) => {
            let ours: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
            ethernet.ipv6(source.octets(), ours.octets(), 60)
        }
    }
    .write(&mut bytes, protocol, &inner(vip))
    .unwrap();
    bytes
}

/// A packet socket of the other host.
struct Wire {
    socket: OwnedFd,
    address: nix::sys::socket::SockaddrStorage,
}

impl Wire {
    async fn of_peer(net: &TestNet) -> Self {
        use nix::sys::socket::SockaddrLike;
        let index = net.peer.link("srv0").await.index;
        let make =
            || socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll);
        let socket = net.in_peer(make).unwrap();
        // SAFETY: all bytes of a `sockaddr_ll` may be zero.
        let mut link: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        link.sll_family = libc::AF_PACKET as u16;
        link.sll_ifindex = index as i32;
        link.sll_halen = 6;
        // SAFETY: the pointer and the length describe `link`.
        let address = unsafe {
            nix::sys::socket::SockaddrStorage::from_raw(
                (&raw const link).cast(),
                Some(size_of::<libc::sockaddr_ll>() as u32),
            )
        };
        Self { socket, address: address.unwrap() }
    }

    fn send(&self, frame: &[u8]) {
        use std::os::fd::AsRawFd;
        let sent = sendto(self.socket.as_raw_fd(), frame, &self.address, MsgFlags::empty());
        assert_eq!(sent.map_err(io::Error::from).unwrap(), frame.len());
    }
}

#[test]
fn root_all_four_pairs_of_families_reach_the_vip_and_strangers_do_not() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let test = TestPlaces::new();
        let start = Options { prepare: Prepare::Prepare, ..options(&test.places, Source::Flags(served())) };
        with_agent(&test.places, start, async |outside| {
            outside.event("ready").await;
            let to = net.ours.link("lb0").await.mac.unwrap();
            let wire = Wire::of_peer(&net).await;
            for vip in served().vips {
                let server = UdpSocket::bind((vip, 9000)).await.unwrap();
                for (stranger, source) in
                    [("198.51.100.77", "198.51.100.11"), ("2001:db8:bad::1", "2001:db8::b")]
                {
                    // A stranger's packet before each: had it come through, it would be received twice below.
                    wire.send(&tunnelled(to, stranger.parse().unwrap(), vip));
                    wire.send(&tunnelled(to, source.parse().unwrap(), vip));
                    let mut buffer = [0; 64];
                    let received = timeout(DEADLINE, server.recv_from(&mut buffer)).await;
                    let (length, from) = received.expect("nothing came through").unwrap();
                    assert_eq!((&buffer[..length], from.port()), (PAYLOAD, 4000), "{vip} from {source}");
                }
                assert!(server.try_recv(&mut [0; 64]).is_err(), "a stranger's packet came through");
            }
            let status = test.status().await;
            assert_eq!(status.reasons["decapsulated"], 4, "{status:?}");
            assert_eq!(status.reasons["unknown_tunnel_source"], 4, "{status:?}");
            assert_eq!(status.reasons["malformed_tunnel"], 0, "{status:?}");
        })
        .await
        .unwrap();
    });
}
