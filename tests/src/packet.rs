//! Packets for the cases: IP packets described field by field and written by etherparse, so that what the datapath
//! reads was not written by the datapath's own code.

use std::{fmt, net::IpAddr};

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Type, Icmpv6Type, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header,
    Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader,
};

use crate::packet_frame::Frame;

/// MAC address of the interface that frames come in by.
pub const HERE: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// MAC address of the router (or client) that sent them.
pub const ROUTER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x52];
/// Source port of TCP and UDP unless a case says otherwise.
pub const SOURCE_PORT: u16 = 40_000;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, for cases that must hold for either.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Bytes of an IP header of this family without options.
    pub fn header(self) -> usize {
        match self {
            Self::V4 => Ipv4Header::MIN_LEN,
            Self::V6 => Ipv6Header::LEN,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

#[derive(Clone, Debug)]
enum Transport {
    Tcp(Box<TcpHeader>),
    Udp {
        source: u16,
        destination: u16,
        checksum: bool,
    },
    /// Type, code and the word behind the checksum: ICMP and ICMPv6 look alike that far.
    Icmp {
        kind: u8,
        code: u8,
        word: [u8; 4],
    },
    /// Protocol number; the payload is all there is.
    Other(u8),
}

/// An IP packet in an Ethernet frame. Lengths and checksums are right unless the frame is edited afterwards.
#[derive(Clone, Debug)]
pub struct Packet {
    macs: ([u8; 6], [u8; 6]),
    source: IpAddr,
    destination: IpAddr,
    hops: u8,
    tos: u8,
    identification: u16,
    dont_fragment: bool,
    more_fragments: bool,
    fragment_offset: u16,
    options: Vec<u8>,
    flow_label: u32,
    extensions: Vec<(u8, Vec<u8>)>,
    transport: Transport,
    payload: Vec<u8>,
}

fn packet(source: IpAddr, destination: IpAddr, transport: Transport, payload: &[u8]) -> Packet {
    assert_eq!(source.is_ipv4(), destination.is_ipv4(), "source and destination are of one family");
    Packet {
        macs: (HERE, ROUTER),
        source,
        destination,
        hops: 63,
        tos: 0,
        identification: 0x1d1d,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        options: Vec::new(),
        flow_label: 0,
        extensions: Vec::new(),
        transport,
        payload: payload.to_vec(),
    }
}

/// A SYN.
pub fn tcp(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, port: u16) -> Packet {
    let mut header = TcpHeader::new(SOURCE_PORT, port, 0x0102_0304, 64_240);
    header.syn = true;
    packet(source.into(), destination.into(), Transport::Tcp(Box::new(header)), &[])
}

/// A datagram of eight bytes.
pub fn udp(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, port: u16) -> Packet {
    let transport = Transport::Udp { source: SOURCE_PORT, destination: port, checksum: true };
    packet(source.into(), destination.into(), transport, b"datagram")
}

/// An ICMP message (ICMPv6 between IPv6 addresses): `word` follows the checksum, `body` the word.
pub fn icmp(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    kind: u8,
    word: [u8; 4],
    body: &[u8],
) -> Packet {
    packet(source.into(), destination.into(), Transport::Icmp { kind, code: 0, word }, body)
}

/// An echo request of either family.
pub fn echo_request(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Packet {
    let source = source.into();
    icmp(source, destination, if source.is_ipv4() { 8 } else { 128 }, [0, 1, 0, 2], b"are you there?")
}

/// Any protocol, with these bytes behind the IP header.
pub fn ip(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, protocol: u8, payload: &[u8]) -> Packet {
    packet(source.into(), destination.into(), Transport::Other(protocol), payload)
}

/// The IP packet of `inner` in an outer header of the addresses' family, as a balancer sends it.
pub fn tunnelled(inner: &Packet, source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Packet {
    let protocol = if inner.source.is_ipv4() { IpNumber::IPV4 } else { IpNumber::IPV6 };
    ip(source, destination, protocol.0, &inner.frame().bytes()[14..])
}

/// The IP packet of `inner` in UDP to `port`, with a GUE header of variant 0 and this private data.
pub fn gue(
    inner: &Packet,
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    port: u16,
    private: &[u8],
) -> Packet {
    assert!(private.len().is_multiple_of(4) && private.len() < 128, "private data are up to 31 words");
    let protocol = if inner.source.is_ipv4() { IpNumber::IPV4 } else { IpNumber::IPV6 };
    let header = [(private.len() / 4) as u8, protocol.0, 0, 0];
    let transport = Transport::Udp { source: 0xc001, destination: port, checksum: false };
    let payload = [&header[..], private, &inner.frame().bytes()[14..]].concat();
    packet(source.into(), destination.into(), transport, &payload)
}

impl Packet {
    /// Destination and source MAC.
    pub fn macs(mut self, destination: [u8; 6], source: [u8; 6]) -> Self {
        self.macs = (destination, source);
        self
    }

    /// Another source.
    pub fn from(mut self, source: impl Into<IpAddr>) -> Self {
        self.source = source.into();
        self
    }

    /// Another source port.
    pub fn source_port(mut self, port: u16) -> Self {
        match &mut self.transport {
            Transport::Tcp(header) => header.source_port = port,
            Transport::Udp { source, .. } => *source = port,
            Transport::Icmp { .. } | Transport::Other(_) => {}
        }
        self
    }

    /// TTL or hop limit.
    pub fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// TOS or traffic class.
    pub fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    /// IPv6 flow label.
    pub fn flow_label(mut self, label: u32) -> Self {
        self.flow_label = label;
        self
    }

    /// IPv4 identification, and no don't-fragment flag.
    pub fn fragmentable(mut self, identification: u16) -> Self {
        self.identification = identification;
        self.dont_fragment = false;
        self
    }

    /// IPv4 fragment: `offset` in units of eight bytes.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.dont_fragment = false;
        self.fragment_offset = offset;
        self.more_fragments = more;
        self
    }

    /// The don't-fragment flag, beside whatever else is set.
    pub fn dont_fragment(mut self) -> Self {
        self.dont_fragment = true;
        self
    }

    /// IPv4 options: this many bytes of no-operation, a multiple of four, at most 40.
    pub fn options(mut self, bytes: usize) -> Self {
        self.options = vec![1; bytes];
        self
    }

    /// An IPv6 extension header; its first byte becomes the number of what follows.
    pub fn extension(mut self, number: u8, bytes: &[u8]) -> Self {
        self.extensions.push((number, bytes.to_vec()));
        self
    }

    /// An IPv6 fragment header; `offset` in units of eight bytes.
    pub fn fragment_header(self, offset: u16, more: bool) -> Self {
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        self.extension(44, &[0, 0, high, low, 0, 0, 0x1d, 0x1d])
    }

    /// Payload of this many counted bytes.
    pub fn payload(mut self, bytes: usize) -> Self {
        self.payload = (0..bytes).map(|i| i as u8).collect();
        self
    }

    /// This payload.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }

    /// Payload that makes the IP packet this long, IP header included.
    pub fn ip_length(self, bytes: usize) -> Self {
        let now = self.frame().bytes().len() - 14 - self.payload.len();
        assert!(bytes >= now, "{bytes} bytes are too short for the headers ({now})");
        self.payload(bytes - now)
    }

    /// TCP flags by the letters of tcpdump: S, F, R, P, ., U.
    pub fn flags(mut self, letters: &str) -> Self {
        if let Transport::Tcp(header) = &mut self.transport {
            header.syn = letters.contains('S');
            header.fin = letters.contains('F');
            header.rst = letters.contains('R');
            header.psh = letters.contains('P');
            header.ack = letters.contains('.');
            header.urg = letters.contains('U');
        }
        self
    }

    /// TCP sequence and acknowledgement number.
    pub fn numbers(mut self, sequence: u32, acknowledgement: u32) -> Self {
        if let Transport::Tcp(header) = &mut self.transport {
            (header.sequence_number, header.acknowledgment_number) = (sequence, acknowledgement);
        }
        self
    }

    /// TCP window.
    pub fn window(mut self, bytes: u16) -> Self {
        if let Transport::Tcp(header) = &mut self.transport {
            header.window_size = bytes;
        }
        self
    }

    /// Another identification of IPv4.
    pub fn identification(mut self, number: u16) -> Self {
        self.identification = number;
        self
    }

    /// UDP without a checksum.
    pub fn no_checksum(mut self) -> Self {
        if let Transport::Udp { checksum, .. } = &mut self.transport {
            *checksum = false;
        }
        self
    }

    /// ICMP code.
    pub fn code(mut self, number: u8) -> Self {
        if let Transport::Icmp { code, .. } = &mut self.transport {
            *code = number;
        }
        self
    }

    fn protocol(&self) -> u8 {
        match (&self.transport, self.source) {
            (Transport::Tcp(_), _) => IpNumber::TCP.0,
            (Transport::Udp { .. }, _) => IpNumber::UDP.0,
            (Transport::Icmp { .. }, IpAddr::V4(_)) => IpNumber::ICMP.0,
            (Transport::Icmp { .. }, IpAddr::V6(_)) => IpNumber::IPV6_ICMP.0,
            (Transport::Other(number), _) => *number,
        }
    }

    /// Transport header and payload, checksum included.
    fn segment(&self) -> Vec<u8> {
        let header: Vec<u8> = match (&self.transport, self.source, self.destination) {
            (Transport::Tcp(header), source, destination) => self.tcp_header(header, source, destination),
            (Transport::Udp { source, destination, checksum }, ..) => {
                self.udp_header(*source, *destination, *checksum)
            }
            (Transport::Icmp { kind, code, word }, source, destination) => {
                let sum = icmp_checksum((*kind, *code, *word), source, destination, &self.payload);
                let [high, low] = sum.to_be_bytes();
                [&[*kind, *code, high, low][..], word].concat()
            }
            (Transport::Other(_), ..) => Vec::new(),
        };
        [header, self.payload.clone()].concat()
    }

    fn tcp_header(&self, header: &TcpHeader, source: IpAddr, destination: IpAddr) -> Vec<u8> {
        let mut header = header.clone();
        let sum = match (source, destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                header.calc_checksum_ipv4_raw(s.octets(), d.octets(), &self.payload)
            }
            (s, d) => header.calc_checksum_ipv6_raw(octets6(s), octets6(d), &self.payload),
        };
        header.checksum = sum.expect("the payload is short enough");
        header.to_bytes().to_vec()
    }

    fn udp_header(&self, source_port: u16, destination_port: u16, checksum: bool) -> Vec<u8> {
        let length = u16::try_from(UdpHeader::LEN + self.payload.len()).expect("a datagram is short enough");
        let mut header = UdpHeader { source_port, destination_port, length, checksum: 0 };
        if checksum {
            let sum = match (self.source, self.destination) {
                (IpAddr::V4(s), IpAddr::V4(d)) => {
                    header.calc_checksum_ipv4_raw(s.octets(), d.octets(), &self.payload)
                }
                (s, d) => header.calc_checksum_ipv6_raw(octets6(s), octets6(d), &self.payload),
            };
            header.checksum = sum.expect("the payload is short enough");
        }
        header.to_bytes().to_vec()
    }

    /// What the IP header's next-header field names, and everything behind the IP header.
    fn body(&self) -> (u8, Vec<u8>) {
        let mut next = self.protocol();
        let mut body = self.segment();
        for (number, bytes) in self.extensions.iter().rev() {
            let mut header = bytes.clone();
            header[0] = next;
            body.splice(0..0, header);
            next = *number;
        }
        (next, body)
    }

    /// The frame, whole and true; it may be edited.
    pub fn frame(&self) -> Frame {
        let (next, body) = self.body();
        let (ether_type, header) = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = self.ipv4_header(next, source.octets(), destination.octets());
                header.set_payload_len(body.len()).expect("an IPv4 packet of at most 65,535 bytes");
                header.header_checksum = header.calc_header_checksum();
                (EtherType::IPV4, header.to_bytes().to_vec())
            }
            (source, destination) => {
                let header = Ipv6Header {
                    traffic_class: self.tos,
                    flow_label: Ipv6FlowLabel::try_new(self.flow_label).expect("20 bits"),
                    payload_length: u16::try_from(body.len()).expect("an IPv6 payload of 16 bits"),
                    next_header: IpNumber(next),
                    hop_limit: self.hops,
                    source: octets6(source),
                    destination: octets6(destination),
                };
                (EtherType::IPV6, header.to_bytes().to_vec())
            }
        };
        let ethernet = Ethernet2Header { destination: self.macs.0, source: self.macs.1, ether_type };
        Frame::from([ethernet.to_bytes().to_vec(), header, body].concat())
    }

    fn ipv4_header(&self, next: u8, source: [u8; 4], destination: [u8; 4]) -> Ipv4Header {
        let mut header =
            Ipv4Header::new(0, self.hops, IpNumber(next), source, destination).expect("no payload yet");
        header.dscp = IpDscp::try_new(self.tos >> 2).expect("six bits");
        header.ecn = IpEcn::try_new(self.tos & 3).expect("two bits");
        header.identification = self.identification;
        header.dont_fragment = self.dont_fragment;
        header.more_fragments = self.more_fragments;
        header.fragment_offset = IpFragOffset::try_new(self.fragment_offset).expect("13 bits");
        header.options = self.options[..].try_into().expect("a multiple of four, at most 40");
        header
    }
}

