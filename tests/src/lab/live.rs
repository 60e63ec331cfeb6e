//! `lab run` without `--exit`: continuous traffic, a picture of it, and the commands to try.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use futures::{StreamExt, stream::FuturesUnordered};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    numbers::{parts, table},
    scene::{CLIENTS, Scene},
    state::{DEFAULT_NAME, State, StateFile},
};
use crate::{
    cleanup::orderly_stop,
    traffic::{Answer, SpreadReport, get},
};

/// Requests under way at once.
const CONCURRENCY: usize = 64;
/// For each request: long enough for a lost packet to be sent again.
const LIMIT: Duration = Duration::from_secs(3);
/// Between two pictures, on a terminal and for machines.
const REDRAW: Duration = Duration::from_secs(1);
/// Between two lines where there is no terminal.
const LINES: Duration = Duration::from_secs(2);

/// What the command line says.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Requests per second.
    pub(super) rate: u32,
    /// After which to stop sending.
    pub(super) requests: Option<usize>,
    /// Objects instead of a picture.
    pub(super) json: bool,
}

/// What the sender has seen.
#[derive(Debug, Default)]
struct Seen {
    report: SpreadReport,
    /// Client address → backend of its last answer.
    owners: BTreeMap<IpAddr, String>,
    /// How often that was another one than before.
    moves: usize,
    last_failure: String,
}

type Stop = watch::Receiver<Option<i32>>;

/// Builds a scene, shows it until a signal comes, and removes it.
pub(super) fn main(
    settings: &Settings,
    state: &StateFile,
    build: impl FnOnce() -> Result<Scene>,
) -> Result<()> {
    // Until it is built, a signal ends the program at once; from here on, in order.
    let built = build()?;
    let stop = orderly_stop()?;
    state.write(&State::of(&built))?;
    let introduction = introduction(&built, state.name());
    if !settings.json {
        println!("{introduction}");
    }
    let seen = Mutex::new(Seen::default());
    let (showing, shown) = watch::channel(());
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(&built, settings, &seen, shown));
        // However the picture ends, this end of the channel goes with it, and so the sender ends.
        let drawn = draw(&built, settings, &introduction, &seen, stop, showing);
        let sent = sender.join().map_err(|_| anyhow!("the sender of requests panicked"))?;
        drawn.and(sent)
    })?;
    eprintln!("lab: removing everything …");
    built.end()
}

fn introduction(scene: &Scene, name: &str) -> String {
    let exec = if name == DEFAULT_NAME {
        "cargo xtask lab exec".to_owned()
    } else {
        format!("cargo xtask lab exec --name {name}")
    };
    let (target, mode) = (scene.target(), scene.mode().word());
    let url = match target.ip() {
        IpAddr::V4(vip) => format!("http://{vip}/"),
        IpAddr::V6(vip) => format!("'http://[{vip}]/'"),
    };
    let count = scene.world.backends.len();
    format!(
        "\n  client ({CLIENTS} addresses) ── router ──┬── lb {}   VIP {}, mode {mode}\n\
         {:37}└── b1 … b{count}   answers go straight back to the router\n\n\
         Try from a second terminal:\n  \
         {exec} client -- curl -s {url}\n  \
         {exec} lb -- lb status\n  \
         {exec} b1 -- curl -s localhost/ready/off      # b1 gets no new connections\n  \
         {exec} b1 -- curl -s localhost/ready/on\n  \
         {exec} lb -- lb backend drain web/b2\n  \
         {exec} lb -- lb backend enable web/b2\n  \
         {exec} lb -- lb backend remove web/b{count}\n\
         Ctrl-C removes everything.\n",
        scene.world.lb.v4,
        target.ip(),
        "",
    )
}

/// Sends requests at the given rate until the other end of `shown` is gone.
fn send(
    scene: &Scene,
    settings: &Settings,
    seen: &Mutex<Seen>,
    mut shown: watch::Receiver<()>,
) -> Result<()> {
    let target = scene.target();
    let limit = settings.requests.unwrap_or(usize::MAX);
    let mut sources = scene.sources().into_iter().cycle().take(limit);
    scene.world.client.ns.block_on(|| async {
        let mut clock = interval(Duration::from_secs(1) / settings.rate);
        clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                _ = shown.changed() => return Ok(()),
                Some((source, result)) = under_way.next() => lock(seen).add(source, result),
                _ = clock.tick(), if under_way.len() < CONCURRENCY => {
                    if let Some(source) = sources.next() {
                        under_way.push(async move {
                            (source, get((source, 0).into(), target, "/", LIMIT).await)
                        });
                    }
                }
            }
        }
    })
}

