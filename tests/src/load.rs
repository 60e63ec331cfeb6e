//! Traffic beside a test: requests at a steady pace, connections that keep talking, datagrams with numbers.
//!
//! Each runs on a thread of its own from start to `finish`, and keeps what happened to every single one.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    panic::resume_unwind,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    netns::Entry,
    traffic::{LongLived, SpreadReport, get},
    wait::wait_for,
};

/// For each request, line and datagram: longer than any repetition of a lost packet, so that nothing hides as slow.
const LIMIT: Duration = Duration::from_secs(20);

/// Source ports of [`Requests`]: between those of spreads and those that the kernel gives away.
const FIRST_PORT: u16 = 30_000;
const PORTS: u16 = 2_700;

/// A thread that works until it is told to stop.
#[derive(Debug)]
struct Worker<T> {
    stop: Arc<AtomicBool>,
    /// What it has done so far, to wait for.
    done: Arc<AtomicUsize>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Worker<T> {
    fn spawn(name: &str, work: impl FnOnce(&AtomicBool, &AtomicUsize) -> T + Send + 'static) -> Result<Self> {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stop_there, done_there) = (Arc::clone(&stop), Arc::clone(&done));
        let body = move || work(&stop_there, &done_there);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(body)?;
        Ok(Self { stop, done, thread: Some(thread) })
    }

    /// Waits until it has done `more` than now.
    fn wait_more(&self, what: &str, more: usize) -> Result<()> {
        let goal = self.done.load(Ordering::Relaxed) + more;
        wait_for(&format!("{more} more {what}"), LIMIT, || self.done.load(Ordering::Relaxed) >= goal)
    }

    fn finish(mut self) -> Result<T> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or_else(|| anyhow!("it has ended already"))?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it would have said, a test that has failed does not ask for.
            let _ = thread.join();
        }
    }
}

/// One request that has ended.
#[derive(Clone, Debug)]
pub struct Request {
    /// Client address.
    pub source: IpAddr,
    /// Before its connection.
    pub began: Instant,
    /// The backend that answered, or what happened instead.
    pub outcome: Result<String, String>,
}

/// Requests at a steady pace, each on a connection of its own, from the client addresses in turn.
#[derive(Debug)]
pub struct Requests {
    worker: Worker<Result<()>>,
    ended: Arc<Mutex<Vec<Request>>>,
}

