//! Tables with aligned columns. A state is always a word; colour only repeats it.

use std::borrow::Cow;

/// How a cell looks on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// As it is.
    Plain,
    /// Green.
    Good,
    /// Yellow.
    Notice,
    /// Red.
    Bad,
    /// Bold.
    Strong,
}

impl Style {
    /// The text between the codes of this style.
    pub(super) fn paint<'a>(self, text: &'a str, color: bool) -> Cow<'a, str> {
        let code = match self {
            Self::Plain => return text.into(),
            Self::Good => 32,
            Self::Notice => 33,
            Self::Bad => 31,
            Self::Strong => 1,
        };
        if color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m").into() } else { text.into() }
    }
}

/// Side on which a column is flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// One cell.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A styled cell; characters that would steer the terminal are escaped.
    pub(super) fn new(text: &str, style: Style) -> Self {
        Self { text: printable(text).into_owned(), style }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(&text, Style::Plain)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text, Style::Plain)
    }
}

/// Rows under headings.
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns and no row yet.
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells beyond the columns are not shown.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The table as text, each line after `indent`, two blanks between columns, none at the end of a line.
    pub(super) fn render(&self, indent: &str, color: bool) -> String {
        let headings: Vec<Cell> =
            self.columns.iter().map(|(name, _)| Cell::new(name, Style::Strong)).collect();
        let lines = || std::iter::once(&headings).chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|i| lines().filter_map(|l| l.get(i)).map(width).max().unwrap_or(0))
            .collect();
        let mut out = String::new();
        for line in lines() {
            // A line ends with its last cell that says something.
            let used = line.iter().rposition(|c| !c.text.is_empty()).map_or(0, |i| i + 1);
            out.push_str(indent);
            for (i, ((_, align), cell)) in self.columns.iter().zip(line).take(used).enumerate() {
                let gap = " ".repeat(widths[i] - width(cell));
                let text = cell.style.paint(&cell.text, color);
                match align {
                    Align::Right => out.extend([gap.as_str(), &*text]),
                    Align::Left if i + 1 == used => out.push_str(&text),
                    Align::Left => out.extend([&*text, gap.as_str()]),
                }
                if i + 1 < used {
                    out.push_str("  ");
                }
            }
            out.push('\n');
        }
        out
    }
}

/// Characters, not bytes; what is twice as wide on a terminal counts once.
fn width(cell: &Cell) -> usize {
    cell.text.chars().count()
}

/// The text with control characters escaped: a backend's answer must not move the cursor or forge a line.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut t = Table::new(&[("NAME", Align::Left), ("N", Align::Right), ("WHY", Align::Left)]);
        t.row(vec!["b1".into(), "7".into(), "".into()]);
        t.row(vec![Cell::new("longer", Style::Bad), "1,000".into(), "größe".into()]);
        t
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_blank_at_the_end() {
        assert_eq!(
            sample().render("  ", false),
            "  NAME        N  WHY\n  b1          7\n  longer  1,000  größe\n"
        );
    }

    #[test]
    fn colour_changes_no_column() {
        let colored = sample().render("", true);
        assert!(colored.contains("\x1b[31mlonger\x1b[0m  1,000"), "{colored:?}");
        let stripped = ["\x1b[1m", "\x1b[31m", "\x1b[0m"].iter().fold(colored, |s, code| s.replace(code, ""));
        assert_eq!(stripped, sample().render("", false));
    }

    #[test]
    fn control_characters_cannot_steer_the_terminal() {
        assert_eq!(printable("HTTP \x1b[2J\r\n503\u{9b}"), "HTTP \\u{1b}[2J\\r\\n503\\u{9b}");
        assert_eq!(printable("größe"), "größe");
    }

    #[test]
    fn a_table_without_rows_is_its_headings() {
        assert_eq!(Table::new(&[("A", Align::Left), ("B", Align::Left)]).render("", false), "A  B\n");
    }
}
