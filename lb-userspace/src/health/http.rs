//! The HTTP check: one HTTP/1.1 GET, over TLS or not, judged by the status code and, where asked for, by the body.
//!
//! Bounded against whatever answers: in time by the caller, in memory by [`MAX_HEAD_BYTES`] and [`MAX_BODY_BYTES`]. The
//! body is read only if something has to be in it, and redirects are never followed: a redirect is an answer like any other and good only if its code is expected.

use std::{net::SocketAddr, ops::RangeInclusive, pin::pin};

use futures::future::{BoxFuture, Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{
    Inconclusive, Outcome, Probe, Progress, Target, Verdict,
    connect::{close_orderly, connect},
    tls::TlsClient,
    udp::contains,
};

/// Upper bound of the status line and headers together. Bounds the memory that an answer can take as well: hyper's
/// buffer grows by doubling, to at most twice this.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// How much of a body is looked at.
const MAX_BODY_BYTES: usize = 64 * 1024;
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
    /// What must be in the body; absent: the body is not read.
    pub(super) body: Option<String>,
    /// TLS around it; absent: plain HTTP.
    pub(super) tls: Option<TlsClient>,
}

/// What came back.
struct Answer {
    status: StatusCode,
    /// Whether the body has what must be in it; true where nothing must.
    has_body: bool,
}

/// A connection under HTTP.
trait Stream: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Stream for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl Probe for HttpProbe {
    fn probe<'a>(&'a self, target: &'a Target, progress: &'a Progress) -> BoxFuture<'a, Verdict> {
        Box::pin(self.check(target.endpoint(), progress))
    }
}

impl HttpProbe {
    async fn check(&self, endpoint: SocketAddr, progress: &Progress) -> Verdict {
        let request = self.request(endpoint)?;
        let session = match &self.tls {
            Some(tls) => Some(tls.session(endpoint).await?),
            None => None,
        };
        let stream = match connect(endpoint, progress).await {
            Ok(stream) => stream,
            Err(verdict) => return verdict,
        };
        let Some(session) = session else { return Ok(self.judge(self.exchange(stream, request).await)) };
        Ok(match session.handshake(stream).await {
            Ok(stream) => self.judge(self.exchange(stream, request).await),
            Err(why) => Outcome::NotReady(format!("TLS with {endpoint} failed: {why}")),
        })
    }

    fn judge(&self, answer: hyper::Result<Answer>) -> Outcome {
        let path = &self.path;
        Outcome::NotReady(match answer {
            Ok(Answer { status, .. }) if !self.expects(status) => {
                format!("GET {path} answered {status}, expected {}", ranges(&self.expect))
            }
            Ok(Answer { has_body: true, .. }) => return Outcome::Good,
            Ok(Answer { status, .. }) => {
                let wanted = self.body.as_deref().unwrap_or_default();
                format!(
                    "GET {path} answered {status} without {wanted:?} in the first {MAX_BODY_BYTES} bytes of its body"
                )
            }
            Err(error) => format!("GET {path} got no usable answer: {}", words(&error)),
        })
    }

    fn expects(&self, status: StatusCode) -> bool {
        self.expect.iter().any(|range| range.contains(&status.as_u16()))
    }

    /// Sends `request` and reads of the final answer (a 1xx is not final) what decides: the head, or the body as well.
    async fn exchange<S: Stream + 'static>(
        &self,
        stream: S,
        request: Request<Empty<Bytes>>,
    ) -> hyper::Result<Answer> {
        let mut client = http1::Builder::new();
        // The former bounds what is read, the latter what is accepted of it.
        client.max_buf_size(MAX_HEAD_BYTES).max_header_size(MAX_HEAD_BYTES);
        let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await?;
        let answer = pin!(async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let has_body = match &self.body {
                Some(wanted) if self.expects(status) => has(answer.into_body(), wanted.as_bytes()).await?,
                _ => true,
            };
            Ok(Answer { status, has_body })
        });
        match select(answer, connection).await {
            Either::Left((answer, connection)) => {
                if answer.is_ok() {
                    close_orderly(connection.into_parts().io.inner().tcp());
                }
                answer
            }
            // The connection is over and dropped: the answer has been delivered, or the error has.
            Either::Right((_, answer)) => answer.await,
        }
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

/// Whether the first [`MAX_BODY_BYTES`] of `body` have `wanted` in them. Reads no further than to where that is decided.
async fn has(mut body: Incoming, wanted: &[u8]) -> hyper::Result<bool> {
    let mut seen = Vec::new();
    while let Some(frame) = body.frame().await {
        // Trailers are not part of the text.
        let Ok(data) = frame?.into_data() else { continue };
        // Only what is new, and what may have begun before it: a body in single bytes must not cost its square.
        let start = (seen.len() + 1).saturating_sub(wanted.len());
        let room = MAX_BODY_BYTES - seen.len();
        seen.extend_from_slice(&data[..data.len().min(room)]);
        if contains(&seen[start.min(seen.len())..], wanted) {
            return Ok(true);
        }
        if seen.len() == MAX_BODY_BYTES {
            break;
        }
    }
    Ok(false)
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
