//! The laboratory itself: worlds that connect, servers that answer, guards that leave nothing behind.
//!
//! Needs root, and no balancer: what fails here is the test bench and not what it tests.

#[cfg(test)]
#[path = "laboratory/guards.rs"]
mod guards;
#[cfg(test)]
#[path = "laboratory/program.rs"]
mod program;
#[cfg(test)]
#[path = "laboratory/servers.rs"]
mod servers;
#[cfg(test)]
#[path = "laboratory/worlds.rs"]
mod worlds;
