//! Finds services and backends in a parsed file and says where their parts stand.
//!
//! A table has two forms with the same meaning: a block (`[[service.backend]]` and lines of keys) and an inline table
//! (`{ name = "b1" }`).

use std::{net::IpAddr, ops::Range};

use toml_edit::{ArrayOfTables, InlineTable, Item, Key, Table, Value};

use super::{
    list::Sequence,
    text::{Splices, Text},
};

/// A table in either form.
#[derive(Clone, Copy)]
pub(super) enum Node<'d> {
    Block(&'d Table),
    Inline(&'d InlineTable),
}

/// The tables of one key.
pub(super) enum List<'d> {
    Absent,
    Blocks(&'d ArrayOfTables),
    Inline(&'d toml_edit::Array),
}

impl<'d> Node<'d> {
    pub(super) fn of(item: &'d Item) -> Option<Self> {
        match item {
            Item::Table(table) => Some(Self::Block(table)),
            Item::Value(Value::InlineTable(table)) => Some(Self::Inline(table)),
            _ => None,
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<(&'d Key, &'d Item)> {
        match self {
            Self::Block(table) => table.get_key_value(key),
            Self::Inline(table) => table.get_key_value(key),
        }
    }

    pub(super) fn item(&self, key: &str) -> Option<&'d Item> {
        self.entry(key).map(|(_, item)| item)
    }

    pub(super) fn string(&self, key: &str) -> Option<&'d str> {
        self.item(key)?.as_str()
    }

    /// The tables under a key; `None` if something else is there, be it one item of a list.
    pub(super) fn list(&self, key: &str) -> Option<List<'d>> {
        match self.item(key) {
            None => Some(List::Absent),
            Some(Item::ArrayOfTables(tables)) => Some(List::Blocks(tables)),
            Some(Item::Value(Value::Array(array))) => {
                array.iter().all(Value::is_inline_table).then_some(List::Inline(array))
            }
            Some(_) => None,
        }
    }

    /// What a backend is called: its name, else its address as written with the address in its shortest form.
    pub(super) fn backend_name(&self) -> Option<String> {
        let address = || self.address().map(|address| address.to_string());
        self.string("name").map(str::to_owned).or_else(address)
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.string("address")?.parse().ok()
    }

    /// Gives a key a value: in the place of its old one, else behind the last key. `None` if the form does not allow
    /// it.
    pub(super) fn set(&self, text: Text<'_>, key: &str, value: &str, splices: &mut Splices) -> Option<()> {
        match self.item(key) {
            Some(Item::Value(old)) => {
                splices.replace(old.span()?, value);
            }
            Some(_) => return None,
            None => self.insert(text, &format!("{key} = {value}"), splices)?,
        }
        Some(())
    }

    /// Adds `key = value` behind the last key.
    pub(super) fn insert(&self, text: Text<'_>, entry: &str, splices: &mut Splices) -> Option<()> {
        match self {
            Self::Inline(table) => {
                let span = table.span()?;
                match table.iter().filter_map(|(_, value)| end_of_value(value)).max() {
                    Some(last) => splices.insert(last, format!(", {entry}")),
                    None => splices.replace(span.start + 1..span.start + 1, format!(" {entry} ")),
                };
            }
            Self::Block(table) => {
                // The text before the key of a neighbour: its indent, or `limit.anonymous.` where keys are dotted.
                let neighbour = direct_values(table).max_by_key(|(_, value)| value.end).map(|(key, _)| key);
                let before = neighbour.map(|key| text.before(key.start)).unwrap_or_default();
                let line_end = text.line_end(body_end(table)?);
                splices.insert(line_end, format!("{}{before}{entry}", text.newline));
            }
        }
        Some(())
    }
}

impl<'d> List<'d> {
    /// The tables in order.
    pub(super) fn nodes(&self) -> Vec<Node<'d>> {
        match self {
            Self::Absent => Vec::new(),
            Self::Blocks(tables) => tables.iter().map(Node::Block).collect(),
            Self::Inline(array) => {
                array.iter().filter_map(Value::as_inline_table).map(Node::Inline).collect()
            }
        }
    }
}

/// The places of the items of an array.
pub(super) fn sequence_of(array: &toml_edit::Array) -> Option<Sequence> {
    let items = array.iter().map(Value::span).collect::<Option<Vec<_>>>()?;
    Some(Sequence { open: array.span()?.start + 1, items })
}

/// Keys and values that stand in the body of a block by themselves, not under a dotted key.
fn direct_values(table: &Table) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    table.iter().filter_map(|(name, item)| {
        let key = table.key(name)?.span()?;
        Some((key, item.as_value()?.span()?))
    })
}

/// Where the last value of a block's own lines ends; its header if it has none.
pub(super) fn body_end(table: &Table) -> Option<usize> {
    let header = table.span().filter(|_| !table.is_dotted() && !table.is_implicit()).map(|span| span.end);
    let own = |item: &Item| match item {
        Item::Table(child) if child.is_dotted() => body_end(child),
        Item::Value(value) => Some(value.span()?.end),
        _ => None,
    };
    table.iter().filter_map(|(_, item)| own(item)).chain(header).max()
}

/// Where everything under a block ends, its sub-tables included.
pub(super) fn extent_end(table: &Table) -> Option<usize> {
    let below = |item: &Item| match item {
        Item::Table(child) => extent_end(child),
        Item::ArrayOfTables(children) => children.iter().filter_map(extent_end).max(),
        _ => None,
    };
    table.iter().filter_map(|(_, item)| below(item)).chain(body_end(table)).max()
}

fn end_of_value(value: &Value) -> Option<usize> {
    match value.as_inline_table().filter(|table| table.is_dotted()) {
        Some(table) => table.iter().filter_map(|(_, value)| end_of_value(value)).max(),
        None => Some(value.span()?.end),
    }
}

/// Removes a block: its lines, the comments directly above its header, those at its end, and one gap.
pub(super) fn remove_block(text: Text<'_>, table: &Table, splices: &mut Splices) -> Option<()> {
    let header = text.line_start(table.span()?.start);
    let bound = table.decor().prefix().and_then(toml_edit::RawString::span).map_or(header, |span| span.start);
    let end = text.paragraph_end(body_end(table)?);
    let mut start = text.comments_above(header, bound);
    if text.is_gap(end) {
        start = text.blanks_above(start, bound);
    }
    splices.remove(start..end);
    Some(())
}

/// Removes a key with whatever it holds, in every form that it can have in a block.
pub(super) fn remove_entry(text: Text<'_>, key: &Key, item: &Item, splices: &mut Splices) -> Option<()> {
    match item {
        Item::Table(table) => {
            if !table.is_dotted() && !table.is_implicit() {
                remove_block(text, table, splices)?;
            }
            for (name, child) in table.iter() {
                // The lines of a block went with it.
                let has_block = matches!(child, Item::Table(child) if !child.is_dotted());
                if table.is_dotted() || has_block {
                    remove_entry(text, table.key(name)?, child, splices)?;
                }
            }
        }
        Item::Value(value) => {
            let line = text.line_start(key.span()?.start);
            let bound = key
                .leaf_decor()
                .prefix()
                .and_then(toml_edit::RawString::span)
                .map_or(line, |span| span.start);
            splices.remove(text.comments_above(line, bound)..text.next_line(value.span()?.end));
        }
        Item::ArrayOfTables(_) | Item::None => return None,
    }
    Some(())
}
