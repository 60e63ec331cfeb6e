//! Services that cannot take packets, and records that this version never writes.

use lb_common::abi::Reason::{BadTable, NoBackend, NoNextHop};

use super::super::{
    case::{Case, drops, passes},
    cast::{
        BEYOND, HOLE, MEMBERLESS, NOBODY, Pair, SERVICELESS, SLOTLESS, STRANGE, TABLELESS, UNRESOLVED, tcp,
    },
    worlds::World,
};
use crate::packet::Family;

/// All rows of this file.
pub(super) fn rows() -> Vec<Case> {
    Family::BOTH.into_iter().flat_map(|f| [nobody(f), broken(f)].concat()).collect()
}

fn nobody(f: Family) -> Vec<Case> {
    let row = |what: &str, vip: Pair, reason| {
        drops(format!("{f} for a service {what} is dropped"), tcp(f, vip, 80), reason)
    };
    vec![
        row("whose every slot is empty", NOBODY, NoBackend),
        row("without a table", TABLELESS, NoBackend),
        row("whose slots name the member just beyond the list", BEYOND, NoBackend),
        row("whose slots name a free member index", HOLE, NoNextHop),
        row("whose backend has no known next hop", UNRESOLVED, NoNextHop),
        passes(
            format!("{f} for another port of a VIP whose service has no backend passes"),
            tcp(f, NOBODY, 81),
            lb_common::abi::Reason::NoSuchPort,
        ),
    ]
}

fn broken(f: Family) -> Vec<Case> {
    let row = |what: &str, vip: Pair| {
        drops(format!("{f} for a service {what} is dropped"), tcp(f, vip, 80), BadTable).world(World::Broken)
    };
    vec![
        row("with an unknown way of forwarding", STRANGE),
        row("whose table lies outside the arena", SLOTLESS),
        row("whose members lie outside the records", MEMBERLESS),
        row("whose number lies outside the records", SERVICELESS),
    ]
}
