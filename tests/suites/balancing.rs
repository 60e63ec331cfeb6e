//! Real connections through the balancer: every way of forwarding, every kind of service, every kind of world.
//!
//! Everybody is answered, every client address by one backend, and the client addresses are spread as chance would.

#[cfg(test)]
#[path = "balancing/announce.rs"]
mod announce;
#[cfg(test)]
#[path = "balancing/forwarding.rs"]
mod forwarding;
#[cfg(test)]
#[path = "balancing/instances.rs"]
mod instances;
#[cfg(test)]
#[path = "balancing/nat.rs"]
mod nat;
#[cfg(test)]
#[path = "balancing/path_mtu.rs"]
mod path_mtu;
#[cfg(test)]
#[path = "balancing/quic.rs"]
mod quic;
#[cfg(test)]
#[path = "balancing/services.rs"]
mod services;
