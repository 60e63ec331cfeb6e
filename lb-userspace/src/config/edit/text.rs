//! Lines, comments and replacements in the text of a file. Knows nothing of TOML but its comments and line ends.

use std::ops::Range;

/// A text with the newline that it uses.
#[derive(Clone, Copy)]
pub(super) struct Text<'t> {
    pub(super) all: &'t str,
    /// `\n`, or `\r\n` if the first line ends so.
    pub(super) newline: &'static str,
}

/// Replacements of ranges of a text; they do not overlap.
#[derive(Default)]
pub(super) struct Splices(Vec<(Range<usize>, String)>);

impl Splices {
    pub(super) fn replace(&mut self, range: Range<usize>, with: impl Into<String>) -> &mut Self {
        self.0.push((range, with.into()));
        self
    }

    pub(super) fn insert(&mut self, at: usize, text: impl Into<String>) -> &mut Self {
        self.replace(at..at, text)
    }

    pub(super) fn remove(&mut self, range: Range<usize>) -> &mut Self {
        self.replace(range, "")
    }

    /// The text with all replacements made; `None` if they overlap.
    pub(super) fn apply(mut self, text: &str) -> Option<String> {
        // Stable: insertions at one place keep the order they were made in.
        self.0.sort_by_key(|(range, _)| (range.start, range.end));
        let mut result = String::with_capacity(text.len() + 256);
        let mut done = 0;
        for (range, with) in &self.0 {
            result.push_str(text.get(done..range.start)?);
            result.push_str(with);
            done = range.end;
        }
        result.push_str(text.get(done..)?);
        Some(result)
    }
}

impl<'t> Text<'t> {
    pub(super) fn new(all: &'t str) -> Self {
        let first = all.split_inclusive('\n').next().unwrap_or_default();
        Self { all, newline: if first.ends_with("\r\n") { "\r\n" } else { "\n" } }
    }

    /// Where the line of a position begins.
    pub(super) fn line_start(&self, at: usize) -> usize {
        self.all[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// Where the line of a position ends, before its newline.
    pub(super) fn line_end(&self, at: usize) -> usize {
        let rest = &self.all[at..];
        let line = rest.find('\n').map_or(rest, |newline| &rest[..newline]);
        at + line.strip_suffix('\r').unwrap_or(line).len()
    }

    /// Where the line after that of a position begins; the end of the text if there is none.
    pub(super) fn next_line(&self, at: usize) -> usize {
        self.all[at..].find('\n').map_or(self.all.len(), |newline| at + newline + 1)
    }

    /// The line that begins at a position, without blanks around it.
    pub(super) fn line(&self, start: usize) -> &'t str {
        self.all[start..self.line_end(start)].trim()
    }

    /// What stands before a position on its line.
    pub(super) fn before(&self, at: usize) -> &'t str {
        &self.all[self.line_start(at)..at]
    }

    /// The blanks that a line begins with.
    pub(super) fn indent(&self, at: usize) -> &'t str {
        let before = self.before(at);
        &before[..before.len() - before.trim_start().len()]
    }

    /// The first position from `at` on that is neither blank nor comment.
    pub(super) fn significant(&self, mut at: usize) -> usize {
        loop {
            let rest = &self.all[at..];
            at += rest.len() - rest.trim_start().len();
            if !self.all[at..].starts_with('#') {
                return at;
            }
            at = self.next_line(at);
        }
    }

    /// Beginning of the lines with nothing but comments directly above a line, not before `bound`.
    pub(super) fn comments_above(&self, line: usize, bound: usize) -> usize {
        self.lines_above(line, bound, |text| text.starts_with('#'))
    }

    /// Beginning of the empty lines directly above a line, not before `bound`.
    pub(super) fn blanks_above(&self, line: usize, bound: usize) -> usize {
        self.lines_above(line, bound, str::is_empty)
    }

    fn lines_above(&self, mut line: usize, bound: usize, belongs: impl Fn(&str) -> bool) -> usize {
        while line > bound {
            let above = self.line_start(line - 1);
            if above < bound || !belongs(self.line(above)) {
                break;
            }
            line = above;
        }
        line
    }

    /// Where the paragraph ends whose last value ends at `end`: comments on the lines that follow belong to it unless
    /// they lead on to something else without an empty line.
    pub(super) fn paragraph_end(&self, end: usize) -> usize {
        let own = self.next_line(end);
        let mut line = own;
        while line < self.all.len() && self.line(line).starts_with('#') {
            line = self.next_line(line);
        }
        if self.is_gap(line) { line } else { own }
    }

    /// Whether an empty line or the end of the text is at a position.
    pub(super) fn is_gap(&self, line: usize) -> bool {
        line >= self.all.len() || self.line(line).is_empty()
    }

    /// Whether a line break is missing before a position: at the end of a text without final newline.
    pub(super) fn lacks_newline(&self, at: usize) -> bool {
        at > 0 && !self.all[..at].ends_with('\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splices_apply_in_the_order_of_the_text() {
        let mut splices = Splices::default();
        splices.remove(4..5).insert(0, "<").insert(0, "-").replace(1..3, "XYZ");
        assert_eq!(splices.apply("abcdef").as_deref(), Some("<-aXYZdf"));
        let mut overlap = Splices::default();
        overlap.remove(0..3).remove(2..4);
        assert_eq!(overlap.apply("abcdef"), None);
    }

    #[test]
    fn lines_are_found_with_both_newlines() {
        for newline in ["\n", "\r\n"] {
            let all = ["a", "  # c", "", "# d", "  b # e"].join(newline);
            let text = Text::new(&all);
            assert_eq!(text.newline, newline);
            let (b, d) = (all.find('b').unwrap(), all.find("# d").unwrap());
            assert_eq!((text.before(b), text.indent(b), text.line(d)), ("  ", "  ", "# d"));
            assert_eq!(text.comments_above(text.line_start(b), 0), d);
            assert_eq!(text.blanks_above(d, 0), text.next_line(all.find("# c").unwrap()));
            assert_eq!(text.significant(1), b);
            assert_eq!(text.paragraph_end(0), text.next_line(all.find("# c").unwrap()));
            assert_eq!(&all[..text.line_end(0)], "a");
            assert!(text.lacks_newline(all.len()) && !text.lacks_newline(d));
        }
    }
}
