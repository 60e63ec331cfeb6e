//! `lb check`.

use std::path::PathBuf;

use clap::Args;

use super::{context::Context, exit::Failure};
use crate::api::words::plural;

/// Validate a configuration and print it with every default written out.
///
/// Changes nothing and asks no daemon. Problems are named with file, line and column.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

impl Check {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let checked = (cx.hooks.check)(&self.config).map_err(Failure::Config)?;
        if cx.out.json {
            return cx.out.data(checked.json.to_string());
        }
        cx.out.data(&checked.toml)?;
        let n = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        cx.out.remark(&format!(
            "{} is valid: {}, {}",
            self.config.display(),
            plural(n(checked.services), "service"),
            plural(n(checked.backends), "backend"),
        ));
        Ok(())
    }
}
