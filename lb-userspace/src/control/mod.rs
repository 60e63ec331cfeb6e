//! What should be in the datapath: from configuration, health and next hops to a snapshot that can be installed.

pub mod desired;
pub mod identity;
pub mod maglev;
pub mod model;
pub mod prime;
pub mod rendezvous;
pub mod settling;
pub mod table;
