//! Frames that no service is asked by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::ArpOperation;
use lb_tests::{
    packet::{echo_request, icmp, ip, tcp, tunnelled, udp},
    packet_frame::{Frame, arp, ethernet},
};

/// Whom the frames are between.
pub(super) struct Cast {
    pub(super) client4: Ipv4Addr,
    pub(super) client6: Ipv6Addr,
    /// The balancer's own addresses.
    pub(super) host4: Ipv4Addr,
    pub(super) host6: Ipv6Addr,
    pub(super) vip4: Ipv4Addr,
    pub(super) vip6: Ipv6Addr,
    pub(super) host_mac: [u8; 6],
}

/// Source MAC of every frame: whoever sees it knows that the frame is ours.
pub(super) const SENDER: [u8; 6] = [0x02, 0x1b, 0x7e, 0x57, 0x00, 0x01];
/// The service's port, of TCP only.
pub(super) const PORT: u16 = 80;

type Named = (String, Vec<u8>);

/// All of them, each with what it is.
pub(super) fn all(cast: &Cast) -> Vec<Named> {
    let lists =
        [to_the_host(cast), to_a_vip(cast), arp_and_neighbours(cast), other_ethernet(cast), random(cast)];
    lists.into_iter().flatten().map(|(name, frame)| (name, frame.into_bytes())).collect()
}

type Frames = Vec<(String, Frame)>;

fn named<const N: usize>(frames: [(&str, Frame); N]) -> Frames {
    frames.into_iter().map(|(name, frame)| (name.to_owned(), frame)).collect()
}

/// IP packets to the balancer's own addresses.
fn to_the_host(cast: &Cast) -> Frames {
    let macs = |packet: lb_tests::packet::Packet| packet.macs(cast.host_mac, SENDER);
    let (c4, h4, c6, h6) = (cast.client4, cast.host4, cast.client6, cast.host6);
    let inner = tcp(c4, cast.vip4, PORT);
    let mut frames = named([
        ("SYN", macs(tcp(c4, h4, PORT)).frame()),
        ("SYN, IPv6", macs(tcp(c6, h6, PORT)).frame()),
        ("datagram", macs(udp(c4, h4, 53)).frame()),
        ("datagram without a checksum", macs(udp(c4, h4, 53).no_checksum()).frame()),
        ("echo request", macs(echo_request(c4, h4)).frame()),
        ("echo request, IPv6", macs(echo_request(c6, h6)).frame()),
        ("ICMP error", macs(icmp(c4, h4, 3, [0, 0, 5, 0], &inner.frame().bytes()[14..42])).frame()),
        ("IPv4 options", macs(tcp(c4, h4, PORT).options(40)).frame()),
        ("first fragment", macs(udp(c4, h4, 53).payload(800).fragment(0, true)).frame()),
        ("middle fragment", macs(udp(c4, h4, 53).payload(800).fragment(100, true)).frame()),
        ("last fragment", macs(udp(c4, h4, 53).payload(8).fragment(200, false)).frame()),
        ("TTL of one", macs(tcp(c4, h4, PORT).hops(1)).frame()),
        ("TTL of zero", macs(tcp(c4, h4, PORT).hops(0)).frame()),
        ("TOS with congestion", macs(tcp(c4, h4, PORT).tos(0xbb)).frame()),
        ("odd TCP flags", macs(tcp(c4, h4, PORT).flags("SFRPU")).frame()),
        ("IPv6 hop-by-hop", macs(tcp(c6, h6, PORT).extension(0, &[0, 0, 1, 4, 0, 0, 0, 0])).frame()),
        (
            "IPv6 destination options",
            macs(tcp(c6, h6, PORT).extension(60, &[0, 0, 1, 4, 0, 0, 0, 0])).frame(),
        ),
        ("IPv6 routing header", macs(tcp(c6, h6, PORT).extension(43, &[0, 0, 4, 0, 0, 0, 0, 0])).frame()),
        ("IPv6 fragment", macs(udp(c6, h6, 53).payload(800).fragment_header(0, true)).frame()),
        ("IPv6 flow label", macs(udp(c6, h6, 53).flow_label(0xabcde).tos(0xfc)).frame()),
        ("largest packet", macs(udp(c4, h4, 53).ip_length(1500)).frame()),
        ("largest packet, IPv6", macs(udp(c6, h6, 53).ip_length(1500)).frame()),
        ("GRE", macs(ip(c4, h4, 47, &[0; 24])).frame()),
        ("ESP", macs(ip(c6, h6, 50, &[7; 40])).frame()),
        ("no next header", macs(ip(c6, h6, 59, &[])).frame()),
        ("IP in IP, with a packet to a VIP inside", macs(tunnelled(&inner, c4, h4)).frame()),
        ("version 6 behind EtherType IPv4", macs(tcp(c4, h4, PORT)).frame().version(6)),
        ("version 15", macs(tcp(c4, h4, PORT)).frame().version(15)),
        ("IPv4 header of four words", macs(tcp(c4, h4, PORT)).frame().header_words(4)),
        ("IPv4 header longer than the frame", macs(udp(c4, h4, 53)).frame().header_words(15)),
        ("IPv4 length above the frame", macs(tcp(c4, h4, PORT)).frame().total_length(1500)),
        ("IPv4 length below the header", macs(tcp(c4, h4, PORT)).frame().total_length(7)),
        ("IPv6 length above the frame", macs(tcp(c6, h6, PORT)).frame().payload_length(1400)),
        ("wrong IPv4 checksum", macs(tcp(c4, h4, PORT)).frame().with(24, &[0xde, 0xad])),
        ("wrong TCP checksum", macs(tcp(c4, h4, PORT)).frame().with(50, &[0xde, 0xad])),
        ("Ethernet padding", macs(tcp(c4, h4, PORT)).frame().padded(60)),
        ("bytes behind the packet", macs(tcp(c4, h4, PORT)).frame().padded(200)),
    ]);
    // Cut everywhere, from the bare Ethernet header on.
    for (kind, frame) in [("IPv4", macs(tcp(c4, h4, PORT)).frame()), ("IPv6", macs(udp(c6, h6, 53)).frame())]
    {
        for length in 14..frame.bytes().len() {
            frames.push((format!("{kind} cut to {length} bytes"), frame.clone().cut(length)));
        }
    }
    frames
}

