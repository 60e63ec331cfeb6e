//! Backends: where packets go and the ready-made next hop.

/// One member of one service. One cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Address, network byte order, as words of memory; IPv4 in the first word.
    pub address: [u32; 4],
    /// Source of the outer header, same form and family as `address`.
    pub source: [u32; 4],
    /// Destination and source MAC, as the Ethernet header has them, in words of memory: a copy of bytes from map to
    /// packet would become a `memmove`, which BPF does not have.
    pub macs: [u32; 3],
    /// Egress interface.
    pub ifindex: u32,
    /// Element of `COUNTERS`.
    pub counter: u32,
    /// Sum (not complemented) of the words of the outer IPv4 header that never change: addresses and 0x4500, 0x4000.
    pub outer_sum: u32,
    /// Largest IP packet that fits the way to the backend, outer header included.
    pub mtu: u16,
    /// [`forward`].
    pub forward: u8,
    /// [`backend_flags`].
    pub flags: u8,
    /// GUE: destination port of UDP outside, host byte order. NAT: port on the backend, as a word of memory; 0 = the port
    /// that the client named.
    pub port: u16,
    #[doc(hidden)]
    pub _reserved: u16,
}

/// What user space needs to recognise a member after a restart. Never read by the datapath.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendInfo {
    /// Keyed digest of the backend's name and address; 0 = unused.
    pub identity: u64,
    /// `CLOCK_REALTIME` seconds of the last health change.
    pub since: u64,
    /// Health: 0 unknown, 1 ready, 2 not ready, 3 failed.
    pub health: u8,
    #[doc(hidden)]
    pub _reserved: [u8; 15],
}

/// Values of [`Backend::forward`].
pub mod forward {
    /// MAC rewrite.
    pub const L2: u8 = 0;
    /// IP-in-IP with an IPv4 outer header (RFC 2003, RFC 4213).
    pub const IPIP4: u8 = 1;
    /// IP-in-IP with an IPv6 outer header (RFC 2473).
    pub const IPIP6: u8 = 2;
    /// Generic UDP Encapsulation with an IPv4 outer header.
    pub const GUE4: u8 = 3;
    /// Generic UDP Encapsulation with an IPv6 outer header.
    pub const GUE6: u8 = 4;
    /// Network address translation towards an IPv4 backend.
    pub const NAT4: u8 = 8;
    /// Network address translation towards an IPv6 backend.
    pub const NAT6: u8 = 9;
}

/// Bits of [`Backend::flags`].
pub mod backend_flags {
    /// MACs and interface are valid.
    pub const RESOLVED: u8 = 1;
    /// Flows that were there before may still go to it: not failed, not down, not removed.
    pub const ALIVE: u8 = 2;
}

const _: () = assert!(size_of::<Backend>() == 64 && align_of::<Backend>() == 4);
const _: () = assert!(core::mem::offset_of!(Backend, macs) == 32);
const _: () = assert!(core::mem::offset_of!(Backend, ifindex) == 44);
const _: () = assert!(size_of::<BackendInfo>() == 32);
