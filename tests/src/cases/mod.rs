//! The table of packet cases, and what runs it.
//!
//! A row is a sentence, a world, a frame and what must become of it. Every row runs through the pipeline on the host
//! ([`host`]) and through the loaded programs ([`kernel`]); verdict, bytes and counters must be those of the row in
//! both. To add a case, add a row to a file of [`rows`]; `docs/packet-path.md` names one row for each Reason.

pub mod agent;
pub mod case;
pub mod cast;
pub mod chain;
pub mod check;
pub mod expect;
pub mod host;
pub mod invariants;
pub mod kernel;
pub mod machine;
pub mod page;
pub mod routes;
pub mod rows;
pub mod site;
pub mod worlds;
