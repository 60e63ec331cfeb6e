//! The announcements as bytes. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::net::Mac;

/// Length of an ARP frame without padding, in bytes; the driver pads to the Ethernet minimum.
pub const ARP_FRAME_LEN: usize = ETHERNET_LEN + 28;
/// Length of a neighbour advertisement with its one option, in bytes.
pub const ADVERTISEMENT_FRAME_LEN: usize = ETHERNET_LEN + IPV6_LEN + ADVERTISEMENT_LEN;

const ETHERNET_LEN: usize = 14;
const IPV6_LEN: usize = 40;
/// ICMPv6 header and flags 8, target 16, option 8.
const ADVERTISEMENT_LEN: usize = 32;

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Neighbour discovery with any other hop limit came from beyond the link (RFC 4861 section 7.1.2).
const HOP_LIMIT: u8 = 255;
/// Override: replaces a MAC address that is known already. Not router, not solicited.
const FLAG_OVERRIDE: u8 = 0x20;
const OPTION_TARGET_ADDRESS: u8 = 2;

/// An ARP announcement (RFC 5227 section 2.3): a broadcast *request* with the VIP as sender and as target.
///
/// Of the two gratuitous forms that RFC 5944 section 4.6 allows this is the request, as RFC 5227 section 3 recommends:
/// every host that has the address in its cache takes the sender fields of a request over (RFC 826), while a reply that
/// nobody asked for is what filters against ARP spoofing look for. Linux treats both alike.
#[must_use]
pub fn arp_announcement(mac: Mac, vip: Ipv4Addr) -> [u8; ARP_FRAME_LEN] {
    let mut writer = Writer::new();
    writer.put(&[0xff; 6]).put(&mac).put(&ETHERTYPE_ARP.to_be_bytes());
    // Ethernet, IPv4, address lengths 6 and 4, operation request.
    writer.put(&[0, 1, 8, 0, 6, 4, 0, 1]);
    // Nothing is asked: the target's MAC address is "ignored", and zero.
    writer.put(&mac).put(&vip.octets()).put(&[0; 6]).put(&vip.octets());
    writer.finish()
}

