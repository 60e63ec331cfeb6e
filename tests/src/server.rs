//! The demo server of a backend: HTTP, a line protocol over TCP, and UDP echo; every answer carries the backend's name.
//!
//! It listens on all addresses, those that are added later (the VIPs) included, so it can start before the backend is
//! prepared. It ends on SIGTERM, or when its standard input ends if asked: a backend must not outlive its laboratory.

mod echo;
mod http;

use std::{
    io::{self, Write},
    net::{Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
    task::JoinSet,
    time::timeout,
};

pub use http::pattern;

/// Line printed when every port is open.
pub const READY_LINE: &str = "ready";
/// How long open requests may take to finish after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;

/// Command line of `lab backend`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Name in every answer
    #[arg(long)]
    pub name: String,
    /// HTTP ports
    #[arg(long, value_delimiter = ',', default_values_t = [80, 8080])]
    pub http: Vec<u16>,
    /// UDP echo port
    #[arg(long, default_value_t = 7)]
    pub udp: u16,
    /// TCP port of the line protocol
    #[arg(long, default_value_t = 9000)]
    pub line: u16,
    /// Answer /ready with 503 until /ready/on
    #[arg(long)]
    pub not_ready: bool,
    /// End when standard input ends
    #[arg(long)]
    pub exit_with_stdin: bool,
}

/// What all handlers know.
#[derive(Debug)]
struct Shared {
    name: String,
    ready: AtomicBool,
    /// HTTP requests, without those about the server itself.
    requests: AtomicU64,
    /// Turns true when the server ends.
    stop: watch::Receiver<bool>,
}

impl Shared {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Returns when the server is to end.
    async fn stopped(&self) {
        // An error means that the sender is gone, so the server is ending as well.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }
}

/// Runs the server until it is told to end.
///
/// # Errors
/// When a port is taken.
pub fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: &Options) -> Result<()> {
    let (stop, stopped) = watch::channel(false);
    let shared = Arc::new(Shared {
        name: options.name.clone(),
        ready: AtomicBool::new(!options.not_ready),
        requests: AtomicU64::new(0),
        stop: stopped,
    });
    let mut tasks = JoinSet::new();
    for port in &options.http {
        tasks.spawn(http::serve(listen(*port)?, Arc::clone(&shared)));
    }
    tasks.spawn(echo::serve_lines(listen(options.line)?, Arc::clone(&shared)));
    tasks.spawn(echo::serve_udp(echo::udp_socket(options.udp)?, Arc::clone(&shared)));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    println!("{READY_LINE}");
    io::stdout().flush()?;

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = end_of_input(), if options.exit_with_stdin => {}
        Some(ended) = tasks.join_next() => ended.context("a task of the server")??,
    }
    stop.send_replace(true);
    let finish = async {
        while let Some(ended) = tasks.join_next().await {
            ended.context("a task of the server")??;
        }
        Ok(())
    };
    // What is not finished by then is cut off, which is what the deadline is for.
    timeout(GRACE, finish).await.unwrap_or(Ok(()))
}

/// A thread and not the runtime reads, since nothing can interrupt the read; the thread dies with the process.
async fn end_of_input() {
    let (end, ended) = oneshot::channel::<()>();
    thread::spawn(move || {
        // It ends with the input, or with an error, which is as good.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        drop(end);
    });
    // The error says that the other half is gone, which is the message.
    let _ = ended.await;
}

fn listen(port: u16) -> Result<TcpListener> {
    let open = || {
        let socket = TcpSocket::new_v6()?;
        // A new server takes over the port while connections of the old one fade.
        socket.set_reuseaddr(true)?;
        // The wildcard of IPv6 takes IPv4 as well: bindv6only is 0 in new namespaces.
        socket.bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
        socket.listen(BACKLOG)
    };
    open().with_context(|| format!("listening on TCP port {port}"))
}
