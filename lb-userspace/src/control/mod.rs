//! What should be in the datapath: from configuration, health and next hops to a snapshot that can be installed.

pub mod model;
