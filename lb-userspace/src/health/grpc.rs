//! The gRPC check: `grpc.health.v1.Health/Check` without TLS, over HTTP/2 from the first byte.

use std::net::SocketAddr;

use futures::future::BoxFuture;
use h2::client;
use hyper::{Method, Request, StatusCode, body::Bytes};
use tokio::net::TcpStream;

use super::{Outcome, Probe, Progress, Target, Verdict, connect::connect};

/// Largest message that is read; a status takes two bytes.
const MESSAGE_BYTES: usize = 4096;
/// Largest list of headers, in bytes.
const HEADER_BYTES: u32 = 16 << 10;
/// Length prefix of a message: one byte of flags, four of length.
const PREFIX: usize = 5;
const PATH: &str = "/grpc.health.v1.Health/Check";

/// Asks for the status of a service of the backend.
#[derive(Debug)]
pub(super) struct GrpcProbe {
    /// Its name; empty: the server as a whole.
    pub(super) service: String,
}

/// What came back.
struct Answer {
    http: StatusCode,
    message: Vec<u8>,
    /// `grpc-status`; `None` when there was none.
    status: Option<String>,
}

impl Probe for GrpcProbe {
    fn probe<'a>(&'a self, target: &'a Target, progress: &'a Progress) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            let stream = match connect(target.endpoint(), progress).await {
                Ok(stream) => stream,
                Err(verdict) => return verdict,
            };
            Ok(match self.exchange(stream, target.endpoint()).await {
                Ok(answer) => judge(&answer),
                Err(error) => Outcome::NotReady(format!("the health service gave no usable answer: {error}")),
            })
        })
    }
}

impl GrpcProbe {
    async fn exchange(&self, stream: TcpStream, endpoint: SocketAddr) -> Result<Answer, h2::Error> {
        let mut builder = client::Builder::new();
        builder.max_header_list_size(HEADER_BYTES).enable_push(false);
        let (sender, connection) = builder.handshake(stream).await?;
        let answer = self.ask(sender, endpoint);
        tokio::pin!(answer, connection);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection is over: the answer, or the error, is where `answer` finds it.
            _ = &mut connection => answer.await,
        }
    }

    async fn ask(
        &self,
        sender: client::SendRequest<Bytes>,
        endpoint: SocketAddr,
    ) -> Result<Answer, h2::Error> {
        let mut sender = sender.ready().await?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{endpoint}{PATH}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| std::io::Error::other(error.to_string()))
            .map_err(|_| h2::Error::from(h2::Reason::INTERNAL_ERROR))?;
        let (answer, mut stream) = sender.send_request(request, false)?;
        stream.send_data(request_message(&self.service), true)?;
        let answer = answer.await?;
        let http = answer.status();
        let text = |headers: &hyper::HeaderMap| {
            headers.get("grpc-status").and_then(|value| Some(value.to_str().ok()?.to_owned()))
        };
        // An error without a message comes in the headers.
        let early = text(answer.headers());
        let mut body = answer.into_body();
        let mut message = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            if message.len() + chunk.len() > MESSAGE_BYTES {
                return Err(h2::Reason::ENHANCE_YOUR_CALM.into());
            }
            message.extend_from_slice(&chunk);
        }
        let status = body.trailers().await?.as_ref().and_then(text).or(early);
        Ok(Answer { http, message, status })
    }
}

/// `HealthCheckRequest { service }` with its prefix.
fn request_message(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Field 1, length-delimited; the configuration bounds the length to what one byte can say.
        message.push(0x0a);
        message.push(u8::try_from(service.len()).unwrap_or_default());
        message.extend(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
    framed.extend(message);
    framed.into()
}

fn judge(answer: &Answer) -> Outcome {
    let wrong = |what: String| Outcome::NotReady(format!("the health service answered {what}"));
    if answer.http != StatusCode::OK {
        return wrong(format!("HTTP {}", answer.http));
    }
    match answer.status.as_deref() {
        Some("0") => {}
        Some("5") => return wrong("that it does not know the service (grpc-status 5)".into()),
        Some("12") => return wrong("that there is no such method (grpc-status 12)".into()),
        Some(code) => return wrong(format!("grpc-status {code}")),
        None => return wrong("without a grpc-status".into()),
    }
    // A message without field 1 has its default, 0.
    match answer.message.get(PREFIX..) {
        Some([0x08, 1, ..]) => Outcome::Good,
        Some([]) | Some([0x08, 0, ..]) => wrong("UNKNOWN".into()),
        Some([0x08, 2, ..]) => wrong("NOT_SERVING".into()),
        Some([0x08, 3, ..]) => wrong("SERVICE_UNKNOWN".into()),
        _ => wrong("a message that is no status".into()),
    }
}

#[cfg(test)]
mod tests;
