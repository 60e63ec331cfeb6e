//! Backends that are not ready, do not answer, and come back: who moves, who does not, and when.

#[cfg(test)]
#[path = "readiness/failures.rs"]
mod failures;
#[cfg(test)]
#[path = "readiness/mass.rs"]
mod mass;
#[cfg(test)]
#[path = "readiness/scene.rs"]
mod scene;
#[cfg(test)]
#[path = "readiness/tls.rs"]
mod tls;
#[cfg(test)]
#[path = "readiness/under_load.rs"]
mod under_load;
