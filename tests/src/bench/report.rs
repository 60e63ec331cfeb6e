//! Results as a table and as JSON, the history, and comparisons with it.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::machine::Machine;

/// Everything that one call measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    #[serde(rename = "results")]
    pub(super) figures: Vec<Figure>,
    /// What was asked for and could not be measured, and why.
    pub(super) absent: Vec<Absent>,
}

/// One case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Figure {
    pub(super) suite: String,
    pub(super) case: String,
    /// Nanoseconds above the same wrapper around a bare XDP_TX; other suites have `value` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) net_ns: Option<f64>,
    /// In `unit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) yardstick: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) yardstick_net_ns: Option<f64>,
    /// To the yardstick, in what the target is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ratio: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) const_ipip_ratio: Option<f64>,
    /// The middle half of the rounds, as a share of their median, wrapper included.
    pub(super) spread: f64,
    /// Wrapper included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) raw_ns: Option<f64>,
    /// What `ratio`, or without one `value`, is to be at most, or, where more is better, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<f64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) more_is_better: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// A case without a figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Absent {
    suite: String,
    case: String,
    reason: String,
}

impl Absent {
    pub(super) fn new(suite: &str, case: &str, reason: &str) -> Self {
        Self { suite: suite.into(), case: case.into(), reason: reason.into() }
    }
}

impl Figure {
    /// Nanoseconds for a packet.
    pub(super) fn new(suite: &str, case: &str, net_ns: f64) -> Self {
        Self { net_ns: Some(net_ns), ..Self::empty(suite, case) }
    }

    /// Anything else.
    pub(super) fn value(suite: &str, case: &str, value: f64, unit: &str) -> Self {
        Self { value: Some(value), unit: Some(unit.into()), ..Self::empty(suite, case) }
    }

    fn empty(suite: &str, case: &str) -> Self {
        Self {
            suite: suite.into(),
            case: case.into(),
            net_ns: None,
            value: None,
            unit: None,
            yardstick: None,
            yardstick_net_ns: None,
            ratio: None,
            const_ipip_ratio: None,
            spread: 0.0,
            raw_ns: None,
            target: None,
            more_is_better: false,
            note: None,
        }
    }

    /// Sets the yardstick: `own` and `its` are what is compared.
    pub(super) fn against(&mut self, name: &str, own: f64, its: f64) {
        self.yardstick = Some(name.into());
        self.yardstick_net_ns = Some(its);
        self.ratio = Some(own / its);
    }

    /// At most this.
    pub(super) fn aim(mut self, target: f64) -> Self {
        self.target = Some(target);
        self
    }

    /// Whether the target holds, if there is one.
    fn holds(&self) -> Option<bool> {
        let (target, value) = (self.target?, self.ratio.or(self.value)?);
        Some(if self.more_is_better { value >= target } else { value <= target })
    }

    fn row(&self) -> [String; 8] {
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(String::new, |value| format!("{value:.digits$}"))
        };
        let value = match (self.net_ns, self.value, &self.unit) {
            (Some(net), ..) => format!("{net:.1} ns"),
            (_, Some(value), Some(unit)) => format!("{value:.2} {unit}"),
            _ => String::new(),
        };
        let target = match (self.target, self.more_is_better) {
            (None, _) => String::new(),
            (Some(target), true) => format!("≥ {target}"),
            (Some(target), false) => format!("≤ {target}"),
        };
        let holds = match self.holds() {
            None => "",
            Some(true) => "holds",
            Some(false) => "missed",
        };
        [
            format!("{}/{}", self.suite, self.case),
            value,
            self.yardstick.clone().unwrap_or_default(),
            number(self.yardstick_net_ns, 1),
            number(self.ratio, 2),
            target,
            holds.into(),
            format!("{:.1} %", self.spread * 100.0),
        ]
    }
}

const HEAD: [&str; 8] = ["case", "value", "yardstick", "its value", "ratio", "target", "", "spread"];

impl Report {
    /// For a terminal.
    pub(super) fn table(&self) -> String {
        let mut rows = vec![HEAD.map(str::to_owned)];
        rows.extend(self.figures.iter().map(Figure::row));
        let mut out = format!("{}\n", self.machine);
        out.push_str(&columns(&rows));
        for figure in &self.figures {
            if let Some(note) = &figure.note {
                let _ = writeln!(out, "{}/{}: {note}", figure.suite, figure.case);
            }
        }
        for absent in &self.absent {
            let _ = writeln!(out, "{}/{}: not measured: {}", absent.suite, absent.case, absent.reason);
        }
        out
    }

