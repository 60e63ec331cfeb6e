//! Long-lived TCP connections that all talk, each once a period: one thread and one runtime for all of them.
//!
//! A connection that breaks is noted, with the backend that it was on and when that was heard of last, and another one
//! takes its place.

use std::{
    net::SocketAddr,
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval_at, sleep, timeout},
};

use super::PERIOD;
use crate::{netns::Entry, wait::wait_for};

/// Longer than any repetition of a lost packet: what is silent for that long is broken.
const SILENCE: Duration = Duration::from_secs(25);
/// Before another connection is tried where one was refused.
const AGAIN: Duration = Duration::from_millis(200);
/// Connections that are begun in one period at start, so that nothing has to be repeated.
const OPENED_PER_SECOND: u32 = 400;

/// Where a connection comes from and goes to.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The service, for the judge.
    pub(super) service: &'static str,
    /// Client address; any port.
    pub(super) source: SocketAddr,
    /// Address and port of the service.
    pub(super) target: SocketAddr,
}

/// One connection, from its first answer to its end.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) service: &'static str,
    /// Who answers it.
    pub(super) backend: String,
    /// When it was begun, if it was answered. Not when the answer was read: on a busy machine that may be after its
    /// sender has died.
    pub(super) opened: Instant,
    /// When the last line was asked that was answered.
    pub(super) heard: Instant,
    /// Answers.
    pub(super) lines: u64,
    /// When and how it broke.
    pub(super) broken: Option<(Instant, String)>,
}

/// What all connections write down.
#[derive(Debug, Default)]
struct Book {
    lives: Vec<Life>,
    /// The living one of each plan, by its place in `lives`.
    alive: Vec<Option<usize>>,
    lines: u64,
    refused: u64,
}

/// The connections, until they are finished.
#[derive(Debug)]
pub(super) struct Talkers {
    book: Arc<Mutex<Book>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// Everything that was seen.
#[derive(Debug)]
pub(super) struct Lives {
    /// Every connection that was ever answered.
    pub(super) all: Vec<Life>,
    /// Answers on all of them.
    pub(super) lines: u64,
    /// Attempts to connect that came to nothing.
    pub(super) refused: u64,
}

impl Talkers {
    /// Begins to connect from a namespace.
    ///
    /// # Errors
    /// When there is no thread.
    pub(super) fn start(ns: &Entry, plans: Vec<Plan>) -> Result<Self> {
        let book = Arc::new(Mutex::new(Book { alive: vec![None; plans.len()], ..Book::default() }));
        let (stop, stopped) = watch::channel(false);
        let (ns, shared) = (ns.clone(), Arc::clone(&book));
        let body = move || ns.block_on(|| async { keep_all(plans, &shared, &stopped).await });
        let thread = thread::Builder::new().name("talkers".into()).spawn(body)?;
        Ok(Self { book, stop, thread: Some(thread) })
    }

    /// Waits until every plan has a connection that was answered after this call.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub(super) fn wait_round(&self, limit: Duration) -> Result<()> {
        let since = Instant::now();
        let missing = || {
            let book = lock(&self.book);
            let fresh = |at: &Option<usize>| {
                at.and_then(|at| book.lives.get(at)).is_some_and(|life| life.heard > since)
            };
            book.alive.iter().filter(|at| !fresh(at)).count()
        };
        wait_for("an answer on every connection", limit, || missing() == 0)
            .with_context(|| format!("{} connections have none", missing()))
    }