/// IP packets to a VIP that no service takes.
fn to_a_vip(cast: &Cast) -> Frames {
    let macs = |packet: lb_tests::packet::Packet| packet.macs(cast.host_mac, SENDER).frame();
    let (c4, v4, c6, v6) = (cast.client4, cast.vip4, cast.client6, cast.vip6);
    let other = IpAddr::V4(Ipv4Addr::from(u32::from(v4) + 1));
    named([
        ("another port of a VIP", macs(tcp(c4, v4, PORT + 1))),
        ("another port of a VIP, IPv6", macs(tcp(c6, v6, PORT + 1))),
        ("another protocol on the port", macs(udp(c4, v4, PORT))),
        ("echo reply to a VIP", macs(icmp(c4, v4, 0, [0, 1, 0, 2], b"yes"))),
        ("GRE to a VIP", macs(ip(c4, v4, 47, &[0; 24]))),
        ("SCTP to a VIP", macs(ip(c6, v6, 132, &[0, 80, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0]))),
        ("the address beside a VIP", macs(tcp(c4, other, PORT))),
        ("from a VIP", macs(tcp(v4, cast.host4, PORT))),
        ("broadcast", macs(udp(c4, Ipv4Addr::BROADCAST, 67).macs([0xff; 6], SENDER))),
        (
            "multicast",
            macs(udp(c4, Ipv4Addr::new(224, 0, 0, 251), 5353).macs([1, 0, 0x5e, 0, 0, 251], SENDER)),
        ),
    ])
}

