//! `lb backend drain --wait`: until no flow is left on the backend.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use clap::Args;
use hyper::Method;
use serde::Serialize;

use super::{backend::Target, context::Context, exit::Failure};
use crate::{
    api::{
        BackendPatch, BackendState,
        types::{BackendRow, Backends},
    },
    config::{AdminState, format_duration, parse_duration},
};

/// Between two looks; the daemon counts once a second while a backend drains.
const PAUSE: Duration = Duration::from_secs(1);
/// So long nothing may have been seen of any flow before none is left, unless the user says otherwise.
const QUIET: &str = "30s";
/// No shorter: two counts of the daemon must lie in it.
const LEAST_QUIET: Duration = Duration::from_secs(3);

/// Drain a backend.
#[derive(Debug, Args)]
pub(super) struct Drain {
    #[command(flatten)]
    target: Target,
    /// Wait until no flow is left, at most this long ("10m"); exit 0 only then
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// None is left when none was known for this long: a connection is known from the first packet it sends while its
    /// backend drains (at least 3s)
    #[arg(long, value_name = "DURATION", requires = "wait", default_value = QUIET, value_parser = duration)]
    quiet: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|e| e.to_string())
}

/// The last line with `--json`.
#[derive(Serialize)]
struct Ended<'a> {
    drained: bool,
    waited_seconds: u64,
    backends: &'a [Left],
}

/// Flows that a backend still has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Left {
    service: String,
    name: String,
    flows: u64,
}

impl Drain {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let path = self.target.path()?;
        let how = &self.target.how;
        cx.change(&Method::PATCH, &path, Some(&BackendPatch::state(AdminState::Drain)), how)?;
        match self.wait {
            Some(limit) if !how.is_plan() => self.wait(cx, limit),
            _ => Ok(()),
        }
    }

    fn wait(&self, cx: &mut Context<'_>, limit: Duration) -> Result<(), Failure> {
        let start = Instant::now();
        let quiet = self.quiet.max(LEAST_QUIET);
        let mut shown: Option<Vec<Left>> = None;
        let mut none_since: Option<Instant> = None;
        loop {
            let left = self.left(cx)?;
            if shown.as_ref() != Some(&left) {
                progress(cx, &left, shown.as_deref(), limit.saturating_sub(start.elapsed()))?;
                shown = Some(left.clone());
            }
            let now = Instant::now();
            none_since = left.iter().all(|l| l.flows == 0).then(|| none_since.unwrap_or(now));
            let drained = none_since.is_some_and(|since| now - since >= quiet);
            if drained || start.elapsed() >= limit {
                return ended(cx, drained, &left, start.elapsed(), limit);
            }
            thread::sleep(PAUSE.min(limit.saturating_sub(start.elapsed())));
        }
    }

    /// What is left on each of the backends.
    fn left(&self, cx: &Context<'_>) -> Result<Vec<Left>, Failure> {
        let all: Backends = cx.client().get("/v1/backends")?.json()?;
        let meant: Vec<BackendRow> = all
            .backends
            .into_iter()
            .filter(|row| self.target.means(&row.service, &row.backend.name))
            .collect();
        if meant.is_empty() {
            return Err(Failure::Failed(anyhow!("the backend was removed while it was waited for")));
        }
        meant.into_iter().map(left).collect()
    }
}

fn left(row: BackendRow) -> Result<Left, Failure> {
    let BackendRow { service, backend } = row;
    let name = backend.name;
    if !matches!(backend.state, BackendState::Draining) {
        let state = backend.state.word();
        return Err(Failure::Failed(anyhow!(
            "{service}/{name} is {state}, not draining: somebody changed it"
        )));
    }
    let Some(flows) = backend.flows else {
        return Err(Failure::Failed(anyhow!(
            "the flows of {service}/{name} are not known (tracking = \"never\", or more than 255 services): it \
             drains, but there is nothing to wait for"
        )));
    };
    Ok(Left { service, name, flows })
}

/// One line for each figure that has changed.
fn progress(
    cx: &mut Context<'_>,
    left: &[Left],
    before: Option<&[Left]>,
    time: Duration,
) -> Result<(), Failure> {
    if cx.out.json {
        return Ok(());
    }
    for (i, now) in left.iter().enumerate() {
        let earlier = before.and_then(|b| b.get(i)).map(|l| l.flows);
        if earlier == Some(now.flows) {
            continue;
        }
        let change = earlier.map_or(String::new(), |e| {
            let sign = if now.flows < e { '-' } else { '+' };
            format!(" ({sign}{})", now.flows.abs_diff(e))
        });
        let time = format_duration(Duration::from_secs(time.as_secs()));
        cx.out.data(format!("{}/{}: {} flows{change}, {time} left", now.service, now.name, now.flows))?;
    }
    Ok(())
}

fn ended(
    cx: &mut Context<'_>,
    drained: bool,
    left: &[Left],
    waited: Duration,
    limit: Duration,
) -> Result<(), Failure> {
    let waited_seconds = waited.as_secs();
    if cx.out.json {
        let ended = Ended { drained, waited_seconds, backends: left };
        let text = serde_json::to_string(&ended).map_err(|e| Failure::Failed(e.into()))?;
        cx.out.data(text)?;
    } else if drained {
        cx.out.data(format!("drained: no flow is left, after {waited_seconds} s"))?;
    }
    if drained {
        return Ok(());
    }
    let flows: u64 = left.iter().map(|l| l.flows).sum();
    let what = match flows {
        0 => "no flow is known, but not for long enough (--quiet)".to_owned(),
        n => format!("{n} flows are left"),
    };
    Err(Failure::Failed(anyhow!("{what} after {}: it goes on draining", format_duration(limit))))
}
