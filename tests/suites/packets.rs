//! The packet cases: every row on the host and in the kernel, random frames in both, and the page that names them.
//!
//! `LB_TEST_SEED` chooses the random frames (`random` for another set each time); the seed is printed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
};

use anyhow::Result;
use lb_common::abi::Reason;
use lb_tests::cases::{
    case::{Case, Counted, FULL_HEADROOM},
    check::judge,
    host::{HostAgent, HostBalancer},
    invariants,
    kernel::{self, KernelAgent, KernelBalancer},
    machine::{Counter, Machine, hex},
    page,
    random::{self, Frames},
    rows,
    site::Site,
    worlds::World,
};

/// Past the test runner, which keeps the output of tests that pass.
fn say(line: &str) {
    // A closed stderr is no fault of the datapath.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A machine for every world that is asked for, made when it is.
struct Machines {
    make: fn(Option<&Site>) -> Result<Box<dyn Machine>>,
    made: BTreeMap<World, (Option<Site>, Box<dyn Machine>)>,
}

impl Machines {
    fn new(make: fn(Option<&Site>) -> Result<Box<dyn Machine>>) -> Self {
        Self { make, made: BTreeMap::new() }
    }

    fn of(&mut self, world: World) -> (Option<&Site>, &mut dyn Machine) {
        let make = self.make;
        let (site, machine) = self.made.entry(world).or_insert_with(|| {
            let site = world.site();
            let machine = make(site.as_ref()).unwrap_or_else(|e| panic!("world {world:?}: {e:#}"));
            (site, machine)
        });
        (site.as_ref(), machine.as_mut())
    }
}

fn on_host(site: Option<&Site>) -> Result<Box<dyn Machine>> {
    Ok(match site {
        Some(site) => Box::new(HostBalancer::new(site)?),
        None => Box::new(HostAgent::new()),
    })
}

fn in_kernel(site: Option<&Site>) -> Result<Box<dyn Machine>> {
    Ok(match site {
        Some(site) => Box::new(KernelBalancer::new(site)?),
        None => Box::new(KernelAgent::new()?),
    })
}

/// Fails with every complaint, not with the first.
fn report(what: &str, run: usize, complaints: &[String]) {
    say(&format!("packets: {run} {what}, {} wrong", complaints.len()));
    assert!(
        complaints.is_empty(),
        "{} of {run} {what} are wrong:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
}

fn complaint(case: &Case, wrong: &[String]) -> Option<String> {
    (!wrong.is_empty()).then(|| format!("  {}\n    {}", case.name, wrong.join("\n    ")))
}

#[test]
fn host_rows() {
    let mut machines = Machines::new(on_host);
    let rows = rows::all();
    let run = |case: &Case| {
        let (site, machine) = machines.of(case.world);
        let (_, wrong) = judge(case, site, machine).unwrap_or_else(|e| panic!("{}: {e:#}", case.name));
        complaint(case, &wrong)
    };
    let complaints: Vec<String> = rows.iter().filter_map(run).collect();
    report("rows on the host", rows.len(), &complaints);
}

#[test]
fn kernel_rows() {
    kernel::permitted().unwrap_or_else(|e| panic!("{e}"));
    let (mut hosts, mut kernels) = (Machines::new(on_host), Machines::new(in_kernel));
    let rows = rows::all();
    let host_only: Vec<&str> = rows.iter().filter_map(|case| case.host_only).collect();
    for why in BTreeSet::from_iter(&host_only) {
        let count = host_only.iter().filter(|other| *other == why).count();
        say(&format!("packets: {count} rows run on the host only: {why}"));
    }
    let (possible, beyond): (Vec<&Case>, Vec<&Case>) = rows
        .iter()
        .filter(|case| case.host_only.is_none())
        .partition(|case| case.headroom >= kernels.of(case.world).1.least_headroom());
    if !beyond.is_empty() {
        say(&format!("packets: this kernel cannot take away headroom: {} rows not run", beyond.len()));
    }
    let run = |case: &&Case| {
        let (site, host) = hosts.of(case.world);
        let (expected, _) = judge(case, site, host).unwrap_or_else(|e| panic!("{}: {e:#}", case.name));
        let (site, kernel) = kernels.of(case.world);
        let wrong = match judge(case, site, kernel) {
            Ok((found, wrong)) if found.differs(&expected) => {
                [wrong, vec![format!("host   {expected}\n    kernel {found}")]].concat()
            }
            Ok((_, wrong)) => wrong,
            Err(error) => vec![format!("{error:#}")],
        };
        complaint(case, &wrong)
    };
    let complaints: Vec<String> = possible.iter().filter_map(run).collect();
    report("rows in the kernel", possible.len(), &complaints);
}

/// The frames of a world's rows.
fn corpus(world: World) -> Vec<Vec<u8>> {
    let here = |case: &Case| (case.world == world).then(|| case.frame.bytes().to_vec());
    rows::all().iter().filter_map(here).collect()
}

/// What a frame was counted as, or what is wrong with its outcome on the host, in words.
fn invariant(frame: &[u8], site: Option<&Site>, machine: &mut dyn Machine) -> Result<Kind, String> {
    let outcome = machine.run(frame, FULL_HEADROOM).map_err(|e| format!("{e:#}"))?;
    let kind = match outcome.moved.keys().next() {
        Some(Counter::Reason(reason)) => Kind::Reason(*reason),
        _ => Kind::Forwarded,
    };
    match site {
        Some(site) => {
            let snapshot = site.snapshot.as_ref().ok_or("nothing is installed")?;
            invariants::balancer(frame, &outcome, snapshot, machine)
        }
        None => invariants::agent(frame, &outcome),
    }
    .map(|()| kind)
    .map_err(|wrong| format!("  {wrong}\n    frame {}\n    {outcome}", hex(frame)))
}

/// What frames are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Forwarded,
    Reason(Reason),
}

/// What random frames must reach, or they prove nothing.
fn reachable(world: World) -> Vec<Kind> {
    use Reason::{
        ArpReply, Decapsulated, Fragment, Malformed, MalformedTunnel, NeighbourReply, NoBackend, NoNextHop,
        NoSuchPort, NotIp, NotService, NotTunnel, TooBig, UnknownTunnelSource,
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
            ArpReply,
            NeighbourReply,
        ],
    };
    let forwarded = (world != World::Agent).then_some(Kind::Forwarded);
    reasons.iter().map(|reason| Kind::Reason(*reason)).chain(forwarded).collect()
}

