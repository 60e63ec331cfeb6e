//! VIPs, ports, services and slots.

/// One service. One cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// First slot of the Maglev table in `SLOTS`, a multiple of four.
    pub table_base: u32,
    /// Length of the table in slots; 0 = no table.
    pub table_slots: u32,
    /// First record of the members in `BACKENDS`.
    pub backend_base: u32,
    /// Number of member records.
    pub backend_count: u32,
    /// What one packet costs in rate-limit time units; 0 = unlimited.
    pub limit_cost: u32,
    /// How far ahead of the clock a source may get, in rate-limit time units.
    pub limit_tolerance: u32,
    /// [`affinity`].
    pub affinity: u8,
    /// [`service_flags`].
    pub flags: u8,
    /// Seconds after which a flow that was not seen is forgotten, and a slot without exceptions is settled; 1 to 7,200.
    pub settle: u16,
    /// The service's number: keys its rate-limit buckets.
    pub id: u32,
    /// [`tracking`].
    pub tracking: u8,
    #[doc(hidden)]
    pub _pad: [u8; 3],
    #[doc(hidden)]
    pub _reserved: [u32; 5],
    /// Protocols and ports ([`sole_port`]), if there are at most two and VIPs lead here by [`vip_flags::SOLE`]; 0 = none.
    pub sole: [u32; 2],
}

/// What user space needs to recognise a service after a restart. Never read by the datapath.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceInfo {
    /// Keyed digest of the service's name; 0 = unused.
    pub identity: u64,
    #[doc(hidden)]
    pub _reserved: [u64; 3],
}

/// Values of [`Service::affinity`].
pub mod affinity {
    /// Source and destination address.
    pub const ADDRESSES: u8 = 0;
    /// Source address.
    pub const SOURCE: u8 = 1;
    /// Source and destination address, source and destination port, protocol.
    pub const FLOW: u8 = 2;
    /// The server that the QUIC connection ID names; where it names none, the same as [`FLOW`].
    pub const QUIC: u8 = 3;
}

/// Values of [`Service::tracking`].
pub mod tracking {
    /// Flows of slots that are not settled.
    pub const CHANGES: u8 = 0;
    /// Every flow.
    pub const ALWAYS: u8 = 1;
    /// None: the table alone decides.
    pub const NEVER: u8 = 2;
}

/// Bits of [`Service::flags`].
pub mod service_flags {
    /// The burst is too small for the coarse clock: read the fine one (34 ns more).
    pub const LIMIT_FINE_CLOCK: u8 = 1;
    /// Packets of TCP name the candidates of their slot.
    pub const CANDIDATES: u8 = 2;
    /// TCP connections whose member is not alive are answered with a reset.
    pub const RESET_LOST: u8 = 4;
}

/// A cell of `VIPS6`; `vip` 0 = empty.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vip6 {
    /// Address, network byte order, as four words of memory.
    pub address: [u32; 4],
    /// VIP number in the low 16 bits, [`vip_flags`] above.
    pub vip: u32,
    #[doc(hidden)]
    pub _pad: u32,
}

/// Bits of a VIP's flags.
pub mod vip_flags {
    /// Some service of this VIP takes any port: a miss of the exact port looks again with port 0.
    pub const ANY_PORT: u16 = 1;
    /// Some service of this VIP takes every protocol.
    pub const ANY_PROTOCOL: u16 = 2;
    /// The VIP has one service with at most two ports: the VIP number is the service's, and its record names the ports.
    pub const SOLE: u16 = 4;
}

/// A cell of `VIPS4`: `address(32) | flags(16) | vip(16)`; 0 = empty. The address is the network-order word as the
/// CPU loads it.
pub mod vip_entry {
    /// Makes a cell.
    pub const fn new(address: u32, vip: u16, flags: u16) -> u64 {
        (address as u64) << 32 | (flags as u64) << 16 | vip as u64
    }
    /// The address of a cell.
    pub const fn address(cell: u64) -> u32 {
        (cell >> 32) as u32
    }
    /// Flags and VIP number of a cell.
    pub const fn vip(cell: u64) -> u32 {
        cell as u32
    }
}

/// A protocol and a port in [`Service::sole`]: `1(1) | protocol(15) | port(16)`. Never 0, which stands for none, even
/// for protocol 0, which packets can have.
pub const fn sole_port(protocol: u8, port: u16) -> u32 {
    1 << 31 | (protocol as u32) << 16 | port as u32
}

/// Key of the port table for fragments of TCP or UDP: there if all of the VIP's ports of this protocol belong to one
/// service whose affinity needs no port. Protocol 255 is reserved and has no ports.
pub const fn fragments_key(vip: u16, protocol: u8) -> u64 {
    port_key(vip, 255, protocol as u16)
}

/// Key of the port table: `vip(16) | protocol(8) | port(16)`, 40 bits.
pub const fn port_key(vip: u16, protocol: u8, port: u16) -> u64 {
    (vip as u64) << 24 | (protocol as u64) << 16 | port as u64
}

/// Key of the port table for a server ID, 1 to 65,535, of a service with this number. No packet has such a key:
/// protocol 254 has no ports and is looked up with port 0.
pub const fn server_key(service: u16, server: u16) -> u64 {
    port_key(service, 254, server)
}

/// A cell of `PORTS`: `key(40) | service(24)`; 0 = empty. With a key of [`server_key`] the service is a member index.
pub mod port_entry {
    /// Makes a cell; `service` has 24 bits.
    pub const fn new(key: u64, service: u32) -> u64 {
        key << 24 | service as u64
    }
    /// The key of a cell.
    pub const fn key(cell: u64) -> u64 {
        cell >> 24
    }
    /// The service of a cell.
    pub const fn service(cell: u64) -> u32 {
        cell as u32 & 0xff_ffff
    }
}

/// A Maglev slot: `state(2) | member(14)`.
pub mod slot {
    /// Mask of the state.
    pub const STATE: u16 = 0xc000;
    /// The owner has been the same for longer than any flow: no look-up.
    pub const SETTLED: u16 = 0;
    /// The owner changed a moment ago.
    pub const UNSETTLED: u16 = 0x4000;
    /// Settled, but for flows that live longer than that on another member.
    pub const EXCEPTIONS: u16 = 0x8000;
    /// Mask of the member.
    pub const MEMBER: u16 = 0x3fff;
    /// Member value of a slot without an owner.
    pub const EMPTY: u16 = 0x3fff;
    /// Most members of one service.
    pub const MAX_MEMBERS: usize = EMPTY as usize;
}

const _: () = assert!(size_of::<Service>() == 64 && align_of::<Service>() == 4);
const _: () = assert!(size_of::<ServiceInfo>() == 32);
const _: () = assert!(size_of::<Vip6>() == 24 && align_of::<Vip6>() == 4);
