//! Counters and interfaces.

/// Packets and bytes (Ethernet header to the end of the frame, as received). Per CPU; never reset.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets forwarded.
    pub packets: u64,
    /// Bytes forwarded.
    pub bytes: u64,
}

/// An interface that the program is attached to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its MAC address.
    pub mac: [u8; 6],
    #[doc(hidden)]
    pub _pad: [u8; 2],
}

const _: () = assert!(size_of::<Counter>() == 16);
const _: () = assert!(size_of::<Interface>() == 8);
