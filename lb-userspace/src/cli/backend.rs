//! `lb backend`.

use std::net::IpAddr;

use clap::{Args, Subcommand, builder::PossibleValuesParser, builder::TypedValueParser, error::ErrorKind};
use hyper::Method;

use super::{args::cut, context::Context, drain::Drain, exit::Failure, how::How, usage_error, view};
use crate::{
    api::{BackendPatch, NewBackend, change::default_weight, client::path_of, types::Backends},
    config::AdminState,
};

/// Show and change backends.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// One line per backend
    #[command(visible_alias = "ls")]
    List {
        /// Only this service
        #[arg(value_name = "SERVICE")]
        service: Option<String>,
    },
    /// Add a backend to a service
    Add(Add),
    /// Remove a backend; its flows are handed on
    #[command(visible_alias = "rm")]
    Remove(Target),
    /// Change a backend
    Set(Set),
    /// Let a backend keep its flows but get no new ones
    Drain(Drain),
    /// Put a backend (back) into service
    Enable(Target),
}

/// Add a backend to a service.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// Service and name of the backend; SERVICE alone names it by its address
    #[arg(value_name = "SERVICE/NAME")]
    target: String,
    /// Where packets are sent
    #[arg(long)]
    address: IpAddr,
    /// Its own port
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// 0 to 65535
    #[arg(long, default_value_t = default_weight())]
    weight: u16,
    /// In which state it begins
    #[arg(long, default_value = "up", value_parser = admin_state())]
    state: AdminState,
    #[command(flatten)]
    how: How,
}

/// A backend of one service, or of all.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// Service and name of the backend
    #[arg(value_name = "SERVICE/NAME")]
    target: String,
    /// Give NAME alone, and mean the backends of this name in every service
    #[arg(long)]
    all_services: bool,
    #[command(flatten)]
    pub(super) how: How,
}

/// Change a backend.
#[derive(Debug, Args)]
pub(super) struct Set {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    what: What,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct What {
    /// 0 to 65535; 0: no new slots
    #[arg(long)]
    weight: Option<u16>,
    /// What you want of it
    #[arg(long, value_parser = admin_state())]
    state: Option<AdminState>,
    /// Where packets are sent
    #[arg(long)]
    address: Option<IpAddr>,
    /// Its own port
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Take its own port away
    #[arg(long, conflicts_with = "port")]
    no_port: bool,
}

/// The words of `lb.toml`.
fn admin_state() -> impl TypedValueParser<Value = AdminState> {
    PossibleValuesParser::new(["up", "drain", "down"]).map(|word| match word.as_str() {
        "drain" => AdminState::Drain,
        "down" => AdminState::Down,
        _ => AdminState::Up,
    })
}

impl Verb {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let patch = |cx: &mut Context<'_>, target: &Target, patch: BackendPatch| {
            let path = target.path()?;
            cx.change(&Method::PATCH, &path, Some(&patch), &target.how)
        };
        match self {
            Self::List { service } => {
                let query = service.as_ref().map(|s| format!("?service={}", &path_of(&[s])[1..]));
                let path = format!("/v1/backends{}", query.unwrap_or_default());
                cx.show(&path, |b: &Backends, look| view::backends(&b.backends, look))
            }
            Self::Add(add) => add.run(cx),
            Self::Remove(target) => {
                let path = target.path()?;
                cx.change::<()>(&Method::DELETE, &path, None, &target.how)
            }
            Self::Set(set) => patch(cx, &set.target, set.what.patch()),
            Self::Drain(drain) => drain.run(cx),
            Self::Enable(target) => patch(cx, target, BackendPatch::state(AdminState::Up)),
        }
    }
}

impl Add {
    fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let (service, name) = match cut(&self.target) {
            Some((service, name)) => (service, Some(name.to_owned())),
            None if self.target.contains('/') => return Err(not_a_target(&self.target)),
            None => (self.target.as_str(), None),
        };
        let new = NewBackend {
            name,
            address: self.address,
            port: self.port,
            weight: self.weight,
            state: self.state,
        };
        cx.change(&Method::POST, &path_of(&["v1", "services", service, "backends"]), Some(&new), &self.how)
    }
}

impl Target {
    /// Whether this backend is meant.
    pub(super) fn means(&self, service: &str, backend: &str) -> bool {
        if self.all_services { self.target == backend } else { cut(&self.target) == Some((service, backend)) }
    }

    /// Path of the backend in the API.
    pub(super) fn path(&self) -> Result<String, Failure> {
        if !self.all_services {
            let (service, name) = cut(&self.target).ok_or_else(|| not_a_target(&self.target))?;
            return Ok(path_of(&["v1", "services", service, "backends", name]));
        }
        if self.target.is_empty() || self.target.contains('/') {
            let message = format!("--all-services takes NAME alone, found '{}'", self.target);
            return Err(usage_error(ErrorKind::ValueValidation, message));
        }
        Ok(path_of(&["v1", "backends", &self.target]))
    }
}

impl What {
    fn patch(&self) -> BackendPatch {
        let port = if self.no_port { Some(None) } else { self.port.map(Some) };
        BackendPatch { weight: self.weight, state: self.state, address: self.address, port }
    }
}

fn not_a_target(found: &str) -> Failure {
    let message = format!(
        "expected SERVICE/NAME, found '{found}'; `lb backend list` shows them (NAME alone needs --all-services)"
    );
    usage_error(ErrorKind::ValueValidation, message)
}
