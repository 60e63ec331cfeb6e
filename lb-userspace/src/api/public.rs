//! What TCP gets: metrics, the status page and what agents need; nothing that changes anything.

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
    types::Digests,
};

/// Both texts as of one moment, and what agents need. Shared by all connections: a crowd of readers costs the daemon
/// one picture a second and one copy in memory.
struct Snapshot {
    control: Arc<dyn Control>,
    keep: Duration,
    texts: Mutex<Option<(Instant, Texts)>>,
    agent: Mutex<Option<(Instant, Bytes)>>,
    digests: Mutex<Option<(Instant, Bytes)>>,
}

#[derive(Clone)]
struct Texts {
    metrics: Bytes,
    page: Bytes,
}

impl Snapshot {
    async fn texts(&self) -> Result<Texts, ApiError> {
        self.kept(&self.texts, async {
            let status = self.control.status().await?;
            Ok(Texts { metrics: metrics::render(&status).into(), page: page::render(&status).into() })
        })
        .await
    }

    async fn agent(&self) -> Result<Bytes, ApiError> {
        self.kept(&self.agent, async {
            let info = self.control.agent().await?;
            let json = serde_json::to_vec(&info).map_err(|e| ApiError::internal(e.to_string()))?;
            Ok(json.into())
        })
        .await
    }

    async fn digests(&self) -> Result<Bytes, ApiError> {
        self.kept(&self.digests, async {
            let digests = Digests::of(&self.control.status().await?);
            let json = serde_json::to_vec(&digests).map_err(|e| ApiError::internal(e.to_string()))?;
            Ok(json.into())
        })
        .await
    }

    /// What is in `place`, if that is not too old, else the answer of `ask`, which then lies there.
    async fn kept<T: Clone>(
        &self,
        place: &Mutex<Option<(Instant, T)>>,
        ask: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let mut last = place.lock().await;
        if let Some((taken, answer)) = last.as_ref()
            && taken.elapsed() < self.keep
        {
            return Ok(answer.clone());
        }
        let answer = ask.await?;
        *last = Some((Instant::now(), answer.clone()));
        Ok(answer)
    }
}

/// `GET /`, `GET /metrics`, `GET /v1/agent` and `GET /v1/digests`, each asked of the daemon at most once per `keep`.
pub(super) fn router(control: Arc<dyn Control>, keep: Duration) -> Router {
    Router::new()
        .route("/", get(page_now))
        .route("/metrics", get(metrics_now))
        .route("/v1/agent", get(agent_now))
        .route("/v1/digests", get(digests_now))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(Arc::new(Snapshot {
            control,
            keep,
            texts: Mutex::default(),
            agent: Mutex::default(),
            digests: Mutex::default(),
        }))
}

async fn metrics_now(State(snapshot): State<Arc<Snapshot>>) -> Result<Response, ApiError> {
    let texts = within(snapshot.texts()).await?;
    Ok(([(header::CONTENT_TYPE, PROMETHEUS)], texts.metrics).into_response())
}

async fn page_now(State(snapshot): State<Arc<Snapshot>>) -> Result<Response, ApiError> {
    let texts = within(snapshot.texts()).await?;
    Ok((page::HEADERS, Html(texts.page)).into_response())
}

async fn agent_now(State(snapshot): State<Arc<Snapshot>>) -> Result<Response, ApiError> {
    let json = within(snapshot.agent()).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

async fn digests_now(State(snapshot): State<Arc<Snapshot>>) -> Result<Response, ApiError> {
    let json = within(snapshot.digests()).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

async fn no_such_path() -> ApiError {
    ApiError::not_found("only /, /metrics, /v1/agent and /v1/digests are served over TCP")
        .fix("use the unix socket for the rest of the API")
}
