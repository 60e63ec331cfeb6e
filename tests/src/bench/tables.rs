//! The suite `tables`: how long tables take to build and to patch, how even they are, and how little they move.

use std::{collections::BTreeMap, hint::black_box, time::Instant};

use anyhow::{Context as _, Result};
use lb_userspace::control::{
    maglev::{self, Member, Rendezvous, Scratch},
    table::{apply_health, moved, shares},
};

use super::{
    report::{Figure, Report},
    rounds::Series,
    say,
};

const SUITE: &str = "tables";
/// Slots and members, the name of the weights and their number, and the milliseconds that are aimed at.
const BUILDS: [(u32, u32, &str, u32, Option<f64>); 8] = [
    (16_381, 10, "equal", 1, None),
    (16_381, 100, "equal", 1, None),
    (65_537, 10, "equal", 1, None),
    (65_537, 1000, "equal", 1, Some(1.0)),
    (65_537, 1000, "weighted", 16, Some(1.0)),
    (655_373, 1000, "equal", 1, None),
    (655_373, 10_000, "equal", 1, None),
    (655_373, 10_000, "weighted", 16, Some(15.0)),
];
/// Slots and members: how much more than its share one of them moves when it goes, in percent of all slots.
const MOVES: [(u32, u32); 4] = [(16_381, 3), (16_381, 10), (65_537, 10), (65_537, 100)];
/// Different seeds of each.
const SEEDS: u8 = 20;

fn members(count: u32, weights: u32) -> Vec<Member> {
    (0..count).map(|i| Member { identity: u64::from(i) << 7 | 5, weight: 1 + i * 7919 % weights }).collect()
}

fn named((slots, count, weights, ..): (u32, u32, &str, u32, Option<f64>)) -> String {
    format!("build_{slots}_slots_{count}_{weights}")
}

/// Names of all cases.
pub(super) fn names() -> Vec<String> {
    let builds = BUILDS.into_iter().map(named);
    let moves = MOVES.iter().flat_map(|(slots, count)| {
        ["beyond_share_on_removal", "beyond_share_on_addition", "beyond_share_on_failure"]
            .map(|what| format!("{what}_{slots}_slots_{count}"))
    });
    let balance = MOVES.iter().map(|(slots, count)| format!("heaviest_to_mean_{slots}_slots_{count}"));
    builds.chain(moves).chain(balance).collect()
}

/// Runs the cases whose name is wanted.
pub(super) fn run(wanted: &dyn Fn(&str) -> bool, rounds: u32, report: &mut Report) -> Result<()> {
    let builds: Vec<_> = BUILDS.into_iter().filter(|build| wanted(&named(*build))).collect();
    let mut series: BTreeMap<String, Series> = BTreeMap::new();
    let mut scratch = Scratch::default();
    for round in 0..rounds {
        say(&format!("round {} of {rounds}, {} tables", round + 1, builds.len()));
        for build in &builds {
            let members = members(build.1, build.3);
            let start = Instant::now();
            let order = Rendezvous::new(&members, build.0, &[round as u8; 32])?;
            black_box(maglev::fill(&order, &mut scratch));
            let milliseconds = start.elapsed().as_secs_f64() * 1e3;
            series.entry(named(*build)).or_default().push(milliseconds);
        }
    }
    for build in &builds {
        let name = named(*build);
        let series = series.get(&name).context("a table was not built")?;
        let mut figure = Figure::value(SUITE, &name, series.median(), "ms");
        figure.spread = series.spread();
        figure.target = build.4;
        figure.note = Some(format!("quickest of {rounds}: {:.2} ms", series.quantile(0.0)));
        report.figures.push(figure);
    }
    for (slots, count) in MOVES {
        movement(slots, count, wanted, report)?;
    }
    Ok(())
}

/// What moves beyond the share of the one who comes, goes or fails, the worst of all seeds; and how even it is.
fn movement(slots: u32, count: u32, wanted: &dyn Fn(&str) -> bool, report: &mut Report) -> Result<()> {
    let name = |what: &str| format!("{what}_{slots}_slots_{count}");
    let names = ["beyond_share_on_removal", "beyond_share_on_addition", "beyond_share_on_failure"].map(name);
    let balance = name("heaviest_to_mean");
    if !names.iter().chain([&balance]).any(|name| wanted(name)) {
        return Ok(());
    }
    say(&format!("movement and balance, {slots} slots and {count} members"));
    let all = members(count, 1);
    let (mut worst, mut heaviest) = ([0.0f64; 3], 0.0f64);
    let mut scratch = Scratch::default();
    for seed in 0..SEEDS {
        let order = Rendezvous::new(&all, slots, &[seed; 32])?;
        let with = maglev::fill(&order, &mut scratch);
        let without = maglev::build(&all[..all.len() - 1], slots, &[seed; 32], &mut scratch)?;
        let available: Vec<bool> = (1..=count).map(|i| i < count).collect();
        let mut failed = Vec::new();
        apply_health(&order, &with, &available, &mut failed, &mut scratch);
        let shares = shares(&with, all.len());
        let own = shares.last().copied().unwrap_or_default();
        let beyond = |other: &[u16]| f64::from(moved(&with, other) - own) / f64::from(slots) * 100.0;
        for (worst, now) in worst.iter_mut().zip([beyond(&without), beyond(&without), beyond(&failed)]) {
            *worst = worst.max(now);
        }
        let most = shares.iter().copied().max().unwrap_or_default();
        heaviest = heaviest.max(f64::from(most) * f64::from(count) / f64::from(slots));
    }
    for ((name, worst), target) in names.iter().zip(worst).zip([1.0, 1.0, 0.0]) {
        if wanted(name) {
            let mut figure = Figure::value(SUITE, name, worst, "% of slots").aim(target);
            figure.note = Some(format!("the worst of {SEEDS} seeds"));
            report.figures.push(figure);
        }
    }
    if wanted(&balance) {
        report.figures.push(Figure::value(SUITE, &balance, heaviest, "").aim(1.02));
    }
    Ok(())
}
