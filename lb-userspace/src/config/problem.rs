//! What is wrong with a file: every problem with its line and column, collected in one pass.

use std::{
    cell::{Cell, OnceCell, RefCell},
    fmt,
};

use serde::Serialize;

/// More problems than this are counted, not kept: a broken 16 MiB file must not cost gigabytes of messages.
pub const MAX_PROBLEMS: usize = 1_000;

/// Characters of a value that a message repeats.
const QUOTE_CHARS: usize = 60;

/// One problem of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Line, from 1; 0 when the problem is the file itself (absent, too large, empty).
    pub line: u32,
    /// Column in characters, from 1; 0 together with `line`.
    pub column: u32,
    /// Path of the field, what was found, what is expected, the fix.
    pub message: String,
}

/// A file that cannot be used, with everything that is wrong with it.
///
/// `Display` prints one line per problem, `lb.toml:12:3: message`, and no newline at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// The file as the caller named it.
    pub file: String,
    /// In the order of the file; at least one, at most [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
    /// Problems beyond [`MAX_PROBLEMS`].
    pub omitted: usize,
}

impl ConfigError {
    /// An error about the file as a whole, without a position.
    pub(super) fn whole(file: &str, message: impl Into<String>) -> Self {
        Self::at(file, 0, 0, message)
    }

    /// A single problem at a known place.
    pub(super) fn at(file: &str, line: u32, column: u32, message: impl Into<String>) -> Self {
        let problem = Problem { line, column, message: message.into() };
        Self { file: file.to_owned(), problems: vec![problem], omitted: 0 }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match problem.line {
                0 => write!(f, "{}: {}", self.file, problem.message)?,
                line => write!(f, "{}:{line}:{}: {}", self.file, problem.column, problem.message)?,
            }
        }
        match self.omitted {
            0 => Ok(()),
            more => write!(f, "\n{}: {more} more problems not shown; fix these first", self.file),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Collects problems while a text is read. Shared by reference, so that readers of nested tables can all report.
pub(super) struct Problems<'t> {
    text: &'t str,
    found: RefCell<Vec<(usize, String)>>,
    omitted: Cell<usize>,
    /// Offset of the start of every line; made when the first message names a line.
    lines: OnceCell<Vec<u32>>,
}

impl<'t> Problems<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, found: RefCell::default(), omitted: Cell::new(0), lines: OnceCell::new() }
    }

    /// Notes a problem at a byte offset of the text.
    pub(super) fn add(&self, at: usize, message: impl FnOnce() -> String) {
        if self.found.borrow().len() < MAX_PROBLEMS {
            let message = message();
            self.found.borrow_mut().push((at.min(self.text.len()), message));
        } else {
            self.omitted.set(self.omitted.get() + 1);
        }
    }

    /// How many problems there are so far.
    pub(super) fn count(&self) -> usize {
        self.found.borrow().len() + self.omitted.get()
    }

    /// The line (from 1) of a byte offset, for messages that point at a second place.
    pub(super) fn line_of(&self, at: usize) -> usize {
        let starts = self.lines.get_or_init(|| {
            let newlines = self.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            newlines.map(|(offset, _)| u32::try_from(offset).unwrap_or(u32::MAX)).collect()
        });
        starts.partition_point(|newline| (*newline as usize) < at) + 1
    }

    /// `Ok` when nothing was found; otherwise everything, sorted by place.
    ///
    /// One pass over the text serves all positions: a file with a million characters on one line must not be
    /// counted from its start for every problem.
    pub(super) fn finish(self, file: &str) -> Result<(), ConfigError> {
        let mut found = self.found.into_inner();
        if found.is_empty() {
            return Ok(());
        }
        found.sort_by_key(|(at, _)| *at);
        let (mut line, mut column, mut seen) = (1_u32, 1_u32, 0);
        let mut problems = Vec::with_capacity(found.len());
        for (at, message) in found {
            for character in self.text.get(seen..at).unwrap_or_default().chars() {
                if character == '\n' {
                    (line, column) = (line.saturating_add(1), 1);
                } else {
                    column = column.saturating_add(1);
                }
            }
            seen = at;
            problems.push(Problem { line, column, message });
        }
        Err(ConfigError { file: file.to_owned(), problems, omitted: self.omitted.get() })
    }
}

/// A string of the file in quotes: control characters escaped (a message goes to a terminal) and bounded.
pub(super) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTE_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// `a, b, c`.
pub(super) fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().collect::<Vec<_>>().join(", ")
}

/// The known word that a typo most likely meant: at most a third of its letters differ.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer than any word we know: the comparison costs the product of both lengths.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_and_are_sorted() {
        let text = "é = 1\nab = 2\nc = 3";
        let problems = Problems::new(text);
        problems.add(text.find('2').unwrap(), || "second".into());
        problems.add(text.find('1').unwrap(), || "first".into());
        problems.add(usize::MAX, || "end".into());
        assert_eq!(problems.line_of(text.find('2').unwrap()), 2);
        assert_eq!(problems.line_of(text.find('3').unwrap()), 3);
        let error = problems.finish("lb.toml").unwrap_err();
        assert_eq!(error.to_string(), "lb.toml:1:5: first\nlb.toml:2:6: second\nlb.toml:3:6: end");
    }

    #[test]
    fn problems_beyond_the_bound_are_counted() {
        let problems = Problems::new("x");
        for _ in 0..MAX_PROBLEMS + 7 {
            problems.add(0, String::new);
        }
        let error = problems.finish("f").unwrap_err();
        assert_eq!((error.problems.len(), error.omitted), (MAX_PROBLEMS, 7));
        assert!(error.to_string().ends_with("\nf: 7 more problems not shown; fix these first"));
    }

    #[test]
    fn quotes_are_bounded_and_escaped() {
        assert_eq!(quoted("a\u{1b}[31m"), r#""a\u{1b}[31m""#);
        assert_eq!(quoted(&"x".repeat(500)).chars().count(), QUOTE_CHARS + 3);
    }

    #[test]
    fn nearest_finds_typos_and_only_those() {
        let known = ["interfaces", "announce", "listen"];
        assert_eq!(nearest("interface", known), Some("interfaces"));
        assert_eq!(nearest("Listen", known), Some("listen"));
        assert_eq!(nearest("anounce", known), Some("announce"));
        assert_eq!(nearest("weight", known), None);
        assert_eq!(nearest(&"l".repeat(1_000_000), known), None);
    }
}
