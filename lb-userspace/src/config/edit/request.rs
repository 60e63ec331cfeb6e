//! What can be asked of a file, and why it may be refused.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::{
    problem::{listed, nearest, quoted},
    types::{AdminState, Affinity, Forward, Protocol},
    value::ValueError,
};

/// Names that an error lists at most.
const NAMES_LISTED: usize = 20;

/// A backend to add. What is `None` is not written: the default holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendSpec {
    /// Absent: the address.
    #[serde(default)]
    pub name: Option<String>,
    /// Where packets are sent.
    pub address: IpAddr,
    /// Port on the backend.
    #[serde(default)]
    pub port: Option<u16>,
    /// Share of new slots.
    #[serde(default)]
    pub weight: Option<u16>,
    /// What the operator wants of it.
    #[serde(default)]
    pub state: Option<AdminState>,
}

/// A service to add. What is `None` is not written: the default holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Unique in the file.
    pub name: String,
    /// VIPs.
    pub addresses: Vec<IpAddr>,
    /// `any`, ports and ranges.
    pub ports: Vec<String>,
    /// `protocol`.
    pub protocol: Option<Protocol>,
    /// `affinity`.
    pub affinity: Option<Affinity>,
    /// `forward`.
    pub forward: Option<Forward>,
    /// `table_slots`.
    pub table_slots: Option<u32>,
    /// Its backends.
    pub backends: Vec<BackendSpec>,
}

/// What to change of a backend; `None` leaves a field as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackendPatch {
    /// `weight`.
    pub weight: Option<u16>,
    /// `state`.
    pub state: Option<AdminState>,
    /// `address`. A backend without a name of its own is called by the new address from then on.
    pub address: Option<IpAddr>,
    /// `port`.
    pub port: Option<u16>,
}

/// A change that cannot be made. The text is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The service is not in the file.
    #[error("no service {}{}", quoted(name), hint(name, known))]
    NoService {
        /// As it was asked for.
        name: String,
        /// The services of the file.
        known: Vec<String>,
    },
    /// The file has a service of that name.
    #[error("there is a service {} already; choose another name", quoted(name))]
    ServiceExists {
        /// The name.
        name: String,
    },
    /// The backend is not in the service.
    #[error("service {} has no backend {}{}", quoted(service), quoted(name), hint(name, known))]
    NoBackend {
        /// The service.
        service: String,
        /// As it was asked for.
        name: String,
        /// The backends of the service.
        known: Vec<String>,
    },
    /// The service has a backend of that name.
    #[error(
        "service {} has a backend {} already; change that one or choose another name",
        quoted(service),
        quoted(name)
    )]
    BackendExists {
        /// The service.
        service: String,
        /// The name.
        name: String,
    },
    /// The service has a backend at that address.
    #[error("service {} reaches {address} as backend {} already", quoted(service), quoted(name))]
    AddressTaken {
        /// The service.
        service: String,
        /// Who has the address.
        name: String,
        /// The address.
        address: IpAddr,
    },
    /// A value that no file may hold.
    #[error("{key}: {error}")]
    Value {
        /// The key that it was meant for.
        key: &'static str,
        /// What is wrong with it.
        error: ValueError,
    },
    /// A patch without a field.
    #[error("nothing to change: give a weight, state, address or port")]
    NothingToChange,
    /// The file says it in a form that no replacement of text can change.
    #[error("{0} is written in a way that cannot be changed from here; edit the file and apply it")]
    Form(String),
}

fn hint(name: &str, known: &[String]) -> String {
    if known.is_empty() {
        return "; there is none yet".to_owned();
    }
    let near = nearest(name, known.iter().map(String::as_str));
    let near = near.map(|near| format!("; did you mean {}?", quoted(near))).unwrap_or_default();
    let more = if known.len() > NAMES_LISTED { ", …" } else { "" };
    format!("{near} (known: {}{more})", listed(known.iter().take(NAMES_LISTED).map(String::as_str)))
}
