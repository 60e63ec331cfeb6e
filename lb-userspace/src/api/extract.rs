//! Reading requests: every way of being unreadable becomes a problem that names the place.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::BytesRejection},
    http::request::Parts,
};
use hyper::body::Body as _;
use serde::de::DeserializeOwned;

use super::error::{ApiError, Kind};
use crate::api::server::{BODY_LIMIT, BODY_TIME, TEXT_LIMIT};

/// A JSON body, at most [`BODY_LIMIT`] bytes within [`BODY_TIME`]. The content type is not looked at: `curl -d` sends
/// a wrong one, and only the owner of the socket gets here.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        parse(&body(request, state, BODY_LIMIT).await?).map(Self)
    }
}

/// The text of a configuration, at most [`TEXT_LIMIT`] bytes within [`BODY_TIME`].
pub(super) struct Text(pub(super) String);

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = body(request, state, TEXT_LIMIT).await?;
        String::from_utf8(bytes.into())
            .map(Self)
            .map_err(|error| ApiError::bad_request(format!("the text is not UTF-8: {}", error.utf8_error())))
    }
}

/// A body that the router's limit of this many bytes holds for.
async fn body<S: Send + Sync>(request: Request, state: &S, limit: usize) -> Result<Bytes, ApiError> {
    // The router's limit counts what arrives; what is announced above it need not arrive first.
    if request.body().size_hint().lower() > limit as u64 {
        return Err(too_large(limit));
    }
    tokio::time::timeout(BODY_TIME, Bytes::from_request(request, state))
        .await
        .map_err(|_| {
            ApiError::new(Kind::RequestTimeout, format!("the body did not arrive within {BODY_TIME:?}"))
        })?
        .map_err(|e| body_error(&e, limit))
}

fn body_error(rejection: &BytesRejection, limit: usize) -> ApiError {
    if rejection.status() == Kind::TooLarge.status() {
        too_large(limit)
    } else {
        ApiError::bad_request(rejection.body_text())
    }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(Kind::TooLarge, "the body is too large").expected(format!("at most {limit} bytes"))
}

/// Parses JSON and, where it does not fit, says at which key, what was found and what is expected.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|e| {
        let path = e.path().to_string();
        json_error(&path, e.inner())
    })?;
    reader.end().map_err(|e| json_error(".", &e))?;
    Ok(value)
}

fn json_error(path: &str, error: &serde_json::Error) -> ApiError {
    if !error.is_data() {
        return ApiError::bad_request(format!("the body is not JSON: {error}"))
            .fix("send one JSON object; docs/api.md shows an example for every call");
    }
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(head, _)| head);
    let (what, expected) = match text.split_once(", expected ") {
        Some((what, expected)) => (what, Some(in_words(expected))),
        None => (text, None),
    };
    let mut problem = ApiError::invalid(format!("the body does not fit: {what}"));
    if path != "." {
        problem = problem.field(path);
    }
    if let Some(found) = what.strip_prefix("invalid value: ").or_else(|| what.strip_prefix("invalid type: "))
    {
        problem = problem.found(found);
    }
    match expected {
        Some(expected) => problem.expected(expected),
        None => problem,
    }
}

/// Names of Rust types as operators know them.
fn in_words(expected: &str) -> String {
    match expected {
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        _ => expected.into(),
    }
}

/// Segments of the path, percent-decoded.
pub(super) struct Segments<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(value)| Self(value)).map_err(|e| ApiError::bad_request(e.body_text()).field("path"))
    }
}

/// The query string; unknown keys are refused.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(value)| Self(value)).map_err(|e| ApiError::bad_request(e.body_text()).field("query"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::NewBackend, config::Rate};

    fn problem(body: &str) -> ApiError {
        parse::<NewBackend>(body.as_bytes()).unwrap_err()
    }

    #[test]
    fn not_json_is_400() {
        for body in ["", "{", "weight=5", "{\"address\":\"192.0.2.1\"} {}"] {
            assert_eq!(problem(body).status, 400, "{body}");
        }
    }

    #[test]
    fn a_value_out_of_range_names_field_found_and_expected() {
        let e = problem(r#"{"address":"192.0.2.1","weight":70000}"#);
        assert_eq!(e.status, 422);
        assert_eq!(e.field.as_deref(), Some("weight"));
        assert_eq!(e.found.as_deref(), Some("integer `70000`"));
        assert_eq!(e.expected.as_deref(), Some("a whole number from 0 to 65535"));
    }

    #[test]
    fn an_unknown_field_is_refused_with_the_known_ones() {
        let e = problem(r#"{"address":"192.0.2.1","weigth":5}"#);
        assert_eq!(e.status, 422);
        assert!(e.detail.contains("unknown field `weigth`"), "{}", e.detail);
        assert!(e.expected.as_deref().unwrap().contains("`weight`"));
    }

    #[test]
    fn a_missing_field_and_a_bad_address_are_named() {
        assert!(problem("{}").detail.contains("missing field `address`"));
        let e = problem(r#"{"address":"192.0.2.300"}"#);
        assert_eq!((e.status, e.field.as_deref()), (422, Some("address")));
    }

    #[test]
    fn a_word_that_is_no_state_lists_the_states() {
        let e = problem(r#"{"address":"192.0.2.1","state":"gone"}"#);
        assert_eq!(e.expected.as_deref(), Some("one of `up`, `drain`, `down`"));
        assert!(parse::<Rate>(br#"{"rate":1,"burst":2}"#).is_ok());
    }
}
