//! Header layouts: offsets, protocol numbers, checksums. Everything is network byte order unless a name says otherwise.

pub mod checksum;

/// Ethernet II.
pub mod ethernet {
    /// Bytes of the header.
    pub const HEADER: usize = 14;
    /// EtherType of IPv4.
    pub const IPV4: u16 = 0x0800;
    /// EtherType of a customer VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// EtherType of a service VLAN tag (IEEE 802.1ad).
    pub const PROVIDER_VLAN: u16 = 0x88a8;
    /// EtherType of ARP.
    pub const ARP: u16 = 0x0806;
    /// EtherType of IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// Protocol numbers (IANA).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in something (RFC 2003).
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in something (RFC 2473, RFC 4213).
    pub const IPV6: u8 = 41;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// UDP (RFC 768).
pub mod udp {
    /// Bytes of the header.
    pub const HEADER: usize = 8;
}

/// TCP (RFC 9293).
pub mod tcp {
    /// Bytes of a header without options.
    pub const HEADER: usize = 20;
    /// FIN of the flags, which are byte 13.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// ACK.
    pub const ACK: u8 = 16;
}

/// Generic UDP Encapsulation, variant 0 (draft-ietf-intarea-gue-09 section 3).
pub mod gue {
    use super::{ipv4, ipv6, udp};

    /// Bytes of a header without extension fields and private data.
    pub const HEADER: usize = 4;
    /// Destination port of UDP that IANA gave to GUE.
    pub const PORT: u16 = 6080;
    /// Variant and control bit of the first byte: both 0 for data.
    pub const KIND: u8 = 0xe0;
    /// Length of everything behind the first four bytes, in words, in the first byte.
    pub const WORDS: u8 = 0x1f;
    /// Most candidates that private data names, besides the backend that the packet is sent to.
    pub const CANDIDATES: usize = 3;
    /// Bytes of private data before the addresses: [`CANDIDATE_LIST`], place of the next candidate, two of 0.
    pub const LIST: usize = 4;
    /// First byte of private data that is a list of candidates.
    pub const CANDIDATE_LIST: u8 = 1;
    /// Bytes of private data with IPv4 addresses.
    pub const LIST4: usize = LIST + CANDIDATES * 4;
    /// Bytes of private data with IPv6 addresses.
    pub const LIST6: usize = LIST + CANDIDATES * 16;
    /// All that goes before a packet in IPv4, without private data.
    pub const OUTER4: usize = ipv4::HEADER + udp::HEADER + HEADER;
    /// All that goes before a packet in IPv6, without private data.
    pub const OUTER6: usize = ipv6::HEADER + udp::HEADER + HEADER;
}

/// IPv4 (RFC 791).
pub mod ipv4 {
    /// Bytes of a header without options.
    pub const HEADER: usize = 20;
    /// More-fragments flag and fragment offset of the word at byte 6.
    pub const FRAGMENT: u16 = 0x3fff;
    /// Fragment offset alone, in units of eight bytes.
    pub const OFFSET: u16 = 0x1fff;
    /// Don't-fragment flag of the same word.
    pub const DONT_FRAGMENT: u16 = 0x4000;
}

/// IPv6 (RFC 8200).
pub mod ipv6 {
    /// Bytes of the fixed header.
    pub const HEADER: usize = 40;
}

/// The big-endian 16-bit word at `offset` of a header.
///
/// `offset` is a constant at every call, so the bounds check vanishes; out of range gives 0 instead of a panic that
/// the verifier would refuse.
#[inline(always)]
pub fn be16<const N: usize>(bytes: &[u8; N], offset: usize) -> u16 {
    match bytes.get(offset..).and_then(|b| b.first_chunk::<2>()) {
        Some(b) => u16::from_be_bytes(*b),
        None => 0,
    }
}

/// The 32-bit word at `offset` as the CPU loads it: network order in memory, for comparing and hashing.
#[inline(always)]
pub fn word<const N: usize>(bytes: &[u8; N], offset: usize) -> u32 {
    match bytes.get(offset..).and_then(|b| b.first_chunk::<4>()) {
        Some(b) => u32::from_ne_bytes(*b),
        None => 0,
    }
}

/// Four such words: an IPv6 address.
#[inline(always)]
pub fn words<const N: usize>(bytes: &[u8; N], offset: usize) -> [u32; 4] {
    [word(bytes, offset), word(bytes, offset + 4), word(bytes, offset + 8), word(bytes, offset + 12)]
}

/// Writes `value` at `offset`; nothing when it does not fit (never, with the constant offsets used).
#[inline(always)]
pub fn put<const N: usize, const L: usize>(bytes: &mut [u8; N], offset: usize, value: &[u8; L]) {
    if let Some(room) = bytes.get_mut(offset..).and_then(|b| b.first_chunk_mut::<L>()) {
        *room = *value;
    }
}

/// Writes an IPv6 address kept as words.
#[inline(always)]
pub fn put_words<const N: usize>(bytes: &mut [u8; N], offset: usize, value: [u32; 4]) {
    put(bytes, offset, &value[0].to_ne_bytes());
    put(bytes, offset + 4, &value[1].to_ne_bytes());
    put(bytes, offset + 8, &value[2].to_ne_bytes());
    put(bytes, offset + 12, &value[3].to_ne_bytes());
}

/// A MAC address in registers. Copying bytes from one place of a frame to another would become a `memmove`, which BPF
/// does not have; integers do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac {
    high: u32,
    low: u16,
}

impl Mac {
    /// From its six bytes.
    #[inline(always)]
    pub fn new(bytes: [u8; 6]) -> Self {
        Self { high: word(&bytes, 0), low: half(&bytes, 4) }
    }

    /// Reads the one at `offset`.
    #[inline(always)]
    pub fn read<const N: usize>(bytes: &[u8; N], offset: usize) -> Self {
        Self { high: word(bytes, offset), low: half(bytes, offset + 4) }
    }

    /// Writes it at `offset`.
    #[inline(always)]
    pub fn put<const N: usize>(self, bytes: &mut [u8; N], offset: usize) {
        put(bytes, offset, &self.high.to_ne_bytes());
        put(bytes, offset + 4, &self.low.to_ne_bytes());
    }
}

/// The 16-bit word at `offset` as the CPU loads it.
#[inline(always)]
pub fn half<const N: usize>(bytes: &[u8; N], offset: usize) -> u16 {
    match bytes.get(offset..).and_then(|b| b.first_chunk::<2>()) {
        Some(b) => u16::from_ne_bytes(*b),
        None => 0,
    }
}