/// Worlds that random frames go to, and how many on the host and in the kernel.
const RANDOM: [(World, usize, usize); 2] = [(World::Main, 20_000, 2_000), (World::Agent, 5_000, 500)];

#[test]
fn host_random_frames() {
    let seed = random::seed();
    say(&format!("packets: LB_TEST_SEED={seed}"));
    let mut machines = Machines::new(on_host);
    for (world, count, _) in RANDOM {
        let (site, machine) = machines.of(world);
        let (mut kinds, mut complaints) = (BTreeMap::new(), Vec::new());
        for frame in Frames::new(corpus(world), seed).take(count) {
            match invariant(&frame, site, machine) {
                Ok(kind) => *kinds.entry(kind).or_insert(0) += 1,
                Err(wrong) => complaints.push(wrong),
            }
        }
        report(&format!("random frames on the host in world {world:?}"), count, &complaints);
        // Too few to be more than chance.
        let few = |kind: &Kind| kinds.get(kind).is_none_or(|n| *n < count / 1000);
        let missed: Vec<Kind> = reachable(world).into_iter().filter(few).collect();
        assert!(missed.is_empty(), "hardly any random frame was {missed:?}: {kinds:?}");
    }
}

/// Every frame of the table, cut at every byte.
#[test]
fn host_every_cut() {
    let mut machines = Machines::new(on_host);
    for (world, ..) in RANDOM {
        let (site, machine) = machines.of(world);
        let mut run = 0;
        let mut complaints = Vec::new();
        for frame in corpus(world) {
            // Behind the headers one cut is like another.
            for length in 0..frame.len().min(200) {
                run += 1;
                complaints.extend(invariant(&frame[..length], site, machine).err());
            }
        }
        report(&format!("cut frames on the host in world {world:?}"), run, &complaints);
    }
}

#[test]
fn kernel_random_frames() {
    kernel::permitted().unwrap_or_else(|e| panic!("{e}"));
    let seed = random::seed();
    let (mut hosts, mut kernels) = (Machines::new(on_host), Machines::new(in_kernel));
    for (world, _, count) in RANDOM {
        let (_, host) = hosts.of(world);
        let (_, kernel) = kernels.of(world);
        // The kernel takes no frame shorter than an Ethernet header.
        let frames = Frames::new(corpus(world), seed).filter(|frame| frame.len() >= 14).take(count);
        let differing = |frame: Vec<u8>| {
            let expected = host.run(&frame, FULL_HEADROOM).expect("the host runs anything");
            match kernel.run(&frame, FULL_HEADROOM) {
                Ok(found) if !found.differs(&expected) => None,
                Ok(found) => {
                    Some(format!("  frame {}\n    host   {expected}\n    kernel {found}", hex(&frame)))
                }
                Err(error) => Some(format!("  frame {}\n    {error:#}", hex(&frame))),
            }
        };
        let complaints: Vec<String> = frames.filter_map(differing).collect();
        report(
            &format!("random frames in the kernel in world {world:?} (LB_TEST_SEED={seed})"),
            count,
            &complaints,
        );
    }
}

#[test]
fn names_are_unique() {
    let mut seen = BTreeSet::new();
    let twice: Vec<String> =
        rows::all().into_iter().map(|case| case.name).filter(|name| !seen.insert(name.clone())).collect();
    assert!(twice.is_empty(), "two rows of one name: {twice:#?}");
}

#[test]
fn reasons_are_covered() {
    let rows = rows::all();
    let demanded = |reason: &&Reason| !rows.iter().any(|case| case.counted == Counted::Reason(**reason));
    let missing: Vec<&Reason> = Reason::ALL.iter().filter(demanded).collect();
    assert!(missing.is_empty(), "no row demands {missing:?}");
    // A reason that only the host can show is not shown by the program.
    let in_kernel = |reason: &&Reason| {
        !rows.iter().any(|case| case.host_only.is_none() && case.counted == Counted::Reason(**reason))
    };
    let missing: Vec<&Reason> = Reason::ALL.iter().filter(in_kernel).collect();
    assert!(missing.is_empty(), "no row in the kernel demands {missing:?}");
}

#[test]
fn worlds_are_used() {
    let used: BTreeSet<World> = rows::all().iter().map(|case| case.world).collect();
    assert_eq!(used, BTreeSet::from(World::ALL));
}

#[test]
fn the_page_has_every_reason() {
    let complaints = page::complaints(&rows::all());
    assert!(complaints.is_empty(), "docs/packet-path.md:\n{}", complaints.join("\n"));
}
