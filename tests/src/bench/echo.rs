//! The closed loop of the suite `wire`: one TCP client that waits for each answer, over each way of balancing.
//!
//! Proxies end connections, so packets cannot compare them with the others; times of requests can. Client, router,
//! balancer and three servers are namespaces of this machine and share its processors.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use lb_userspace::config::Forward;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, SockaddrIn, bind, connect, shutdown, socket,
};

use super::{
    report::{Absent, Figure, Report},
    rounds::Series,
    say,
};
use crate::{
    cleanup::Folder,
    lb_config::{Health, LbConfig, Ports},
    lb_process::LbProcess,
    netns::{Entry, write_sysctl},
    process::Process,
    topology::World,
};

const SUITE: &str = "wire";
const PORT: u16 = 9100;
const BACKENDS: u8 = 3;
/// Requests on one connection, and connections with one request each, of a round.
const REQUESTS: u32 = 2_000;
const CONNECTIONS: u32 = 500;
/// Before times are taken.
const WARM_UP: u32 = 50;
const BYTES: usize = 64;
/// For a balancer to come up, and for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How requests come to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// To the address of one, without a balancer.
    Direct,
    Lb,
    NftDnat,
    HaProxy,
    Nginx,
}

const WAYS: [(Way, &str); 5] = [
    (Way::Direct, "direct"),
    (Way::Lb, "lb_l2"),
    (Way::NftDnat, "nft_dnat_jhash"),
    (Way::HaProxy, "haproxy_tcp"),
    (Way::Nginx, "nginx_stream"),
];
const FIGURES: [&str; 3] = ["request_p50", "request_p99", "connection_p50"];

/// Names of all cases.
pub(super) fn names() -> Vec<String> {
    WAYS.iter().flat_map(|(_, way)| FIGURES.map(|what| format!("{what}_{way}"))).collect()
}

/// Servers of one backend: echoes until it is dropped.
struct Echo {
    listener: TcpListener,
    accepting: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(ns: &Entry) -> Result<Self> {
        let listener = ns.run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
        let accept = listener.try_clone()?;
        let accepting = thread::spawn(move || {
            for stream in accept.incoming() {
                let Ok(stream) = stream else { break };
                // Ends with its connection, which the client closes.
                thread::spawn(move || echo(stream));
            }
        });
        Ok(Self { listener, accepting: Some(accepting) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // Wakes up whoever waits for connections.
        let woken = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let (Ok(()), Some(accepting)) = (woken, self.accepting.take()) {
            drop(accepting.join());
        }
    }
}

fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    drop(stream.set_nodelay(true));
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
}

/// Where programs of distribution packages are.
struct Peers<'p>(Option<&'p Path>);

impl Peers<'_> {
    fn command(&self, world: &World, name: &str) -> Result<Command> {
        let unpacked = self.0.map(|root| root.join("usr/sbin").join(name)).filter(|path| path.is_file());
        let installed = Path::new("/usr/sbin").join(name);
        let program = unpacked.or_else(|| installed.is_file().then_some(installed));
        let program =
            program.with_context(|| format!("{name} is not there, and could not be got from its package"))?;
        let mut command = world.lb.ns.command(&program.display().to_string());
        if let Some(root) = self.0 {
            let library = |under: &str| root.join(under).join("x86_64-linux-gnu").display().to_string();
            command.env("LD_LIBRARY_PATH", [library("usr/lib"), library("lib")].join(":"));
        }
        Ok(command)
    }

    /// The module of nginx for streams: the one of the package that the program is from.
    fn stream_module(&self) -> PathBuf {
        let module = "usr/lib/nginx/modules/ngx_stream_module.so";
        let root = self.0.filter(|root| root.join(module).is_file()).unwrap_or(Path::new("/"));
        root.join(module)
    }
}

/// What is in place while one way is measured.
enum Working<'w> {
    Nothing,
    Lb { _lb: LbProcess },
    Nft(&'w World),
    Proxy { world: &'w World, process: Process, _folder: Folder },
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let undone = match self {
            Self::Nothing | Self::Lb { .. } => Ok(()),
            Self::Nft(world) => nft(world, "delete table ip bench\n"),
            // Asked and not killed: nginx ends its workers then.
            Self::Proxy { world, process, .. } => process
                .stop(PATIENCE)
                .and_then(|()| ip(world, &format!("address del {}/32 dev lo", world.vip4))),
        };
        if let Err(error) = undone {
            say(&format!("{error:#}"));
        }
    }
}