impl Requests {
    /// Begins to send `per_second` requests `GET /` from a namespace.
    ///
    /// # Errors
    /// When there is no client address, or no thread.
    pub fn start(ns: &Entry, sources: &[IpAddr], target: SocketAddr, per_second: u32) -> Result<Self> {
        ensure!(!sources.is_empty(), "requests need client addresses");
        let (ns, sources) = (ns.clone(), sources.to_vec());
        let ended = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&ended);
        let worker = Worker::spawn("requests", move |stop, done| {
            ns.block_on(|| async {
                send_requests(&sources, target, per_second, stop, done, &list).await;
                Ok(())
            })
        })?;
        Ok(Self { worker, ended })
    }

    /// Waits until `more` requests have ended.
    ///
    /// # Errors
    /// When they do not.
    pub fn wait_more(&self, more: usize) -> Result<()> {
        self.worker.wait_more("requests", more)
    }

    /// Requests that have ended so far.
    #[must_use]
    pub fn so_far(&self) -> Vec<Request> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends, when every request that has begun has ended.
    ///
    /// # Errors
    /// When the namespace could not be entered.
    pub fn finish(self) -> Result<Vec<Request>> {
        self.worker.finish()??;
        Ok(std::mem::take(&mut self.ended.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

async fn send_requests(
    sources: &[IpAddr],
    target: SocketAddr,
    per_second: u32,
    stop: &AtomicBool,
    done: &AtomicUsize,
    ended: &Mutex<Vec<Request>>,
) {
    let mut pace = interval(Duration::from_secs(1) / per_second.max(1));
    // A machine that was busy elsewhere must not be asked for everything it missed at once.
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way = JoinSet::new();
    let add = |request: Request| {
        ended.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        done.fetch_add(1, Ordering::Relaxed);
    };
    for (k, source) in sources.iter().copied().cycle().enumerate() {
        // Ports that nobody else uses and that do not come again soon.
        let port = FIRST_PORT + (k / sources.len()) as u16 % PORTS;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        pace.tick().await;
        under_way.spawn(async move {
            let began = Instant::now();
            let outcome = match get((source, port).into(), target, "/", LIMIT).await {
                Ok(answer) if answer.status == 200 => Ok(answer.text()),
                Ok(answer) => Err(format!("status {}", answer.status)),
                Err(error) => Err(format!("{error:#}")),
            };
            Request { source, began, outcome }
        });
        while let Some(Ok(request)) = under_way.try_join_next() {
            add(request);
        }
    }
    while let Some(Ok(request)) = under_way.join_next().await {
        add(request);
    }
}

/// The requests as a report of a spread.
#[must_use]
pub fn report(requests: &[Request]) -> SpreadReport {
    let mut report = SpreadReport::default();
    for request in requests {
        report.note(request.source, &request.outcome);
    }
    report
}

/// Long-lived connections that keep talking, one line after the other.
#[derive(Debug)]
pub struct Conversations(Worker<Vec<Conversation>>);

/// One of them.
#[derive(Debug)]
pub struct Conversation {
    /// Client address.
    pub source: IpAddr,
    /// The backend that answered the first line.
    pub backend: String,
    /// Lines that were answered by that backend.
    pub lines: usize,
    /// What ended it, if anything did.
    pub failure: Option<String>,
}

impl Conversations {
    /// Opens one from each source, asks one line on each, and keeps asking on all of them in turn.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn start(ns: &Entry, sources: &[IpAddr], target: SocketAddr) -> Result<Self> {
        let mut open = Vec::new();
        for source in sources {
            let mut lines = LongLived::open(ns, (*source, 0).into(), target, LIMIT)?;
            let backend = lines.ask("hello")?;
            open.push((lines, Conversation { source: *source, backend, lines: 1, failure: None }));
        }
        Ok(Self(Worker::spawn("conversations", move |stop, done| talk(open, stop, done))?))
    }

    /// Waits until `more` lines have been answered.
    ///
    /// # Errors
    /// When they are not.
    pub fn wait_more(&self, more: usize) -> Result<()> {
        self.0.wait_more("lines", more)
    }

    /// Ends all of them and says how they went.
    ///
    /// # Errors
    /// When that is not known.
    pub fn finish(self) -> Result<Vec<Conversation>> {
        self.0.finish()
    }
}

/// Between two lines on one connection or the other.
const PAUSE: Duration = Duration::from_millis(2);

fn talk(
    mut open: Vec<(LongLived, Conversation)>,
    stop: &AtomicBool,
    done: &AtomicUsize,
) -> Vec<Conversation> {
    while !stop.load(Ordering::Relaxed) && open.iter().any(|(_, talk)| talk.failure.is_none()) {
        for (lines, talk) in open.iter_mut().filter(|(_, talk)| talk.failure.is_none()) {
            match lines.ask(&format!("line {}", talk.lines)) {
                Ok(name) if name == talk.backend => {
                    talk.lines += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(name) => talk.failure = Some(format!("answered by {name}")),
                Err(error) => talk.failure = Some(format!("{error:#}")),
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
            thread::sleep(PAUSE);
        }
    }
    open.into_iter().map(|(_, talk)| talk).collect()
}

/// Numbered datagrams at a steady pace from one socket, and their echoes.
#[derive(Debug)]
pub struct Numbered(Worker<Result<Echoes>>);

/// What became of them.
#[derive(Debug)]
pub struct Echoes {
    /// Sent, numbered from 0.
    pub sent: u64,
    /// Numbers that never came back.
    pub missing: Vec<u64>,
    /// Backends that sent them back.
    pub backends: BTreeSet<String>,
}

impl Numbered {
    /// Begins to send `per_second` datagrams to an echo server.
    ///
    /// # Errors
    /// When the address is not the client's.
    pub fn start(ns: &Entry, source: SocketAddr, target: SocketAddr, per_second: u32) -> Result<Self> {
        let socket = ns.run(|| {
            let socket = UdpSocket::bind(source).with_context(|| format!("binding to {source}"))?;
            socket.connect(target).with_context(|| format!("a route to {target}"))?;
            Ok(socket)
        })?;
        let gap = Duration::from_secs(1) / per_second.max(1);
        Ok(Self(Worker::spawn("datagrams", move |stop, done| echo(&socket, gap, stop, done))?))
    }

    /// Waits until `more` echoes have come back.
    ///
    /// # Errors
    /// When they do not.
    pub fn wait_more(&self, more: usize) -> Result<()> {
        self.0.wait_more("echoes", more)
    }

    /// Stops sending, waits for the last echoes, and says what is missing.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn finish(self) -> Result<Echoes> {
        self.0.finish()?
    }
}

fn echo(socket: &UdpSocket, gap: Duration, stop: &AtomicBool, done: &AtomicUsize) -> Result<Echoes> {
    let mut echoes = Echoes { sent: 0, missing: Vec::new(), backends: BTreeSet::new() };
    let mut waiting = BTreeSet::new();
    let mut buffer = [0; 256];
    let mut next = Instant::now();
    let mut last_news = next;
    loop {
        let now = Instant::now();
        if stop.load(Ordering::Relaxed) {
            if waiting.is_empty() || last_news.elapsed() > Duration::from_secs(2) {
                break;
            }
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        } else if now >= next {
            socket.send(&echoes.sent.to_be_bytes()).context("sending a datagram")?;
            waiting.insert(echoes.sent);
            echoes.sent += 1;
            next = now + gap;
            last_news = now;
            continue;
        } else {
            socket.set_read_timeout(Some(next - now))?;
        }
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let (name, number) = parse(&buffer[..length])?;
                waiting.remove(&number);
                echoes.backends.insert(name);
                done.fetch_add(1, Ordering::Relaxed);
                last_news = Instant::now();
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("waiting for an echo"),
        }
    }
    echoes.missing = waiting.into_iter().collect();
    Ok(echoes)
}

/// Name and number of an echo.
fn parse(echo: &[u8]) -> Result<(String, u64)> {
    let (head, number) = echo.split_last_chunk::<8>().ok_or_else(|| anyhow!("no echo: {echo:?}"))?;
    let name = String::from_utf8_lossy(head).trim_end().to_owned();
    Ok((name, u64::from_be_bytes(*number)))
}
