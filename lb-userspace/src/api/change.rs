//! What is sent to the daemon, and what it answers to a change. Unknown fields are refused: a misspelt `weigth` must
//! not pass for "no change".

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

use super::{error::ApiError, types::Timestamp};
use crate::config::{AdminState, Rate};

/// Longest name of a service or a backend, in characters.
pub const MAX_NAME: usize = 63;
/// Highest rate, in packets per second: above it the rounding of the datapath's clock is more than 2 % of a rate.
pub const MAX_RATE: u32 = *crate::config::limits::RATE.end();
/// Highest burst, in packets.
pub const MAX_BURST: u32 = *crate::config::limits::BURST.end();

/// `POST /v1/services/{service}/backends`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBackend {
    /// Unique in its service; absent: the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where packets are sent.
    pub address: IpAddr,
    /// Its own port, where the mode or the health check can use one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// 0 to 65,535; absent: 100.
    #[serde(default = "default_weight")]
    pub weight: u16,
    /// Absent: `up`.
    #[serde(default)]
    pub state: AdminState,
}

/// The weight of a backend that names none, as in `lb.toml`.
pub const fn default_weight() -> u16 {
    100
}

impl NewBackend {
    /// The name it will have.
    pub fn resolved_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.address.to_string())
    }

    /// What can be judged without the configuration.
    ///
    /// # Errors
    /// A name that could not be written in a path or shown in a table; port 0.
    pub fn check(&self) -> Result<(), ApiError> {
        if let Some(name) = &self.name {
            check_name("name", name)?;
        }
        check_port(self.port)
    }
}

/// `PATCH /v1/services/{service}/backends/{backend}`: only what is named changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendPatch {
    /// 0 to 65,535; 0 = no new slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// `up`, `drain` or `down`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<AdminState>,
    /// Where packets are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Absent: unchanged. `Some(None)` (`null` in JSON): no port of its own any more.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub port: Option<Option<u16>>,
}

/// Tells `null` from an absent key, which serde otherwise folds into one.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u16>>, D::Error> {
    Option::<u16>::deserialize(deserializer).map(Some)
}

impl BackendPatch {
    /// A patch of the admin state alone.
    pub fn state(state: AdminState) -> Self {
        Self { state: Some(state), ..Self::default() }
    }

    /// What can be judged without the configuration.
    ///
    /// # Errors
    /// A patch that names nothing; port 0.
    pub fn check(&self) -> Result<(), ApiError> {
        if *self == Self::default() {
            return Err(ApiError::invalid("the patch names nothing to change")
                .found("{}")
                .expected("at least one of weight, state, address, port"));
        }
        check_port(self.port.flatten())
    }
}

/// What a change did, or that there was nothing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Generation that is installed now.
    pub generation: u64,
    /// `false`: all was so already, nothing was written.
    pub changed: bool,
    /// Slots that changed owner, over all tables that this touched.
    pub slots_moved: u64,
    /// Slots of those tables.
    pub slots_total: u64,
    /// One sentence for people.
    pub message: String,
    /// Number of its record in the history; absent when nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<u64>,
    /// Taken back at this time unless somebody confirms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_until: Option<Timestamp>,
}

/// Checks a limit's ranges.
///
/// # Errors
/// `rate` outside 1 to [`MAX_RATE`], `burst` outside 1 to [`MAX_BURST`].
pub fn check_rate(limit: Rate) -> Result<(), ApiError> {
    for (field, value, most) in [("rate", limit.rate, MAX_RATE), ("burst", limit.burst, MAX_BURST)] {
        if !(1..=most).contains(&value) {
            return Err(ApiError::invalid(format!("{field} of the limit is out of range"))
                .field(field)
                .found(value.to_string())
                .expected(format!("1 to {most}")));
        }
    }
    Ok(())
}

fn check_port(port: Option<u16>) -> Result<(), ApiError> {
    match port {
        Some(0) => Err(ApiError::invalid("port 0 is not a port")
            .field("port")
            .found("0")
            .expected("1 to 65535, or no port")),
        _ => Ok(()),
    }
}

/// A name as `lb.toml` has it: it fits in a path, a label and a table. A colon, since an address can be a name.
pub(super) fn check_name(field: &str, name: &str) -> Result<(), ApiError> {
    let fits = (1..=MAX_NAME).contains(&name.len());
    if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)) {
        return Ok(());
    }
    Err(ApiError::invalid("this cannot be the name of a backend or a service")
        .field(field)
        .found(format!("{name:?}"))
        .expected(format!("1 to {MAX_NAME} of the characters A-Z a-z 0-9 . _ : -")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_backend_has_the_defaults_of_the_file() {
        let b: NewBackend = serde_json::from_str(r#"{"address":"2001:db8::5"}"#).unwrap();
        assert_eq!((b.weight, b.state, b.port), (100, AdminState::Up, None));
        assert_eq!(b.resolved_name(), "2001:db8::5");
        b.check().unwrap();
    }

    #[test]
    fn a_patch_tells_null_from_absent() {
        let absent: BackendPatch = serde_json::from_str(r#"{"weight":5}"#).unwrap();
        let null: BackendPatch = serde_json::from_str(r#"{"port":null}"#).unwrap();
        let set: BackendPatch = serde_json::from_str(r#"{"port":8080}"#).unwrap();
        assert_eq!((absent.port, null.port, set.port), (None, Some(None), Some(Some(8080))));
        for patch in [absent, null, set] {
            patch.check().unwrap();
            let json = serde_json::to_string(&patch).unwrap();
            assert_eq!(serde_json::from_str::<BackendPatch>(&json).unwrap(), patch, "{json}");
        }
    }

    #[test]
    fn an_empty_patch_and_port_0_are_refused() {
        assert_eq!(BackendPatch::default().check().unwrap_err().status, 422);
        let zero = BackendPatch { port: Some(Some(0)), ..BackendPatch::default() };
        assert_eq!(zero.check().unwrap_err().field.as_deref(), Some("port"));
    }

    #[test]
    fn names_that_would_break_a_path_are_refused() {
        for bad in ["", "a/b", "a b", "a\n", "é", &"x".repeat(64)] {
            assert_eq!(check_name("name", bad).unwrap_err().status, 422, "{bad:?}");
        }
        check_name("name", "2001:db8::5").unwrap();
        check_name("name", &"x".repeat(63)).unwrap();
    }

    #[test]
    fn limits_have_a_range() {
        check_rate(Rate { rate: 1, burst: MAX_BURST }).unwrap();
        let e = check_rate(Rate { rate: 0, burst: 5 }).unwrap_err();
        assert_eq!((e.field.as_deref(), e.found.as_deref()), (Some("rate"), Some("0")));
        let e = check_rate(Rate { rate: 5, burst: MAX_BURST + 1 }).unwrap_err();
        assert_eq!(e.field.as_deref(), Some("burst"));
    }
}
