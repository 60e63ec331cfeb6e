//! `affinity = "quic"`: a real QUIC stack whose servers make connection IDs with `lb_userspace::quic`.
//!
//! The servers are quinn endpoints in the backends' namespaces; the client moves its socket to other addresses in the
//! middle of a connection.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_tests::{
    lb_config::{LbConfig, Ports},
    netns::Entry,
    site::{LIMIT, Site},
    topology::World,
};
use lb_userspace::{
    config::{Affinity, Forward, Protocol},
    quic::ConnectionIds,
};
use quinn::{
    ClientConfig, Connection, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, ServerConfig,
    TokioRuntime, TransportConfig,
    rustls::{RootCertStore, pki_types::PrivatePkcs8KeyDer},
};
use tokio::{sync::oneshot, time::timeout};

/// Port of the service that goes by connection IDs.
const BY_ID: u16 = 443;
/// Port of one that goes by addresses, of the same servers.
const BY_ADDRESSES: u16 = 444;
/// What the certificate names.
const NAME: &str = "vip.example";
/// A peer that says nothing for so long is given up: no answer is under way for a tenth of it here.
const IDLE: Duration = Duration::from_secs(4);
/// Server ID and nonce, in bytes, and whether they are encrypted: in plain sight, four rounds, one block. Each backend
/// uses the one of its number.
const KINDS: [(usize, usize, bool); 3] = [(2, 6, false), (3, 8, true), (8, 8, true)];
const KEY: [u8; 16] = *b"sixteen bytes of";

/// The IDs of server `number`, counted from 0.
fn ids(number: usize) -> ConnectionIds {
    let (server, nonce, encrypted) = KINDS[number];
    let ids = ConnectionIds::new(number as u8, server, nonce, encrypted.then_some(KEY)).unwrap();
    ids.for_server(number as u64 + 1).unwrap()
}

/// As quinn wants them.
struct Generator(ConnectionIds);

impl ConnectionIdGenerator for Generator {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.generate().expect("the system gives random bytes"))
    }
    fn cid_len(&self) -> usize {
        self.0.length()
    }
    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A certificate, and who has it.
fn identity() -> (ServerConfig, ClientConfig) {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(IDLE.try_into().unwrap()));
    let transport = Arc::new(transport);
    let mut server = ServerConfig::with_single_cert(vec![certificate], key.into()).unwrap();
    server.transport_config(Arc::clone(&transport));
    let mut client = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
    client.transport_config(transport);
    (server, client)
}

/// A server on both ports: answers each stream with its name and the client's address. Ends when dropped.
struct Server {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    fn start(entry: Entry, name: String, vip: IpAddr, ids: ConnectionIds, config: ServerConfig) -> Self {
        let (end, ended) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let serve = async move || {
            let endpoints = [BY_ID, BY_ADDRESSES].map(|port| {
                let mut endpoint = EndpointConfig::default();
                let ids = ids.clone();
                endpoint.cid_generator(move || Box::new(Generator(ids.clone())));
                let socket = UdpSocket::bind((vip, port))?;
                Ok(Endpoint::new(endpoint, Some(config.clone()), socket, Arc::new(TokioRuntime))?)
            });
            let endpoints = endpoints.into_iter().collect::<Result<Vec<_>>>()?;
            for endpoint in &endpoints {
                tokio::spawn(accept(endpoint.clone(), name.clone()));
            }
            ready.send(())?;
            // Dropping the other half is the sign.
            let _ = ended.await;
            endpoints.iter().for_each(|endpoint| endpoint.close(0u32.into(), b""));
            Ok(())
        };
        let thread = thread::spawn(move || entry.block_on(serve));
        is_ready.recv().expect("the server listens");
        Self { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let ended = thread.join().expect("a server does not panic");
            assert!(ended.is_ok() || thread::panicking(), "{ended:?}");
        }
    }
}

async fn accept(endpoint: Endpoint, name: String) {
    while let Some(incoming) = endpoint.accept().await {
        let name = name.clone();
        tokio::spawn(async move {
            let connection = incoming.await?;
            // Until the client closes or is silent for too long.
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                receive.read_to_end(1 << 16).await?;
                send.write_all(format!("{name} {}", connection.remote_address().ip()).as_bytes()).await?;
                send.finish()?;
            }
            anyhow::Ok(())
        });
    }
}

/// Who answers, and where it sees the client.
async fn ask(connection: &Connection) -> Result<(String, IpAddr)> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(b"who are you?").await?;
    send.finish()?;
    let answer = String::from_utf8(receive.read_to_end(1 << 16).await?)?;
    let (name, address) = answer.split_once(' ').context("an answer of two words")?;
    Ok((name.to_owned(), address.parse()?))
}

fn socket(source: IpAddr) -> Result<UdpSocket> {
    Ok(UdpSocket::bind((source, 0))?)
}

/// More than it takes for each of three backends to have one: all miss one of them once in 10^34 times.
const MOST_CONNECTIONS: usize = 200;