/// ARP and neighbour discovery that is no question for a VIP.
fn arp_and_neighbours(cast: &Cast) -> Frames {
    let (client, host) = ((SENDER, cast.client4), (cast.host_mac, cast.host4));
    let nobody = |address| ([0; 6], address);
    let solicitation = |target: Ipv6Addr| {
        let body = [&target.octets()[..], &[1, 1], &SENDER].concat();
        icmp(cast.client6, cast.host6, 135, [0; 4], &body).hops(255).macs(cast.host_mac, SENDER).frame()
    };
    let reply = arp(ArpOperation::REPLY, cast.host_mac, client, host);
    named([
        ("ARP request for the host", arp(ArpOperation::REQUEST, [0xff; 6], client, nobody(cast.host4))),
        ("ARP request for a stranger", arp(ArpOperation::REQUEST, [0xff; 6], client, nobody(cast.client4))),
        ("ARP reply", reply.clone()),
        ("padded ARP reply", reply.clone().padded(60)),
        ("ARP cut short", reply.cut(30)),
        ("ARP reply that claims a VIP", arp(ArpOperation::REPLY, cast.host_mac, (SENDER, cast.vip4), host)),
        ("ARP announcement of a VIP", {
            arp(ArpOperation::REQUEST, [0xff; 6], (SENDER, cast.vip4), nobody(cast.vip4))
        }),
        ("RARP", arp(ArpOperation(3), [0xff; 6], client, host).ether_type(0x8035)),
        ("solicitation for the host", solicitation(cast.host6)),
        ("solicitation for a stranger", solicitation(cast.client6)),
        ("solicitation for a VIP from beyond a router", {
            let body = [&cast.vip6.octets()[..], &[1, 1], &SENDER].concat();
            let packet = icmp(cast.client6, cast.host6, 135, [0; 4], &body);
            packet.hops(254).macs(cast.host_mac, SENDER).frame()
        }),
        ("advertisement of a VIP", {
            let body = [&cast.vip6.octets()[..], &[2, 1], &SENDER].concat();
            let packet = icmp(cast.client6, cast.host6, 136, [0x60, 0, 0, 0], &body);
            packet.hops(255).macs(cast.host_mac, SENDER).frame()
        }),
        ("router solicitation", {
            let body = [1, 1].into_iter().chain(SENDER).collect::<Vec<u8>>();
            let packet = icmp(cast.client6, cast.host6, 133, [0; 4], &body);
            packet.hops(255).macs(cast.host_mac, SENDER).frame()
        }),
    ])
}

/// Everything else that Ethernet carries.
fn other_ethernet(cast: &Cast) -> Frames {
    let from_us = |frame: Frame, to: [u8; 6]| frame.with(0, &to).with(6, &SENDER);
    let to_host = |frame: Frame| from_us(frame, cast.host_mac);
    let packet = tcp(cast.client4, cast.host4, PORT).macs(cast.host_mac, SENDER).frame();
    let in6 = udp(cast.client6, cast.host6, 53).macs(cast.host_mac, SENDER).frame();
    let lldp = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
    let mut frames = named([
        ("VLAN tag", packet.clone().tagged(0x8100, 7)),
        ("VLAN tag with priority", in6.clone().tagged(0x8100, 0xe000 | 4094)),
        ("priority tag", packet.clone().tagged(0x8100, 0x6000)),
        ("provider tag", packet.clone().tagged(0x88a8, 100)),
        ("two tags", in6.tagged(0x8100, 7).tagged(0x88a8, 100)),
        // Shorter ones the kernel itself throws away.
        ("tag and an EtherType", packet.clone().tagged(0x8100, 7).cut(20)),
        ("LLDP", from_us(ethernet(0x88cc, 100), lldp)),
        ("spanning tree", from_us(ethernet(38, 38), [0x01, 0x80, 0xc2, 0, 0, 0]).with(14, &[0x42, 0x42, 3])),
        ("EtherType for experiments", to_host(ethernet(0x88b5, 46))),
        ("EtherType of nobody", to_host(ethernet(0xfffe, 1400))),
        ("MPLS", to_host(ethernet(0x8847, 60))),
        ("PPPoE", to_host(ethernet(0x8864, 60))),
        ("wake-on-LAN", from_us(ethernet(0x0842, 102), [0xff; 6])),
        ("EtherType zero", to_host(ethernet(0, 46))),
        ("for another host", packet.with(0, &[0x02, 9, 9, 9, 9, 9])),
    ]);
    for ether_type in [0x0800_u16, 0x86dd, 0x0806, 0x9999] {
        frames
            .push((format!("nothing behind EtherType {ether_type:#06x}"), to_host(ethernet(ether_type, 0))));
        frames
            .push((format!("one byte behind EtherType {ether_type:#06x}"), to_host(ethernet(ether_type, 1))));
    }
    frames
}

/// Bytes without sense, always the same.
fn random(cast: &Cast) -> Frames {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        // Marsaglia's xorshift: any sequence without a pattern will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut frames = Frames::new();
    for i in 0..150 {
        let length = 6 + (next() % 300) as usize;
        let ether_type = [0x0800, 0x86dd, 0x0806, 0x8100, next() as u16][(next() % 5) as usize];
        let mut frame = ethernet(ether_type, 0).into_bytes();
        frame.extend((0..length).map(|_| next() as u8));
        let frame = Frame::from(frame).with(0, &cast.host_mac).with(6, &SENDER);
        frames.push((format!("random frame {i}"), frame));
    }
    frames
}
