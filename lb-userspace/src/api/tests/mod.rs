//! The whole API through a real unix socket, and what TCP serves: every verb, every kind of refusal, both listeners'
//! manners.

mod long;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use hyper::Method;
use serde_json::{Value, json};

use crate::api::{
    ApiError, BackendState, ClientError, Kind, ServeError, Status, UnixServer,
    client::path_of,
    fake::{FakeControl, TestDaemon, sample_agent, sample_history, sample_plan, sample_status},
    metrics, public,
    server::{BODY_LIMIT, TEXT_LIMIT},
    types::{AgentInfo, Backends, Healthz, Limits, ServiceLimit, ServiceStatus, Services},
};
use crate::config::Rate;

fn daemon() -> TestDaemon {
    TestDaemon::start(FakeControl::new())
}

/// Sends one request as text; gives status, headers in lower case, and body.
fn raw(daemon: &TestDaemon, request: &str) -> (u16, String, Value) {
    let mut stream = UnixStream::connect(&daemon.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A server that refuses a request without reading all of it may close while we still write.
    let _ = stream.write_all(request.as_bytes());
    parse(&mut stream)
}

/// Reads one whole answer to a request that asked for `connection: close`.
fn parse(stream: &mut impl Read) -> (u16, String, Value) {
    let mut bytes = Vec::new();
    // For the same reason the answer may be followed by a reset.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.into()));
    (status, head.to_lowercase(), body)
}

fn with_body(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: lb\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn questions_give_what_the_daemon_says() {
    let daemon = daemon();
    let client = daemon.client();
    let sample = sample_status();
    assert_eq!(client.get("/v1/status").unwrap().json::<Status>().unwrap(), sample);
    assert_eq!(client.get("/v1/services").unwrap().json::<Services>().unwrap().services, sample.services);
    let web: ServiceStatus = client.get("/v1/services/web").unwrap().json().unwrap();
    assert_eq!(web, sample.services[0]);
    let limit: ServiceLimit = client.get("/v1/services/web/limit").unwrap().json().unwrap();
    assert_eq!(
        limit,
        ServiceLimit { service: "web".into(), limit: Some(Rate { rate: 1_000, burst: 2_000 }) }
    );
    let limits: Limits = client.get("/v1/limits").unwrap().json().unwrap();
    assert_eq!(limits.limits[1], ServiceLimit { service: "dns".into(), limit: None });
    let agent: AgentInfo = client.get("/v1/agent").unwrap().json().unwrap();
    assert_eq!(agent, sample_agent());
    let health: Healthz = client.get("/healthz").unwrap().json().unwrap();
    assert_eq!(health, Healthz { status: "ok".into(), name: "main".into(), generation: 12 });
}

#[test]
fn backends_of_one_service_or_of_all() {
    let daemon = daemon();
    let names = |path: &str| {
        let rows: Backends = daemon.client().get(path).unwrap().json().unwrap();
        rows.backends.iter().map(|r| format!("{}/{}", r.service, r.backend.name)).collect::<Vec<_>>()
    };
    assert_eq!(names("/v1/backends"), ["web/b1", "web/b2", "web/b3", "dns/b1"]);
    assert_eq!(names("/v1/backends?service=dns"), ["dns/b1"]);
}

#[test]
fn every_change_reaches_the_daemon_and_answers_with_what_it_did() {
    let daemon = daemon();
    let none: Option<&Value> = None;
    let cases: [(Method, &str, Option<Value>, &str); 8] = [
        (
            Method::POST,
            "/v1/services/web/backends",
            Some(
                json!({"name": "b4", "address": "198.51.100.14", "port": 81, "weight": 7, "state": "drain"}),
            ),
            "add web/b4 198.51.100.14 port Some(81) weight 7 Drain",
        ),
        (
            Method::POST,
            "/v1/services/web/backends",
            Some(json!({"address": "2001:db8::14"})),
            "add web/2001:db8::14 2001:db8::14 port None weight 100 Up",
        ),
        (Method::DELETE, "/v1/services/web/backends/b1", None, "remove web/b1"),
        (
            Method::PATCH,
            "/v1/services/web/backends/b1",
            Some(json!({"weight": 0, "state": "down", "address": "198.51.100.99", "port": null})),
            r#"set web/b1 {"weight":0,"state":"down","address":"198.51.100.99","port":null}"#,
        ),
        (Method::PUT, "/v1/services/web/limit", Some(json!({"rate": 5, "burst": 6})), "limit web 5/6"),
        (Method::DELETE, "/v1/services/web/limit", None, "clear web"),
        (Method::POST, "/v1/reload", None, "reload"),
        (Method::DELETE, "/v1/services/we%20b/backends/a%2Fb", None, "remove we b/a/b"),
    ];
    for (method, path, body, call) in cases {
        let answer = daemon.client().call(&method, path, body.as_ref().or(none)).unwrap();
        assert_eq!(daemon.control.take_calls(), [call], "{method} {path}");
        assert_eq!(
            answer.json::<Value>().unwrap(),
            json!({"generation": 13, "changed": true, "slots_moved": 5461, "slots_total": 16381, "message": call,
                   "record": 3})
        );
    }
}

#[test]
fn a_backend_is_changed_in_every_service_that_has_it_in_one_transaction() {
    let daemon = daemon();
    let patch = json!({"state": "drain"});
    daemon.client().call(&Method::PATCH, "/v1/backends/b1", Some(&patch)).unwrap();
    daemon.client().call::<()>(&Method::DELETE, "/v1/backends/b3", None).unwrap();
    assert_eq!(daemon.control.take_calls(), [r#"set */b1 {"state":"drain"}"#, "remove */b3"]);
}

#[test]
fn transactions_texts_rollbacks_and_what_they_leave() {
    let daemon = daemon();
    let edits = json!({"edits": [{"op": "clear_limit", "service": "web"},
                                 {"op": "remove_service", "service": "dns"}]});
    let service = json!({"name": "api", "addresses": ["192.0.2.20"], "ports": ["443"]});
    let cases: [(Method, &str, Option<Value>, &str); 8] = [
        (
            Method::POST,
            "/v1/transactions?reason=night+shift",
            Some(edits),
            "clear web; remove service dns because night shift",
        ),
        (
            Method::POST,
            "/v1/services",
            Some(service),
            r#"add service {"name":"api","addresses":["192.0.2.20"],"ports":["443"]}"#,
        ),
        (Method::DELETE, "/v1/services/dns", None, "remove service dns"),
        (Method::POST, "/v1/rollback", Some(json!({})), "rollback None"),
        (Method::POST, "/v1/rollback?confirm=60", Some(json!({"to": 7})), "rollback Some(7) confirm 60s"),
        (Method::POST, "/v1/confirm", None, "confirm"),
        (Method::POST, "/v1/reload?plan=true", None, "plan reload"),
        (Method::DELETE, "/v1/services/dns?plan=true", None, "plan remove service dns"),
    ];
    for (method, path, body, call) in cases {
        daemon.client().call(&method, path, body.as_ref()).unwrap();
        assert_eq!(daemon.control.take_calls(), [call], "{method} {path}");
    }
    let (status, ..) = raw(&daemon, &with_body("PUT", "/v1/config?base=5e", "a = 1"));
    assert_eq!((status, daemon.control.take_calls()), (200, vec!["text \"a = 1\" base Some(\"5e\")".into()]));
    let get = |path: &str| daemon.client().get(path).unwrap().json::<Value>().unwrap();
    assert_eq!(get("/v1/history")["pending"]["back_to"], 1);
    assert_eq!(get("/v1/diff?from=1")["to"], "lb.toml");
    assert_eq!(get("/v1/config")["text"], "[daemon]\n");
    assert_eq!(daemon.control.take_calls(), ["history", "diff Some(1) None", "config"]);
    for (path, body, want) in [
        ("/v1/transactions", r#"{"edits":[]}"#, 422),
        ("/v1/transactions?plan=maybe", r#"{"edits":[]}"#, 400),
        ("/v1/transactions?base=5e", r#"{"edits":[{"op":"clear_limit","service":"web"}]}"#, 400),
        ("/v1/rollback?confirm=0", "{}", 422),
        ("/v1/rollback?confrim=60", "{}", 400),
        ("/v1/rollback", r#"{"to":-1}"#, 422),
    ] {
        let (status, _, problem) = raw(&daemon, &with_body("POST", path, body));
        assert_eq!(status, want, "{path} {body}: {problem}");
    }
    assert_eq!(daemon.control.take_calls(), [""; 0]);
}

#[test]
fn the_text_of_a_configuration_has_a_bound_of_its_own() {
    let daemon = daemon();
    let large = "#".repeat(BODY_LIMIT + 1);
    let (status, ..) = raw(&daemon, &with_body("PUT", "/v1/config", &large));
    assert_eq!((status, daemon.control.take_calls().len()), (200, 1));
    let announced = format!(
        "PUT /v1/config HTTP/1.1\r\nhost: lb\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        TEXT_LIMIT + 1
    );
    let (status, _, problem) = raw(&daemon, &announced);
    assert_eq!((status, &problem["expected"]), (413, &json!(format!("at most {TEXT_LIMIT} bytes"))));
    assert_eq!(daemon.control.take_calls(), [""; 0]);
}

#[test]
fn refusals_of_the_daemon_arrive_word_for_word() {
    for kind in Kind::ALL {
        let refusal = ApiError::new(kind, "web/b1: no").field("f").found("1").expected("2").fix("do this");
        let daemon = TestDaemon::start(FakeControl::refusing(refusal.clone()));
        let error = daemon.client().call::<()>(&Method::POST, "/v1/reload", None).unwrap_err();
        let ClientError::Refused { problem, body } = error else { panic!("{error:?}") };
        assert_eq!(problem, refusal);
        assert_eq!(problem.status, kind.status().as_u16());
        assert_eq!(serde_json::from_slice::<ApiError>(&body).unwrap(), refusal);
    }
}

#[test]
fn problems_have_their_own_content_type() {
    let (status, head, body) = raw(&daemon(), &with_body("PUT", "/v1/services/web/limit", "{"));
    assert_eq!((status, &body["type"]), (400, &json!("urn:lb:problem:bad-request")));
    assert!(head.contains("content-type: application/problem+json"), "{head}");
    assert!(body["detail"].as_str().unwrap().contains("not JSON"), "{body}");
}

#[test]
fn what_is_not_valid_never_reaches_the_daemon() {
    let daemon = daemon();
    let cases = [
        ("PUT", "/v1/services/web/limit", r#"{"rate":0,"burst":1}"#, 422, "rate"),
        ("PUT", "/v1/services/web/limit", r#"{"rate":1,"burst":10000001}"#, 422, "burst"),
        ("PUT", "/v1/services/web/limit", r#"{"rate":1,"burst":1,"per":"second"}"#, 422, "per"),
        ("PATCH", "/v1/services/web/backends/b1", "{}", 422, ""),
        ("PATCH", "/v1/services/web/backends/b1", r#"{"weight":65536}"#, 422, "weight"),
        ("PATCH", "/v1/services/web/backends/b1", r#"{"weigth":5}"#, 422, "weigth"),
        ("PATCH", "/v1/services/web/backends/b1", r#"{"port":0}"#, 422, "port"),
        ("PATCH", "/v1/services/web/backends/b1", r#"{"weight":5}{}"#, 400, ""),
        ("PATCH", "/v1/backends/b1", "{}", 422, ""),
        ("POST", "/v1/services/web/backends", r#"{"name":"b9"}"#, 422, ""),
        ("POST", "/v1/services/web/backends", r#"{"address":"b9"}"#, 422, "address"),
        ("POST", "/v1/services/web/backends", r#"{"address":"192.0.2.9","name":"a b"}"#, 422, "name"),
        ("POST", "/v1/services/web/backends", "", 400, ""),
        ("POST", "/v1/services/%ff/backends", "{}", 400, "path"),
    ];
    for (method, path, body, want, field) in cases {
        let (status, _, problem) = raw(&daemon, &with_body(method, path, body));
        assert_eq!(status, want, "{method} {path} {body}: {problem}");
        assert_eq!(problem["field"].as_str().unwrap_or_default(), field, "{method} {path} {body}: {problem}");
    }
    assert_eq!(daemon.control.take_calls(), [""; 0]);
}

#[test]
fn unknown_names_paths_methods_and_queries() {
    let daemon = daemon();
    let get = |path: &str| daemon.client().get(path).unwrap_err().problem();
    let problem = get("/v1/services/wbe");
    assert_eq!((problem.status, problem.expected.as_deref()), (404, Some("one of web, dns")));
    assert_eq!(get("/v1/services/wbe/limit").status, 404);
    assert_eq!(get("/v1/backends?service=wbe").status, 404);
    assert_eq!(get("/v1/backends?servcie=web").status, 400);
    let problem = get("/v1/nothing");
    assert_eq!((problem.status, problem.detail.as_str()), (404, "there is nothing at /v1/nothing"));
    let (status, head, problem) = raw(&daemon, &with_body("DELETE", "/v1/status", ""));
    assert_eq!((status, &problem["type"]), (405, &json!("urn:lb:problem:method-not-allowed")));
    assert!(head.contains("allow: get,head"), "{head}");
}

#[test]
fn a_body_above_the_bound_is_refused_announced_or_not() {
    let daemon = daemon();
    let announced = "POST /v1/services/web/backends HTTP/1.1\r\nhost: lb\r\nconnection: close\r\ncontent-length: \
                     1048577\r\n\r\n";
    let chunked = format!(
        "POST /v1/services/web/backends HTTP/1.1\r\nhost: lb\r\nconnection: close\r\ntransfer-encoding: \
         chunked\r\n\r\n100001\r\n{}\r\n0\r\n\r\n",
        " ".repeat(0x10_0001)
    );
    for request in [announced, &chunked] {
        let (status, _, problem) = raw(&daemon, request);
        assert_eq!((status, &problem["type"]), (413, &json!("urn:lb:problem:too-large")), "{problem}");
        assert_eq!(problem["expected"], "at most 1048576 bytes");
    }
    let (status, ..) = raw(&daemon, &format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(64 << 10)));
    assert!(matches!(status, 400..=499), "a header above the bound: {status}");
    assert_eq!(daemon.control.take_calls(), [""; 0]);
}

#[test]
fn the_socket_is_for_owner_and_group_and_goes_away_with_the_daemon() {
    let mut daemon = daemon();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&daemon.socket), 0o660);
    assert_eq!(mode(daemon.socket.parent().unwrap()), 0o755);
    daemon.stop();
    assert!(!daemon.socket.exists());
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_the_first_lives_on() {
    let daemon = daemon();
    let refused = UnixServer::bind(&daemon.socket, None).await.unwrap_err();
    assert!(matches!(refused, ServeError::InUse { .. }), "{refused:?}");
    assert!(refused.to_string().contains("another daemon answers on"), "{refused}");
    let client = daemon.client();
    tokio::task::spawn_blocking(move || client.get("/healthz").unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_socket_of_someone_without_our_lock_is_not_removed_either() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("main.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let before = fs::metadata(&socket).unwrap().ino();
    assert!(matches!(UnixServer::bind(&socket, None).await.unwrap_err(), ServeError::InUse { .. }));
    assert_eq!(fs::metadata(&socket).unwrap().ino(), before);
    drop(listener);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_but_a_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("main.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "std leaves the socket behind");
    drop(UnixServer::bind(&socket, None).await.unwrap());
    assert!(!socket.exists());

    fs::write(&socket, "precious").unwrap();
    let refused = UnixServer::bind(&socket, None).await.unwrap_err();
    assert!(matches!(refused, ServeError::NotASocket { .. }), "{refused:?}");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}

#[tokio::test]
async fn a_group_that_is_not_there_is_named_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("lb/main.sock");
    let refused = UnixServer::bind(&socket, Some("lbt-no-such-group")).await.unwrap_err();
    assert!(refused.to_string().contains("there is no group \"lbt-no-such-group\""), "{refused}");
    assert!(!socket.parent().unwrap().exists());
}

#[tokio::test]
async fn the_socket_belongs_to_the_named_group() {
    use nix::unistd::{Gid, Group, geteuid, getgid};

    // Root can give it to any group; others only to their own.
    let gid = if geteuid().is_root() { Gid::from_raw(1) } else { getgid() };
    let group = Group::from_gid(gid).unwrap().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("main.sock");
    let server = UnixServer::bind(&socket, Some(&group.name)).await.unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().gid(), gid.as_raw());
    drop(server);
}

#[tokio::test]
async fn a_path_that_is_too_long_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("x".repeat(120));
    let refused = UnixServer::bind(&socket, None).await.unwrap_err();
    assert!(refused.to_string().starts_with("cannot bind "), "{refused}");
}

/// One request over TCP.
fn over_tcp(daemon: &TestDaemon, method: &str, path: &str) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(daemon.tcp).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(with_body(method, path, "").as_bytes()).unwrap();
    parse(&mut stream)
}

#[test]
fn tcp_serves_metrics_the_page_what_agents_need_and_nothing_else() {
    let daemon = daemon();
    let (status, head, body) = over_tcp(&daemon, "GET", "/metrics");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(body.as_str().unwrap().contains("lb_generation 12\n"), "{body}");
    let (status, head, body) = over_tcp(&daemon, "GET", "/");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/html; charset=utf-8"), "{head}");
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    assert!(body.as_str().unwrap().starts_with("<!doctype html>"), "{body}");
    let (status, head, body) = over_tcp(&daemon, "GET", "/v1/agent");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(
        body,
        json!({"vips": ["192.0.2.10", "2001:db8::10"],
               "tunnel_sources": ["198.51.100.0/28", "2001:db8:1::1/128"], "gue_port": 6080,
               "peers": ["198.51.100.11"]})
    );
    for (method, path, want) in [
        ("GET", "/v1/status", 404),
        ("POST", "/v1/agent", 405),
        ("GET", "/healthz", 404),
        ("POST", "/v1/reload", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/", 405),
    ] {
        assert_eq!(over_tcp(&daemon, method, path).0, want, "{method} {path}");
    }
    let calls = daemon.control.take_calls();
    assert!(calls.iter().all(|c| c == "status" || c == "agent"), "{calls:?}");
}

#[test]
fn the_socket_serves_metrics_and_the_page_too() {
    let daemon = daemon();
    let text = |path: &str| String::from_utf8(daemon.client().get(path).unwrap().body.to_vec()).unwrap();
    assert!(text("/metrics").contains("lb_generation 12\n"));
    assert!(text("/").starts_with("<!doctype html>"));
}

#[tokio::test]
async fn a_crowd_over_tcp_costs_the_daemon_one_picture() {
    use axum::{body::Body, http::Request};
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    for (keep, want) in [(Duration::from_secs(3_600), (1, 1)), (Duration::ZERO, (6, 2))] {
        let control = FakeControl::new();
        let app = TowerToHyperService::new(public::router(Arc::clone(&control) as _, keep));
        for path in ["/", "/metrics", "/", "/metrics", "/metrics", "/", "/v1/agent", "/v1/agent"] {
            let answer = app.call(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(answer.status(), 200);
        }
        let (agent, status): (Vec<_>, Vec<_>) = control.take_calls().into_iter().partition(|c| c == "agent");
        assert_eq!((status.len(), agent.len()), want, "kept for {keep:?}");
    }
}

/// Every key that appears in the samples, at any depth; keys of `reasons` are names, not fields.
fn keys(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                found.push(key.clone());
                if key != "reasons" {
                    keys(value, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|v| keys(v, found)),
        _ => {}
    }
}

#[test]
fn the_document_names_every_field_kind_path_and_metric() {
    let doc = include_str!("../../../../docs/api.md");
    let mut wanted = Vec::new();
    keys(&serde_json::to_value(sample_status()).unwrap(), &mut wanted);
    keys(&serde_json::to_value(sample_agent()).unwrap(), &mut wanted);
    keys(&serde_json::to_value(sample_plan()).unwrap(), &mut wanted);
    keys(&serde_json::to_value(sample_history()).unwrap(), &mut wanted);
    wanted.extend(["record", "confirm_until", "text", "diff", "from", "to"].map(String::from));
    let problem = ApiError::invalid("x").field("x").found("x").expected("x").fix("x");
    keys(&serde_json::to_value(problem).unwrap(), &mut wanted);
    keys(
        &json!({"generation": 0, "changed": 0, "slots_moved": 0, "slots_total": 0, "message": 0}),
        &mut wanted,
    );
    assert!(wanted.len() > 60, "the sample has every field");
    wanted.extend(Kind::ALL.map(Kind::type_uri));
    wanted.extend(BackendState::ALL.map(|s| s.word().to_owned()));
    let metrics = metrics::render(&sample_status());
    wanted.extend(
        metrics.lines().filter_map(|l| Some(l.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())),
    );
    for path in [
        path_of(&["v1", "status"]),
        path_of(&["v1", "services"]),
        "/v1/services/{service}/backends/{backend}".into(),
        "/v1/services/{service}/limit".into(),
        "/v1/backends/{backend}".into(),
        path_of(&["v1", "limits"]),
        path_of(&["v1", "agent"]),
        path_of(&["v1", "reload"]),
        path_of(&["v1", "transactions"]),
        path_of(&["v1", "rollback"]),
        path_of(&["v1", "confirm"]),
        path_of(&["v1", "history"]),
        path_of(&["v1", "diff"]),
        path_of(&["v1", "config"]),
        path_of(&["healthz"]),
    ] {
        assert!(doc.contains(&path), "docs/api.md does not name the path {path}");
    }
    for word in wanted {
        assert!(doc.contains(&format!("`{word}`")), "docs/api.md does not name `{word}`");
    }
}
