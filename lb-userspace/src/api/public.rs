//! What TCP gets: metrics and the status page, nothing that changes anything.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::header,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use tokio::{sync::Mutex, time::Instant};

use super::{
    control::Control,
    error::ApiError,
    metrics, page,
    router::{PROMETHEUS, no_such_method, within},
};

/// Both texts as of one moment. Shared by all connections: a crowd of readers costs the daemon one picture a
/// second and one copy in memory.
struct Snapshot {
    control: Arc<dyn Control>,
    keep: Duration,
    last: Mutex<Option<(Instant, Texts)>>,
}

#[derive(Clone)]
struct Texts {
    metrics: Bytes,
    page: Bytes,
}

impl Snapshot {
    async fn texts(&self) -> Result<Texts, ApiError> {
        let mut last = self.last.lock().await;
        if let Some((taken, texts)) = last.as_ref()
            && taken.elapsed() < self.keep
        {
            return Ok(texts.clone());
        }
        let status = self.control.status().await?;
        let texts = Texts { metrics: metrics::render(&status).into(), page: page::render(&status).into() };
        *last = Some((Instant::now(), texts.clone()));
        Ok(texts)
    }
}

/// `GET /` and `GET /metrics`, at most one picture of the daemon per `keep`.
pub(super) fn router(control: Arc<dyn Control>, keep: Duration) -> Router {
    Router::new()
        .route("/", get(page_now))
        .route("/metrics", get(metrics_now))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(Arc::new(Snapshot { control, keep, last: Mutex::new(None) }))
}

async fn metrics_now(State(snapshot): State<Arc<Snapshot>>) -> Result<Response, ApiError> {
    let texts = within(snapshot.texts()).await?;
    Ok(([(header::CONTENT_TYPE, PROMETHEUS)], texts.metrics).into_response())
}

async fn page_now(State(snapshot): State<Arc<Snapshot>>) -> Result<Response, ApiError> {
    let texts = within(snapshot.texts()).await?;
    Ok((page::HEADERS, Html(texts.page)).into_response())
}

async fn no_such_path() -> ApiError {
    ApiError::not_found("only / and /metrics are served over TCP").fix("use the unix socket for the API")
}
