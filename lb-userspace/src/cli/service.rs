//! `lb service`.

use clap::Subcommand;

use super::{context::Context, exit::Failure, view};
use crate::api::{client::path_of, types::Services};

/// Show services.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// One line per service
    #[command(visible_alias = "ls")]
    List,
    /// Everything about one service
    Show {
        /// Name of the service
        #[arg(value_name = "SERVICE")]
        service: String,
    },
}

impl Verb {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        match self {
            Self::List => cx.show("/v1/services", |s: &Services, look| view::services(&s.services, look)),
            Self::Show { service } => cx.show(&path_of(&["v1", "services", service]), view::service),
        }
    }
}
