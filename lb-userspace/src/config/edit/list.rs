//! Arrays and inline tables: one item more or less between brackets, with commas and comments in order.

use std::ops::Range;

use super::text::{Splices, Text};

/// What stands between brackets.
pub(super) struct Sequence {
    /// Position after the opening bracket.
    pub(super) open: usize,
    /// The items without blanks, comments and commas around them.
    pub(super) items: Vec<Range<usize>>,
}

impl Sequence {
    /// Adds an item at the end, on a line of its own if the last one has one.
    pub(super) fn append(&self, text: Text<'_>, item: &str, splices: &mut Splices) {
        let Some(last) = self.items.last() else {
            splices.insert(self.open, item);
            return;
        };
        let before = self.items.len().checked_sub(2).map_or(self.open, |index| self.items[index].end);
        if !text.all[before..last.start].contains('\n') {
            splices.insert(last.end, format!(", {item}"));
            return;
        }
        let (newline, indent) = (text.newline, text.indent(last.start));
        match self.line_after(text, last.end) {
            // A comment behind the last item stays with it.
            Some((line_end, true)) => splices.insert(line_end, format!("{newline}{indent}{item},")),
            Some((line_end, false)) => {
                splices.insert(last.end, ",").insert(line_end, format!("{newline}{indent}{item}"))
            }
            None => splices.insert(last.end, format!(",{newline}{indent}{item}")),
        };
    }

    /// The end of the line of an item, if only a comma and a comment follow there, and whether the comma does.
    fn line_after(&self, text: Text<'_>, item_end: usize) -> Option<(usize, bool)> {
        let blanks =
            |at: usize| at + text.all[at..].len() - text.all[at..].trim_start_matches([' ', '\t']).len();
        let mut at = blanks(item_end);
        let comma = text.all[at..].starts_with(',');
        if comma {
            at = blanks(at + 1);
        }
        let line_end = text.line_end(at);
        let ends = at == line_end || text.all[at..].starts_with('#');
        // A comma on a later line is legal and strange.
        let comma_below = !comma && text.all[text.significant(at)..].starts_with(',');
        (ends && !comma_below).then_some((line_end, comma))
    }

    /// Removes an item with the comment behind it and, if it has its lines for itself, those directly above it.
    pub(super) fn remove(&self, text: Text<'_>, index: usize, splices: &mut Splices) {
        let item = &self.items[index];
        let previous = index.checked_sub(1).map(|index| self.items[index].end);
        let next = text.significant(item.end);
        let comma = text.all[next..].starts_with(',').then_some(next);
        let end = comma.map_or(item.end, |comma| comma + 1);
        if let (None, Some(previous)) = (comma, previous) {
            let orphan = text.significant(previous);
            splices.remove(orphan..orphan + 1);
        }
        let bound = previous.map_or(self.open, |previous| text.significant(previous) + 1);
        let blanks =
            |at: usize| at + text.all[at..].len() - text.all[at..].trim_start_matches([' ', '\t']).len();
        let rest = blanks(end);
        let line_end = text.line_end(rest);
        let own_lines = text.line_start(item.start) >= bound && text.before(item.start).trim().is_empty();
        if own_lines && (rest == line_end || text.all[rest..].starts_with('#')) {
            let above = text.comments_above(text.line_start(item.start), text.next_line(bound));
            splices.remove(above..text.next_line(line_end));
        } else if comma.is_some() {
            splices.remove(item.start..rest);
        } else {
            // The blanks before the last item would be left before the bracket.
            let start = text.all[..item.start].trim_end_matches([' ', '\t']).len().max(bound);
            splices.remove(start..item.end);
        }
    }
}