impl From<Packet> for Frame {
    fn from(packet: Packet) -> Self {
        packet.frame()
    }
}

fn octets6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

fn icmp_checksum(
    (type_u8, code_u8, bytes5to8): (u8, u8, [u8; 4]),
    source: IpAddr,
    destination: IpAddr,
    body: &[u8],
) -> u16 {
    match (source, destination) {
        (IpAddr::V4(_), _) => Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8 }.calc_checksum(body),
        (source, destination) => Icmpv6Type::Unknown { type_u8, code_u8, bytes5to8 }
            .calc_checksum(octets6(source), octets6(destination), body)
            .expect("the body is short enough"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use etherparse::{PacketHeaders, TransportHeader};

    use super::{Family, echo_request, tcp, tunnelled, udp};

    const A4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
    const B4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5);
    const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 10);

    #[test]
    fn packets_are_whole() {
        for packet in [tcp(A4, B4, 80), udp(A4, B4, 80).options(8), tcp(A6, B6, 80), echo_request(A6, B6)] {
            let frame = packet.payload(100).frame();
            let headers = PacketHeaders::from_ethernet_slice(frame.bytes()).expect("etherparse reads it");
            assert!(headers.transport.is_some(), "{headers:?}");
        }
    }

    #[test]
    fn extension_headers_are_chained() {
        let frame = udp(A6, B6, 53).extension(0, &[0; 8]).fragment_header(0, false).frame();
        let headers = PacketHeaders::from_ethernet_slice(frame.bytes()).expect("etherparse reads it");
        assert!(matches!(headers.transport, Some(TransportHeader::Udp(_))), "{headers:?}");
    }

    #[test]
    fn an_ip_length_is_met() {
        assert_eq!(tcp(A4, B4, 80).ip_length(1400).frame().bytes().len(), 1414);
        assert_eq!(udp(A6, B6, 80).ip_length(1400).frame().bytes().len(), 1414);
    }

    #[test]
    fn a_tunnel_holds_the_packet() {
        let inner = udp(A6, B6, 80);
        let outer = tunnelled(&inner, A4, B4).frame();
        assert_eq!(outer.bytes()[14 + Family::V4.header()..], inner.frame().bytes()[14..]);
        assert_eq!(outer.bytes()[23], 41);
    }
}
