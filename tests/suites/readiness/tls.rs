//! Backends that are asked by HTTPS, with certificates of an authority that nobody else knows.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use lb_tests::{
    lb_config::Health,
    netns::Namespace,
    site::{LIMIT, Site},
    topology::World,
    view::View,
};
use lb_userspace::config::Forward;
use nix::sys::socket::{Shutdown, shutdown};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;

use crate::scene::{config, only_the_share_moved, owners};

/// Port of the TLS servers.
const PORT: u16 = 8443;
/// What the certificates are for.
const NAME: &str = "web.example";

/// A certificate of `issuer`, valid to the end of this year.
fn certified(issuer: &Issuer<'_, KeyPair>, until: i32) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(until, 12, 31);
    let certificate = params.signed_by(&key, issuer).unwrap().der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Arc::new(config)
}

/// What a server shows and says now.
#[derive(Clone)]
struct Role {
    certificate: Arc<ServerConfig>,
    body: &'static str,
}

/// Answers every request alike. Ends when dropped.
struct Server {
    role: Arc<Mutex<Role>>,
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(namespace: &Namespace, role: Role) -> Self {
        let listener = namespace.run(|| Ok(TcpListener::bind(("0.0.0.0", PORT))?)).unwrap();
        let role = Arc::new(Mutex::new(role));
        let (accepting, roles) = (listener.try_clone().unwrap(), Arc::clone(&role));
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let role = roles.lock().unwrap().clone();
                // A client that does not like the certificate hangs up.
                _ = answer(stream, role);
            }
        });
        Self { role, listener, thread: Some(thread) }
    }

    fn set(&self, change: impl FnOnce(&mut Role)) {
        change(&mut self.role.lock().unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ends the accept that waits.
        _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

fn answer(stream: TcpStream, role: Role) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    let session = ServerConnection::new(role.certificate).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(session, stream);
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let body = role.body;
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    stream.conn.send_close_notify();
    stream.flush()
}

#[test]
fn a_private_authority_is_believed_and_what_is_wrong_is_named() {
    let folder = TempDir::new().unwrap();
    let ca = folder.path().join("ca.pem");
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(&ca, params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let good = Role { certificate: certified(&issuer, 4000), body: "all ready" };

    let world = World::one_arm().prepared().build().unwrap();
    let servers: Vec<_> = world.backends.iter().map(|host| Server::start(&host.ns, good.clone())).collect();
    let mut config = config(&world, Forward::L2);
    config.services[0].health = Health {
        kind: "https".into(),
        port: PORT,
        body: Some("ready".into()),
        sni: Some(NAME.into()),
        ca: Some(ca.to_str().unwrap().into()),
        ..Health::default()
    };
    let site = Site::start(world, config).unwrap();
    let before = owners(&site);

    let expired = certified(&issuer, 2002);
    let out = |words: &str| {
        let reason = |view: &View| view.backend("web/b1")["reason"].as_str().unwrap_or_default().to_owned();
        let is_out = |view: &View| view.state("web/b1") == "not_ready" && reason(view).contains(words);
        site.wait(&format!("b1 to be out with {words:?}"), is_out).unwrap();
        only_the_share_moved(&before, &owners(&site), "b1", &["b2", "b3"]);
    };
    servers[0].set(|role| role.certificate = expired);
    out("the certificate has expired");
    servers[0].set(|role| *role = Role { body: "soon", ..good.clone() });
    out("answered 200 OK without \"ready\"");
    servers[0].set(|role| *role = good.clone());
    site.wait("b1 to be back", View::is_settled).unwrap();
    assert_eq!(owners(&site), before, "exactly the old owners");
}