/// Draws until a signal comes. `_showing` goes when this returns or panics.
fn draw(
    scene: &Scene,
    settings: &Settings,
    introduction: &str,
    seen: &Mutex<Seen>,
    mut stop: Stop,
    _showing: watch::Sender<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let terminal = io::stdout().is_terminal() && !settings.json;
    let pause = if terminal || settings.json { REDRAW } else { LINES };
    let start = Instant::now();
    loop {
        let stopped =
            runtime.block_on(async { timeout(pause, stop.wait_for(Option::is_some)).await.is_ok() });
        let states = scene.states();
        let elapsed = start.elapsed();
        let mut output = io::stdout().lock();
        if settings.json {
            writeln!(output, "{}", object(scene, &lock(seen), &states, elapsed))?;
        } else if terminal {
            let picture = picture(scene, &lock(seen), &states, elapsed);
            // The whole screen anew: lines may have wrapped, so nobody knows where the last picture began.
            writeln!(output, "\x1b[H\x1b[J{introduction}\n{picture}")?;
        } else {
            writeln!(output, "{}", line(scene, &lock(seen), elapsed))?;
        }
        output.flush()?;
        if stopped {
            return Ok(());
        }
    }
}

fn names(scene: &Scene) -> Vec<String> {
    scene.world.backends.iter().map(|host| host.name.clone()).collect()
}

fn picture(scene: &Scene, seen: &Seen, states: &[(String, String)], elapsed: Duration) -> String {
    let parts = parts(&seen.report, &names(scene));
    let note = |name: &str| states.iter().find(|(of, _)| of == name).map(|(_, state)| state.clone());
    let notes: Vec<_> =
        parts.iter().map(|part| note(&part.name).unwrap_or_else(|| "(not configured)".into())).collect();
    let Seen { report, moves, last_failure, .. } = seen;
    let failure = if report.failed > 0 { format!("; the last: {last_failure}") } else { String::new() };
    format!(
        "{}  {} s, {} answers; {} client addresses, changes of backend: {moves}; failed: {}{failure}\n",
        table(&parts, &notes),
        elapsed.as_secs(),
        report.answered(),
        report.answers.len(),
        report.failed,
    )
}

fn line(scene: &Scene, seen: &Seen, elapsed: Duration) -> String {
    let cells: Vec<_> = parts(&seen.report, &names(scene))
        .iter()
        .map(|part| format!("{} {} ({:.1} %)", part.name, part.requests, part.share * 100.0))
        .collect();
    let (answered, failed, moves) = (seen.report.answered(), seen.report.failed, seen.moves);
    format!(
        "{} s: {answered} answers: {}; changes of backend: {moves}; failed: {failed}",
        elapsed.as_secs(),
        cells.join(", ")
    )
}

fn object(scene: &Scene, seen: &Seen, states: &[(String, String)], elapsed: Duration) -> serde_json::Value {
    json!({
        "seconds": elapsed.as_secs(),
        "mode": scene.mode(),
        "answered": seen.report.answered(),
        "failed": seen.report.failed,
        "moves": seen.moves,
        "backends": parts(&seen.report, &names(scene)),
        "states": states.iter().cloned().collect::<BTreeMap<_, _>>(),
    })
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    fn add(&mut self, source: IpAddr, result: Result<Answer>) {
        match &result {
            Ok(answer) if answer.status == 200 => {
                let before = self.owners.insert(source, answer.text());
                self.moves += usize::from(before.is_some_and(|before| before != answer.text()));
            }
            Ok(answer) => self.last_failure = format!("status {}", answer.status),
            Err(error) => self.last_failure = format!("{error:#}"),
        }
        self.report.add(source, result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Result<Answer> {
        Ok(Answer { status, body: body.into(), took: Duration::from_millis(1) })
    }

    #[test]
    fn a_move_is_an_answer_from_another_backend_than_the_last() {
        let mut seen = Seen::default();
        let [a, b] = [[198, 19, 0, 1], [198, 19, 0, 2]].map(IpAddr::from);
        for (source, result) in [
            (a, answer(200, "b1\n")),
            (b, answer(200, "b2\n")),
            (a, answer(200, "b1\n")),
            (a, answer(503, "b9\n")),
            (a, Err(anyhow!("refused"))),
            (a, answer(200, "b2\n")),
            (b, answer(200, "b2\n")),
        ] {
            seen.add(source, result);
        }
        assert_eq!((seen.moves, seen.report.failed, seen.report.answered()), (1, 2, 5));
        assert_eq!(seen.last_failure, "refused");
    }
}
