//! Runs the checks: one task per target, a bound on checks at the same time, and a sender of events that can't be
//! flooded.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures::FutureExt;
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, mpsc},
    time::Instant,
};

use super::{
    Event, Inconclusive, Probe, Status, Target, TargetKey, Verdict,
    board::{AbortOnDrop, Board, Life},
    cadence::Cadence,
    probe,
};

/// Checks at the same time, if the file descriptors allow it. Each may hold 128 KiB of an answer (see `http.rs`).
const MAX_IN_FLIGHT: usize = 1024;
/// Events sent but not yet received; further ones wait in the board, where newer ones replace them.
const CHANNEL_EVENTS: usize = 64;
/// At most one log line about checks that could not be made per this time.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// Makes the probe of a target; `None`: nothing to ask.
type Probes = dyn Fn(&Target) -> Option<Arc<dyn Probe>> + Send + Sync;

/// Checks targets until it is dropped. Lives on the tokio runtime that it was made on.
pub struct Checker {
    shared: Arc<Shared>,
    runtime: Handle,
    probes: Box<Probes>,
    /// Differs per process, so that balancers that start together do not ask a backend at the same moment.
    hasher: RandomState,
    _sender: AbortOnDrop,
}

impl Checker {
    /// A checker without targets, and its events. Events of a target that was removed may still be in the channel.
    ///
    /// At most half of the file descriptors that the process may open now (RLIMIT_NOFILE) are used at a time, so
    /// raise that limit first.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new() -> (Self, mpsc::Receiver<Event>) {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self::with(in_flight_bound(&limits), Box::new(|target| probe::for_check(&target.health.check)))
    }

    /// A checker with other probes and another bound on checks at the same time.
    fn with(in_flight: usize, probes: Box<Probes>) -> (Self, mpsc::Receiver<Event>) {
        let runtime = Handle::current();
        let shared = Arc::new(Shared {
            board: Mutex::default(),
            news: Notify::new(),
            in_flight: Semaphore::new(in_flight),
            logged: Mutex::default(),
        });
        let (sender, receiver) = mpsc::channel(CHANNEL_EVENTS);
        let task = runtime.spawn(send_events(Arc::clone(&shared), sender));
        let sender = AbortOnDrop(task.abort_handle());
        (Self { shared, runtime, probes, hasher: RandomState::new(), _sender: sender }, receiver)
    }

    /// Makes `targets` the ones that are checked. Idempotent; of two with one key the later counts.
    ///
    /// A target that is as before keeps streak and schedule. Another port or check starts the check anew from the
    /// state it had; another address is another machine, so a new target. What is not named any more is forgotten.
    pub fn set_targets(&self, targets: Vec<Target>) {
        let mut board = self.shared.board();
        for (target, life) in board.reconcile(targets, SystemTime::now()) {
            let Some(probe) = (self.probes)(&target) else {
                board.unchecked(&target.key, SystemTime::now());
                continue;
            };
            let seed = self.hasher.hash_one(&target.key);
            let cadence = Cadence::new(target.health.interval, seed, Instant::now());
            let key = target.key.clone();
            let watch = Watch { shared: Arc::clone(&self.shared), target, probe, life };
            let task = self.runtime.spawn(watch.run(cadence));
            board.attach(&key, AbortOnDrop(task.abort_handle()));
        }
        drop(board);
        self.shared.news.notify_one();
    }

    /// The newest status of every target; `Unknown` for those without an outcome yet.
    pub fn snapshot(&self) -> BTreeMap<TargetKey, Status> {
        self.shared.board().statuses()
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        // Drops, and with that ends, every task.
        *self.shared.board() = Board::default();
    }
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// What the checker and its tasks share.
#[derive(Debug)]
struct Shared {
    board: Mutex<Board>,
    /// Something may be in the outbox.
    news: Notify,
    in_flight: Semaphore,
    /// When a check that could not be made was last logged.
    logged: Mutex<Option<Instant>>,
}

impl Shared {
    /// The board; every holder leaves it whole even if it panics, as there is no panic between two changes.
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, key: &TargetKey, error: &Inconclusive) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|at| at.elapsed() >= LOG_PERIOD) {
            *logged = Some(Instant::now());
            log::warn!("health of {}/{}: {error}; its state stays as it is", key.service, key.backend);
        }
    }
}

/// The task of one target.
struct Watch {
    shared: Arc<Shared>,
    target: Arc<Target>,
    probe: Arc<dyn Probe>,
    life: Life,
}

impl Watch {
    /// Checks until the target is removed or changed. One check after the other: never two at a time.
    async fn run(self, mut cadence: Cadence) {
        loop {
            tokio::time::sleep_until(cadence.due()).await;
            let Ok(permit) = self.shared.in_flight.acquire().await else { return };
            let check = AssertUnwindSafe(probe::run(&*self.probe, &self.target)).catch_unwind();
            let verdict = check.await.unwrap_or_else(|_| Err(Inconclusive("it panicked".to_owned())));
            drop(permit);
            if !self.report(verdict) {
                return;
            }
            cadence.advance(Instant::now());
        }
    }

    /// False when nobody wants to know any more.
    fn report(&self, verdict: Verdict) -> bool {
        let key = &self.target.key;
        match verdict {
            Ok(outcome) => {
                let wanted = self.shared.board().observe(key, self.life, &outcome, SystemTime::now());
                self.shared.news.notify_one();
                wanted
            }
            Err(error) => {
                self.shared.log(key, &error);
                self.shared.board().inconclusive(key, self.life, error.to_string())
            }
        }
    }
}

/// Sends what is in the outbox until the receiver is gone.
async fn send_events(shared: Arc<Shared>, sender: mpsc::Sender<Event>) {
    // Room first: an event that waits for room stays in the outbox, where a newer one can replace it.
    while let Ok(room) = sender.reserve().await {
        let event = loop {
            // A statement of its own, so that the lock is not held while waiting.
            let next = shared.board().pop();
            match next {
                Some(event) => break event,
                None => shared.news.notified().await,
            }
        };
        room.send(event);
    }
}

/// How many checks may run at the same time, from the text of `/proc/self/limits`: half of the file descriptors are
/// left to the rest of the process.
fn in_flight_bound(limits: &str) -> usize {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    let files = match soft {
        Some("unlimited") => usize::MAX,
        // The usual limit where none can be read.
        soft => soft.and_then(|soft| soft.parse().ok()).unwrap_or(1024),
    };
    (files / 2).clamp(1, MAX_IN_FLIGHT)
}

#[cfg(test)]
mod tests;
