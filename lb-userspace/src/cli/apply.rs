//! `lb apply`, `lb plan`, `lb confirm`, `lb rollback`, `lb history` and `lb diff`.

use std::path::PathBuf;

use clap::Args;
use hyper::Method;

use super::{change_view, context::Context, exit::Failure, how::How};
use crate::{
    api::{Diff, History, Rollback},
    config::read_text,
};

/// Make the daemon apply its configuration file, or another one in its place.
///
/// FILE replaces the daemon's file as a whole. Without FILE the daemon's own file is applied as it is on disk.
#[derive(Debug, Args)]
pub(super) struct Apply {
    /// A file whose text replaces that of the daemon's file
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only if what is in force still has this digest (from `GET /v1/config`)
    #[arg(long, value_name = "DIGEST", requires = "file")]
    base: Option<String>,
    #[command(flatten)]
    how: How,
}

/// Say what applying a file would do: slots and flows that move, and memory. Changes nothing.
#[derive(Debug, Args)]
pub(super) struct Plan {
    /// The file; absent: the daemon's own as it is on disk
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Bring back what was in force before the last change, or any state of the history.
#[derive(Debug, Args)]
pub(super) struct Back {
    /// Number of a record, from `lb history`; absent: the one before the last
    #[arg(value_name = "N")]
    to: Option<u64>,
    #[command(flatten)]
    how: How,
}

/// Show what differs between the file and what is in force, or between records of the history.
#[derive(Debug, Args)]
pub(super) struct Differ {
    /// Number of a record, from `lb history`; absent: what is in force
    #[arg(value_name = "FROM")]
    from: Option<u64>,
    /// Number of a record; absent: the file as it is on disk
    #[arg(value_name = "TO")]
    to: Option<u64>,
}

impl Apply {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        apply(cx, self.file.as_ref(), self.base.as_deref(), &self.how)
    }
}

impl Plan {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        apply(cx, self.file.as_ref(), None, &How::planned())
    }
}

fn apply(cx: &mut Context<'_>, file: Option<&PathBuf>, base: Option<&str>, how: &How) -> Result<(), Failure> {
    let Some(file) = file else { return cx.change::<()>(&Method::POST, "/v1/reload", None, how) };
    let text = read_text(file).map_err(|error| Failure::Failed(error.into()))?;
    let answer = cx.client().call_with_text(&Method::PUT, &how.path("/v1/config", base), text)?;
    cx.changed(&answer, how)
}

impl Back {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        cx.change(&Method::POST, "/v1/rollback", Some(&Rollback { to: self.to }), &self.how)
    }
}

impl Differ {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let pairs = [("from", self.from), ("to", self.to)];
        let query: Vec<String> =
            pairs.iter().filter_map(|(key, number)| Some(format!("{key}={}", (*number)?))).collect();
        let path = if query.is_empty() { "/v1/diff".into() } else { format!("/v1/diff?{}", query.join("&")) };
        cx.show(&path, |diff: &Diff, look| change_view::diff(diff, look))
    }
}

pub(super) fn confirm(cx: &mut Context<'_>) -> Result<(), Failure> {
    cx.change::<()>(&Method::POST, "/v1/confirm", None, &How::default())
}

pub(super) fn history(cx: &mut Context<'_>) -> Result<(), Failure> {
    cx.show("/v1/history", |history: &History, look| change_view::history(history, look))
}
