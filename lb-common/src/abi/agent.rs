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

const _: () = assert!(size_of::<AgentSettings>() == 16 && align_of::<AgentSettings>() == 2);
