//! A change as it is asked for: what, by whom, why. File, command line and API ask in this form.

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    change::{BackendPatch, NewBackend, check_name, check_rate},
    error::ApiError,
};
use crate::config::{Affinity, Forward, Protocol, Rate};

/// Edits of one transaction at most.
pub const MAX_EDITS: usize = 10_000;
/// Longest reason, in characters.
pub const MAX_REASON: usize = 500;
/// Longest time that a change can wait to be confirmed.
pub const MAX_CONFIRM: Duration = Duration::from_secs(24 * 3600);

/// One edit of `lb.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Edit {
    /// A new service, behind the others.
    AddService {
        /// The service.
        service: NewService,
    },
    /// A service less, with its backends.
    RemoveService {
        /// Its name.
        service: String,
    },
    /// A new backend.
    AddBackend {
        /// Name of its service.
        service: String,
        /// The backend.
        backend: NewBackend,
    },
    /// A backend less.
    RemoveBackend {
        /// Name of its service; absent: every service that has a backend of this name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
        /// Its name.
        backend: String,
    },
    /// Fields of a backend.
    SetBackend {
        /// Name of its service; absent: every service that has a backend of this name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
        /// Its name.
        backend: String,
        /// What changes.
        patch: BackendPatch,
    },
    /// A limit for every source of a service.
    SetLimit {
        /// Name of the service.
        service: String,
        /// The rate.
        limit: Rate,
    },
    /// No limit any more.
    ClearLimit {
        /// Name of the service.
        service: String,
    },
}

/// A service to add; what is absent has the default of `lb.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewService {
    /// Unique in the instance.
    pub name: String,
    /// VIPs.
    pub addresses: Vec<IpAddr>,
    /// `["any"]`, or ports and ranges as text.
    pub ports: Vec<String>,
    /// `tcp`, `udp` or `both`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Which fields choose the slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How packets reach the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<Forward>,
    /// Length of the table, a prime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_slots: Option<u32>,
    /// Its first backends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<NewBackend>,
}

impl Edit {
    /// The one service that stays and whose settings or backends it changes.
    #[must_use]
    pub fn in_service(&self) -> Option<&str> {
        match self {
            Self::AddService { .. } | Self::RemoveService { .. } => None,
            Self::AddBackend { service, .. }
            | Self::SetLimit { service, .. }
            | Self::ClearLimit { service } => Some(service),
            Self::RemoveBackend { service, .. } | Self::SetBackend { service, .. } => service.as_deref(),
        }
    }

    /// What can be judged without the configuration.
    ///
    /// # Errors
    /// As the checks of its parts.
    pub fn check(&self) -> Result<(), ApiError> {
        match self {
            Self::AddService { service } => {
                check_name("name", &service.name)?;
                service.backends.iter().try_for_each(NewBackend::check)
            }
            Self::AddBackend { backend, .. } => backend.check(),
            Self::SetBackend { patch, .. } => patch.check(),
            Self::SetLimit { limit, .. } => check_rate(*limit),
            Self::RemoveService { .. } | Self::RemoveBackend { .. } | Self::ClearLimit { .. } => Ok(()),
        }
    }

    /// What it does, in words, once it is done.
    pub fn words(&self) -> String {
        let place = |service: &Option<String>, backend: &str| match service {
            Some(service) => format!("{service}/{backend}"),
            None => format!("{backend} in every service"),
        };
        match self {
            Self::AddService { service } => format!("added service {}", service.name),
            Self::RemoveService { service } => format!("removed service {service}"),
            Self::AddBackend { service, backend } => format!("added {service}/{}", backend.resolved_name()),
            Self::RemoveBackend { service, backend } => format!("removed {}", place(service, backend)),
            Self::SetBackend { service, backend, .. } => format!("set {}", place(service, backend)),
            Self::SetLimit { service, limit } => format!(
                "{service}: at most {} packets per second per source, burst {}",
                limit.rate, limit.burst
            ),
            Self::ClearLimit { service } => format!("{service}: no limit"),
        }
    }
}

/// `POST /v1/transactions`: all of these, or none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edits {
    /// In the order in which they are made, 1 to [`MAX_EDITS`].
    pub edits: Vec<Edit>,
}

impl Edits {
    /// What can be judged without the configuration.
    ///
    /// # Errors
    /// No edit, too many, or one that is wrong by itself.
    pub fn check(&self) -> Result<(), ApiError> {
        if !(1..=MAX_EDITS).contains(&self.edits.len()) {
            return Err(ApiError::invalid("a transaction has at least one edit, and not too many")
                .field("edits")
                .found(self.edits.len().to_string())
                .expected(format!("1 to {MAX_EDITS}")));
        }
        self.edits.iter().enumerate().try_for_each(|(index, edit)| {
            edit.check().map_err(|mut error| {
                let field = error.field.take().map(|field| format!(".{field}")).unwrap_or_default();
                error.field(format!("edits[{index}]{field}"))
            })
        })
    }
}

