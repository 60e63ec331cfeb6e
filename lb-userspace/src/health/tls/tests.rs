//! The HTTPS check against real TLS servers, with certificates that are good and others.

use std::{path::PathBuf, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::health::{
    Outcome, Verdict,
    http::HttpProbe,
    probe::run,
    testing::{serve, serve_bytes, soon, target_at},
};

/// What the good certificate is for.
const NAME: &str = "web.example";
const READY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nready";

/// A certificate authority, with its certificate in a file.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        Self::named("the authority")
    }

    fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn trust(&self) -> Trust {
        Trust::File(self.file().to_str().unwrap().to_owned())
    }

    /// A server with a certificate for `names` that ended with this year.
    fn server(&self, names: &[&str], until: i32) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    fn good_server(&self) -> TlsAcceptor {
        self.server(&[NAME], 4000)
    }
}

/// Answers every request with `answer`, and tells which name was asked for.
async fn answering(
    acceptor: TlsAcceptor,
    answer: &'static [u8],
) -> (SocketAddr, mpsc::UnboundedReceiver<Option<String>>) {
    let (names, asked) = mpsc::unbounded_channel();
    let (endpoint, _task) = serve(move |stream| {
        let (acceptor, names) = (acceptor.clone(), names.clone());
        async move {
            // A client that does not like the certificate hangs up.
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            _ = names.send(stream.get_ref().1.server_name().map(str::to_owned));
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { return };
                request.push(byte);
            }
            _ = stream.write_all(answer).await;
            _ = stream.shutdown().await;
        }
    })
    .await;
    (endpoint, asked)
}

fn probe(trust: Trust, sni: Option<&str>) -> HttpProbe {
    let tls = Tls { name: sni.map(str::to_owned), trust };
    HttpProbe {
        path: "/ready".into(),
        expect: vec![200..=299],
        host: None,
        body: None,
        tls: Some(TlsClient::new(tls, None)),
    }
}

