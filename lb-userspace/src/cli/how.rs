//! Options of every verb that changes something.

use clap::Args;

use crate::{
    api::{Options, client::path_of, transaction::MAX_CONFIRM},
    config::parse_duration,
};

/// Heading of [`How`] in every help text.
const HOW: &str = "Options of every change";

/// How a change is made.
#[derive(Debug, Default, Args)]
pub(super) struct How {
    /// Say what would happen, and change nothing
    #[arg(long, help_heading = HOW)]
    plan: bool,
    /// Why, for the history
    #[arg(long, help_heading = HOW, value_name = "TEXT")]
    reason: Option<String>,
    /// Take the change back after this time (such as 60s) unless `lb confirm` keeps it
    #[arg(long, help_heading = HOW, value_name = "TIME", value_parser = seconds, conflicts_with = "plan")]
    confirm: Option<u64>,
}

impl How {
    /// Only to be planned.
    pub(super) fn planned() -> Self {
        Self { plan: true, ..Self::default() }
    }

    /// Whether nothing is to be changed.
    pub(super) fn is_plan(&self) -> bool {
        self.plan
    }

    /// The path with these options, and the digest that a text was made from.
    pub(super) fn path(&self, path: &str, base: Option<&str>) -> String {
        let Options { plan, reason, confirm, base } = Options {
            plan: self.plan,
            reason: self.reason.clone(),
            confirm: self.confirm,
            base: base.map(Into::into),
        };
        let value = |text: &str| path_of(&[text])[1..].to_owned();
        let pairs = [
            plan.then(|| "plan=true".to_owned()),
            reason.map(|reason| format!("reason={}", value(&reason))),
            confirm.map(|seconds| format!("confirm={seconds}")),
            base.map(|base| format!("base={}", value(&base))),
        ];
        let query: Vec<String> = pairs.into_iter().flatten().collect();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
    }
}

fn seconds(text: &str) -> Result<u64, String> {
    let time = parse_duration(text).map_err(|error| error.to_string())?;
    match time.as_secs() {
        0 => Err("expected at least 1s".into()),
        seconds if seconds > MAX_CONFIRM.as_secs() => Err("expected at most 24h".into()),
        seconds => Ok(seconds),
    }
}
