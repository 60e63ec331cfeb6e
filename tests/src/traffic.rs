//! Real clients: HTTP requests, long-lived TCP connections and datagrams, each from an address of the caller's choice.
//!
//! A socket belongs to the namespace of the thread that made it. The functions that take an [`Entry`] make it there;
//! the asynchronous [`get`] makes it wherever it runs, which is inside of [`Entry::block_on`].

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request,
    body::Bytes,
    header::{CONNECTION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpSocket, TcpStream as AsyncStream},
    time::timeout,
};

use crate::netns::Entry;

/// Longest body that is kept.
const LONGEST_BODY: usize = 64 << 20;
/// Failures that a report quotes; all are counted.
const QUOTED_FAILURES: usize = 20;

/// Answer to an HTTP request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
    /// From before the connection until after the body.
    pub took: Duration,
}

impl Answer {
    /// The body as text without the white space around it: the backend's name for `/`.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

/// One `GET` on a connection of its own, from `source` (port 0: any), within `limit` for everything.
///
/// # Errors
/// When no complete answer comes in time; the status may be anything.
pub async fn get(source: SocketAddr, target: SocketAddr, path: &str, limit: Duration) -> Result<Answer> {
    exchange(source, target, Request::get(path).body(Full::default())?, limit).await
}

/// One `PUT` of `body`, like [`get`].
///
/// # Errors
/// When no complete answer comes in time; the status may be anything.
pub async fn put(
    source: SocketAddr,
    target: SocketAddr,
    path: &str,
    body: Bytes,
    limit: Duration,
) -> Result<Answer> {
    exchange(source, target, Request::put(path).body(Full::new(body))?, limit).await
}

async fn exchange(
    source: SocketAddr,
    target: SocketAddr,
    mut request: Request<Full<Bytes>>,
    limit: Duration,
) -> Result<Answer> {
    let start = Instant::now();
    let what = format!("{} {} at {target} from {}", request.method(), request.uri(), source.ip());
    request.headers_mut().insert(HOST, target.to_string().parse()?);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let work = async {
        let stream = connect(source, target).await.context("connecting")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let answer = async move {
            let response = sender.send_request(request).await.context("waiting for an answer")?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), LONGEST_BODY).collect().await;
            let body = body.map_err(|e| anyhow!(e)).context("reading the body")?.to_bytes();
            Ok(Answer { status, body, took: start.elapsed() })
        };
        // The connection must be polled for the answer to come; its own errors show there.
        let (answer, _) = tokio::join!(answer, connection);
        answer
    };
    let result = timeout(limit, work).await.unwrap_or_else(|_| bail!("no answer within {limit:?}"));
    result.context(what)
}

/// [`get`] from inside a namespace, for callers that are not asynchronous.
///
/// # Errors
/// Those of [`get`].
pub fn http_get(
    ns: &Entry,
    source: IpAddr,
    target: SocketAddr,
    path: &str,
    limit: Duration,
) -> Result<Answer> {
    ns.block_on(|| get((source, 0).into(), target, path, limit))
}

/// [`put`] from inside a namespace, for callers that are not asynchronous.
///
/// # Errors
/// Those of [`put`].
pub fn http_put(
    ns: &Entry,
    source: IpAddr,
    target: SocketAddr,
    body: impl Into<Bytes>,
    limit: Duration,
) -> Result<Answer> {
    let body = body.into();
    ns.block_on(|| put((source, 0).into(), target, "/", body, limit))
}

async fn connect(source: SocketAddr, target: SocketAddr) -> Result<AsyncStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A given port may be used again while an earlier connection from it fades.
    socket.set_reuseaddr(true)?;
    socket.bind(source).with_context(|| format!("binding to {source}"))?;
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Many requests, each on a connection of its own.
#[derive(Clone, Debug)]
pub struct Spread<'a> {
    /// How many in all.
    pub requests: usize,
    /// Request `k` comes from address `k % len`.
    pub sources: &'a [IpAddr],
    /// Address and port of the service.
    pub target: SocketAddr,
    /// Must answer with the backend's name.
    pub path: &'a str,
    /// Requests under way at once.
    pub concurrency: usize,
    /// For each request.
    pub limit: Duration,
    /// Port of each address's first request, the next one for its next; absent: ports that the kernel chooses, which
    /// may be those of a connection that ended a moment ago.
    pub first_port: Option<u16>,
}

impl<'a> Spread<'a> {
    /// `GET /`, 64 at once, 10 seconds each.
    #[must_use]
    pub fn new(requests: usize, sources: &'a [IpAddr], target: SocketAddr) -> Self {
        let limit = Duration::from_secs(10);
        Self { requests, sources, target, path: "/", concurrency: 64, limit, first_port: None }
    }

    /// Address and port of request `k`.
    fn source(&self, k: usize) -> Option<SocketAddr> {
        let source = self.sources.get(k % self.sources.len())?;
        let round = k / self.sources.len();
        let port = self.first_port.map_or(0, |first| first.wrapping_add(round as u16));
        Some((*source, port).into())
    }
}

