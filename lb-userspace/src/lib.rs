//! User space of `lb`: configuration, control, health, the loader of the XDP programs, the daemon and the CLI.
//!
//! Who may depend on whom (checked by the `structure` suite, drawn in `docs/architecture.md`):
//! `cli` → `api`, `config`; `daemon` → everything but `cli`; `agent` → `api`, `config`, `dataplane`, `net`;
//! `dataplane` → `control::model`, `lb_common`; `health`, `net`, `control` → `config`; `config` → nothing of ours.

pub mod agent;
pub mod api;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod health;
pub mod net;
pub mod quic;
