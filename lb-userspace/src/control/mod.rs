//! What should be in the datapath: from configuration, health and next hops to a snapshot that can be installed.

mod arith;
mod candidates;
pub mod desired;
pub mod identity;
pub mod maglev;
pub mod mass;
pub mod model;
pub mod past;
pub mod plan;
pub mod prime;
mod race;
pub mod reconcile;
pub mod rendezvous;
pub mod settling;
mod share;
pub mod slow_start;
pub mod table;
