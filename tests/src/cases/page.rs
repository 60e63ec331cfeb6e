//! `docs/packet-path.md` against the code: one line of its table per Reason, each naming a row that demands it.

use lb_common::abi::{Outcome, Reason};

use super::case::{Case, Counted};

const PAGE: &str = include_str!("../../../docs/packet-path.md");

/// A line of the table: condition, reason, action, counter, case.
struct Line<'p> {
    reason: &'p str,
    action: &'p str,
    counter: &'p str,
    case: &'p str,
}

fn lines() -> Vec<Line<'static>> {
    let cells = |line: &'static str| -> Option<Line<'static>> {
        let cells: Vec<&str> =
            line.trim().strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let [_, reason, action, counter, case] = cells[..] else { return None };
        let reason = reason.strip_prefix('`')?.strip_suffix('`')?;
        Some(Line { reason, action, counter, case })
    };
    PAGE.lines().filter_map(cells).collect()
}

fn action(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "pass",
        Outcome::Dropped => "drop",
        Outcome::Answered => "answer",
        Outcome::Delivered => "pass, changed",
        Outcome::Returned => "send back",
    }
}

/// What the page says that is not so, or does not say.
pub fn complaints(rows: &[Case]) -> Vec<String> {
    let lines = lines();
    let mut complaints = Vec::new();
    for line in &lines {
        if !Reason::ALL.iter().any(|reason| reason.name() == line.reason) {
            complaints.push(format!("there is no reason {}", line.reason));
        }
    }
    for reason in Reason::ALL {
        let named: Vec<&Line<'_>> = lines.iter().filter(|line| line.reason == reason.name()).collect();
        let [line] = named[..] else {
            complaints.push(format!("{} has {} lines instead of one", reason.name(), named.len()));
            continue;
        };
        let wanted = (action(reason.outcome()), format!("`REASONS[{}]`", *reason as u16));
        if (line.action, line.counter) != (wanted.0, wanted.1.as_str()) {
            complaints.push(format!("{}: action and counter are {} and {}", line.reason, wanted.0, wanted.1));
        }
        let demands = |case: &&Case| case.name == line.case && case.counted == Counted::Reason(*reason);
        if !rows.iter().any(|case| demands(&case)) {
            complaints.push(format!("{}: no row {:?} demands it", line.reason, line.case));
        }
    }
    complaints
}
