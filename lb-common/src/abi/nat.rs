//! Network address translation: what the way back needs.

/// A cell of `REPLIES`: packets of this protocol from this port of a backend are answers of that VIP. Two-choice hashing,
/// the whole key is compared.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Address of the backend, words of memory; IPv4 in the first.
    pub backend: [u32; 4],
    /// The VIP that clients talk to, same form and family.
    pub vip: [u32; 4],
    /// Port of the backend, as a word of memory; 0 = any port.
    pub port: u16,
    /// Port of the VIP, as a word of memory; 0 = the backend's.
    pub vip_port: u16,
    /// Protocol number; 0 = empty cell.
    pub protocol: u8,
    #[doc(hidden)]
    pub _pad: [u8; 3],
}

const _: () = assert!(size_of::<Reply>() == 40 && align_of::<Reply>() == 4);
