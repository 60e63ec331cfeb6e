//! The checker: with fake probes in virtual time where timing matters, with real sockets where they do.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    config::Check,
    health::{
        HealthState::{self, Failed, NotReady, Ready, Unknown},
        Outcome,
        testing::{FakeProbe, closed_port, serve_bytes, soon, target, target_at},
    },
};

fn key(backend: &str) -> TargetKey {
    target(backend).key
}

/// A checker whose every target with a check is asked by `probe`.
fn checker(in_flight: usize, probe: &Arc<FakeProbe>) -> (Checker, mpsc::Receiver<Event>) {
    let probe = Arc::clone(probe);
    Checker::with(
        in_flight,
        Box::new(move |target| {
            (target.health.check != Check::None).then(|| Arc::clone(&probe) as Arc<dyn Probe>)
        }),
    )
}

/// Plays the outcomes, then repeats the last.
fn script(outcomes: Vec<Verdict>) -> Arc<FakeProbe> {
    let outcomes = Mutex::new(outcomes.into_iter());
    let last = Mutex::new(Ok(Outcome::Good));
    FakeProbe::new(move |_, _| {
        let mut last = last.lock().unwrap();
        if let Some(next) = outcomes.lock().unwrap().next() {
            *last = next;
        }
        Box::pin(std::future::ready(last.clone()))
    })
}

fn refused() -> Verdict {
    Ok(Outcome::Failed("refused".into()))
}

fn unavailable() -> Verdict {
    Ok(Outcome::NotReady("503".into()))
}

/// Lets virtual time pass until `probe` has begun `count` checks; one that takes no time has been reported then.
async fn begun(probe: &FakeProbe, count: usize) {
    for _ in 0..200 * count {
        if probe.begun() >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} checks begun in twice the time of {count}", probe.begun());
}

fn state(checker: &Checker, backend: &str) -> HealthState {
    checker.snapshot()[&key(backend)].state
}

async fn event(events: &mut mpsc::Receiver<Event>) -> Event {
    soon(events.recv()).await.unwrap()
}

async fn next(events: &mut mpsc::Receiver<Event>) -> (HealthState, String, bool) {
    let event = event(events).await;
    (event.status.state, event.status.reason, event.first)
}

#[tokio::test(start_paused = true)]
async fn the_first_outcome_decides_then_rise_and_fall_do() {
    let good = || Ok(Outcome::Good);
    let probe = script(vec![
        refused(),
        good(),
        good(), // rise = 2
        refused(),
        unavailable(),
        unavailable(), // fall = 3
        good(),
        good(),
    ]);
    let (checker, mut events) = checker(8, &probe);
    checker.set_targets(vec![target("b1")]);
    let unknown = &checker.snapshot()[&key("b1")];
    assert_eq!((unknown.state, unknown.reason.as_str()), (Unknown, "not checked yet"));
    assert_eq!(next(&mut events).await, (Failed, "refused".into(), true));
    assert_eq!((next(&mut events).await, probe.begun()), ((Ready, "check passed".into(), false), 3));
    assert_eq!((next(&mut events).await, probe.begun()), ((NotReady, "503".into(), false), 6));
    assert_eq!((next(&mut events).await, probe.begun()), ((Ready, "check passed".into(), false), 8));
    assert_eq!(state(&checker, "b1"), Ready);
}

#[tokio::test(start_paused = true)]
async fn an_adopted_state_is_kept_until_rise_or_fall() {
    let probe = script(vec![refused(), refused(), refused()]);
    let (checker, mut events) = checker(8, &probe);
    let since = SystemTime::UNIX_EPOCH;
    let initial = Some(Status { state: Ready, reason: "adopted".into(), since });
    checker.set_targets(vec![Target { initial: initial.clone(), ..target("b1") }]);
    // The first observation is told although nothing changed.
    let first = event(&mut events).await;
    assert_eq!((Some(first.status), first.first, probe.begun()), (initial, true, 1));
    let second = event(&mut events).await;
    assert_eq!((second.status.state, second.first, probe.begun()), (Failed, false, 3));
    assert!(second.status.since > since);
}

