//! What switches generations, and what belongs to a generation as a whole.

/// `CONTROL[0]`. Written by user space only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Counts installed generations; its lowest bit says which element of `GLOBALS` is in force.
    pub generation: u32,
    /// [`super::ABI_VERSION`] of the writer.
    pub abi_version: u32,
    /// `CLOCK_REALTIME` seconds of the last switch.
    pub installed_at: u64,
    /// Digest of the desired state that this generation serves (first eight bytes of SHA-256), for adoption.
    pub desired_digest: u64,
    #[doc(hidden)]
    pub _reserved: [u64; 5],
}

/// `GLOBALS[generation & 1]`: where the tables of this generation are, and the hash key.
///
/// Bases and masks are in elements of the map they name; a mask is a power of two minus one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Globals {
    /// First IPv4 VIP cell.
    pub vip4_base: u32,
    /// Size of the IPv4 VIP table minus one.
    pub vip4_mask: u32,
    /// First IPv6 VIP cell.
    pub vip6_base: u32,
    /// Size of the IPv6 VIP table minus one.
    pub vip6_mask: u32,
    /// First port cell.
    pub port_base: u32,
    /// Size of the port table minus one.
    pub port_mask: u32,
    /// Element of `SERVICES` that service 0 would have (it has none).
    pub service_base: u32,
    /// [`globals_flags`].
    pub flags: u32,
    /// Key of the flow hash and of the tables' hashes, from the seed of the configuration.
    pub key: [u64; 4],
    /// Number of rate-limit buckets minus one.
    pub limit_mask: u32,
    /// Rate-limit time units per nanosecond, scaled by 2^20 (see `datapath::limit`).
    pub limit_time_mult: u32,
    /// Added to the scaled clock so that both clocks agree, in rate-limit time units.
    pub limit_time_offset: u64,
    /// Salt of the VIP and port tables: user space changes it until the table can be built.
    pub salt: u32,
    /// Number of flow buckets minus one.
    pub flow_mask: u32,
    /// Seconds per kernel tick, scaled by 2^32.
    pub seconds_mult: u32,
    /// First element of `QUIC`.
    pub quic_base: u32,
    /// Number of buckets of `FLOWS_OLD`, a power of two; 0 = no flow is there any more.
    pub flow_old: u32,
    #[doc(hidden)]
    pub _reserved: [u32; 5],
    /// First cell of `REPLIES`.
    pub reply_base: u32,
    /// Size of the table of replies minus one.
    pub reply_mask: u32,
}

/// Bits of [`Globals::flags`].
pub mod globals_flags {
    /// Answer ARP requests and neighbour solicitations for VIPs.
    pub const ANNOUNCE: u32 = 1;
    /// There are backends behind NAT without a pool: `REPLIES` knows what comes back from them.
    pub const REPLIES: u32 = 2;
}

const _: () = assert!(size_of::<Control>() == 64 && align_of::<Control>() == 8);
const _: () = assert!(size_of::<Globals>() == 128 && align_of::<Globals>() == 8);
const _: () = assert!(core::mem::offset_of!(Globals, key) == 32);
const _: () = assert!(core::mem::offset_of!(Globals, reply_base) == 120);
