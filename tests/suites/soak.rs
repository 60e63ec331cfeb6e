//! A small soak of every kind: the large ones are `cargo xtask soak NAME`.

#[cfg(test)]
mod tests {
    use lb_tests::soak::{Outcome, Size, connections, failover, flood, restart};

    fn nothing_wrong(outcome: &impl Outcome) {
        let complaints = outcome.complaints();
        assert!(complaints.is_empty(), "{complaints:#?}");
    }

    #[test]
    fn connections_break_only_where_their_backend_went() {
        let report = connections::run(Size::Ci, 4).unwrap();
        nothing_wrong(&report);
        assert_eq!(report.broken_unexpected, 0, "{report:?}");
        assert!(report.broken_expected > 0, "no event has taken a backend away: choose another seed");
        assert!(report.lines >= 10 * report.connections as u64, "{report:?}");
    }

    #[test]
    fn daemons_come_and_go_and_nothing_is_lost() {
        let report = restart::run(Size::Ci, 1).unwrap();
        nothing_wrong(&report);
        assert_eq!((report.lost_connections, report.missing_sequence_numbers), (0, 0), "{report:?}");
        assert!(report.sequence_numbers > 0 && report.programs_replaced == 2, "{report:?}");
    }

    #[test]
    fn balancers_that_share_nothing_break_nothing() {
        let report = failover::run(Size::Ci, 1).unwrap();
        nothing_wrong(&report);
        assert_eq!(report.broken_unexpected, 0, "{report:?}");
        assert!(report.second_chance > 0 && report.balancers_lost > 0, "{report:?}");
        assert!(report.lines >= 5 * report.connections as u64, "{report:?}");
    }

    #[test]
    fn a_flood_moves_no_connection() {
        let report = flood::run(Size::Ci, 1).unwrap();
        nothing_wrong(&report);
        assert_eq!(report.moved, 0, "{report:?}");
        assert!(report.packets >= 600_000 && report.used > 10_000, "{report:?}");
    }
}
