//! The HTTP check against real servers, well-behaved and not.

use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use super::*;
use crate::health::{
    probe::run,
    testing::{closed_port, read_request, serve, serve_bytes, soon, target_at},
};

fn probe() -> HttpProbe {
    HttpProbe { path: "/ready".into(), expect: vec![200..=299], host: None, body: None, tls: None }
}

async fn check(endpoint: SocketAddr) -> Verdict {
    run(&probe(), &target_at(endpoint)).await
}

async fn check_within(endpoint: SocketAddr, timeout: Duration) -> Verdict {
    let mut target = target_at(endpoint);
    target.health.timeout = timeout;
    run(&probe(), &target).await
}

/// The reason of a verdict that has to be "not ready".
fn not_ready(verdict: Verdict) -> String {
    match verdict {
        Ok(Outcome::NotReady(reason)) => reason,
        other => panic!("expected NotReady, found {other:?}"),
    }
}

/// Serves one connection with `answer` and gives what that returned.
async fn serve_once<F, T>(
    answer: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, impl Future<Output = T>)
where
    F: Future<Output = T> + Send,
    T: Send + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap();
    let task = tokio::spawn(async move { answer(listener.accept().await.unwrap().0).await });
    (endpoint, async { soon(task).await.unwrap() })
}

#[tokio::test]
async fn expected_codes_are_good() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 299 Whatever\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nready",
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        let verdict = check(serve_bytes(answer).await).await;
        assert_eq!(verdict, Ok(Outcome::Good), "{}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn other_codes_are_not_ready_and_named() {
    let unavailable = serve_bytes(b"HTTP/1.1 503 Nope\r\ncontent-length: 0\r\n\r\n").await;
    let reason = not_ready(check(unavailable).await);
    assert_eq!(reason, "GET /ready answered 503 Service Unavailable, expected 200-299");
}

#[tokio::test]
async fn redirects_are_answers_and_not_followed() {
    let (requests, mut received) = mpsc::unbounded_channel();
    let (endpoint, _task) = serve(move |mut stream| {
        let requests = requests.clone();
        async move {
            requests.send(read_request(&mut stream).await).unwrap();
            stream.write_all(b"HTTP/1.1 302 Found\r\nlocation: /ready\r\n\r\n").await.unwrap();
        }
    })
    .await;
    assert_eq!(not_ready(check(endpoint).await), "GET /ready answered 302 Found, expected 200-299");
    assert!(soon(received.recv()).await.is_some());
    // A second connection shows that nothing came between.
    let mut stream = TcpStream::connect(endpoint).await.unwrap();
    stream.write_all(b"second\r\n\r\n").await.unwrap();
    assert_eq!(soon(received.recv()).await.as_deref(), Some("second\r\n\r\n"));
}

#[tokio::test]
async fn the_request_says_who_asks_for_what() {
    let (endpoint, request) = serve_once(|mut stream| async move {
        let request = read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        request
    })
    .await;
    let probe = HttpProbe { path: "/ready?deep=1".into(), host: Some("web.example".into()), ..probe() };
    assert_eq!(run(&probe, &target_at(endpoint)).await, Ok(Outcome::Good));
    let request = request.await;
    let lines: Vec<_> = request.split("\r\n").collect();
    assert_eq!(lines[0], "GET /ready?deep=1 HTTP/1.1");
    let agent = format!("user-agent: lb-health/{}", env!("CARGO_PKG_VERSION"));
    for header in ["host: web.example", "connection: close", "accept: */*", &agent] {
        assert!(lines.contains(&header), "{header} is missing: {lines:?}");
    }
}

#[test]
fn the_host_defaults_to_address_and_port() {
    for endpoint in ["192.0.2.1:80", "[2001:db8::1]:8080"] {
        let request = probe().request(endpoint.parse().unwrap()).unwrap();
        assert_eq!(request.headers()[HOST], endpoint);
    }
}

