//! `lb completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{args::Cli, context::Context, exit::Failure};

/// Print a completion script for a shell.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        // Into memory first: the generator panics when its writer fails.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "lb", &mut script);
        cx.out.data(script)
    }
}
