//! From the file as written to values that are in range, with every problem of the file reported.
//!
//! A value that is wrong is reported and replaced by a stand-in, so that the rest is still checked. Stand-ins never
//! leave this module: one problem, and the whole file is refused.

mod cross;
mod daemon;
mod field;
mod health;
mod nat;
mod quic;
mod service;
mod words;

use std::sync::Arc;

use super::{
    problem::Problems,
    raw::RawConfig,
    types::{Config, Daemon},
};

/// Interprets a file. The result may be used only if `problems` stayed empty.
pub(super) fn resolve<'a>(problems: &Problems<'a>, raw: &RawConfig<'a>) -> Config {
    let drafts: Vec<_> = raw.services.iter().map(service::resolve).collect();
    cross::check(problems, &drafts);
    nat::check_all(problems, &drafts);
    let quic = quic::resolve(&raw.quic);
    quic::check(&quic, &drafts);
    Config {
        daemon: raw.daemon.as_ref().map_or_else(Daemon::default, daemon::resolve_daemon),
        quic,
        services: drafts.into_iter().map(|draft| Arc::new(draft.service)).collect(),
        agent: raw.agent.as_ref().map(daemon::resolve_agent),
    }
}

#[cfg(test)]
pub(super) use cross::cost_of_overlaps;
