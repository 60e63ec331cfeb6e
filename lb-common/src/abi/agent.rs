//! What an agent is told besides VIPs and sources.

/// `AGENT_SETTINGS[0]`. Written by user space only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentSettings {
    /// Destination port of GUE, host byte order; 0: none is taken out.
    pub gue_port: u16,
    #[doc(hidden)]
    pub _reserved: [u16; 7],
}

/// A value of `PEERS`: the way to another backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Destination and source MAC, as in [`super::Backend::macs`].
    pub macs: [u32; 3],
    /// Egress interface; 0: the way is not known.
    pub ifindex: u32,
    /// Largest IP packet that fits the way.
    pub mtu: u32,
}

const _: () = assert!(size_of::<Peer>() == 20 && align_of::<Peer>() == 4);
const _: () = assert!(size_of::<AgentSettings>() == 16 && align_of::<AgentSettings>() == 2);