/// An unsolicited neighbour advertisement (RFC 4861 section 7.2.6) to all nodes, with the override flag.
///
/// Its source is the VIP itself: the one address that is certain to be ours on that link.
#[must_use]
pub fn neighbour_advertisement(mac: Mac, vip: Ipv6Addr) -> [u8; ADVERTISEMENT_FRAME_LEN] {
    let mut writer = Writer::new();
    writer.put(&multicast_mac(ALL_NODES)).put(&mac).put(&ETHERTYPE_IPV6.to_be_bytes());
    writer.put(&[0x60, 0, 0, 0, 0, ADVERTISEMENT_LEN as u8, ICMPV6, HOP_LIMIT]);
    writer.put(&vip.octets()).put(&ALL_NODES.octets());
    // Type neighbour advertisement, code 0, checksum (below), flags.
    writer.put(&[136, 0, 0, 0, FLAG_OVERRIDE, 0, 0, 0]).put(&vip.octets());
    // The option's length counts units of 8 bytes.
    writer.put(&[OPTION_TARGET_ADDRESS, 1]).put(&mac);
    let mut frame: [u8; ADVERTISEMENT_FRAME_LEN] = writer.finish();
    let checksum = icmpv6_checksum(&frame);
    let at = ETHERNET_LEN + IPV6_LEN + 2;
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The Ethernet group address of an IPv6 group (RFC 2464 section 7).
fn multicast_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// The Ethernet group address to which neighbours ask for `ip`: that of its solicited-node group
/// (RFC 4291 section 2.7.1). Addresses that share their last three bytes share it.
#[must_use]
pub fn solicited_node_mac(ip: Ipv6Addr) -> Mac {
    let [.., b, c, d] = ip.octets();
    [0x33, 0x33, 0xff, b, c, d]
}

/// RFC 1071 over the pseudo-header (RFC 8200 section 8.1) and the ICMPv6 message, with the checksum field zero.
fn icmpv6_checksum(frame: &[u8; ADVERTISEMENT_FRAME_LEN]) -> u16 {
    let addresses_and_message = &frame[ETHERNET_LEN + 8..];
    let words = addresses_and_message.chunks_exact(2);
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let mut sum = sum + ADVERTISEMENT_LEN as u32 + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Fills a frame from front to back.
struct Writer<const N: usize> {
    frame: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    fn new() -> Self {
        Self { frame: [0; N], at: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.frame[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        self
    }

    fn finish(self) -> [u8; N] {
        debug_assert_eq!(self.at, N, "the frame is not full");
        self.frame
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{
        ArpHardwareId, ArpOperation, EtherType, Icmpv6Type, IpNumber, LinkSlice, NetSlice, SlicedPacket,
        TransportSlice,
    };

    use super::*;

    const MAC: Mac = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];

    #[test]
    fn an_arp_announcement_byte_by_byte() {
        let frame = arp_announcement(MAC, Ipv4Addr::new(192, 0, 2, 10));
        let expected = "ffffffffffff 021122334455 0806 0001 0800 06 04 0001 \
                        021122334455 c000020a 000000000000 c000020a";
        assert_eq!(hex::encode(frame), expected.replace(' ', ""));
    }

    #[test]
    fn an_independent_parser_reads_the_arp_announcement() {
        let frame = arp_announcement(MAC, Ipv4Addr::new(192, 0, 2, 10));
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(LinkSlice::Ethernet2(ethernet)) = packet.link else { panic!("no Ethernet header") };
        assert_eq!((ethernet.destination(), ethernet.source()), ([0xff; 6], MAC));
        assert_eq!(ethernet.ether_type(), EtherType::ARP);
        let Some(NetSlice::Arp(arp)) = packet.net else { panic!("no ARP") };
        assert_eq!(arp.hw_addr_type(), ArpHardwareId::ETHERNET);
        assert_eq!(arp.proto_addr_type(), EtherType::IPV4);
        assert_eq!(arp.operation(), ArpOperation::REQUEST);
        assert_eq!((arp.sender_hw_addr(), arp.sender_protocol_addr()), (&MAC[..], &[192, 0, 2, 10][..]));
        assert_eq!((arp.target_hw_addr(), arp.target_protocol_addr()), (&[0; 6][..], &[192, 0, 2, 10][..]));
    }

    #[test]
    fn a_neighbour_advertisement_byte_by_byte() {
        let vip: Ipv6Addr = "2001:db8::10".parse().unwrap();
        let frame = neighbour_advertisement(MAC, vip);
        let vip = "20010db8000000000000000000000010";
        let expected = format!(
            "333300000001 021122334455 86dd 60000000 0020 3a ff {vip} ff020000000000000000000000000001 \
             88 00 {} 20000000 {vip} 02 01 021122334455",
            hex::encode(&frame[56..58])
        );
        assert_eq!(hex::encode(frame), expected.replace(' ', ""));
    }

    #[test]
    fn an_independent_parser_reads_the_neighbour_advertisement_and_finds_its_checksum_right() {
        for vip in ["2001:db8::10", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::"] {
            let vip: Ipv6Addr = vip.parse().unwrap();
            let frame = neighbour_advertisement(MAC, vip);
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(LinkSlice::Ethernet2(ethernet)) = packet.link else { panic!("no Ethernet header") };
            assert_eq!((ethernet.destination(), ethernet.source()), ([0x33, 0x33, 0, 0, 0, 1], MAC));
            let Some(NetSlice::Ipv6(ip)) = packet.net else { panic!("no IPv6") };
            let header = ip.header();
            assert_eq!((header.source_addr(), header.destination_addr()), (vip, ALL_NODES));
            assert_eq!((header.next_header(), header.hop_limit()), (IpNumber::IPV6_ICMP, 255));
            let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("no ICMPv6") };
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
            let Icmpv6Type::NeighborAdvertisement(advertisement) = icmp.icmp_type() else {
                panic!("{:?}", icmp.icmp_type())
            };
            assert!(advertisement.r#override && !advertisement.solicited && !advertisement.router);
        }
    }

    #[test]
    fn the_solicited_node_group_has_the_last_three_bytes_of_the_address() {
        let mac = solicited_node_mac("2001:db8::1:80:ff0a:b0c0".parse().unwrap());
        assert_eq!(mac, [0x33, 0x33, 0xff, 0x0a, 0xb0, 0xc0]);
    }
}