#[tokio::test(start_paused = true)]
async fn the_reason_follows_the_newest_outcome_and_is_told() {
    let probe = script(vec![unavailable(), Ok(Outcome::NotReady("404".into())), refused()]);
    let (checker, mut events) = checker(8, &probe);
    checker.set_targets(vec![target("b1")]);
    assert_eq!(next(&mut events).await, (NotReady, "503".into(), true));
    let since = checker.snapshot()[&key("b1")].since;
    assert_eq!((next(&mut events).await, probe.begun()), ((NotReady, "404".into(), false), 2));
    begun(&probe, 3).await;
    // The third outcome does not agree with the state, so its reason is not the state's.
    let status = &checker.snapshot()[&key("b1")];
    assert_eq!((status.state, status.reason.as_str(), status.since), (NotReady, "404", since));
    // The next event is the one that the second kind's streak leads to.
    assert_eq!((next(&mut events).await, probe.begun()), ((Failed, "refused".into(), false), 5));
}

#[tokio::test]
async fn a_target_without_a_check_is_ready_at_once() {
    let (checker, mut events) = Checker::new();
    let mut target = target("b1");
    target.health.check = Check::None;
    target.initial = Some(Status { state: Failed, reason: "adopted".into(), since: SystemTime::UNIX_EPOCH });
    checker.set_targets(vec![target]);
    assert_eq!(state(&checker, "b1"), Ready);
    assert_eq!(next(&mut events).await, (Ready, "no check configured".into(), true));
}

#[tokio::test(start_paused = true)]
async fn checks_that_can_not_be_made_change_nothing_but_the_unknown_reason() {
    let shortage = || Err(Inconclusive("no socket".into()));
    let probe = script(vec![shortage(), Ok(Outcome::Good), refused(), refused(), shortage(), refused()]);
    let (checker, mut events) = checker(8, &probe);
    checker.set_targets(vec![target("b1")]);
    begun(&probe, 1).await;
    let status = &checker.snapshot()[&key("b1")];
    assert_eq!(status.reason, "the check could not be made: no socket");
    assert_eq!(status.state, Unknown);
    assert_eq!(next(&mut events).await, (Ready, "check passed".into(), true));
    // The shortage neither ends the streak nor counts in it.
    assert_eq!((next(&mut events).await, probe.begun()), ((Failed, "refused".into(), false), 6));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_is_asked_again() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let probe = FakeProbe::new(move |_, _| {
        let first = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        Box::pin(async move { if first { panic!("on purpose") } else { Ok(Outcome::Good) } })
    });
    let (checker, mut events) = checker(8, &probe);
    checker.set_targets(vec![target("b1")]);
    assert_eq!(next(&mut events).await, (Ready, "check passed".into(), true));
    assert_eq!(probe.begun(), 2);
}

#[tokio::test(start_paused = true)]
async fn slow_checks_keep_the_interval_and_never_overlap() {
    let starts = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&starts);
    let probe = FakeProbe::new(move |_, progress| {
        noted.lock().unwrap().push(Instant::now());
        progress.connected();
        // Longer than the shortest gap, shorter than the timeout.
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(880)).await;
            Ok(Outcome::Good)
        })
    });
    let (checker, _events) = checker(8, &probe);
    checker.set_targets(vec![target("b1")]);
    begun(&probe, 50).await;
    assert_eq!(probe.most_in_flight(), 1);
    let starts = starts.lock().unwrap();
    // The first two gaps may be down to half an interval, so those checks are late and set the pace.
    for pair in starts[3..].windows(2) {
        let gap = pair[1] - pair[0];
        // A timer fires up to a millisecond late.
        assert!((Duration::from_millis(899)..=Duration::from_millis(1001)).contains(&gap), "{gap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_is_ended_by_its_timeout_and_repeated() {
    let probe = FakeProbe::new(|_, _| Box::pin(std::future::pending()));
    let (checker, mut events) = checker(8, &probe);
    checker.set_targets(vec![target("b1")]);
    assert_eq!(next(&mut events).await, (Failed, "no connection to 127.0.0.1:80 within 1s".into(), true));
    begun(&probe, 5).await;
    assert_eq!(probe.most_in_flight(), 1);
}

#[tokio::test(start_paused = true)]
async fn first_checks_come_soon_and_within_the_bound_on_checks_at_a_time() {
    let start = Instant::now();
    let probe = FakeProbe::new(|_, _| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            Ok(Outcome::Good)
        })
    });
    let (checker, mut events) = checker(4, &probe);
    checker.set_targets((0..50).map(|number| target(&format!("b{number}"))).collect());
    let mut seen = BTreeSet::new();
    while seen.len() < 50 {
        let event = event(&mut events).await;
        assert!(event.first && seen.insert(event.key));
    }
    // Virtual time: 200 ms to begin the last, 50 × 2 ms / 4 if all began at once, and timer ticks.
    assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
    assert!(probe.most_in_flight() <= 4);
}

