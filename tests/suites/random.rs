//! Random frames through the host's pipeline and the loaded programs: a million, unless `LB_TEST_PACKETS` says
//! otherwise.
//!
//! `LB_TEST_SEED` chooses them (`random` for another set each time); the seed is printed. A fault is shrunk and printed
//! as a row for the table of packet cases.

use std::{
    collections::BTreeMap,
    io::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_common::abi::Reason;
use lb_tests::{
    cases::{
        case::{Case, FULL_HEADROOM},
        host::{HostAgent, HostBalancer},
        kernel,
        machine::{Ledger, Machine, Outcome, hex},
        rows,
        worlds::World,
    },
    random::{self, CHUNK, Fault, Frames, Kind, Pair, Scene},
};

/// Past the test runner, which keeps the output of tests that pass.
fn say(line: &str) {
    // A closed stderr is no fault of the datapath.
    let _ = writeln!(std::io::stderr(), "random: {line}");
}

/// Worlds that frames go to, and the share of each in percent. Not those with rate limits: which source gives way in a
/// full bucket depends on clocks.
const WORLDS: [(World, usize); 2] = [(World::Main, 85), (World::Agent, 15)];

/// What frames of a world must reach, or they prove nothing.
fn reachable(world: World) -> Vec<Kind> {
    use Reason::{
        ArpReply, ConnectionReset, Decapsulated, Fragment, Malformed, MalformedTunnel, NeighbourReply,
        NoBackend, NoNextHop, NoSuchPort, NotIp, NotService, NotTranslatable, NotTunnel, ReplyByKernel,
        TooBig, UnknownTunnelSource,
    };
    let reasons: &[Reason] = match world {
        World::Agent => &[NotTunnel, Decapsulated, UnknownTunnelSource, MalformedTunnel],
        _ => &[
            NotIp,
            NotService,
            NoSuchPort,
            Malformed,
            Fragment,
            NoBackend,
            NoNextHop,
            TooBig,
            NotTranslatable,
            ReplyByKernel,
            ArpReply,
            NeighbourReply,
            ConnectionReset,
        ],
    };
    let forwarded = (world != World::Agent).then_some(Kind::Forwarded);
    reasons.iter().map(|reason| Kind::Reason(*reason)).chain(forwarded).collect()
}

/// The frames of a world's rows.
fn corpus(world: World) -> Vec<Vec<u8>> {
    let here = |case: &Case| (case.world == world).then(|| case.frame.bytes().to_vec());
    rows::all().iter().filter_map(here).collect()
}

fn pair(world: World) -> Result<Pair> {
    let site = world.site();
    let host: Box<dyn Machine> = match &site {
        Some(site) => Box::new(HostBalancer::new(site)?),
        None => Box::new(HostAgent::without_connections()),
    };
    let kernel = kernel::machine(site.as_ref())?;
    Ok(Pair::new(world, site, host, kernel))
}

/// What all frames of a world came to.
type Kinds = BTreeMap<World, BTreeMap<Kind, usize>>;

/// Chunks of all worlds, in order.
fn chunks(packets: usize) -> Vec<(World, usize)> {
    let of = |(world, share): (World, usize)| {
        (0..(packets * share / 100).div_ceil(CHUNK)).map(move |number| (world, number))
    };
    WORLDS.into_iter().flat_map(of).collect()
}

/// Takes chunk after chunk until there is none left, or one has a fault.
fn work(chunks: &[(World, usize)], next: &AtomicUsize, seed: u64) -> Result<Result<Kinds, Box<Fault>>> {
    let mut pairs: BTreeMap<World, (Pair, Scene, Vec<Vec<u8>>)> = BTreeMap::new();
    let mut kinds = Kinds::new();
    while let Some((world, number)) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
        if !pairs.contains_key(world) {
            let made = pair(*world).with_context(|| format!("world {world:?}"))?;
            pairs.insert(*world, (made, Scene::new(world.site().as_ref()), corpus(*world)));
        }
        let (pair, scene, corpus) = pairs.get_mut(world).context("it was just put there")?;
        let frames: Vec<Vec<u8>> = random::chunk(*world, scene, corpus, seed, *number).collect();
        match pair.run(&frames).with_context(|| format!("world {world:?}, chunk {number}"))? {
            Ok(some) => {
                let all = kinds.entry(*world).or_default();
                some.into_iter().for_each(|(kind, count)| *all.entry(kind).or_insert(0) += count);
            }
            Err(fault) => {
                // Nobody needs to go on.
                next.store(chunks.len(), Ordering::Relaxed);
                return Ok(Err(fault));
            }
        }
    }
    Ok(Ok(kinds))
}

fn told(fault: &Fault) -> String {
    format!(
        "{}\n    frame {}\n    after {} frames\n  as a row:\n    {}",
        fault.wrong,
        hex(&fault.frame),
        fault.before.len(),
        fault.row
    )
}

