//! The contract between the XDP programs and user space: what each map holds, byte by byte.
//!
//! Rules: `repr(C)`, explicit padding, no `bool`, no `enum`, no `Option`, no `usize`. Index 0 is never a valid VIP or
//! service. `docs/abi.md` is the same contract for people; the `abi` suite compares both with the built object.
//!
//! **How user space replaces things.** Nothing that a running program may read is changed in place if it is wider than
//! eight bytes. New VIPs, ports, services, backends and slots are written where no program looks, a [`Globals`] that
//! points at them is written into the unused one of its two places, and then one 32-bit store to
//! [`Control::generation`] switches all of it at once. What was replaced is reused after an RCU grace period.

mod agent;
mod backend;
mod control;
mod counter;
mod nat;
#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "aya::Pod is an unsafe trait; each impl says why it holds")]
mod pod;
mod quic;
mod reason;
mod service;

pub use agent::{AgentSettings, Peer};
pub use backend::{Backend, BackendInfo, backend_flags, forward};
pub use control::{Control, Globals, globals_flags};
pub use counter::{Counter, Interface};
pub use nat::Reply;
pub use quic::{QuicConfig, quic_config};
pub use reason::{Outcome, Reason};
pub use service::{
    Service, ServiceInfo, Vip6, affinity, fragments_key, port_entry, port_key, server_key, service_flags,
    slot, sole_port, tracking, vip_entry, vip_flags,
};

/// Version of everything in this module. Part of the pin directory's name.
pub const ABI_VERSION: u32 = 2;

/// The oldest version whose maps a daemon takes over: what they lack is made, the rest means what it meant.
pub const OLDEST_ABI_VERSION: u32 = 1;

/// Names of the maps: at most 15 characters, because the kernel keeps no more.
pub mod maps {
    /// `Control`, one element.
    pub const CONTROL: &str = "CONTROL";
    /// `Globals`, two elements, chosen by the lowest bit of the generation.
    pub const GLOBALS: &str = "GLOBALS";
    /// IPv4 VIPs: `u64` cells, see [`super::vip_entry`].
    pub const VIPS4: &str = "VIPS4";
    /// IPv6 VIPs: [`super::Vip6`] cells.
    pub const VIPS6: &str = "VIPS6";
    /// (VIP, protocol, port) → service: `u64` cells, see [`super::port_entry`].
    pub const PORTS: &str = "PORTS";
    /// [`super::Service`] records.
    pub const SERVICES: &str = "SERVICES";
    /// [`super::ServiceInfo`], same index as `SERVICES`; the datapath never reads it.
    pub const SERVICE_INFO: &str = "SERVICE_INFO";
    /// Arena of Maglev slots: four `u16` in each `u64` cell, slot 0 in the lowest bits.
    pub const SLOTS: &str = "SLOTS";
    /// Old owner and last exception of each slot, same index as `SLOTS`: two `u32` in each `u64` cell, see
    /// `datapath::track::meta`. Read only for slots that are not settled.
    pub const SLOT_META: &str = "SLOT_META";
    /// Candidates of each slot besides its owner, same index as `SLOTS`: three members of 16 bits, the likeliest lowest,
    /// [`super::slot::EMPTY`] for none. Read only for services that name candidates.
    pub const CANDIDATES: &str = "CANDIDATES";
    /// Flows: buckets of eight `u64`, see `datapath::track::entry`.
    pub const FLOWS: &str = "FLOWS";
    /// The flow table from before its size was changed, while flows are still moving out of it; else one bucket that
    /// nobody looks at.
    pub const FLOWS_OLD: &str = "FLOWS_OLD";
    /// [`super::Backend`] records.
    pub const BACKENDS: &str = "BACKENDS";
    /// [`super::BackendInfo`], same index as `BACKENDS`; the datapath never reads it.
    pub const BACKEND_INFO: &str = "BACKEND_INFO";
    /// Per-CPU [`super::Counter`] of forwarded packets; the index is in the backend's record.
    pub const COUNTERS: &str = "COUNTERS";
    /// Per-CPU `u64` by [`super::Reason`].
    pub const REASONS: &str = "REASONS";
    /// Per-CPU `u64` by `datapath::track::FlowEvent`: what happened in `FLOWS`.
    pub const FLOW_EVENTS: &str = "FLOW_EVENTS";
    /// Rate-limit buckets: eight `u64` each, see `datapath::limit`.
    pub const LIMITS: &str = "LIMITS";
    /// [`super::QuicConfig`] by codepoint, eight for each generation.
    pub const QUIC: &str = "QUIC";
    /// Interface index → [`super::Interface`].
    pub const INTERFACES: &str = "INTERFACES";
    /// What comes back from backends behind NAT without a pool: [`super::Reply`] cells.
    pub const REPLIES: &str = "REPLIES";
    /// Agent: outer sources that are believed (LPM, IPv4).
    pub const SOURCES4: &str = "SOURCES4";
    /// Agent: outer sources that are believed (LPM, IPv6).
    pub const SOURCES6: &str = "SOURCES6";
    /// Agent: inner destinations that are taken out of tunnels (16-byte key; IPv4 as `::ffff:a.b.c.d`).
    pub const AGENT_VIPS: &str = "AGENT_VIPS";
    /// Agent: other backends (16-byte key like `AGENT_VIPS`) and the way to each, [`super::Peer`].
    pub const PEERS: &str = "PEERS";
    /// Agent: [`super::AgentSettings`], one element.
    pub const AGENT_SETTINGS: &str = "AGENT_SETTINGS";
}

/// Eight entries of eight bytes: one cache line.
pub const BUCKET_ENTRIES: usize = 8;
