//! Just enough of Markdown: tables, links, blocks of code.

/// A block of code between fences.
pub(super) struct Block {
    /// The word behind the opening fence; may be empty.
    pub(super) language: String,
    pub(super) text: String,
}

/// Rows of the first table below the heading with these words, without its head; cells trimmed. A test that asks for a
/// table that is not there fails.
pub(super) fn table(file: &str, text: &str, heading: &str) -> Vec<Vec<String>> {
    let mut lines = text.lines();
    let found =
        lines.by_ref().find(|line| line.starts_with('#') && line.trim_start_matches('#').trim() == heading);
    assert!(found.is_some(), "{file} has no heading {heading:?}");
    let section = lines.take_while(|line| !line.starts_with('#'));
    let rows: Vec<Vec<String>> = section
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(cells)
        .collect();
    assert!(!rows.is_empty(), "{file} has no table below {heading:?}");
    rows
}

fn cells(line: &str) -> Vec<String> {
    // A bar inside of a cell is written `\|`.
    let line = line.replace("\\|", "\u{1}");
    let inner = line.trim().trim_matches('|');
    inner.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}

/// What stands between backticks, in order; blocks of code left out.
pub(super) fn spans(text: &str) -> Vec<String> {
    let prose = prose(text);
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Targets of links, in order; code left out.
pub(super) fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let without_spans: String = prose.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let targets = without_spans.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// The anchors that a reader's program makes of the headings.
pub(super) fn anchors(text: &str) -> Vec<String> {
    let prose = prose(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Blocks of code, in order.
pub(super) fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Block { language: language.trim().to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// The text without blocks of code, line for line.
fn prose(text: &str) -> String {
    let mut inside = false;
    let mut prose = String::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        if !inside && !fence {
            prose.push_str(line);
        }
        prose.push('\n');
    }
    prose
}

#[cfg(test)]
mod tests {
    use super::{anchors, blocks, links, spans, table};

    const TEXT: &str = "# A `b`: c-d\n\nsee [x](y.md#z) and `[no](link)`\n\n```console\n$ [no](code)\n```\n\n\
                        ## T\n\nwords\n\n| h | `i` |\n|---|---|\n| `a` | b \\| c |\n| d | – |\n\n| other | table |\n";

    #[test]
    fn every_part_is_found() {
        assert_eq!(links(TEXT), ["y.md#z"]);
        assert_eq!(spans(TEXT), ["b", "[no](link)", "i", "a"]);
        assert_eq!(anchors(TEXT), ["a-b-c-d", "t"]);
        assert_eq!(table("file", TEXT, "T"), [["`a`", "b | c"], ["d", "–"]]);
        let blocks = blocks(TEXT);
        assert_eq!(
            (blocks.len(), blocks[0].language.as_str(), blocks[0].text.as_str()),
            (1, "console", "$ [no](code)\n")
        );
    }
}
