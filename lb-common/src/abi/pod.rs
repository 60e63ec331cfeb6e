//! `aya::Pod` for the map types, so that user space can read and write them.

use super::{
    AgentSettings, Backend, BackendInfo, Control, Counter, Globals, Interface, Peer, QuicConfig, Reply,
    Service, ServiceInfo, Vip6,
};

macro_rules! pod {
    ($($t:ty),* $(,)?) => { $(
        // SAFETY: `repr(C)`, `Copy`, every bit pattern is valid, and padding is spelt out as fields (asserted by the
        // sizes beside each type).
        unsafe impl aya::Pod for $t {}
    )* };
}

pod!(
    AgentSettings,
    Backend,
    BackendInfo,
    Control,
    Counter,
    Globals,
    Interface,
    Peer,
    QuicConfig,
    Reply,
    Service,
    ServiceInfo,
    Vip6
);