#[tokio::test(start_paused = true)]
async fn unchanged_targets_keep_streak_and_schedule() {
    let probe = script(vec![Ok(Outcome::Good), refused()]);
    let (checker, mut events) = checker(8, &probe);
    checker.set_targets(vec![target("b1")]);
    assert_eq!(next(&mut events).await.0, Ready);
    // Set again all the time: had it restarted the check, fall = 3 would never be reached, or far too soon.
    let start = Instant::now();
    let fallen = loop {
        tokio::select! {
            event = next(&mut events) => break event,
            () = tokio::time::sleep(Duration::from_millis(10)) => checker.set_targets(vec![target("b1")]),
        }
    };
    assert_eq!((fallen, probe.begun()), ((Failed, "refused".into(), false), 4));
    // Gaps of at least 0.5, 0.5 and 0.9 intervals.
    assert!(start.elapsed() >= Duration::from_millis(1890), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_changed_check_starts_anew_from_the_same_state() {
    let probe = script(vec![Ok(Outcome::Good), refused(), refused(), refused(), refused(), refused()]);
    let (checker, mut events) = checker(8, &probe);
    checker.set_targets(vec![target("b1")]);
    begun(&probe, 3).await;
    assert_eq!(next(&mut events).await, (Ready, "check passed".into(), true));
    // Two of three bad ones were seen; the changed check needs three of its own.
    checker.set_targets(vec![Target { port: 8080, ..target("b1") }]);
    assert_eq!(state(&checker, "b1"), Ready);
    assert_eq!((next(&mut events).await, probe.begun()), ((Failed, "refused".into(), false), 6));
    let mut unchecked = target("b1");
    unchecked.health.check = Check::None;
    checker.set_targets(vec![unchecked.clone()]);
    assert_eq!(next(&mut events).await, (Ready, "no check configured".into(), false));
    // The old check is over.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(probe.begun(), 6);
    // Back to a check: still ready until fall.
    checker.set_targets(vec![target("b1")]);
    assert_eq!(state(&checker, "b1"), Ready);
    assert_eq!((next(&mut events).await.0, probe.begun()), (Failed, 9));
}

#[tokio::test(start_paused = true)]
async fn another_address_is_a_new_target() {
    let probe = script(vec![Ok(Outcome::Good), refused()]);
    let (checker, mut events) = checker(8, &probe);
    checker.set_targets(vec![target("b1")]);
    assert_eq!(next(&mut events).await, (Ready, "check passed".into(), true));
    checker.set_targets(vec![Target { address: "192.0.2.9".parse().unwrap(), ..target("b1") }]);
    assert_eq!(state(&checker, "b1"), Unknown);
    assert_eq!((next(&mut events).await, probe.begun()), ((Failed, "refused".into(), true), 2));
}

#[tokio::test(start_paused = true)]
async fn removed_targets_stop_and_are_forgotten() {
    let asked = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let noted = Arc::clone(&asked);
    let probe = FakeProbe::new(move |target, _| {
        *noted.lock().unwrap().entry(target.key.backend.clone()).or_default() += 1;
        Box::pin(std::future::ready(Ok(Outcome::Good)))
    });
    let (checker, mut events) = checker(8, &probe);
    checker.set_targets(vec![target("b1"), target("b2")]);
    for _ in 0..2 {
        assert!(next(&mut events).await.2);
    }
    checker.set_targets(vec![target("b2")]);
    assert_eq!(checker.snapshot().into_keys().collect::<Vec<_>>(), [key("b2")]);
    let before = asked.lock().unwrap()["b1"];
    begun(&probe, 20).await;
    assert_eq!(asked.lock().unwrap()["b1"], before);
    // Added again it is new.
    checker.set_targets(vec![target("b1"), target("b2")]);
    let event = event(&mut events).await;
    assert_eq!((event.key, event.first), (key("b1"), true));
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_gets_the_newest_state_without_a_growing_queue() {
    // Ready and failed in turn: with rise = fall = 1 every check is news.
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let flapping = FakeProbe::new(move |_, _| {
        let turn = turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Box::pin(std::future::ready(if turn.is_multiple_of(2) { Ok(Outcome::Good) } else { refused() }))
    });
    let (checker, mut events) = checker(8, &flapping);
    let mut one = target("b1");
    (one.health.rise, one.health.fall) = (1, 1);
    checker.set_targets(vec![one]);
    begun(&flapping, 10 * CHANNEL_EVENTS).await;
    let newest = checker.snapshot().remove(&key("b1")).unwrap();
    let mut received = Vec::new();
    while received.last().is_none_or(|event: &Event| event.status != newest) {
        received.push(event(&mut events).await);
    }
    assert!(received[0].first);
    // What fills the channel, one that had its place, one that waited.
    assert!(received.len() <= CHANNEL_EVENTS + 2, "{} events", received.len());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_checker_stops_everything() {
    let probe = FakeProbe::new(|_, _| Box::pin(std::future::pending()));
    let (checker, mut events) = checker(8, &probe);
    checker.set_targets(vec![target("b1"), target("b2")]);
    begun(&probe, 2).await;
    drop(checker);
    while soon(events.recv()).await.is_some() {}
    // Every task held the probe.
    soon(async {
        while Arc::strong_count(&probe) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(probe.begun(), 2);
}

#[tokio::test]
async fn five_hundred_targets_all_get_their_first_result() {
    let ready = serve_bytes(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let draining = serve_bytes(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
    let (_held, refusing) = closed_port();
    let (checker, mut events) = Checker::new();
    let kinds = [(ready, Ready), (draining, NotReady), (refusing, Failed)];
    let targets = (0..500).map(|number| {
        let mut target = target_at(kinds[number % 3].0);
        target.key = key(&format!("b{number:03}"));
        target.health.check =
            Check::Http { path: "/ready".into(), expect: vec![200..=200], host: None, body: None, tls: None };
        target
    });
    checker.set_targets(targets.collect());
    let mut states = BTreeMap::new();
    while states.len() < 500 {
        let event = event(&mut events).await;
        assert!(event.first, "{event:?}");
        states.insert(event.key.backend, event.status.state);
    }
    for (number, state) in states.values().enumerate() {
        assert_eq!(*state, kinds[number % 3].1, "b{number:03}");
    }
}

#[test]
fn the_bound_leaves_half_of_the_file_descriptors() {
    let limits =
        |soft: &str| format!("Limit  Soft Limit\nMax open files            {soft}      524288      files\n");
    assert_eq!(in_flight_bound(&limits("1024")), 512);
    assert_eq!(in_flight_bound(&limits("1048576")), MAX_IN_FLIGHT);
    assert_eq!(in_flight_bound(&limits("unlimited")), MAX_IN_FLIGHT);
    assert_eq!(in_flight_bound(&limits("1")), 1);
    assert_eq!(in_flight_bound(""), 512);
}
