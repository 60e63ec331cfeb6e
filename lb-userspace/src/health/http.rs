//! The HTTP check: one HTTP/1.1 GET, judged by the status code alone.
//!
//! Bounded against whatever answers: in time by the caller, in memory by [`MAX_HEAD_BYTES`]. The body is never read and
//! redirects are never followed: a redirect is an answer like any other and good only if its code is expected.

use std::{net::SocketAddr, ops::RangeInclusive, pin::pin};

use futures::future::{BoxFuture, Either, select};
use http_body_util::Empty;
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    Inconclusive, Outcome, Probe, Progress, Target, Verdict,
    connect::{close_orderly, connect},
};

/// Upper bound of the status line and headers together. Bounds the memory that an answer can take as well: hyper's
/// buffer grows by doubling, to at most twice this.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Says who asks, for the logs of the backends.
const AGENT: &str = concat!("lb-health/", env!("CARGO_PKG_VERSION"));

/// GETs a path.
#[derive(Debug)]
pub(super) struct HttpProbe {
    /// Absolute path with optional query.
    pub(super) path: String,
    /// Status codes that are good.
    pub(super) expect: Vec<RangeInclusive<u16>>,
    /// Host header; absent: address and port.
    pub(super) host: Option<String>,
}

impl Probe for HttpProbe {
    fn probe<'a>(&'a self, target: &'a Target, progress: &'a Progress) -> BoxFuture<'a, Verdict> {
        Box::pin(self.check(target.endpoint(), progress))
    }
}

impl HttpProbe {
    async fn check(&self, endpoint: SocketAddr, progress: &Progress) -> Verdict {
        let request = self.request(endpoint)?;
        let stream = match connect(endpoint, progress).await {
            Ok(stream) => stream,
            Err(verdict) => return verdict,
        };
        Ok(match exchange(stream, request).await {
            Ok(status) if self.expect.iter().any(|range| range.contains(&status.as_u16())) => Outcome::Good,
            Ok(status) => {
                let expected = ranges(&self.expect);
                Outcome::NotReady(format!("GET {} answered {status}, expected {expected}", self.path))
            }
            Err(error) => {
                Outcome::NotReady(format!("GET {} got no usable answer: {}", self.path, words(&error)))
            }
        })
    }

    fn request(&self, endpoint: SocketAddr) -> Result<Request<Empty<Bytes>>, Inconclusive> {
        let request = Request::get(self.path.as_str()).header(USER_AGENT, AGENT);
        let request = match &self.host {
            Some(host) => request.header(HOST, host),
            None => request.header(HOST, endpoint.to_string()),
        };
        let request = request.header(ACCEPT, "*/*").header(CONNECTION, "close").body(Empty::new());
        request.map_err(|error| Inconclusive(format!("GET {} makes no HTTP request: {error}", self.path)))
    }
}

/// Sends `request` and reads the head of the final answer (a 1xx is not final).
async fn exchange(stream: TcpStream, request: Request<Empty<Bytes>>) -> hyper::Result<StatusCode> {
    let mut client = http1::Builder::new();
    // The former bounds what is read, the latter what is accepted of it.
    client.max_buf_size(MAX_HEAD_BYTES).max_header_size(MAX_HEAD_BYTES);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await?;
    let answer = pin!(sender.send_request(request));
    let answer = match select(answer, connection).await {
        Either::Left((answer, connection)) => {
            if answer.is_ok() {
                close_orderly(connection.into_parts().io.inner());
            }
            answer
        }
        // The connection is over and dropped: the answer has been delivered, or the error has.
        Either::Right((_, answer)) => answer.await,
    };
    Ok(answer?.status())
}

/// An error with its causes, in one line.
fn words(error: &hyper::Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// Ranges as the configuration file writes them.
fn ranges(ranges: &[RangeInclusive<u16>]) -> String {
    let range = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