async fn connect(
    config: &ClientConfig,
    source: IpAddr,
    target: SocketAddr,
) -> Result<(Endpoint, Connection)> {
    let runtime = Arc::new(TokioRuntime);
    let mut endpoint = Endpoint::new(EndpointConfig::default(), None, socket(source)?, runtime)?;
    endpoint.set_default_client_config(config.clone());
    let connection = timeout(LIMIT, endpoint.connect(target, NAME)?).await.context("connecting")??;
    Ok((endpoint, connection))
}

/// The owner of each address, by a connection of its own.
async fn owners(
    config: &ClientConfig,
    sources: &[IpAddr],
    target: SocketAddr,
) -> Result<BTreeMap<IpAddr, String>> {
    let mut owners = BTreeMap::new();
    for source in sources {
        let (_endpoint, connection) = connect(config, *source, target).await?;
        owners.insert(*source, ask(&connection).await?.0);
    }
    Ok(owners)
}

fn site(six: bool) -> Site {
    let world = World::one_arm().prepared().build().unwrap();
    let vip: IpAddr = if six { world.vip6.into() } else { world.vip4.into() };
    let mut config = LbConfig::web(&world, vip, Forward::L2, six);
    let service = &mut config.services[0];
    service.protocol = Protocol::Udp;
    service.ports = Ports::Numbers(vec![BY_ADDRESSES]);
    let mut by_id = service.clone();
    by_id.name = "quic".into();
    by_id.ports = Ports::Numbers(vec![BY_ID]);
    by_id.affinity = Affinity::Quic;
    (1..).zip(&mut by_id.backends).for_each(|(id, backend)| backend.server_id = Some(id));
    config.services.push(by_id);
    let mut text = config.to_toml().unwrap();
    for (number, (server, nonce, encrypted)) in KINDS.iter().enumerate() {
        text +=
            &format!("\n[[quic]]\nconfig = {number}\nserver_id_bytes = {server}\nnonce_bytes = {nonce}\n");
        if *encrypted {
            text += &format!("aes_key = \"{}\"\n", hex::encode(KEY));
        }
    }
    let interface = world.lb.interface.clone();
    Site::start_text(world, Vec::new(), &text, &["--interface", &interface]).unwrap()
}

fn keeps_its_backend(six: bool) {
    let site = site(six);
    let vip: IpAddr = if six { site.world.vip6.into() } else { site.world.vip4.into() };
    let (server, client) = identity();
    let hosts = site.world.backends.iter().enumerate();
    let servers: Vec<Server> = hosts
        .map(|(i, host)| Server::start(host.ns.entry(), host.name.clone(), vip, ids(i), server.clone()))
        .collect();
    let sources = World::sources_for(vip, 12);
    let moves = async || {
        let by_addresses = owners(&client, &sources, (vip, BY_ADDRESSES).into()).await?;
        let mut met = BTreeMap::new();
        // The first packet goes by the flow, whose port is any: as many as it takes until each backend has one.
        let mut connections = sources.iter().cycle().take(MOST_CONNECTIONS);
        while met.values().sum::<usize>() < sources.len() || met.len() < KINDS.len() {
            let source =
                connections.next().with_context(|| format!("a backend had no connection: {met:?}"))?;
            let (endpoint, connection) = connect(&client, *source, (vip, BY_ID).into()).await?;
            let (name, seen) = ask(&connection).await?;
            assert_eq!(seen, *source);
            let mut asked = Vec::new();
            for other in &sources {
                endpoint.rebind(socket(*other)?)?;
                let answer = ask(&connection).await.with_context(|| format!("{name} from {other}"))?;
                assert_eq!(answer.0, name, "a connection of {source} that moved to {other}");
                asked.push(answer.1);
            }
            assert_eq!(asked.last(), sources.last(), "the server sees where the client is now");
            *met.entry(name).or_insert(0) += 1;
        }

        // By addresses, the same client is lost when it moves to an address of another backend's.
        let [first, ..] = sources[..] else { unreachable!("there are twelve") };
        let elsewhere = sources.iter().find(|other| by_addresses[*other] != by_addresses[&first]);
        let elsewhere = *elsewhere.expect("twelve addresses are not all one backend's");
        let (endpoint, connection) = connect(&client, first, (vip, BY_ADDRESSES).into()).await?;
        assert_eq!(ask(&connection).await?.0, by_addresses[&first]);
        endpoint.rebind(socket(elsewhere)?)?;
        let lost = ask(&connection).await.expect_err("another backend does not know the connection");
        assert!(format!("{lost:#}").contains("timed out"), "{lost:#}");
        Ok(())
    };
    site.world.client.ns.block_on(moves).unwrap();
    assert_eq!(site.view().unwrap().dropped(), [].into());
    drop(servers);
}

#[test]
fn a_client_that_moves_keeps_its_backend_ipv4() {
    keeps_its_backend(false);
}

#[test]
fn a_client_that_moves_keeps_its_backend_ipv6() {
    keeps_its_backend(true);
}
