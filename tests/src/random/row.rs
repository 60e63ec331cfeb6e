//! A row for the table of cases, as source code.

use lb_common::abi::{Outcome as Fate, Reason};

use crate::cases::{
    cast::INGRESS,
    machine::{Counter, Outcome},
    site::name_of,
    worlds::World,
};

fn bytes(frame: &[u8]) -> String {
    format!("bytes(\"{}\")", hex::encode(frame))
}

/// A Reason as code writes it.
fn variant(reason: Reason) -> String {
    format!("Reason::{reason:?}")
}

/// The row that demands this outcome of the host, which may be the very thing that is wrong.
pub fn of(
    world: World,
    before: &[Vec<u8>],
    frame: &[u8],
    outcome: &Outcome,
    member: Option<(u64, u64)>,
) -> String {
    let sentence = "\"say what comes in and what becomes of it\"";
    let mut row = match outcome.moved.keys().next() {
        Some(Counter::Reason(reason)) => {
            let (verb, more) = match reason.outcome() {
                Fate::Passed => ("passes", format!("{})", variant(*reason))),
                Fate::Dropped => ("drops", format!("{})", variant(*reason))),
                Fate::Answered => ("answers", format!("{}, {})", variant(*reason), bytes(&outcome.output))),
                Fate::Returned => {
                    ("translated", format!("{}, {})", variant(*reason), bytes(&outcome.output)))
                }
                Fate::Delivered => ("decapsulates", format!("{})", bytes(&outcome.output))),
            };
            format!("{verb}({sentence}, {}, {more}", bytes(frame))
        }
        _ => {
            let name = |identity| name_of(identity).unwrap_or_else(|| format!("{identity:x}"));
            let backend = member.map_or_else(
                || "whom?".to_owned(),
                |(service, member)| format!("{}/{}", name(service), name(member)),
            );
            match outcome.ifindex.filter(|ifindex| *ifindex != INGRESS) {
                Some(ifindex) => {
                    format!("redirects({sentence}, {}, \"{backend}\", {ifindex})", bytes(frame))
                }
                None => format!("sends({sentence}, {}, \"{backend}\")", bytes(frame)),
            }
        }
    };
    if world != World::Main {
        row.push_str(&format!(".world(World::{world:?})"));
    }
    if !before.is_empty() {
        let frames: Vec<String> = before.iter().map(|frame| bytes(frame)).collect();
        row.push_str(&format!(".after([{}])", frames.join(", ")));
    }
    row.push(',');
    row
}
