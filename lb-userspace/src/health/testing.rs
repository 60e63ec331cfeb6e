//! What the tests of this module share: targets, probes that do as told, small servers on 127.0.0.1.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

use super::{Probe, Progress, Target, TargetKey, Verdict};
use crate::config::{Check, Health, defaults::MASS};

/// A target of service `web` on 127.0.0.1:80: TCP, interval and timeout 1 s, rise 2, fall 3.
pub(super) fn target(backend: &str) -> Target {
    let second = Duration::from_secs(1);
    Target {
        key: TargetKey { service: "web".into(), backend: backend.into() },
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 80,
        health: Health {
            check: Check::Tcp,
            port: None,
            interval: second,
            timeout: second,
            rise: 2,
            fall: 3,
            mass: MASS,
        },
        initial: None,
    }
}

/// `target` on a real socket, with interval and timeout (1 min) out of the way of a slow machine.
pub(super) fn target_at(endpoint: SocketAddr) -> Target {
    let minute = Duration::from_secs(60);
    let health = Health { interval: minute, timeout: minute, ..target("b1").health };
    Target { address: endpoint.ip(), port: endpoint.port(), health, ..target("b1") }
}

/// Waits for what has to come; a minute without it (at once in paused time) fails the test instead of hanging it.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it did not come within a minute")
}

type Play = dyn for<'a> Fn(&'a Target, &'a Progress) -> BoxFuture<'a, Verdict> + Send + Sync;

/// A probe that plays a closure, without sockets, and counts.
pub(super) struct FakeProbe {
    play: Box<Play>,
    begun: AtomicUsize,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl FakeProbe {
    pub(super) fn new(
        play: impl for<'a> Fn(&'a Target, &'a Progress) -> BoxFuture<'a, Verdict> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            play: Box::new(play),
            begun: AtomicUsize::default(),
            in_flight: AtomicUsize::default(),
            most_in_flight: AtomicUsize::default(),
        })
    }

    /// Checks begun so far.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// The most checks that ever ran at the same time.
    pub(super) fn most_in_flight(&self) -> usize {
        self.most_in_flight.load(Ordering::SeqCst)
    }
}

impl Probe for FakeProbe {
    fn probe<'a>(&'a self, target: &'a Target, progress: &'a Progress) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            self.begun.fetch_add(1, Ordering::SeqCst);
            let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_in_flight.fetch_max(now, Ordering::SeqCst);
            let _ended = OnDrop(|| _ = self.in_flight.fetch_sub(1, Ordering::SeqCst));
            (self.play)(target, progress).await
        })
    }
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A port that refuses connections as long as the socket lives: bound, not listening, so nobody else can take it.
pub(super) fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoint = socket.local_addr().unwrap();
    (socket, endpoint)
}

/// Connections that the kernel has accepted for a listener on 127.0.0.1 and the listener has not taken.
pub(super) fn accept_queue(endpoint: SocketAddr) -> u32 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{:04X}", endpoint.port());
    let listening = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&local) && fields.nth(1) == Some("0A")
    };
    let line = table.lines().find(listening).unwrap();
    // For a listener the receive queue counts connections.
    let (_, queue) = line.split_whitespace().nth(4).unwrap().split_once(':').unwrap();
    u32::from_str_radix(queue, 16).unwrap()
}

/// Gives every connection to `answer`, one after the other, until the returned task or the runtime ends.
pub(super) async fn serve<F>(answer: impl Fn(TcpStream) -> F + Send + 'static) -> (SocketAddr, JoinHandle<()>)
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            answer(stream).await;
        }
    });
    (endpoint, task)
}

/// Reads up to the end of a request's head.
pub(super) async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        // A client that hangs up early is none of the server's business.
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(request).unwrap()
}

/// A server that answers every request with the same bytes and hangs up.
pub(super) async fn serve_bytes(answer: &'static [u8]) -> SocketAddr {
    let (endpoint, _task) = serve(move |mut stream| async move {
        read_request(&mut stream).await;
        _ = stream.write_all(answer).await;
    })
    .await;
    endpoint
}
