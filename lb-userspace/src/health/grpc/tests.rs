//! A health service of a few lines, which answers as it is told.

use hyper::{HeaderMap, Response};

use super::*;
use crate::health::{
    probe::run,
    testing::{serve, serve_bytes, target_at},
};

/// Serves one health request with this HTTP status, message and `grpc-status`; gives the address.
async fn server(http: u16, message: &'static [u8], status: Option<&'static str>) -> SocketAddr {
    let (endpoint, _task) = serve(move |stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!((request.uri().path(), request.method()), (PATH, &Method::POST));
            let response = Response::builder().status(http).header("content-type", "application/grpc");
            let mut stream = respond.send_response(response.body(()).unwrap(), false).unwrap();
            stream.send_data(Bytes::from_static(message), status.is_none()).unwrap();
            if let Some(status) = status {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", status.parse().unwrap());
                stream.send_trailers(trailers).unwrap();
            }
        }
    })
    .await;
    endpoint
}

async fn check(endpoint: SocketAddr) -> Outcome {
    run(&GrpcProbe { service: "shop".into() }, &target_at(endpoint)).await.unwrap()
}

#[tokio::test]
async fn only_serving_is_good() {
    assert_eq!(check(server(200, b"\0\0\0\0\x02\x08\x01", Some("0")).await).await, Outcome::Good);
    for (http, message, status, words) in [
        (200, &b"\0\0\0\0\x02\x08\x02"[..], Some("0"), "NOT_SERVING"),
        (200, b"\0\0\0\0\0", Some("0"), "UNKNOWN"),
        (200, b"", Some("5"), "that it does not know the service (grpc-status 5)"),
        (200, b"", Some("12"), "that there is no such method (grpc-status 12)"),
        (200, b"", None, "without a grpc-status"),
        (200, b"\0\0\0\0\x03abc", Some("0"), "a message that is no status"),
        (404, b"", Some("0"), "HTTP 404 Not Found"),
    ] {
        let outcome = check(server(http, message, status).await).await;
        assert_eq!(outcome, Outcome::NotReady(format!("the health service answered {words}")));
    }
}

#[tokio::test]
async fn what_is_no_http_2_and_what_is_too_long_is_not_ready() {
    static FLOOD: [u8; 3 * MESSAGE_BYTES] = [0; 3 * MESSAGE_BYTES];
    let flood = server(200, &FLOOD, Some("0")).await;
    let foreign = serve_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    for endpoint in [flood, foreign] {
        let Outcome::NotReady(words) = check(endpoint).await else { panic!("it is ready") };
        assert!(words.starts_with("the health service gave no usable answer"), "{words}");
    }
}

#[test]
fn a_request_names_the_service() {
    assert_eq!(request_message(""), &b"\0\0\0\0\0"[..]);
    assert_eq!(request_message("shop"), &b"\0\0\0\0\x06\x0a\x04shop"[..]);
}
