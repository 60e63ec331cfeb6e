//! Counting what tests say, and the table at the end.

use std::fmt::Write as _;
use std::ops::AddAssign;
use std::time::Duration;

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl Tally {
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };
    pub(crate) const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Reads the output of `cargo test` line by line.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    /// The sum of all result lines; what libtest ignored is skipped.
    pub(crate) tally: Tally,
    /// How many result lines there were.
    pub(crate) results: u32,
    /// The test programs that ran no test although they should have some.
    pub(crate) empty: Vec<String>,
    /// What cargo said it was running.
    running: String,
}

impl Counter {
    /// Takes one line.
    pub(crate) fn read(&mut self, line: &str) {
        let line = line.trim();
        if let Some(program) = line.strip_prefix("Running ") {
            program.clone_into(&mut self.running);
        } else if line.starts_with("Doc-tests ") {
            line.clone_into(&mut self.running);
        } else if let Some(tally) = parse_result(line) {
            self.results += 1;
            self.tally += tally;
            if tally == Tally::default() && !may_be_empty(&self.running) {
                self.empty.push(self.running.clone());
            }
        }
    }

    /// What was wrong, apart from failed tests, once the program has ended with success or not.
    pub(crate) fn complaints(&self, success: bool) -> Vec<String> {
        let mut complaints: Vec<String> =
            self.empty.iter().map(|program| format!("no test ran in {program}")).collect();
        if success && self.results == 0 {
            complaints.push("no test program ran".to_owned());
        }
        if !success && self.tally.failed == 0 {
            complaints
                .push("cargo test failed without a failed test (did not compile, or crashed)".to_owned());
        }
        complaints
    }
}

/// Documentation need not have examples, and a program's own file need not have tests: its library has them.
fn may_be_empty(running: &str) -> bool {
    let file = running.strip_prefix("unittests ").and_then(|rest| rest.split(' ').next());
    running.starts_with("Doc-tests ")
        || file.is_some_and(|file| file.ends_with("main.rs") || file.contains("/bin/"))
}

/// libtest's `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
fn parse_result(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| {
        counts.split(';').find_map(|part| part.trim().strip_suffix(word)?.trim_end().parse::<u32>().ok())
    };
    Some(Tally { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) suite: String,
    pub(crate) tally: Tally,
    pub(crate) time: Duration,
    /// Why it failed or was skipped, where that is not a test's own words.
    pub(crate) remarks: Vec<String>,
}

/// The table, the remarks, and the line of totals, which is the last.
pub(crate) fn table(rows: &[Row]) -> (String, Tally) {
    let mut total = Tally::default();
    let mut text =
        format!("{:<14} {:>7} {:>7} {:>8} {:>8}\n", "suite", "passed", "failed", "skipped", "seconds");
    let mut remarks = String::new();
    for Row { suite, tally, time, remarks: of_row } in rows {
        let Tally { passed, failed, skipped } = tally;
        total += *tally;
        // Writing to a String cannot fail.
        _ = writeln!(text, "{suite:<14} {passed:>7} {failed:>7} {skipped:>8} {:>8.1}", time.as_secs_f64());
        for remark in of_row {
            _ = writeln!(remarks, "{suite}: {remark}");
        }
    }
    text.push_str(&remarks);
    _ = writeln!(text, "{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    (text, total)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Counter, Row, Tally, parse_result, table};

    const THREE: &str =
        "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.0s";
    const NONE: &str =
        "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.0s";
    const RED: &str = "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 9 filtered out";

    fn counted(lines: &[&str]) -> Counter {
        let mut counter = Counter::default();
        lines.iter().for_each(|line| counter.read(line));
        counter
    }

    #[test]
    fn result_lines_are_read() {
        assert_eq!(parse_result(THREE), Some(Tally { passed: 3, failed: 0, skipped: 1 }));
        assert_eq!(parse_result(RED), Some(Tally { passed: 4, failed: 2, skipped: 0 }));
        assert_eq!(parse_result("test result::parses ... ok"), None);
        assert_eq!(parse_result("test result: ok. many passed; 0 failed; 0 ignored"), None);
    }

    #[test]
    fn programs_are_summed_up() {
        let counter =
            counted(&["   Running unittests src/lib.rs (a)", THREE, "   Running tests/x.rs (b)", RED]);
        assert_eq!((counter.tally, counter.results), (Tally { passed: 7, failed: 2, skipped: 1 }, 2));
        assert_eq!(counter.complaints(false), [""; 0], "the failed tests are counted already");
    }

    #[test]
    fn a_program_without_tests_is_an_error() {
        let counter = counted(&["     Running unittests src/lib.rs (target/debug/deps/lb_common-1)", NONE]);
        assert_eq!(
            counter.complaints(true),
            ["no test ran in unittests src/lib.rs (target/debug/deps/lb_common-1)"]
        );
    }

    #[test]
    fn main_files_and_documentation_may_have_no_tests() {
        let lines = ["Running unittests src/main.rs (a)", NONE, "Running unittests src/bin/lab.rs (b)", NONE];
        assert_eq!(counted(&lines).complaints(true), [""; 0]);
        assert_eq!(counted(&["   Doc-tests lb_common", NONE]).complaints(true), [""; 0]);
        let main_suite = counted(&["Running tests/suites/main.rs (a)", NONE]);
        assert_eq!(main_suite.complaints(true).len(), 1, "a suite is not a program");
    }

    #[test]
    fn silence_is_an_error() {
        assert_eq!(counted(&[]).complaints(true), ["no test program ran"]);
        assert_eq!(counted(&["error: could not compile"]).complaints(false).len(), 1);
        assert_eq!(counted(&[THREE, "error: test failed (signal: 6)"]).complaints(false).len(), 1);
    }

    #[test]
    fn the_last_line_is_the_count() {
        let row = |suite: &str, tally, remark: &str| Row {
            suite: suite.to_owned(),
            tally,
            time: Duration::from_millis(1500),
            remarks: vec![remark.to_owned()],
        };
        let rows = [
            row("fmt", Tally::PASSED, "a"),
            row("unit", Tally::FAILED, "b"),
            row("lab", Tally::SKIPPED, "needs root"),
        ];
        let (text, total) = table(&rows);
        assert_eq!(text.lines().last(), Some("1 passed, 1 failed, 1 skipped"));
        assert_eq!(total.failed, 1);
        assert!(text.contains("lab: needs root"), "{text}");
    }
}