#[tokio::test]
async fn a_path_that_makes_no_request_says_nothing_about_the_backend() {
    let probe = HttpProbe { path: "/\u{7f} x".into(), ..probe() };
    let (_held, endpoint) = closed_port();
    let error = run(&probe, &target_at(endpoint)).await.unwrap_err();
    assert!(error.to_string().contains("makes no HTTP request: invalid uri character"), "{error}");
}

#[tokio::test]
async fn a_refused_port_is_failed() {
    let (_held, endpoint) = closed_port();
    let verdict = check(endpoint).await;
    assert_eq!(verdict, Ok(Outcome::Failed(format!("connection refused by {endpoint}"))));
}

#[tokio::test]
async fn garbage_is_not_ready() {
    for (answer, words) in [
        (&b"\x16\x03\x01\x00\xff garbage\r\n\r\n"[..], "invalid HTTP version parsed"),
        (b"HTTP/1.1 abc\r\n\r\n", "invalid HTTP status-code parsed"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "invalid HTTP header parsed"),
        (b"HTTP/1.1 200 OK\r\nhalf: a head", "connection closed before message completed"),
        (b"", "connection closed before message completed"),
    ] {
        let reason = not_ready(check(serve_bytes(answer).await).await);
        let start = "GET /ready got no usable answer: ";
        assert!(reason.starts_with(start) && reason.contains(words), "{}: {reason}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_not_ready() {
    let (endpoint, ended) = serve_once(|mut stream| async move {
        stream.write_all(b"SSH-2.0-OpenSSH\r\n").await.unwrap();
        // Hold the connection until the check hangs up.
        _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let reason = not_ready(check(endpoint).await);
    assert!(reason.starts_with("GET /ready got no usable answer: "), "{reason}");
    ended.await;
}

#[tokio::test]
async fn a_reset_instead_of_an_answer_is_not_ready() {
    let (endpoint, _task) = serve(|mut stream| async move {
        read_request(&mut stream).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let reason = not_ready(check(endpoint).await);
    assert!(reason.starts_with("GET /ready got no usable answer: "), "{reason}");
    assert!(reason.contains("Connection reset by peer"), "{reason}");
}

#[tokio::test]
async fn a_late_answer_is_not_ready_and_the_connection_is_reset() {
    for part in [&b""[..], b"H", b"HTTP/1.1 200 OK\r\nhalf: "] {
        let (endpoint, read) = serve_once(move |mut stream| async move {
            read_request(&mut stream).await;
            stream.write_all(part).await.unwrap();
            stream.read(&mut [0; 1]).await
        })
        .await;
        let reason = not_ready(check_within(endpoint, Duration::from_millis(100)).await);
        assert_eq!(reason, format!("connected to {endpoint}, but no complete answer within 100ms"));
        assert_eq!(read.await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn after_an_answer_the_server_sees_an_orderly_end() {
    let (endpoint, read) = serve_once(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await.unwrap();
        stream.read(&mut [0; 1]).await
    })
    .await;
    assert_eq!(check(endpoint).await, Ok(Outcome::Good));
    assert_eq!(read.await.unwrap(), 0);
}

/// Sends `start`, then `again` until the client hangs up.
async fn flood(
    start: &'static [u8],
    again: &'static [u8],
) -> (SocketAddr, impl Future<Output = std::io::Error>) {
    serve_once(move |mut stream| async move {
        read_request(&mut stream).await;
        if let Err(error) = stream.write_all(start).await {
            return error;
        }
        loop {
            if let Err(error) = stream.write_all(again).await {
                return error;
            }
        }
    })
    .await
}

#[tokio::test]
async fn endless_headers_are_cut_off() {
    for header in [&b"x-filler: abcdefghijklmnop\r\n"[..], b"x-one-long-line"] {
        let (endpoint, hung_up) = flood(b"HTTP/1.1 200 OK\r\n", header).await;
        let reason = not_ready(check(endpoint).await);
        assert_eq!(reason, "GET /ready got no usable answer: message head is too large");
        hung_up.await;
    }
}

#[tokio::test]
async fn the_head_may_have_64_kib() {
    for (filler, good) in [(63 * 1024, true), (64 * 1024, false), (1024 * 1024, false)] {
        let head = format!("HTTP/1.1 200 OK\r\nx-filler: {}\r\n\r\n", "x".repeat(filler));
        let verdict = check(serve_bytes(head.leak().as_bytes()).await).await;
        assert_eq!(verdict == Ok(Outcome::Good), good, "{filler} bytes: {verdict:?}");
    }
}

#[tokio::test]
async fn endless_informational_answers_end_with_the_timeout() {
    let (endpoint, hung_up) = flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n").await;
    let reason = not_ready(check_within(endpoint, Duration::from_millis(100)).await);
    assert_eq!(reason, format!("connected to {endpoint}, but no complete answer within 100ms"));
    hung_up.await;
}

#[tokio::test]
async fn an_endless_body_is_not_read() {
    let (endpoint, hung_up) =
        flood(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n", &[b'x'; 65536]).await;
    assert_eq!(check(endpoint).await, Ok(Outcome::Good));
    hung_up.await;
}

#[test]
fn ranges_read_as_in_the_file() {
    assert_eq!(ranges(&[200..=204, 301..=301, 401..=403]), "200-204, 301, 401-403");
}

fn with_body(wanted: &str) -> HttpProbe {
    HttpProbe { body: Some(wanted.into()), ..probe() }
}

#[tokio::test]
async fn a_body_is_good_if_it_has_what_is_wanted() {
    for (answer, good) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall ready"[..], true),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nrea\r\n1\r\nd\r\n1\r\ny\r\n0\r\n\r\n",
            true,
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nready", true),
        // What decides has come; the rest need not.
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\nready", true),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nReady", false),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nread\r\n0\r\ntrailer: ready\r\n\r\n",
            false,
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", false),
    ] {
        let endpoint = serve_bytes(answer).await;
        let verdict = run(&with_body("ready"), &target_at(endpoint)).await;
        if good {
            assert_eq!(verdict, Ok(Outcome::Good), "{}", answer.escape_ascii());
        } else {
            let reason = not_ready(verdict);
            let words = "without \"ready\" in the first 65536 bytes of its body";
            assert!(reason.starts_with("GET /ready answered 20") && reason.ends_with(words), "{reason}");
        }
    }
}

#[tokio::test]
async fn the_status_counts_before_the_body() {
    let endpoint = serve_bytes(b"HTTP/1.1 503 Nope\r\ncontent-length: 5\r\n\r\nready").await;
    let reason = not_ready(run(&with_body("ready"), &target_at(endpoint)).await);
    assert_eq!(reason, "GET /ready answered 503 Service Unavailable, expected 200-299");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_ready() {
    let endpoint = serve_bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nread").await;
    let reason = not_ready(run(&with_body("ready"), &target_at(endpoint)).await);
    assert!(reason.starts_with("GET /ready got no usable answer: "), "{reason}");
}

#[tokio::test]
async fn an_endless_body_is_cut_off() {
    let start = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
    let (endpoint, hung_up) = flood(start, &[b'x'; 65536]).await;
    let reason = not_ready(run(&with_body("ready"), &target_at(endpoint)).await);
    let words = "without \"ready\" in the first 65536 bytes of its body";
    assert_eq!(reason, format!("GET /ready answered 200 OK {words}"));
    hung_up.await;
}

#[tokio::test]
async fn what_is_wanted_may_end_where_the_looking_ends() {
    for (filler, good) in [(MAX_BODY_BYTES - 5, true), (MAX_BODY_BYTES - 4, false)] {
        let length = filler + 5;
        let answer =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}ready", "x".repeat(filler));
        let verdict = run(&with_body("ready"), &target_at(serve_bytes(answer.leak().as_bytes()).await)).await;
        assert_eq!(verdict == Ok(Outcome::Good), good, "{filler}: {verdict:?}");
    }
}
