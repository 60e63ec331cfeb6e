//! `lb man`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory};
use clap_mangen::Man as Page;

use super::{args::Cli, context::Context, exit::Failure};

/// Print the manual page, or write one for each verb.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Write lb.1, lb-run.1 and so on into this directory instead
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let command = Cli::command();
        if let Some(dir) = &self.out {
            return std::fs::create_dir_all(dir)
                .and_then(|()| clap_mangen::generate_to(command, dir))
                .with_context(|| format!("cannot write manual pages to {}", dir.display()))
                .map_err(Failure::Failed);
        }
        let mut page = Vec::new();
        Page::new(command).render(&mut page).map_err(|e| Failure::Failed(e.into()))?;
        cx.out.data(page)
    }
}
