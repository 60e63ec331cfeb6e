//! The packet cases: every row on the host and in the kernel, every cut of them on the host, and the page that names
//! them. Random frames are the suite `random`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
};

use anyhow::Result;
use lb_common::abi::Reason;
use lb_tests::cases::{
    case::{Case, Counted, FULL_HEADROOM},
    check::judge,
    host, invariants, kernel,
    machine::{Machine, hex},
    page, rows,
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
    let mut machines = Machines::new(host::machine);
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
    let (mut hosts, mut kernels) = (Machines::new(host::machine), Machines::new(kernel::machine));
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

/// What is wrong with the outcome of a frame on the host, in words.
fn invariant(frame: &[u8], site: Option<&Site>, machine: &mut dyn Machine) -> Result<(), String> {
    let outcome = machine.run(frame, FULL_HEADROOM).map_err(|e| format!("{e:#}"))?;
    match site {
        Some(site) => {
            let snapshot = site.snapshot.as_ref().ok_or("nothing is installed")?;
            invariants::balancer(frame, &outcome, snapshot, machine)
        }
        None => invariants::agent(frame, &outcome),
    }
    .map_err(|wrong| format!("  {wrong}\n    frame {}\n    {outcome}", hex(frame)))
}

/// Worlds whose frames are cut.
const CUT: [World; 2] = [World::Main, World::Agent];

/// Every frame of the table, cut at every byte.
#[test]
fn host_every_cut() {
    let mut machines = Machines::new(host::machine);
    for world in CUT {
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
