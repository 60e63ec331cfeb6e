//! HTTP of the demo server.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | 200, the name and a line feed |
//! | `GET /ready` | 200 or 503 |
//! | `GET /ready/on`, `GET /ready/off` | switches it; only asked by way of localhost |
//! | `GET /stats` | JSON: name, and requests so far, without those for `/ready` and `/stats` |
//! | `GET /peer` | 200, the client's address as the server sees it |
//! | `GET /slow/MS` | the name, after that many milliseconds (at most a minute) |
//! | `GET /bytes/N` | N bytes of [`pattern`] |
//! | `PUT`, `POST` anywhere | JSON: name, bytes and SHA-256 of the body |

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
    serve::ListenerExt,
};
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use super::Shared;

const LONGEST_WAIT_MS: u64 = 60_000;
/// Bytes per piece of a streamed answer; a multiple of nothing in particular, so that pieces end everywhere.
const PIECE: u64 = 16_000;
/// A prime, so that the pattern does not line up with segments or pages.
const PERIOD: u64 = 251;

type App = State<Arc<Shared>>;

/// Byte number `i` of what `/bytes/N` sends.
#[must_use]
pub fn pattern(i: u64) -> u8 {
    (i % PERIOD) as u8
}

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) -> Result<()> {
    let app = Router::new()
        .route("/", any(root))
        .route("/ready", get(ready))
        .route("/ready/{state}", get(set_ready))
        .route("/stats", get(stats))
        .route("/peer", get(peer))
        .route("/slow/{ms}", get(slow))
        .route("/bytes/{n}", get(bytes))
        .fallback(any(root))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), count))
        .with_state(Arc::clone(&shared))
        .into_make_service_with_connect_info::<SocketAddr>();
    let listener = listener.tap_io(|stream| {
        // Only delays if it fails.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app)
        .with_graceful_shutdown(async move { shared.stopped().await })
        .await
        .context("HTTP server")
}

/// Counts when a request begins, so that a test can wait until one is under way.
async fn count(State(shared): App, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !path.starts_with("/ready") && path != "/stats" {
        shared.requests.fetch_add(1, Ordering::Relaxed);
    }
    next.run(request).await
}

async fn stats(State(shared): App) -> Response {
    let requests = shared.requests.load(Ordering::Relaxed);
    axum::Json(serde_json::json!({ "name": shared.name, "requests": requests })).into_response()
}

async fn root(State(shared): App, request: Request) -> Response {
    match (request.method().as_str(), request.uri().path()) {
        ("GET" | "HEAD", "/") => name(&shared),
        ("PUT" | "POST", _) => upload(&shared, request.into_body()).await,
        (method, path) => (StatusCode::NOT_FOUND, format!("no {method} {path} here\n")).into_response(),
    }
}

fn name(shared: &Shared) -> Response {
    format!("{}\n", shared.name).into_response()
}

async fn ready(State(shared): App) -> Response {
    if shared.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

/// A client must not take a backend out of service: only the backend itself may.
async fn set_ready(
    State(shared): App,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(state): Path<String>,
) -> Response {
    if !peer.ip().to_canonical().is_loopback() {
        return (StatusCode::FORBIDDEN, "only from this backend itself, by localhost\n").into_response();
    }
    let on = match state.as_str() {
        "on" => true,
        "off" => false,
        _ => return (StatusCode::NOT_FOUND, "on or off?\n").into_response(),
    };
    shared.ready.store(on, Ordering::Relaxed);
    format!("{} is now {}\n", shared.name, if on { "ready" } else { "not ready" }).into_response()
}

async fn peer(ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Response {
    let address: IpAddr = peer.ip().to_canonical();
    format!("{address}\n").into_response()
}

async fn slow(State(shared): App, Path(ms): Path<u64>) -> Response {
    tokio::time::sleep(Duration::from_millis(ms.min(LONGEST_WAIT_MS))).await;
    name(&shared)
}

async fn bytes(Path(n): Path<u64>) -> Response {
    // One period more than a piece: every piece is a window of it, copied by nobody.
    let window: Bytes = (0..PIECE + PERIOD).map(pattern).collect();
    let pieces = (0..n.div_ceil(PIECE)).map(move |k| {
        let start = k * PIECE;
        let shift = (start % PERIOD) as usize;
        let len = PIECE.min(n - start) as usize;
        Ok::<_, std::io::Error>(window.slice(shift..shift + len))
    });
    let headers =
        [(header::CONTENT_LENGTH, n.to_string()), (header::CONTENT_TYPE, "application/octet-stream".into())];
    (headers, Body::from_stream(stream::iter(pieces))).into_response()
}

async fn upload(shared: &Shared, body: Body) -> Response {
    let mut pieces = body.into_data_stream();
    let (mut count, mut hash) = (0_u64, Sha256::new());
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => {
                count += piece.len() as u64;
                hash.update(&piece);
            }
            Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
        }
    }
    let hash = hex::encode(hash.finalize());
    axum::Json(serde_json::json!({ "name": shared.name, "bytes": count, "sha256": hash })).into_response()
}
