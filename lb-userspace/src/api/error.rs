//! What the API answers when it does not do what was asked: `application/problem+json` (RFC 9457).

use std::{
    error::Error,
    fmt,
    ops::{Deref, DerefMut},
};

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

/// A refusal or a failure. Boxed, so that the good way through a `Result` stays cheap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ApiError(Box<Problem>);

/// What an [`ApiError`] says, as it travels. Members beyond RFC 9457 name the place and the way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:lb:problem:<kind>`, stable: programs decide by this.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// The kind in words; the same for every problem of a kind.
    pub title: String,
    /// HTTP status code.
    pub status: u16,
    /// What happened to which object, one sentence.
    pub detail: String,
    /// Field of the request or key of `lb.toml` that is meant, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What was found there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What would have been accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Kinds of problems; each has one status code, one `type` and one `title`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 400: not HTTP, not JSON, or not a known query.
    BadRequest,
    /// 404: no such service, backend or path.
    NotFound,
    /// 405: the path exists, the method does not.
    MethodNotAllowed,
    /// 408: the request did not arrive in time.
    RequestTimeout,
    /// 409: contradicts what is there (exists already, file edited but not applied).
    Conflict,
    /// 413: body above the bound.
    TooLarge,
    /// 422: understood, but not valid.
    Invalid,
    /// 500: a fault of the daemon.
    Internal,
    /// 503: cannot be done now.
    Unavailable,
}

impl Kind {
    /// Every kind, in the order of the status codes; `docs/api.md` lists them.
    pub const ALL: [Self; 9] = [
        Self::BadRequest,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::Conflict,
        Self::TooLarge,
        Self::Invalid,
        Self::Internal,
        Self::Unavailable,
    ];

    /// Status code, last part of `type`, and `title`.
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "The request cannot be read"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "There is no such object"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The object has no such method")
            }
            Self::RequestTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "request-timeout", "The request did not arrive in time")
            }
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "The change contradicts what is there"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large"),
            Self::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request is not valid"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "The daemon failed"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not possible now"),
        }
    }

    /// HTTP status code of this kind.
    pub fn status(self) -> StatusCode {
        self.parts().0
    }

    /// The `type` member of this kind.
    pub fn type_uri(self) -> String {
        format!("urn:lb:problem:{}", self.parts().1)
    }
}

impl ApiError {
    /// A problem of this kind; `detail` names the object and says what happened.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (status, _, title) = kind.parts();
        Self(Box::new(Problem {
            type_uri: kind.type_uri(),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
            found: None,
            expected: None,
            fix: None,
        }))
    }

    /// 400: the request cannot be read.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    /// 404: there is no such object.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, detail)
    }

    /// 404 for a service, naming those that exist.
    pub fn no_service<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self::not_found(format!("there is no service {name:?}"))
            .field("service")
            .found(name)
            .expected(list_of(known, "no service is configured"))
    }

    /// 404 for a backend of a service, naming those that exist.
    pub fn no_backend<'a>(service: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self::not_found(format!("service {service:?} has no backend {name:?}"))
            .field("backend")
            .found(name)
            .expected(list_of(known, "the service has no backend"))
    }

    /// 409: contradicts what is there.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, detail)
    }

    /// 422: understood, but not valid.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, detail)
    }

    /// 500: a fault of the daemon; the log has more.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(Kind::Internal, detail)
    }

    /// 503: cannot be done now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, detail)
    }

    /// Names the field of the request or the key of the file.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// What was found.
    #[must_use]
    pub fn found(mut self, found: impl Into<String>) -> Self {
        self.0.found = Some(found.into());
        self
    }

    /// What would have been accepted.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.0.expected = Some(expected.into());
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.0.fix = Some(fix.into());
        self
    }
}

/// "one of a, b", at most twelve, for `expected`.
fn list_of<'a>(names: impl IntoIterator<Item = &'a str>, none: &str) -> String {
    const SHOWN: usize = 12;
    let names: Vec<&str> = names.into_iter().collect();
    match names.len() {
        0 => none.into(),
        n if n > SHOWN => format!("one of {} and {} more", names[..SHOWN].join(", "), n - SHOWN),
        _ => format!("one of {}", names.join(", ")),
    }
}

impl Deref for ApiError {
    type Target = Problem;

    fn deref(&self) -> &Problem {
        &self.0
    }
}

impl DerefMut for ApiError {
    fn deref_mut(&mut self) -> &mut Problem {
        &mut self.0
    }
}

impl fmt::Display for ApiError {
    /// Several lines: the sentence, then place, found, expected and fix where known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        let rows = [
            ("field", &self.field),
            ("found", &self.found),
            ("expected", &self.expected),
            ("fix", &self.fix),
        ];
        for (label, value) in rows {
            if let Some(value) = value {
                write!(f, "\n  {label}: {value}")?;
            }
        }
        Ok(())
    }
}

impl Error for ApiError {}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Only strings and a number: serialising cannot fail, and an empty body would still carry the status.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_field_found_expected_and_fix() {
        let e = ApiError::invalid("weight of web/b1 is out of range")
            .field("weight")
            .found("70000")
            .expected("0 to 65535")
            .fix("give a smaller weight");
        assert_eq!(
            e.to_string(),
            "weight of web/b1 is out of range\n  field: weight\n  found: 70000\n  expected: 0 to 65535\n  fix: give \
             a smaller weight"
        );
    }

    #[test]
    fn absent_members_are_not_written() {
        let json = serde_json::to_value(ApiError::not_found("there is no service \"x\"")).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "type": "urn:lb:problem:not-found", "title": "There is no such object", "status": 404,
                "detail": "there is no service \"x\""
            })
        );
    }

    #[test]
    fn long_lists_of_names_are_cut() {
        let names: Vec<String> = (0..40).map(|i| format!("s{i}")).collect();
        let e = ApiError::no_service("x", names.iter().map(String::as_str));
        let expected = e.expected.as_deref().unwrap();
        assert!(expected.ends_with("s11 and 28 more"), "{expected}");
        assert_eq!(ApiError::no_service("x", []).expected.as_deref().unwrap(), "no service is configured");
    }

    #[test]
    fn every_kind_has_its_own_status_and_type() {
        let mut seen = std::collections::BTreeSet::new();
        for kind in Kind::ALL {
            assert!(seen.insert((kind.status().as_u16(), kind.type_uri())), "{kind:?} is not unique");
        }
        assert_eq!(seen.len(), Kind::ALL.len());
    }
}