fn not_ready(verdict: Verdict) -> String {
    match verdict {
        Ok(Outcome::NotReady(reason)) => reason,
        other => panic!("expected NotReady, found {other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_of_the_authority_for_the_name_is_good() {
    let authority = Authority::new();
    let (endpoint, mut asked) = answering(authority.good_server(), READY).await;
    let verdict = run(&probe(authority.trust(), Some(NAME)), &target_at(endpoint)).await;
    assert_eq!(verdict, Ok(Outcome::Good));
    assert_eq!(soon(asked.recv()).await.flatten().as_deref(), Some(NAME));
    // The Host header names it as well.
    let mut by_host = probe(authority.trust(), None);
    let host = Some(format!("{NAME}:8443"));
    by_host.tls = Some(TlsClient::new(Tls { name: None, trust: authority.trust() }, host.clone()));
    by_host.host = host;
    assert_eq!(run(&by_host, &target_at(endpoint)).await, Ok(Outcome::Good));
    assert_eq!(soon(asked.recv()).await.flatten().as_deref(), Some(NAME));
}

#[tokio::test]
async fn without_a_name_the_certificate_has_to_be_for_the_address() {
    let authority = Authority::new();
    for (name, good) in [("127.0.0.1", true), (NAME, false)] {
        let (endpoint, _asked) = answering(authority.server(&[name], 4000), READY).await;
        let verdict = run(&probe(authority.trust(), None), &target_at(endpoint)).await;
        match good {
            true => assert_eq!(verdict, Ok(Outcome::Good)),
            false => {
                let words = "the certificate is not for 127.0.0.1 (sni)";
                assert_eq!(not_ready(verdict), format!("TLS with {endpoint} failed: {words}"));
            }
        }
    }
}

#[tokio::test]
async fn other_certificates_are_named_and_believed_only_when_anyone_is() {
    let (authority, foreign) = (Authority::new(), Authority::named("another authority"));
    let of_the_same_name = Authority::new();
    for (acceptor, words) in [
        (authority.server(&[NAME], 2002), "the certificate has expired"),
        (authority.server(&["other.example"], 4000), "the certificate is not for web.example (sni)"),
        (
            foreign.good_server(),
            "the certificate comes from no certificate authority that is trusted here (ca)",
        ),
        (
            of_the_same_name.good_server(),
            "a signature is wrong: the certificate comes from another authority of the same name (ca), or the server \
             has not its key",
        ),
    ] {
        let (endpoint, _asked) = answering(acceptor, READY).await;
        let target = target_at(endpoint);
        let verdict = run(&probe(authority.trust(), Some(NAME)), &target).await;
        assert_eq!(not_ready(verdict), format!("TLS with {endpoint} failed: {words}"));
        assert_ne!(run(&probe(Trust::System, Some(NAME)), &target).await, Ok(Outcome::Good));
        assert_eq!(run(&probe(Trust::Anyone, Some(NAME)), &target).await, Ok(Outcome::Good));
    }
}

#[tokio::test]
async fn status_and_body_count_as_without_tls() {
    let authority = Authority::new();
    for (answer, words) in [
        (&b"HTTP/1.1 503 Nope\r\ncontent-length: 5\r\n\r\nready"[..], "answered 503"),
        (b"HTTP/1.1 302 Found\r\nlocation: /ready\r\ncontent-length: 0\r\n\r\n", "answered 302 Found"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsoon", "answered 200 OK without \"ready\""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nrea", "got no usable answer"),
    ] {
        let (endpoint, _asked) = answering(authority.good_server(), answer).await;
        let probe = HttpProbe { body: Some("ready".into()), ..probe(authority.trust(), Some(NAME)) };
        let reason = not_ready(run(&probe, &target_at(endpoint)).await);
        assert!(reason.contains(words), "{reason}");
    }
    let (endpoint, _asked) = answering(authority.good_server(), READY).await;
    let probe = HttpProbe { body: Some("ready".into()), ..probe(authority.trust(), Some(NAME)) };
    assert_eq!(run(&probe, &target_at(endpoint)).await, Ok(Outcome::Good));
}

#[tokio::test]
async fn what_is_no_tls_is_not_ready() {
    let authority = Authority::new();
    let probe = probe(authority.trust(), Some(NAME));
    let (closing, _task) = serve(|stream| async { drop(stream) }).await;
    let speaking = async |first: &'static [u8], again: &'static [u8]| {
        serve(move |mut stream: TcpStream| async move {
            let mut next = stream.write_all(first).await;
            while next.is_ok() && !again.is_empty() {
                next = stream.write_all(again).await;
            }
            // Until the check hangs up.
            _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await
        .0
    };
    for (endpoint, words) in [
        (speaking(b"HTTP/1.1 400 Bad Request\r\n\r\n", b"").await, "what came is no TLS"),
        (speaking(b"SSH-2.0-OpenSSH\r\n", b"x").await, "what came is no TLS"),
        // Handshake records without an end, of a message that claims 16 MB.
        (speaking(b"\x16\x03\x03\x00\x04\x02\xff\xff\xff", b"\x16\x03\x03\x00\x01\x00").await, ""),
        (closing, ""),
    ] {
        let reason = not_ready(run(&probe, &target_at(endpoint)).await);
        let start = format!("TLS with {endpoint} failed: ");
        assert!(reason.starts_with(&start) && reason.contains(words), "{reason}");
        assert!(reason.len() > start.len(), "{reason}");
    }
    let mute = serve_bytes(b"").await;
    let mut target = target_at(mute);
    target.health.timeout = Duration::from_millis(100);
    let reason = not_ready(run(&probe, &target).await);
    assert_eq!(reason, format!("connected to {mute}, but no complete answer within 100ms"));
}

#[tokio::test]
async fn a_ca_file_of_no_use_says_nothing_about_the_backend_and_a_new_one_is_believed_at_once() {
    let authority = Authority::new();
    let good = std::fs::read(authority.file()).unwrap();
    let (endpoint, _asked) = answering(authority.good_server(), READY).await;
    let (probe, target) = (probe(authority.trust(), Some(NAME)), target_at(endpoint));
    let path = authority.file().display().to_string();
    let inconclusive = async || run(&probe, &target).await.unwrap_err().0;
    for (text, words) in [
        (&b"nothing"[..], "no certificate found, expected at least one in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ""),
        (b"-----BEGIN CERTIFICATE-----\n", ""),
    ] {
        std::fs::write(authority.file(), text).unwrap();
        let found = inconclusive().await;
        assert!(found.starts_with(&format!("the CA file {path}: ")) && found.contains(words), "{found}");
    }
    std::fs::write(authority.file(), vec![b'x'; CA_FILE_BYTES as usize + 1]).unwrap();
    assert_eq!(inconclusive().await, format!("the CA file {path} has more than 1048576 bytes"));
    std::fs::remove_file(authority.file()).unwrap();
    let found = inconclusive().await;
    assert!(found.starts_with(&format!("the CA file {path} cannot be read: No such file")), "{found}");
    std::fs::create_dir(authority.file()).unwrap();
    assert_eq!(inconclusive().await, format!("the CA file {path} is no regular file"));
    std::fs::remove_dir(authority.file()).unwrap();
    std::fs::write(authority.file(), good).unwrap();
    assert_eq!(run(&probe, &target).await, Ok(Outcome::Good));
}

#[test]
fn the_name_of_a_host_header_has_no_port() {
    for (host, name) in [
        ("web.example", "web.example"),
        ("web.example:8443", "web.example"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
    ] {
        assert_eq!(without_port(host), name);
    }
}