    /// Waits until `more` lines have been answered, on whichever connections.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub(super) fn wait_lines(&self, more: u64, limit: Duration) -> Result<()> {
        let goal = lock(&self.book).lines + more;
        wait_for(&format!("{more} more lines"), limit, || lock(&self.book).lines >= goal)
    }

    /// Connections that live now.
    pub(super) fn living(&self) -> usize {
        lock(&self.book).alive.iter().flatten().count()
    }

    /// Ends all of them.
    ///
    /// # Errors
    /// When the namespace could not be entered.
    pub(super) fn finish(mut self) -> Result<Lives> {
        self.join()?;
        let mut book = lock(&self.book);
        Ok(Lives { all: std::mem::take(&mut book.lives), lines: book.lines, refused: book.refused })
    }

    fn join(&mut self) -> Result<()> {
        self.stop.send_replace(true);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Drop for Talkers {
    fn drop(&mut self) {
        // What it would have said, a soak that has failed does not ask for.
        let _ = self.join();
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn keep_all(plans: Vec<Plan>, book: &Arc<Mutex<Book>>, stop: &watch::Receiver<bool>) -> Result<()> {
    let mut tasks = JoinSet::new();
    for (number, plan) in plans.into_iter().enumerate() {
        let (book, mut stop) = (Arc::clone(book), stop.clone());
        let first = Duration::from_secs(1) / OPENED_PER_SECOND * u32::try_from(number)?;
        tasks.spawn(async move {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = keep(number, &plan, first, &book) => {}
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a connection's task")?;
    }
    Ok(())
}

/// One connection after the other, for ever.
async fn keep(number: usize, plan: &Plan, first: Duration, book: &Mutex<Book>) {
    sleep(first).await;
    loop {
        let now = Instant::now();
        let Ok((mut stream, backend)) = open(plan).await else {
            lock(book).refused += 1;
            sleep(AGAIN).await;
            continue;
        };
        let place = {
            let mut book = lock(book);
            let place = book.lives.len();
            let life =
                Life { service: plan.service, backend, opened: now, heard: now, lines: 1, broken: None };
            book.lives.push(life);
            book.alive[number] = Some(place);
            book.lines += 1;
            place
        };
        let error = talk(&mut stream, place, book).await;
        let mut book = lock(book);
        book.alive[number] = None;
        book.lives[place].broken = Some((Instant::now(), format!("from {}: {error:#}", plan.source)));
    }
}

async fn open(plan: &Plan) -> Result<(BufReader<TcpStream>, String)> {
    let work = async {
        let socket = if plan.target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(plan.source).with_context(|| format!("binding to {}", plan.source))?;
        let stream = socket.connect(plan.target).await?;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        let backend = ask(&mut stream, "hello").await?;
        Ok((stream, backend))
    };
    timeout(SILENCE, work).await.unwrap_or_else(|_| bail!("no connection within {SILENCE:?}"))
}

/// Talks until something is wrong, and says what.
async fn talk(stream: &mut BufReader<TcpStream>, place: usize, book: &Mutex<Book>) -> anyhow::Error {
    let mut pace = interval_at(tokio::time::Instant::now() + PERIOD, PERIOD);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut line = 0_u64;
    loop {
        pace.tick().await;
        line += 1;
        let asked = Instant::now();
        let answer = timeout(SILENCE, ask(stream, &format!("line {line}"))).await;
        let backend = match answer {
            Ok(Ok(backend)) => backend,
            Ok(Err(error)) => return error,
            Err(_) => return anyhow!("silent for {SILENCE:?}"),
        };
        let mut book = lock(book);
        book.lines += 1;
        let life = &mut book.lives[place];
        if life.backend != backend {
            return anyhow!("answered by {backend}");
        }
        life.heard = asked;
        life.lines += 1;
    }
}

/// Sends a line and returns the name of the backend that echoed it.
async fn ask(stream: &mut BufReader<TcpStream>, line: &str) -> Result<String> {
    stream.write_all(format!("{line}\n").as_bytes()).await.context("sending a line")?;
    let mut answer = String::new();
    let length = stream.read_line(&mut answer).await.context("waiting for the echo of a line")?;
    ensure!(length > 0, "the backend has closed the connection");
    let echo = answer.trim_end().split_once(' ').filter(|(_, echo)| *echo == line);
    echo.map(|(name, _)| name.to_owned()).ok_or_else(|| anyhow!("asked {line:?}, was answered {answer:?}"))
}