fn run_to_end(mut command: Command, what: &str) -> Result<()> {
    let output = command.output().with_context(|| what.to_owned())?;
    ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn ip(world: &World, arguments: &str) -> Result<()> {
    let mut command = world.lb.ns.command("ip");
    command.args(arguments.split(' '));
    run_to_end(command, &format!("ip {arguments}"))
}

fn nft(world: &World, rules: &str) -> Result<()> {
    let folder = Folder::new("nft")?;
    let file = folder.path().join("rules");
    std::fs::write(&file, rules)?;
    let mut command = world.lb.ns.command("nft");
    command.arg("-f").arg(&file);
    run_to_end(command, "nft")
}

/// Rules as an administrator would write them; answers must come back this way.
fn nft_rules(world: &World) -> String {
    let backends: Vec<String> =
        world.backends.iter().enumerate().map(|(i, host)| format!("{i} : {}", host.v4)).collect();
    format!(
        "table ip bench {{\n chain prerouting {{\n  type nat hook prerouting priority -100;\n  ip daddr {} tcp dport \
         {PORT} dnat to jhash ip saddr . tcp sport mod {BACKENDS} map {{ {}\n }}\n }}\n chain postrouting {{\n  type nat \
         hook postrouting priority 100;\n  ct status dnat masquerade\n }}\n}}\n",
        world.vip4,
        backends.join(", ")
    )
}

fn haproxy_file(world: &World) -> String {
    let server =
        |(i, host): (usize, &crate::topology::world::Host)| format!(" server b{i} {}:{PORT}\n", host.v4);
    let servers: String = world.backends.iter().enumerate().map(server).collect();
    format!(
        "global\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
         frontend f\n bind {}:{PORT}\n default_backend b\nbackend b\n{servers}",
        world.vip4
    )
}

fn nginx_file(world: &World, module: &Path, folder: &Path) -> String {
    let servers: String =
        world.backends.iter().map(|host| format!("  server {}:{PORT};\n", host.v4)).collect();
    format!(
        "load_module {};\nuser root;\ndaemon off;\nworker_processes auto;\npid {folder}/nginx.pid;\nerror_log \
         {folder}/error.log;\nevents {{ worker_connections 4096; }}\nstream {{\n upstream b {{\n{servers} }}\n server {{\n  \
         listen {}:{PORT};\n  proxy_pass b;\n }}\n}}\n",
        module.display(),
        world.vip4,
        folder = folder.display()
    )
}

/// The balancer's file: backends on the same link, not checked.
fn lb_file(world: &World) -> Result<String> {
    let mut config = LbConfig::web(world, world.vip4.into(), Forward::L2, false);
    for service in &mut config.services {
        service.ports = Ports::Numbers(vec![PORT]);
        service.health = Health { kind: "none".into(), path: None, ..Health::default() };
    }
    config.to_toml()
}

impl Way {
    /// Puts it in place.
    fn begin<'w>(self, world: &'w World, peers: &Peers<'_>) -> Result<Working<'w>> {
        Ok(match self {
            Self::Direct => Working::Nothing,
            Self::Lb => Working::Lb { _lb: LbProcess::start(&world.lb, &lb_file(world)?)? },
            Self::NftDnat => {
                nft(world, &nft_rules(world))?;
                Working::Nft(world)
            }
            Self::HaProxy | Self::Nginx => {
                let folder = Folder::new("proxy")?;
                let file = folder.path().join("proxy.conf");
                let (name, text) = if self == Self::HaProxy {
                    ("haproxy", haproxy_file(world))
                } else {
                    ("nginx", nginx_file(world, &peers.stream_module(), folder.path()))
                };
                std::fs::write(&file, text)?;
                let mut command = peers.command(world, name)?;
                if self == Self::HaProxy {
                    command.arg("-db").arg("-f").arg(&file);
                } else {
                    command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
                }
                ip(world, &format!("address add {}/32 dev lo", world.vip4))?;
                let process = match Process::start(name, command, &folder.path().join("log")) {
                    Ok(process) => process,
                    Err(error) => {
                        ip(world, &format!("address del {}/32 dev lo", world.vip4))?;
                        return Err(error);
                    }
                };
                Working::Proxy { world, process, _folder: folder }
            }
        })
    }
}

/// A connection from the client's address number `source`.
fn open(source: u16, target: SocketAddrV4) -> Result<TcpStream> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let std::net::IpAddr::V4(own) = World::source_v4(source) else { bail!("an IPv4 address") };
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(own, 0)))?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(target))?;
    let stream = TcpStream::from(fd);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream) -> Result<()> {
    let (sent, mut got) = ([7; BYTES], [0; BYTES]);
    stream.write_all(&sent)?;
    stream.read_exact(&mut got)?;
    ensure!(sent == got, "another answer than the request");
    Ok(())
}