/// Who answered whom.
#[derive(Clone, Debug, Default)]
pub struct SpreadReport {
    /// Client address → backend → answers with status 200.
    pub answers: BTreeMap<IpAddr, BTreeMap<String, usize>>,
    /// Requests without such an answer.
    pub failed: usize,
    /// What happened to the first of them.
    pub failures: Vec<String>,
    /// The longest time that an answered request took. A second or more means that a packet was lost on the way.
    pub slowest: Duration,
}

impl SpreadReport {
    /// Adds the outcome of one request from `source`.
    pub fn add(&mut self, source: IpAddr, result: Result<Answer>) {
        match result {
            Ok(answer) if answer.status == 200 => {
                *self.answers.entry(source).or_default().entry(answer.text()).or_default() += 1;
                self.slowest = self.slowest.max(answer.took);
            }
            Ok(answer) => self.fail(format!("{source}: status {} {}", answer.status, answer.text())),
            Err(error) => self.fail(format!("{error:#}")),
        }
    }

    /// Adds an outcome that is known: the backend that answered, or why nobody did.
    pub fn note(&mut self, source: IpAddr, outcome: &Result<String, String>) {
        match outcome {
            Ok(backend) => {
                *self.answers.entry(source).or_default().entry(backend.clone()).or_default() += 1;
            }
            Err(why) => self.fail(format!("{source}: {why}")),
        }
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        if self.failures.len() < QUOTED_FAILURES {
            self.failures.push(why);
        }
    }

    /// Number of requests answered with 200.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answers.values().flat_map(BTreeMap::values).sum()
    }

    /// Backend → number of answers.
    #[must_use]
    pub fn per_backend(&self) -> BTreeMap<String, usize> {
        let mut sums = BTreeMap::new();
        for (backend, count) in self.answers.values().flatten() {
            *sums.entry(backend.clone()).or_default() += count;
        }
        sums
    }

    /// Backend → number of client addresses that it has answered.
    #[must_use]
    pub fn clients_per_backend(&self) -> BTreeMap<String, usize> {
        let mut sums = BTreeMap::new();
        for backend in self.answers.values().flat_map(BTreeMap::keys) {
            *sums.entry(backend.clone()).or_default() += 1;
        }
        sums
    }

    /// Client addresses that more than one backend has answered.
    #[must_use]
    pub fn wanderers(&self) -> Vec<IpAddr> {
        self.answers.iter().filter(|(_, backends)| backends.len() > 1).map(|(source, _)| *source).collect()
    }

    /// Client address → the backend that answered it (the first by name, for wanderers): to compare two spreads.
    #[must_use]
    pub fn owners(&self) -> BTreeMap<IpAddr, String> {
        let first = |(source, backends): (&IpAddr, &BTreeMap<String, usize>)| {
            backends.keys().next().map(|backend| (*source, backend.clone()))
        };
        self.answers.iter().filter_map(first).collect()
    }
}

/// Sends the requests of `plan` from inside a namespace.
///
/// # Errors
/// When there is no source address; requests that fail are counted in the report.
pub fn spread(ns: &Entry, plan: &Spread<'_>) -> Result<SpreadReport> {
    ensure!(!plan.sources.is_empty(), "a spread needs client addresses");
    ns.block_on(|| async {
        let sources = (0..plan.requests).filter_map(|k| plan.source(k));
        let mut results = stream::iter(sources)
            .map(|source| async move { (source.ip(), get(source, plan.target, plan.path, plan.limit).await) })
            .buffer_unordered(plan.concurrency.max(1));
        let mut report = SpreadReport::default();
        while let Some((source, result)) = results.next().await {
            report.add(source, result);
        }
        Ok(report)
    })
}

/// A TCP connection to the line protocol that stays open.
#[derive(Debug)]
pub struct LongLived {
    stream: BufReader<TcpStream>,
}

impl LongLived {
    /// Connects from `source` (port 0: any); `limit` holds for this and for every later read and write.
    ///
    /// # Errors
    /// When the connection is refused or not answered in time.
    pub fn open(ns: &Entry, source: SocketAddr, target: SocketAddr, limit: Duration) -> Result<Self> {
        let stream = ns.block_on(|| async move {
            let stream = timeout(limit, connect(source, target))
                .await
                .unwrap_or_else(|_| bail!("no connection within {limit:?}"))
                .with_context(|| format!("connecting to {target} from {}", source.ip()))?;
            Ok(stream.into_std()?)
        })?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a line and returns the name of the backend that echoed it.
    ///
    /// # Errors
    /// When the connection is broken, silent for too long, or answers something else.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes()).context("sending a line")?;
        let mut answer = String::new();
        let length = self.stream.read_line(&mut answer).context("waiting for the echo of a line")?;
        ensure!(length > 0, "the backend has closed the connection");
        let echo = answer.trim_end().split_once(' ').filter(|(_, echo)| *echo == line);
        echo.map(|(name, _)| name.to_owned())
            .ok_or_else(|| anyhow!("asked {line:?}, was answered {answer:?}"))
    }

