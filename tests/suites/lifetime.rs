//! The datapath outlives the daemon: killed, stopped, started again, detached; and what a start refuses.

#[cfg(test)]
#[path = "lifetime/adoption.rs"]
mod adoption;
#[cfg(test)]
#[path = "lifetime/drift.rs"]
mod drift;
#[cfg(test)]
#[path = "lifetime/ends.rs"]
mod ends;
#[cfg(test)]
#[path = "lifetime/manager.rs"]
mod manager;
#[cfg(test)]
#[path = "lifetime/pinned.rs"]
mod pinned;
#[cfg(test)]
#[path = "lifetime/refusals.rs"]
mod refusals;
#[cfg(test)]
#[path = "lifetime/sizes.rs"]
mod sizes;
#[cfg(test)]
#[path = "lifetime/under_load.rs"]
mod under_load;
#[cfg(test)]
#[path = "lifetime/upgrade.rs"]
mod upgrade;
