//! `lb limit`.

use clap::Subcommand;
use hyper::Method;

use super::{context::Context, exit::Failure, how::How, view};
use crate::{
    api::{
        change::{MAX_BURST, MAX_RATE},
        client::path_of,
        types::{Limits, ServiceLimit},
    },
    config::Rate,
};

/// Show and change the packet limits per source.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show the limits of all services, or of one
    Show {
        /// Only this service
        #[arg(value_name = "SERVICE")]
        service: Option<String>,
    },
    /// Limit each source (IPv4 address, IPv6 /64) of a service
    Set {
        /// Name of the service
        #[arg(value_name = "SERVICE")]
        service: String,
        /// Packets per second
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RATE)))]
        rate: u32,
        /// Packets that may come at once
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_BURST)))]
        burst: u32,
        #[command(flatten)]
        how: How,
    },
    /// Take the limit of a service away
    Clear {
        /// Name of the service
        #[arg(value_name = "SERVICE")]
        service: String,
        #[command(flatten)]
        how: How,
    },
}

impl Verb {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let path = |service: &str| path_of(&["v1", "services", service, "limit"]);
        match self {
            Self::Show { service: None } => {
                cx.show("/v1/limits", |l: &Limits, look| view::limits(&l.limits, look))
            }
            Self::Show { service: Some(service) } => {
                cx.show(&path(service), |l: &ServiceLimit, look| view::limits(std::slice::from_ref(l), look))
            }
            Self::Set { service, rate, burst, how } => {
                let limit = Rate { rate: *rate, burst: *burst };
                cx.change(&Method::PUT, &path(service), Some(&limit), how)
            }
            Self::Clear { service, how } => cx.change::<()>(&Method::DELETE, &path(service), None, how),
        }
    }
}
