//! Texts that can be shown: without what is secret in them.

use super::{Tree, text::Splices, tree::Node};

/// Hexadecimal digits of a seed.
const SEED_DIGITS: usize = 64;

/// The text with its `hash_seed` replaced by `…`. What is no TOML loses everything that looks like a seed.
#[must_use]
pub fn hidden(text: &str) -> String {
    let mut splices = Splices::default();
    match Tree::parse(text) {
        Ok(tree) => {
            let daemon = tree.as_table().get("daemon").and_then(Node::of);
            if let Some(span) = daemon.and_then(|node| node.item("hash_seed")?.as_value()?.span()) {
                splices.replace(span, "\"…\"");
            }
        }
        Err(_) => {
            let mut from = 0;
            for run in text.split(|c: char| !c.is_ascii_hexdigit()) {
                let start = text[from..].find(run).map_or(from, |at| from + at);
                from = start + run.len();
                if run.len() >= SEED_DIGITS {
                    splices.replace(start..from, "…");
                }
            }
        }
    }
    splices.apply(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::hidden;

    #[test]
    fn seeds_are_hidden_in_every_form_and_nothing_else() {
        let seed = "ab".repeat(32);
        for (text, want) in [
            (format!("[daemon]\nhash_seed = \"{seed}\" # ours\n"), "[daemon]\nhash_seed = \"…\" # ours\n"),
            (format!("daemon = {{ \"hash_seed\" = '{seed}' }}"), "daemon = { \"hash_seed\" = \"…\" }"),
            (format!("daemon.hash_seed = \"\"\"{seed}\"\"\"\n"), "daemon.hash_seed = \"…\"\n"),
            (format!("[daemon\nhash_seed = \"{seed}\"\n"), "[daemon\nhash_seed = \"…\"\n"),
        ] {
            assert_eq!(hidden(&text), want);
        }
        assert_eq!(hidden("[daemon]\nlisten = \"127.0.0.1:1\"\n"), "[daemon]\nlisten = \"127.0.0.1:1\"\n");
    }
}
