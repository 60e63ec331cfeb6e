//! The datapath from user space: loading, attaching, pinning, and writing generations.

mod adopt;
mod agent;
mod attach;
mod cells;
mod census;
mod counters;
mod drift;
mod error;
mod extent;
mod grace;
mod host;
mod install;
mod load;
mod lock;
mod lookup_tables;
mod memory;
mod migrate;
#[cfg(test)]
mod oracle;
mod peek;
mod pins;
mod records;
mod region;
mod resize;
mod room;
mod spec;
mod sweep;
#[cfg(test)]
mod tests;
mod unlink;

pub use adopt::{Adopted, AdoptedMember, AdoptedService};
pub use agent::{AgentMaps, AgentView, Way};
pub use attach::{
    Attachment, PinnedProgram, attach, balancer, forget_interface, pinned_program, set_interface,
};
pub use counters::{flow_events, forwarded, reasons, reset};
pub use error::DataplaneError;
pub use grace::Grace;
pub use host::{HostPacket, HostTables, HostWord};
pub use install::{Installation, Installer};
pub use load::{Loaded, load};
pub use lock::InstanceLock;
pub use memory::{Capacity, Clock, Memory};
pub use migrate::{Migrated, migrate};
pub use peek::desired_in_force;
pub use pins::{Pins, Removed};
pub use region::Region;
pub use resize::{Beside, recover};
pub use room::{InstallError, Room};
pub use sweep::Swept;

/// The balancer's program and maps.
pub static BALANCER_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/balancer"));
/// Programs of the laboratory: nothing that `lb` runs.
pub static HARNESS_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/harness"));
/// The agent's program and maps.
pub static AGENT_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agent"));
