//! The HTTP + JSON interface of a running daemon: types, router, listeners, and the client that the CLI uses.
//!
//! `docs/api.md` is the contract; a test demands that it names every field of these types. The daemon implements
//! [`Control`]; nothing here knows how. Depends on `config` for the words that file and API share, on nothing else
//! of ours.

pub mod change;
mod changes;
pub mod client;
pub mod control;
pub mod error;
mod extract;
#[cfg(test)]
pub(crate) mod fake;
pub mod metrics;
mod page;
pub mod plan;
mod public;
mod router;
pub mod server;
#[cfg(test)]
mod tests;
pub mod transaction;
pub mod types;
pub mod words;

pub use change::{BackendPatch, Change, NewBackend};
pub use client::{Client, ClientError};
pub use control::{Control, Reply};
pub use error::{ApiError, Kind, Problem};
pub use plan::{Diff, History, InForce, MemoryPlan, Pending, Plan, Record, ServicePlan};
pub use server::{ServeError, TcpServer, UnixServer, serve_tcp, serve_unix};
pub use transaction::{Author, Edit, Edits, NewService, Options, Rollback, Transaction, Via, What};
pub use types::{
    AgentInfo, BackendState, BackendStatus, FlowTable, InterfaceMode, InterfaceStatus, ServiceStatus, Status,
    Timestamp,
};