#[test]
fn host_and_kernel_agree_and_every_invariant_holds() {
    kernel::permitted().unwrap_or_else(|e| panic!("{e}"));
    let (seed, packets) = (random::seed(), random::packets());
    let repeat = format!("cargo xtask test --suite random --packets {packets} --seed {seed}");
    say(&format!("{packets} frames; the same again: {repeat}"));
    let chunks = chunks(packets);
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let result = work(&chunks, &next, seed);
                results.lock().expect("nobody panics with the lock").push(result);
            });
        }
    });
    let mut kinds = Kinds::new();
    for result in results.into_inner().expect("nobody panics with the lock") {
        match result.unwrap_or_else(|e| panic!("{e:#} ({repeat})")) {
            Ok(some) => {
                for (world, some) in some {
                    let all = kinds.entry(world).or_default();
                    some.into_iter().for_each(|(kind, count)| *all.entry(kind).or_insert(0) += count);
                }
            }
            Err(fault) => panic!("{}\n({repeat})", told(&fault)),
        }
    }
    for (world, kinds) in &kinds {
        let count: usize = kinds.values().sum();
        say(&format!("world {world:?}: {count} frames, none wrong: {kinds:?}"));
        // Fewer are no more than chance. A short run has not enough of them to tell.
        let few = |kind: &Kind| kinds.get(kind).is_none_or(|n| *n < count / 1000);
        let missed: Vec<Kind> = reachable(*world).into_iter().filter(few).collect();
        assert!(count < 20_000 || missed.is_empty(), "hardly any frame was {missed:?}: {kinds:?}");
    }
    assert_eq!(kinds.len(), WORLDS.len(), "a world had no frames: {kinds:?}");
}

#[test]
fn a_seed_makes_the_same_frames_every_time() {
    let (scene, corpus) = (Scene::new(World::Main.site().as_ref()), corpus(World::Main));
    let some = |seed| Frames::new(&scene, &corpus, seed).take(500).collect::<Vec<_>>();
    assert_eq!(some(7), some(7));
    assert_ne!(some(7), some(8));
}

/// A machine that is wrong about some frames, and counts as the kernel's do.
struct Wrong {
    machine: HostBalancer,
    counted: Ledger,
    wrong: fn(&[u8], &mut Outcome),
}

impl Machine for Wrong {
    fn reset(&mut self) {
        self.machine.reset();
    }
    fn run(&mut self, frame: &[u8], headroom: usize) -> Result<Outcome> {
        let mut outcome = self.machine.run(frame, headroom)?;
        (self.wrong)(frame, &mut outcome);
        Ok(outcome)
    }
    fn run_uncounted(&mut self, frame: &[u8], headroom: usize) -> Result<Outcome> {
        let outcome = self.run(frame, headroom)?;
        outcome.moved.iter().for_each(|(counter, by)| *self.counted.entry(*counter).or_insert(0) += by);
        Ok(outcome)
    }
    fn counted(&mut self) -> Result<Ledger> {
        Ok(std::mem::take(&mut self.counted))
    }
    fn least_headroom(&self) -> usize {
        0
    }
    fn pass_time(&mut self, pause: Duration) {
        self.machine.pass_time(pause);
    }
    fn counter(&self, service: u64, member: u64) -> Option<u32> {
        self.machine.counter(service, member)
    }
}

/// The fault that is found in a chunk when one machine is wrong in this way.
fn found(wrong: fn(&[u8], &mut Outcome)) -> Fault {
    let site = World::Main.site().expect("the main world is a balancer's");
    let (scene, corpus) = (Scene::new(Some(&site)), corpus(World::Main));
    let host = HostBalancer::new(&site).expect("the main world can be installed");
    let other = HostBalancer::new(&site).expect("the main world can be installed");
    let other = Wrong { machine: other, counted: Ledger::new(), wrong };
    let mut pair = Pair::new(World::Main, Some(site), Box::new(host), Box::new(other));
    let frames: Vec<Vec<u8>> = random::chunk(World::Main, &scene, &corpus, 1, 0).collect();
    *pair.run(&frames).expect("nothing fails to run").expect_err("a fault is found")
}

fn is_to_a_port(frame: &[u8], port: [u8; 2]) -> bool {
    frame.get(12..15) == Some(&[8, 0, 0x45][..]) && frame.get(36..38) == Some(&port[..])
}

#[test]
fn wrong_bytes_are_found_and_shrunk_to_a_row() {
    let fault = found(|frame, outcome| {
        if is_to_a_port(frame, [0, 53]) {
            outcome.output[5] ^= 1;
        }
    });
    assert_eq!(fault.frame.len(), 38, "{}", told(&fault));
    assert!(fault.row.contains("bytes(\"") && fault.row.ends_with("),"), "{}", fault.row);
    assert!(fault.before.is_empty(), "{}", told(&fault));
}

#[test]
fn a_second_counter_is_found_although_counters_are_read_once_per_chunk() {
    let fault = found(|frame, outcome| {
        if is_to_a_port(frame, [0, 53]) {
            let other = lb_tests::cases::machine::Counter::Reason(Reason::BadTable);
            outcome.moved.insert(other, 1);
        }
    });
    assert_eq!(fault.frame.len(), 38, "{}", told(&fault));
    assert!(fault.wrong.contains("BadTable"), "{}", told(&fault));
}

#[test]
fn a_row_of_a_fault_names_the_backend() {
    let fault = found(|_, outcome| {
        if outcome.moved.len() == 2 {
            outcome.output.push(0);
        }
    });
    let named = ["sends(", "redirects("].iter().any(|verb| fault.row.starts_with(verb));
    assert!(named && fault.row.contains('/') && !fault.row.contains("whom?"), "{}", fault.row);
    let digits = fault.row.split("bytes(\"").nth(1).and_then(|rest| rest.split('"').next());
    let frame = lb_tests::packet_frame::bytes(digits.expect("the row has the frame"));
    let site = World::Main.site().expect("the main world is a balancer's");
    let mut host = HostBalancer::new(&site).expect("the main world can be installed");
    let again = host.run(frame.bytes(), FULL_HEADROOM).expect("the host runs anything");
    assert_eq!(again.moved.len(), 2, "the row shows a frame that is forwarded: {again}");
}