/// `POST /v1/rollback`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Number of the record whose state is wanted; absent: the one before the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// Where a change comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// A request on the unix socket.
    Socket,
    /// SIGHUP.
    Signal,
    /// The file as the daemon found it when it started.
    Start,
    /// A time that ran out.
    Timer,
}

/// Who changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// Where the change comes from.
    pub via: Via,
    /// User of the process that asked, as the kernel says.
    pub uid: Option<u32>,
    /// Number of that process.
    pub pid: Option<i32>,
}

impl Author {
    /// The daemon itself.
    pub fn daemon(via: Via) -> Self {
        Self { via, uid: None, pid: None }
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Edits of the file.
    Edits(Vec<Edit>),
    /// The file as it is on disk.
    File,
    /// Another text for the file.
    Text {
        /// All of it.
        text: String,
        /// Digest of the text that its author began with: if that is not in force any more, somebody was faster.
        base: Option<String>,
    },
    /// A state of the history.
    Rollback {
        /// Its number; absent: the one before the last.
        to: Option<u64>,
    },
}

/// A change with its circumstances.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    /// What is asked for.
    pub what: What,
    /// Who asks.
    pub author: Author,
    /// Why, in the words of the author.
    pub reason: Option<String>,
    /// Taken back after this time unless somebody confirms.
    pub confirm: Option<Duration>,
}

impl Transaction {
    /// Without a reason, and not to be confirmed.
    pub fn new(what: What, author: Author) -> Self {
        Self { what, author, reason: None, confirm: None }
    }
}

/// Options of everything that changes something, in the query string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// `true`: say what would happen, and do nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plan: bool,
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Seconds after which the change is taken back unless it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<u64>,
    /// Digest that the text in the body was made from; only where a text is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

impl Options {
    /// Checks ranges.
    ///
    /// # Errors
    /// A reason that is too long or not one line, a time out of range.
    pub fn check(&self) -> Result<(), ApiError> {
        if let Some(reason) = &self.reason
            && (reason.chars().count() > MAX_REASON || reason.chars().any(char::is_control))
        {
            return Err(ApiError::invalid("this cannot be the reason of a change")
                .field("reason")
                .expected(format!("one line of at most {MAX_REASON} characters")));
        }
        match self.confirm {
            Some(seconds) if !(1..=MAX_CONFIRM.as_secs()).contains(&seconds) => {
                Err(ApiError::invalid("the time to confirm a change is out of range")
                    .field("confirm")
                    .found(seconds.to_string())
                    .expected(format!("1 to {} seconds", MAX_CONFIRM.as_secs())))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_travel_as_json_and_name_the_wrong_one() {
        let json = r#"{"edits":[{"op":"set_backend","backend":"b1","patch":{"state":"drain"}},
            {"op":"set_limit","service":"web","limit":{"rate":0,"burst":1}}]}"#;
        let edits: Edits = serde_json::from_str(json).unwrap();
        assert_eq!(edits.edits[0].words(), "set b1 in every service");
        assert_eq!(edits.check().unwrap_err().field.as_deref(), Some("edits[1].rate"));
        let again = serde_json::to_string(&edits).unwrap();
        assert_eq!(serde_json::from_str::<Edits>(&again).unwrap(), edits);
        assert!(serde_json::from_str::<Edits>(r#"{"edits":[{"op":"explode"}]}"#).is_err());
        let unknown = r#"{"edits":[{"op":"clear_limit","service":"web","serivce":"x"}]}"#;
        assert!(serde_json::from_str::<Edits>(unknown).is_err());
        assert_eq!(Edits { edits: Vec::new() }.check().unwrap_err().field.as_deref(), Some("edits"));
    }

    #[test]
    fn reasons_are_one_line_and_times_have_a_range() {
        let with = |reason: &str| Options { reason: Some(reason.into()), ..Options::default() };
        with("rack 4 burns, ticket 12").check().unwrap();
        for bad in ["two\nlines", "\u{1b}[31m", &"x".repeat(MAX_REASON + 1)] {
            assert_eq!(with(bad).check().unwrap_err().field.as_deref(), Some("reason"));
        }
        for (seconds, good) in [(0, false), (1, true), (86_400, true), (86_401, false)] {
            let options = Options { confirm: Some(seconds), ..Options::default() };
            assert_eq!(options.check().is_ok(), good, "{seconds}");
        }
    }
}