/// Microseconds.
#[derive(Default)]
struct Times {
    request: Series,
    connection: Series,
}

fn microseconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e6)
}

/// Requests over one connection, then connections of one request; each from an address of its own, so that no port
/// waits for an old connection.
fn measure(target: SocketAddrV4, next: &mut u16, times: &mut Times) -> Result<()> {
    let mut source = || {
        *next = next.wrapping_add(1);
        *next
    };
    let end = Instant::now() + PATIENCE;
    let mut stream = loop {
        let first = open(source(), target).and_then(|mut stream| ask(&mut stream).map(|()| stream));
        match first {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > end => return Err(error.context("no answer")),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    };
    for n in 0..WARM_UP + REQUESTS {
        let time = microseconds(|| ask(&mut stream))?;
        if n >= WARM_UP {
            times.request.push(time);
        }
    }
    drop(stream);
    for n in 0..WARM_UP + CONNECTIONS {
        let source = source();
        let time = microseconds(|| ask(&mut open(source, target)?))?;
        if n >= WARM_UP {
            times.connection.push(time);
        }
    }
    Ok(())
}

/// Runs the cases whose name is wanted.
pub(super) fn run(
    wanted: &dyn Fn(&str) -> bool,
    peers: Option<&Path>,
    rounds: u32,
    report: &mut Report,
) -> Result<()> {
    let is_wanted = |way: &str| FIGURES.iter().any(|what| wanted(&format!("{what}_{way}")));
    // All are compared with ours.
    let mut ways: Vec<_> = WAYS.iter().filter(|(way, name)| *way == Way::Lb || is_wanted(name)).collect();
    if !WAYS.iter().any(|(_, name)| is_wanted(name)) {
        return Ok(());
    }
    let peers = Peers(peers);
    let world = World::one_arm().backends(BACKENDS).prepared().build()?;
    world.lb.ns.run(|| write_sysctl("net/ipv4/ip_forward", "1"))?;
    let _servers: Vec<Echo> =
        world.backends.iter().map(|host| Echo::start(&host.ns.entry())).collect::<Result<_>>()?;
    let mut series: BTreeMap<Way, Times> = BTreeMap::new();
    let mut failed: BTreeMap<Way, String> = BTreeMap::new();
    let mut next = 0;
    for round in 0..rounds {
        say(&format!("closed loop, round {} of {rounds}, {} ways", round + 1, ways.len()));
        for (way, _) in &ways {
            if failed.contains_key(way) {
                continue;
            }
            let address = if *way == Way::Direct { world.backend(1)?.v4 } else { world.vip4 };
            let target = SocketAddrV4::new(address, PORT);
            let times = series.entry(*way).or_default();
            let done = way
                .begin(&world, &peers)
                .and_then(|_working| world.client.ns.run(|| measure(target, &mut next, times)));
            if let Err(error) = done {
                say(&format!("{way:?} is left out: {error:#}"));
                failed.insert(*way, format!("{error:#}"));
            }
        }
        ways.reverse();
    }
    let figures = |times: &Times| {
        let Times { request, connection } = times;
        [request.quantile(0.5), request.quantile(0.99), connection.quantile(0.5)]
    };
    let ours = series.get(&Way::Lb).filter(|_| !failed.contains_key(&Way::Lb)).map(figures);
    for (way, name) in &WAYS {
        let own = series.get(way).filter(|_| !failed.contains_key(way)).map(figures);
        for (at, what) in FIGURES.iter().enumerate() {
            let case = format!("{what}_{name}");
            if !wanted(&case) {
                continue;
            }
            let Some(own) = own else {
                let why = failed.get(way).map_or("no figure", String::as_str);
                report.absent.push(Absent::new(SUITE, &case, why));
                continue;
            };
            let mut figure = Figure::value(SUITE, &case, own[at], "us");
            if let Some(ours) = ours.filter(|_| *way != Way::Lb) {
                figure.against(&format!("{what}_lb_l2"), own[at], ours[at]);
            }
            report.figures.push(figure);
        }
    }
    Ok(())
}
