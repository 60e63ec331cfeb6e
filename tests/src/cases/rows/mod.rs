//! The rows, by topic.

mod affinity;
mod agent;
mod announce;
mod forward;
mod gue;
mod limits;
mod lost;
mod malformed;
mod nat;
mod neighbours;
mod not_ours;
mod odd;
mod ports;
mod quic;
mod quoted;
mod records;
mod tagged;
mod too_big;

use super::case::Case;

/// The whole table.
pub fn all() -> Vec<Case> {
    [
        not_ours::rows(),
        ports::rows(),
        forward::rows(),
        malformed::rows(),
        affinity::rows(),
        quic::rows(),
        limits::rows(),
        records::rows(),
        announce::rows(),
        neighbours::rows(),
        tagged::rows(),
        odd::rows(),
        quoted::rows(),
        too_big::rows(),
        nat::rows(),
        lost::rows(),
        agent::rows(),
        gue::rows(),
    ]
    .concat()
}
