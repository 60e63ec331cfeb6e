//! How what is added looks: like its neighbours.

use toml_edit::Value;

use super::{
    list::Sequence,
    request::{BackendPatch, BackendSpec},
    text::{Splices, Text},
    tree::{self, List, Node},
};
use crate::config::{
    defaults,
    types::{AdminState, Limit},
};

/// A string in TOML, escaped.
pub(super) fn string(text: &str) -> String {
    Value::from(text).to_string()
}

fn state(state: AdminState) -> String {
    string(match state {
        AdminState::Up => "up",
        AdminState::Drain => "drain",
        AdminState::Down => "down",
    })
}

/// The keys of a new backend, in the order of the documentation.
pub(super) fn entries(spec: &BackendSpec) -> Vec<String> {
    let fields = [
        ("name", spec.name.as_deref().map(string)),
        ("address", Some(string(&spec.address.to_string()))),
        ("port", spec.port.map(|port| port.to_string())),
        ("weight", spec.weight.map(|weight| weight.to_string())),
        ("state", spec.state.map(state)),
    ];
    fields.into_iter().filter_map(|(key, value)| Some(format!("{key} = {}", value?))).collect()
}

pub(super) fn append(
    node: Node<'_>,
    list: &List<'_>,
    entries: &[String],
    text: Text<'_>,
    splices: &mut Splices,
) -> Option<()> {
    let inline = format!("{{ {} }}", entries.join(", "));
    match (list, node) {
        (List::Inline(array), _) => {
            tree::sequence_of(array)?.append(text, &inline, splices);
        }
        (List::Blocks(tables), _) => {
            let last = tables.iter().last()?;
            let header = last.span()?;
            let key = last.iter().filter_map(|(name, _)| last.key(name)?.span()).min_by_key(|key| key.start);
            let above = text.line_start(header.start);
            let compact = above > 0 && {
                let line = text.line(text.line_start(above - 1));
                !line.is_empty() && !line.starts_with('#')
            };
            let style = BlockStyle {
                gap: !(compact && tables.len() > 1),
                header_indent: text.indent(header.start),
                key_indent: key.map_or("", |key| text.indent(key.start)),
            };
            style.insert(text, tree::extent_end(last)?, "[[service.backend]]", entries, splices);
        }
        (List::Absent, Node::Block(table)) => {
            BlockStyle::PLAIN.insert(text, tree::extent_end(table)?, "[[service.backend]]", entries, splices);
        }
        (List::Absent, Node::Inline(_)) => node.insert(text, &format!("backend = [{inline}]"), splices)?,
    }
    Some(())
}

/// How the blocks of a file are laid out.
struct BlockStyle<'t> {
    /// An empty line before the header.
    gap: bool,
    header_indent: &'t str,
    key_indent: &'t str,
}

impl BlockStyle<'_> {
    const PLAIN: Self = Self { gap: true, header_indent: "", key_indent: "" };

    /// Writes a block behind the paragraph that ends with the value at `after`.
    fn insert(&self, text: Text<'_>, after: usize, header: &str, entries: &[String], splices: &mut Splices) {
        let at = text.paragraph_end(after);
        let newline = text.newline;
        let mut block = String::new();
        if text.lacks_newline(at) {
            block += newline;
        }
        if self.gap {
            block += newline;
        }
        block += &format!("{}{header}{newline}", self.header_indent);
        for entry in entries {
            block += &format!("{}{entry}{newline}", self.key_indent);
        }
        splices.insert(at, block);
    }
}

pub(super) fn set_fields(
    node: Node<'_>,
    patch: BackendPatch,
    text: Text<'_>,
    splices: &mut Splices,
) -> Option<()> {
    let fields = [
        ("address", patch.address.map(|address| string(&address.to_string())), None),
        ("port", patch.port.map(|port| port.to_string()), None),
        ("weight", patch.weight.map(|weight| weight.to_string()), Some(defaults::WEIGHT.to_string())),
        ("state", patch.state.map(state), Some(state(defaults::STATE))),
    ];
    for (key, value, default) in fields {
        let Some(value) = value else { continue };
        if node.item(key).is_some() || Some(&value) != default.as_ref() {
            node.set(text, key, &value, splices)?;
        }
    }
    Some(())
}

pub(super) fn write_limit(
    service: Node<'_>,
    limit: Limit,
    text: Text<'_>,
    splices: &mut Splices,
) -> Option<()> {
    let (rate, burst) = (limit.anonymous.rate.to_string(), limit.anonymous.burst.to_string());
    let rates = format!("{{ rate = {rate}, burst = {burst} }}");
    match (service.item("limit"), service) {
        (Some(item), _) => {
            let table = Node::of(item)?;
            match table.item("anonymous") {
                Some(anonymous) => {
                    let anonymous = Node::of(anonymous)?;
                    anonymous.set(text, "rate", &rate, splices)?;
                    anonymous.set(text, "burst", &burst, splices)
                }
                None => table.insert(text, &format!("anonymous = {rates}"), splices),
            }
        }
        (None, Node::Inline(_)) => {
            service.insert(text, &format!("limit = {{ anonymous = {rates} }}"), splices)
        }
        (None, Node::Block(table)) => {
            let entry = format!("anonymous = {rates}");
            BlockStyle::PLAIN.insert(text, tree::extent_end(table)?, "[service.limit]", &[entry], splices);
            Some(())
        }
    }
}

pub(super) fn remove_limit(service: Node<'_>, text: Text<'_>, splices: &mut Splices) -> Option<()> {
    let Some((key, item)) = service.entry("limit") else { return Some(()) };
    match service {
        Node::Block(_) => tree::remove_entry(text, key, item, splices),
        Node::Inline(table) => {
            let spans = table.iter().map(|(name, value)| {
                // Keys of a dotted table are strewn over the line: no single place to cut.
                let whole = !value.as_inline_table().is_some_and(toml_edit::InlineTable::is_dotted);
                let span = table.key(name)?.span()?.start..value.span()?.end;
                whole.then_some((name, span))
            });
            let spans = spans.collect::<Option<Vec<_>>>()?;
            let index = spans.iter().position(|(name, _)| *name == "limit")?;
            let items = spans.into_iter().map(|(_, span)| span).collect();
            let sequence = Sequence { open: table.span()?.start + 1, items };
            sequence.remove(text, index, splices);
            Some(())
        }
    }
}
