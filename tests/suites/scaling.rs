//! Backends that are added, removed, weighed, drained: who moves, what the file says afterwards, and what is refused.

#[cfg(test)]
#[path = "scaling/file.rs"]
mod file;
#[cfg(test)]
#[path = "scaling/moves.rs"]
mod moves;
#[cfg(test)]
#[path = "scaling/refusals.rs"]
mod refusals;
#[cfg(test)]
#[path = "scaling/transactions.rs"]
mod transactions;
