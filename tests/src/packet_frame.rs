//! Frames as bytes: edits that make them lie, and ARP.

use std::net::Ipv4Addr;

use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header};

use crate::packet::{HERE, ROUTER};

/// An Ethernet frame. Every edit leaves the rest as it was: lengths and checksums do not follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Vec<u8>);

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Frame {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, taken.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Only the first `length` bytes.
    pub fn cut(mut self, length: usize) -> Self {
        assert!(length <= self.0.len(), "a cut makes the frame shorter");
        self.0.truncate(length);
        self
    }

    /// Zeroes at the end, up to `length` bytes: what Ethernet adds below 60.
    pub fn padded(mut self, length: usize) -> Self {
        assert!(length >= self.0.len(), "padding makes the frame longer");
        self.0.resize(length, 0);
        self
    }

    /// Other bytes at `offset`.
    pub fn with(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Another EtherType.
    pub fn ether_type(self, number: u16) -> Self {
        self.with(12, &number.to_be_bytes())
    }

    /// Another IP version.
    pub fn version(self, version: u8) -> Self {
        let byte = version << 4 | self.0[14] & 0x0f;
        self.with(14, &[byte])
    }

    /// Another IPv4 header length, in words.
    pub fn header_words(self, words: u8) -> Self {
        let byte = self.0[14] & 0xf0 | words;
        self.with(14, &[byte])
    }

    /// Another IPv4 total length.
    pub fn total_length(self, length: usize) -> Self {
        let length = u16::try_from(length).expect("16 bits");
        self.with(16, &length.to_be_bytes())
    }

    /// Another IPv6 payload length.
    pub fn payload_length(self, length: usize) -> Self {
        let length = u16::try_from(length).expect("16 bits");
        self.with(18, &length.to_be_bytes())
    }

    /// The IP length that the frame really holds, written into the header: a packet that is short but honest.
    pub fn honest(self) -> Self {
        let held = self.0.len() - 14;
        if self.0[12..14] == EtherType::IPV4.0.to_be_bytes() {
            self.total_length(held)
        } else {
            self.payload_length(held - 40)
        }
    }

    /// An 802.1Q tag (or of another EtherType) behind the MAC addresses.
    pub fn tagged(mut self, ether_type: u16, vlan: u16) -> Self {
        let tag = [ether_type.to_be_bytes(), vlan.to_be_bytes()].concat();
        self.0.splice(12..12, tag);
        self
    }
}

/// The frame of these hexadecimal digits, as random tests print it.
pub fn bytes(digits: &str) -> Frame {
    Frame(hex::decode(digits).expect("an even number of hexadecimal digits"))
}

/// A frame of this EtherType with counted bytes.
pub fn ethernet(ether_type: u16, bytes: usize) -> Frame {
    let header = Ethernet2Header { destination: HERE, source: ROUTER, ether_type: EtherType(ether_type) };
    Frame([header.to_bytes().to_vec(), (0..bytes).map(|i| i as u8).collect()].concat())
}

/// Who asks or answers: MAC and IPv4 address.
pub type Party = ([u8; 6], Ipv4Addr);

/// An ARP packet as RFC 826 has it, to the MAC address `to`.
pub fn arp(operation: ArpOperation, to: [u8; 6], sender: Party, target: Party) -> Frame {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &sender.0,
        &sender.1.octets(),
        &target.0,
        &target.1.octets(),
    )
    .expect("addresses of six and four bytes");
    let header = Ethernet2Header { destination: to, source: sender.0, ether_type: EtherType::ARP };
    Frame([header.to_bytes().to_vec(), packet.to_bytes().to_vec()].concat())
}

/// "Who has `target`", broadcast by the router at `sender`.
pub fn arp_request(sender: Ipv4Addr, target: Ipv4Addr) -> Frame {
    arp(ArpOperation::REQUEST, [0xff; 6], (ROUTER, sender), ([0; 6], target))
}
