//! Which path and method does what. The whole API is for the unix socket; [`public`] is all that TCP ever gets.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{Method, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{get, patch, post},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{
    change::Change,
    changes,
    control::Control,
    error::{ApiError, Kind},
    extract::{Params, Segments},
    metrics, page,
    server::{BODY_LIMIT, Peer, TEXT_LIMIT},
    types::{
        AgentInfo, BackendRow, Backends, Digests, Healthz, Limits, ServiceLimit, ServiceStatus, Services,
        Status,
    },
};

/// The daemon has this long for a question.
const READ_TIME: Duration = Duration::from_secs(10);
/// A client waits this long for a change; the change itself runs on.
const CHANGE_TIME: Duration = Duration::from_secs(30);
/// Changes that may wait for the daemon at once.
const CHANGES: usize = 64;

/// Content type of the Prometheus text format.
pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) type Answer<T> = Result<axum::Json<T>, ApiError>;

/// What the handlers share.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) control: Arc<dyn Control>,
    changes: Arc<Semaphore>,
}

impl Api {
    /// Runs a change to its end even if the client goes away or `CHANGE_TIME` runs out: half a change is worse than
    /// a late one.
    pub(super) async fn change<F, R>(&self, run: R) -> Answer<Change>
    where
        R: FnOnce(Arc<dyn Control>) -> F,
        F: Future<Output = Result<Change, ApiError>> + Send + 'static,
    {
        let permit = Arc::clone(&self.changes).try_acquire_owned().map_err(|_| {
            ApiError::unavailable(format!("{CHANGES} changes are waiting already"))
                .fix("try again in a few seconds")
        })?;
        let change = run(Arc::clone(&self.control));
        let task = tokio::spawn(async move {
            let answer = change.await;
            drop(permit);
            answer
        });
        match tokio::time::timeout(CHANGE_TIME, task).await {
            Ok(Ok(answer)) => answer.map(axum::Json),
            Ok(Err(fault)) => Err(ApiError::internal(format!("the change broke off: {fault}"))
                .fix("read the daemon's log, then compare `lb status` with lb.toml")),
            Err(_) => Err(ApiError::unavailable(format!("the change still runs after {CHANGE_TIME:?}"))
                .fix("`lb status` shows when it is done; it was not called off")),
        }
    }
}

/// Bounds the time of a question.
pub(super) async fn within<T>(answer: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    tokio::time::timeout(READ_TIME, answer).await.unwrap_or_else(|_| {
        Err(ApiError::unavailable(format!("the daemon did not answer within {READ_TIME:?}"))
            .fix("read the daemon's log; forwarding goes on without it"))
    })
}

/// The whole API.
pub(super) fn router(control: Arc<dyn Control>) -> Router {
    let api = Api { control, changes: Arc::new(Semaphore::new(CHANGES)) };
    Router::new()
        .route("/", get(page_now))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics_now))
        .route("/v1/status", get(status))
        .route("/v1/services", get(services).post(changes::add_service))
        .route("/v1/services/{service}", get(service).delete(changes::remove_service))
        .route("/v1/services/{service}/backends", post(changes::add_backend))
        .route(
            "/v1/services/{service}/backends/{backend}",
            patch(changes::set_backend).delete(changes::remove_backend),
        )
        .route(
            "/v1/services/{service}/limit",
            get(limit).put(changes::set_limit).delete(changes::clear_limit),
        )
        .route("/v1/agent", get(agent))
        .route("/v1/digests", get(digests))
        .route("/v1/backends", get(backends))
        .route("/v1/backends/{backend}", patch(changes::set_everywhere).delete(changes::remove_everywhere))
        .route("/v1/limits", get(limits))
        .route("/v1/reload", post(changes::reload))
        .route("/v1/transactions", post(changes::transaction))
        .route("/v1/rollback", post(changes::rollback))
        .route("/v1/confirm", post(changes::confirm))
        .route("/v1/history", get(changes::history))
        .route("/v1/diff", get(changes::diff))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(log_changes))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        // After the layer above, so that it does not hold here: a whole file is larger than anything else.
        .route(
            "/v1/config",
            get(changes::config).put(changes::replace).layer(DefaultBodyLimit::max(TEXT_LIMIT)),
        )
        .with_state(api)
}