    /// Writes it to a file, and a line to the history.
    pub(super) fn keep(&self, json: Option<&Path>, history: &Path) -> Result<()> {
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(self)? + "\n";
            fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        if let Some(folder) = history.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(history)?;
        writeln!(file, "{}", serde_json::to_string(self)?)
            .with_context(|| format!("writing {}", history.display()))
    }

    /// The last report of each case that the history has of this commit, against this one.
    pub(super) fn compare(&self, history: &Path, commit: &str) -> Result<String> {
        let text = fs::read_to_string(history).with_context(|| {
            format!("no history yet ({}); run the benchmark at {commit} first", history.display())
        })?;
        let old: Vec<Self> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let old: Vec<&Self> = old.iter().filter(|r| r.machine.commit.starts_with(commit)).collect();
        anyhow::ensure!(!old.is_empty(), "the history {} knows no commit {commit}", history.display());
        let mut rows = vec![["case", commit, "now", "now / then"].map(str::to_owned)];
        for now in &self.figures {
            let same = |f: &&Figure| (&f.suite, &f.case) == (&now.suite, &now.case);
            let Some(then) = old.iter().rev().find_map(|r| r.figures.iter().find(same)) else { continue };
            // Ratios to a yardstick of the same run compare across runs; nanoseconds do not.
            let pair = match (then.ratio, now.ratio) {
                (Some(then), Some(now)) => Some((then, now)),
                _ => then.net_ns.or(then.value).zip(now.net_ns.or(now.value)),
            };
            if let Some((then, value)) = pair {
                rows.push([
                    format!("{}/{}", now.suite, now.case),
                    format!("{then:.3}"),
                    format!("{value:.3}"),
                    format!("{:.2}", value / then),
                ]);
            }
        }
        Ok(columns(&rows))
    }
}

/// Columns as wide as their widest cell.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            let pad = widths[i] - cell.chars().count();
            let _ =
                if i == 0 { write!(out, "{cell}{:pad$}", "") } else { write!(out, "  {:pad$}{cell}", "") };
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Absent, Figure, Report, columns};
    use crate::bench::machine::Machine;

    fn report() -> Report {
        let mut figure = Figure::new("packet", "one", 20.0).aim(0.5);
        figure.against("plain", 20.0, 80.0);
        Report {
            machine: Machine::now(None),
            figures: vec![figure],
            absent: vec![Absent::new("packet", "two", "no reason")],
        }
    }

    #[test]
    fn json_has_the_fields_of_the_contract() {
        let json = serde_json::to_value(report()).unwrap();
        assert!(json["machine"].is_object());
        let result = &json["results"][0];
        for field in ["suite", "case", "net_ns", "yardstick", "yardstick_net_ns", "ratio", "spread"] {
            assert!(!result[field].is_null(), "{field} in {result}");
        }
        assert_eq!((result["ratio"].as_f64(), result["yardstick"].as_str()), (Some(0.25), Some("plain")));
    }

    #[test]
    fn a_table_says_what_holds_and_what_is_absent() {
        let table = report().table();
        assert!(table.contains("holds") && table.contains("packet/two: not measured: no reason"), "{table}");
        let mut missed = report();
        missed.figures[0].target = Some(0.2);
        assert!(missed.table().contains("missed"));
    }

    #[test]
    fn a_comparison_finds_the_commit_in_the_history() {
        let folder = tempfile::tempdir().unwrap();
        let history = folder.path().join("bench").join("history.jsonl");
        let (mut then, mut now) = (report(), report());
        then.machine.commit = "abc123".into();
        then.keep(None, &history).unwrap();
        now.figures[0].against("plain", 40.0, 80.0);
        let text = now.compare(&history, "abc").unwrap();
        assert!(text.contains("packet/one") && text.contains("2.00"), "{text}");
        assert!(now.compare(&history, "fff").is_err());
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["a", "10"], ["long", "2"]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "a     10\nlong   2\n");
    }
}
