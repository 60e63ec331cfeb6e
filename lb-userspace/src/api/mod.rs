//! The HTTP + JSON interface of a running daemon: types, router, listeners, and the client that the CLI uses.
//!
//! `docs/api.md` is the contract; a test demands that it names every field of these types. The daemon implements
//! [`Control`]; nothing here knows how. Depends on `config` for the words that file and API share, on nothing else
//! of ours.

pub mod change;
pub mod client;
pub mod control;
pub mod error;
mod extract;
#[cfg(test)]
pub(crate) mod fake;
pub mod metrics;
mod page;
mod public;
mod router;
pub mod server;
#[cfg(test)]
mod tests;
pub mod types;
pub mod words;

pub use change::{BackendPatch, Change, NewBackend};
pub use client::{Client, ClientError};
pub use control::{Control, Reply};
pub use error::{ApiError, Kind, Problem};
pub use server::{ServeError, TcpServer, UnixServer, serve_tcp, serve_unix};
pub use types::{
    AgentInfo, BackendState, BackendStatus, FlowTable, InterfaceMode, InterfaceStatus, ServiceStatus, Status,
    Timestamp,
};
