//! How the lab shows who answered how many.

use std::fmt::Write;

use serde::Serialize;

use crate::traffic::SpreadReport;

/// One backend's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Part {
    /// Its name.
    pub(super) name: String,
    /// Answers with status 200.
    pub(super) requests: usize,
    /// Of all such answers, 0 to 1.
    pub(super) share: f64,
    /// Client addresses that it answered.
    pub(super) clients: usize,
}

/// The parts of all `names`, in that order, and of whoever else has answered.
pub(super) fn parts(report: &SpreadReport, names: &[String]) -> Vec<Part> {
    let (requests, clients) = (report.per_backend(), report.clients_per_backend());
    let total = report.answered().max(1) as f64;
    let others = requests.keys().filter(|name| !names.contains(name));
    let part = |name: &String| {
        let count = requests.get(name).copied().unwrap_or(0);
        let clients = clients.get(name).copied().unwrap_or(0);
        Part { name: name.clone(), requests: count, share: count as f64 / total, clients }
    };
    names.iter().chain(others).map(part).collect()
}

/// A table for people; `notes` is one cell per row at its end.
pub(super) fn table(parts: &[Part], notes: &[String]) -> String {
    let mut text = String::from("  backend    requests    share   client addresses\n");
    for (i, part) in parts.iter().enumerate() {
        let Part { name, requests, share, clients } = part;
        let note = notes.get(i).map(String::as_str).unwrap_or_default();
        let row = format!("  {name:<8} {requests:>10} {:>7.1} % {clients:>18}  {note}", share * 100.0);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", row.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn silent_backends_have_a_row_and_strangers_too() {
        let mut report = SpreadReport::default();
        let source: IpAddr = [198, 19, 0, 1].into();
        report.answers.entry(source).or_default().insert("b2".into(), 3);
        report.answers.entry(source).or_default().insert("b9".into(), 1);
        let parts = parts(&report, &["b1".into(), "b2".into()]);
        let seen: Vec<_> = parts.iter().map(|p| (p.name.as_str(), p.requests, p.share, p.clients)).collect();
        assert_eq!(seen, [("b1", 0, 0.0, 0), ("b2", 3, 0.75, 1), ("b9", 1, 0.25, 1)]);
        let table = table(&parts, &[String::new(), "draining".into()]);
        assert!(table.lines().nth(2).unwrap().ends_with("draining"), "{table}");
        assert_eq!(table.lines().count(), 4);
    }

    #[test]
    fn nothing_at_all_is_no_division_by_zero() {
        assert_eq!(parts(&SpreadReport::default(), &["b1".into()])[0].share, 0.0);
    }
}
