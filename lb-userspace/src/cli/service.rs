//! `lb service`.

use std::net::IpAddr;

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use hyper::Method;
use serde::de::DeserializeOwned;

use super::{context::Context, exit::Failure, how::How, view};
use crate::{
    api::{NewService, client::path_of, types::Services},
    config::{Affinity, Forward, Protocol},
};

/// Show, add and remove services.
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
    /// Add a service, without backends at first
    Add(Box<Add>),
    /// Remove a service with its backends
    #[command(visible_alias = "rm")]
    Remove {
        /// Name of the service
        #[arg(value_name = "SERVICE")]
        service: String,
        #[command(flatten)]
        how: How,
    },
}

/// Add a service; what is not given has the default of lb.toml.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// Name of the service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// An address that clients hit (VIP); may be given several times
    #[arg(long = "address", value_name = "ADDRESS", required = true)]
    addresses: Vec<IpAddr>,
    /// A port, a range such as 8000-8100, or any; may be given several times
    #[arg(long = "port", value_name = "PORT", required = true)]
    ports: Vec<String>,
    /// Protocol
    #[arg(long, value_parser = PossibleValuesParser::new(["tcp", "udp", "both"]))]
    protocol: Option<String>,
    /// Which fields choose the backend
    #[arg(long, value_parser = PossibleValuesParser::new(["addresses", "source", "flow"]))]
    affinity: Option<String>,
    /// How packets reach the backend
    #[arg(long, value_parser = PossibleValuesParser::new(["l2", "ipip", "gue"]))]
    forward: Option<String>,
    /// Length of the table, a prime
    #[arg(long, value_name = "N")]
    table_slots: Option<u32>,
    #[command(flatten)]
    how: How,
}

impl Verb {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        match self {
            Self::List => cx.show("/v1/services", |s: &Services, look| view::services(&s.services, look)),
            Self::Show { service } => cx.show(&path_of(&["v1", "services", service]), view::service),
            Self::Add(add) => cx.change(&Method::POST, "/v1/services", Some(&add.new_service()), &add.how),
            Self::Remove { service, how } => {
                cx.change::<()>(&Method::DELETE, &path_of(&["v1", "services", service]), None, how)
            }
        }
    }
}

impl Add {
    fn new_service(&self) -> NewService {
        NewService {
            name: self.service.clone(),
            addresses: self.addresses.clone(),
            ports: self.ports.clone(),
            protocol: word::<Protocol>(self.protocol.as_ref()),
            affinity: word::<Affinity>(self.affinity.as_ref()),
            forward: word::<Forward>(self.forward.as_ref()),
            table_slots: self.table_slots,
            backends: Vec::new(),
        }
    }
}

/// The value that lb.toml has this word for; clap has looked at the words already.
fn word<T: DeserializeOwned>(word: Option<&String>) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(word?.clone())).ok()
}