    /// The client's end of it.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn source(&self) -> Result<SocketAddr> {
        Ok(self.stream.get_ref().local_addr()?)
    }
}

/// A UDP socket of a client, connected to one service: datagrams from elsewhere do not arrive.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
}

impl Datagrams {
    /// A socket on `source` (port 0: any); `limit` holds for every wait.
    ///
    /// # Errors
    /// When the address is not the client's.
    pub fn open(ns: &Entry, source: SocketAddr, target: SocketAddr, limit: Duration) -> Result<Self> {
        let socket = ns.run(|| connected(source, target))?;
        socket.set_read_timeout(Some(limit))?;
        Ok(Self { socket })
    }

    /// Sends a datagram and returns the name of the backend that echoed it. Nothing is sent twice.
    ///
    /// # Errors
    /// When no answer comes in time, or it is no echo.
    pub fn ask(&self, payload: &[u8]) -> Result<String> {
        self.send(payload)?;
        self.echo_of(payload)
    }

    fn echo_of(&self, payload: &[u8]) -> Result<String> {
        let answer = self.receive()?;
        let name = answer.strip_suffix(payload).and_then(|head| head.strip_suffix(b" "));
        let name = name.ok_or_else(|| anyhow!("no echo: {:?}", String::from_utf8_lossy(&answer)))?;
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// When the kernel refuses, which also tells of an ICMP error that came before.
    pub fn send(&self, payload: &[u8]) -> Result<()> {
        self.socket.send(payload).context("sending a datagram")?;
        Ok(())
    }

    /// Waits for a datagram.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn receive(&self) -> Result<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        let length = self.socket.recv(&mut buffer).context("waiting for a datagram")?;
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// Sockets of [`ask_everybody`] that wait at once: fewer than what a veth pair keeps in its ring.
const ASKED_AT_ONCE: usize = 64;

/// One datagram from each of `sources` to an echo server, nothing sent twice: client address → backend that echoed.
/// A cheap way to see where thousands of addresses go.
///
/// # Errors
/// When an echo does not come within `limit`.
pub fn ask_everybody(
    ns: &Entry,
    sources: &[IpAddr],
    target: SocketAddr,
    limit: Duration,
) -> Result<BTreeMap<IpAddr, String>> {
    ns.run(|| {
        let mut owners = BTreeMap::new();
        for batch in sources.chunks(ASKED_AT_ONCE) {
            let mut asked = Vec::new();
            for source in batch {
                let socket = connected((*source, 0).into(), target)?;
                socket.set_read_timeout(Some(limit))?;
                let datagrams = Datagrams { socket };
                datagrams.send(b"who?")?;
                asked.push((*source, datagrams));
            }
            for (source, datagrams) in asked {
                let name = datagrams.echo_of(b"who?").with_context(|| format!("asked from {source}"))?;
                owners.insert(source, name);
            }
        }
        Ok(owners)
    })
}

/// A UDP socket in the namespace of the calling thread.
fn connected(source: SocketAddr, target: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(source).with_context(|| format!("binding to {source}"))?;
    socket.connect(target).with_context(|| format!("a route to {target}"))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Result<Answer> {
        Ok(Answer { status, body: Bytes::from_static(body.as_bytes()), took: Duration::from_millis(3) })
    }

    #[test]
    fn a_report_counts_by_source_and_backend() {
        let [a, b]: [IpAddr; 2] = [[198, 19, 0, 1].into(), [198, 19, 0, 2].into()];
        let mut report = SpreadReport::default();
        report.add(a, answer(200, "b1\n"));
        report.add(a, answer(200, "b1\n"));
        report.add(b, answer(200, "b1\n"));
        report.add(b, answer(200, "b2\n"));
        report.add(b, answer(503, "no"));
        report.add(a, Err(anyhow!("refused")));

        assert_eq!((report.answered(), report.failed), (4, 2));
        assert_eq!(report.per_backend(), BTreeMap::from([("b1".into(), 3), ("b2".into(), 1)]));
        assert_eq!(report.clients_per_backend(), BTreeMap::from([("b1".into(), 2), ("b2".into(), 1)]));
        assert_eq!(report.wanderers(), [b]);
        assert_eq!(report.owners()[&a], "b1");
        assert!(report.failures[0].contains("503") && report.failures[1].contains("refused"));
    }

    #[test]
    fn failures_are_quoted_up_to_a_bound() {
        let mut report = SpreadReport::default();
        for _ in 0..100 {
            report.add([198, 19, 0, 1].into(), Err(anyhow!("refused")));
        }
        assert_eq!((report.failed, report.failures.len()), (100, QUOTED_FAILURES));
    }
}
