//! How long tables take to build and to patch: `cargo run --release --example maglev_timing -p lb-userspace`.
//!
//! One core, wall time, median of 20 with different seeds, memory reused as the daemon does. "build" is order and
//! table from scratch, "one fails" and "half fail" patch that table for the health of its members.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use lb_userspace::control::{
    maglev::{self, Member, Rendezvous, Scratch},
    rendezvous::TableError,
    table::apply_health,
};

const ROUNDS: u8 = 20;

fn members(count: u32, weight: impl Fn(u32) -> u32) -> Vec<Member> {
    (0..count).map(|i| Member { identity: u64::from(i) << 7 | 5, weight: weight(i) }).collect()
}

/// What building, one failure and the failure of every second member took.
fn measure(
    members: &[Member],
    slots: u32,
    seed: u8,
    scratch: &mut Scratch,
) -> Result<[Duration; 3], TableError> {
    let start = Instant::now();
    let order = Rendezvous::new(members, slots, &[seed; 32])?;
    let base = black_box(maglev::fill(&order, scratch));
    let build = start.elapsed();
    let mut patched = Vec::new();
    let mut patch = |is_available: &dyn Fn(usize) -> bool| {
        let available: Vec<bool> = (0..members.len()).map(is_available).collect();
        let start = Instant::now();
        apply_health(&order, &base, &available, &mut patched, scratch);
        black_box(&patched);
        start.elapsed()
    };
    Ok([build, patch(&|member| member != 1), patch(&|member| member % 2 == 0)])
}

fn main() -> Result<(), TableError> {
    let mut scratch = Scratch::default();
    println!(
        "{:>9} {:>7} {:>9} {:>10} {:>10} {:>10}",
        "slots", "members", "weights", "build", "one fails", "half fail"
    );
    let sizes = [(16_381, 3), (16_381, 10), (16_381, 100), (16_381, 1_000), (65_537, 10), (65_537, 100)];
    let large = [(65_537, 1_000), (65_537, 10_000), (655_373, 10_000), (1_048_573, 16_000)];
    for (slots, count) in sizes.into_iter().chain(large) {
        for (name, spread) in [("equal", 1), ("1 to 16", 16), ("1 to 1000", 1000)] {
            let members = members(count, |i| 1 + i * 7919 % spread);
            let rounds = (0..ROUNDS).map(|seed| measure(&members, slots, seed, &mut scratch));
            let times: Vec<_> = rounds.collect::<Result<_, _>>()?;
            let median = |what: usize| {
                let mut times: Vec<_> = times.iter().map(|times| times[what]).collect();
                times.sort_unstable();
                times[times.len() / 2]
            };
            let [build, one, half] = [median(0), median(1), median(2)];
            println!("{slots:>9} {count:>7} {name:>9} {build:>10.1?} {one:>10.1?} {half:>10.1?}");
        }
    }
    Ok(())
}