async fn no_such_path(request: Request) -> ApiError {
    ApiError::not_found(format!("there is nothing at {}", request.uri().path()))
        .fix("docs/api.md lists every path; they begin with /v1")
}

pub(super) async fn no_such_method(request: Request) -> ApiError {
    ApiError::new(Kind::MethodNotAllowed, format!("{} has no {}", request.uri().path(), request.method()))
        .fix("the Allow header of this answer names the methods")
}

/// A line of the log about a request that is not a question, written when it ends, however it ends.
struct Logged {
    request: String,
    answer: Option<StatusCode>,
}

impl Drop for Logged {
    fn drop(&mut self) {
        match self.answer {
            Some(answer) => log::info!("{}: {answer}", self.request),
            None => log::info!("{}: the client left before the answer", self.request),
        }
    }
}

/// Who changed what.
async fn log_changes(peer: Option<Extension<Peer>>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let by = peer.map_or_else(|| "unknown".into(), |Extension(peer)| peer.to_string());
    let line = format!("{} {} by {by}", request.method(), request.uri().path());
    let mut logged = Logged { request: line, answer: None };
    let answer = next.run(request).await;
    logged.answer = Some(answer.status());
    answer
}

async fn status(State(api): State<Api>) -> Answer<Status> {
    within(api.control.status()).await.map(axum::Json)
}

async fn healthz(State(api): State<Api>) -> Answer<Healthz> {
    let s = within(api.control.status()).await?;
    Ok(axum::Json(Healthz { status: "ok".into(), name: s.name, generation: s.generation }))
}

async fn metrics_now(State(api): State<Api>) -> Result<Response, ApiError> {
    let status = within(api.control.status()).await?;
    Ok(([(header::CONTENT_TYPE, PROMETHEUS)], metrics::render(&status)).into_response())
}

async fn page_now(State(api): State<Api>) -> Result<Response, ApiError> {
    let status = within(api.control.status()).await?;
    Ok((page::HEADERS, Html(page::render(&status))).into_response())
}

async fn services(State(api): State<Api>) -> Answer<Services> {
    Ok(axum::Json(Services { services: within(api.control.services()).await? }))
}

async fn service(State(api): State<Api>, Segments(name): Segments<String>) -> Answer<ServiceStatus> {
    within(api.control.service(&name)).await.map(axum::Json)
}

async fn agent(State(api): State<Api>) -> Answer<AgentInfo> {
    within(api.control.agent()).await.map(axum::Json)
}

async fn digests(State(api): State<Api>) -> Answer<Digests> {
    within(api.control.status()).await.map(|status| axum::Json(Digests::of(&status)))
}

/// `?service=NAME`.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct OfService {
    service: Option<String>,
}

async fn backends(State(api): State<Api>, Params(of): Params<OfService>) -> Answer<Backends> {
    let services = match of.service {
        Some(name) => vec![within(api.control.service(&name)).await?],
        None => within(api.control.services()).await?,
    };
    let row = |s: ServiceStatus| {
        let name = s.name;
        s.backends.into_iter().map(move |backend| BackendRow { service: name.clone(), backend })
    };
    Ok(axum::Json(Backends { backends: services.into_iter().flat_map(row).collect() }))
}

async fn limits(State(api): State<Api>) -> Answer<Limits> {
    let services = within(api.control.services()).await?;
    let limits = services.into_iter().map(|s| ServiceLimit { service: s.name, limit: s.limit }).collect();
    Ok(axum::Json(Limits { limits }))
}

async fn limit(State(api): State<Api>, Segments(service): Segments<String>) -> Answer<ServiceLimit> {
    let limit = within(api.control.limit(&service)).await?;
    Ok(axum::Json(ServiceLimit { service, limit }))
}
