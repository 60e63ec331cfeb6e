//! Takes typed values out of a parsed TOML tree; what does not fit becomes a problem, and reading goes on.
//!
//! Derived deserializers stop at the first thing they do not like. A person who repairs a file wants to hear of all of
//! them at once, each with its line, so this walks the tree of spans that `toml` makes.

use std::fmt;

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{
    keys::{self, Place},
    problem::{Problems, listed, nearest, quoted},
};

/// A value and the byte offset where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<T> {
    pub(super) at: usize,
    pub(super) value: T,
}

/// A key of a table. `Bad` was reported already: what depends on it must keep quiet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field<T> {
    Absent,
    Bad,
    Given(At<T>),
}

impl<T> Field<T> {
    pub(super) fn given(self) -> Option<At<T>> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Bad => None,
        }
    }

    fn and_then<U>(self, convert: impl FnOnce(At<T>) -> Option<At<U>>) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Bad => Field::Bad,
            Self::Given(value) => convert(value).map_or(Field::Bad, Field::Given),
        }
    }
}

/// One table of the file while it is read.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    pub(super) problems: &'a Problems<'a>,
    pub(super) place: Place<'a>,
    /// Offset of the header: where a missing key is reported.
    pub(super) at: usize,
    entries: &'a DeTable<'a>,
}

impl<'a> Table<'a> {
    /// The root of a file. Reports keys that do not belong there, as every table does when it is opened.
    pub(super) fn root(problems: &'a Problems<'a>, entries: &'a DeTable<'a>) -> Self {
        let table = Self { problems, place: Place::File, at: 0, entries };
        table.refuse_unknown();
        table
    }

    fn open(&self, place: Place<'a>, at: usize, entries: &'a DeTable<'a>) -> Self {
        let table = Self { problems: self.problems, place, at, entries };
        table.refuse_unknown();
        table
    }

    fn refuse_unknown(&self) {
        let keys = self.place.keys();
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if keys.known.contains(&name) {
                continue;
            }
            self.problems.add(key.span().start, || {
                let (place, known) = (self.place, listed(keys.known.iter().copied()));
                match nearest(name, keys.known.iter().copied()) {
                    Some(near) => format!("{place}: unknown key {}; did you mean {near}?", quoted(name)),
                    None => format!("{place}: unknown key {} (known: {known})", quoted(name)),
                }
            });
        }
    }

    /// Reports a problem of one key.
    pub(super) fn wrong(&self, at: usize, key: &str, what: impl fmt::Display) {
        self.problems.add(at, || format!("{}: {key}: {what}", self.place));
    }

    /// Reports a required key that is not there.
    pub(super) fn missing(&self, key: &str, example: &str) {
        self.problems
            .add(self.at, || format!("{}: {key} is missing; add for example `{example}`", self.place));
    }

    /// The value of a key, whatever its type.
    pub(super) fn value(&self, key: &str) -> Field<&'a DeValue<'a>> {
        debug_assert!(self.place.keys().known.contains(&key), "{key} is not in the table of keys");
        match self.entries.get(key) {
            None => Field::Absent,
            Some(value) => Field::Given(at(value)),
        }
    }

    /// A string.
    pub(super) fn string(&self, key: &str) -> Field<&'a str> {
        self.value(key).and_then(|value| self.as_string(key, value))
    }

    /// A whole number.
    pub(super) fn integer(&self, key: &str) -> Field<i64> {
        self.value(key).and_then(|value| self.as_integer(key, value))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &str) -> Field<bool> {
        let Field::Given(given) = self.value(key) else { return Field::Absent };
        match given.value {
            DeValue::Boolean(value) => Field::Given(At { at: given.at, value: *value }),
            _ => {
                self.unexpected(key, given, "true or false");
                Field::Bad
            }
        }
    }

    /// A list of strings; a single string where `alone` allows one.
    pub(super) fn strings(&self, key: &str, alone: bool) -> Field<Vec<At<&'a str>>> {
        self.value(key).and_then(|given| match given.value {
            DeValue::Array(items) => {
                let found: Vec<_> = items.iter().filter_map(|item| self.as_string(key, at(item))).collect();
                // One bad item is reported; the others alone would be another list than the file's.
                (found.len() == items.len()).then_some(At { at: given.at, value: found })
            }
            DeValue::String(text) if alone => {
                Some(At { at: given.at, value: vec![At { at: given.at, value: text.as_ref() }] })
            }
            DeValue::String(text) => {
                let fix = format!("a list of strings; write [{}]", quoted(text));
                self.unexpected(key, given, &fix);
                None
            }
            _ => {
                self.unexpected(key, given, "a list of strings");
                None
            }
        })
    }

    pub(super) fn as_string(&self, key: &str, given: At<&'a DeValue<'a>>) -> Option<At<&'a str>> {
        let text = given.value.as_str();
        if text.is_none() {
            self.unexpected(key, given, "a string in quotes");
        }
        text.map(|value| At { at: given.at, value })
    }

    pub(super) fn as_integer(&self, key: &str, given: At<&'a DeValue<'a>>) -> Option<At<i64>> {
        let digits = given.value.as_integer();
        let number = digits.and_then(|digits| i64::from_str_radix(digits.as_str(), digits.radix()).ok());
        if number.is_none() {
            self.unexpected(key, given, "a whole number");
        }
        number.map(|value| At { at: given.at, value })
    }

    /// Reports a value of the wrong type.
    pub(super) fn unexpected(&self, key: &str, given: At<&DeValue<'_>>, expected: &str) {
        // The type is enough: a secret without its quotes must not end up in a log.
        let found = if keys::SECRETS.contains(&key) {
            given.value.type_str().to_owned()
        } else {
            described(given.value)
        };
        self.wrong(given.at, key, format_args!("found {found}, expected {expected}"));
    }

    /// A table under this one.
    pub(super) fn table(&self, key: &str, place: Place<'a>) -> Field<Table<'a>> {
        self.value(key).and_then(|given| {
            let entries = given.value.as_table();
            if entries.is_none() {
                self.unexpected(key, given, "a table");
            }
            entries.map(|entries| At { at: given.at, value: self.open(place, given.at, entries) })
        })
    }

    /// The tables of a list (`[[service]]`, or `service = [{…}]`), at most `limit` of them. `place` makes the place of
    /// each from its number and the name in it.
    pub(super) fn tables(
        &self,
        key: &str,
        limit: usize,
        place: impl Fn(Option<&'a str>, usize) -> Place<'a>,
    ) -> Vec<Table<'a>> {
        let Field::Given(given) = self.value(key) else { return Vec::new() };
        let Some(items) = given.value.as_array() else {
            let heading = place(None, 1).keys().heading;
            self.unexpected(
                key,
                given,
                &format!("a list of tables; write {heading} with two brackets on each side"),
            );
            return Vec::new();
        };
        if let Some(first_beyond) = items.get(limit) {
            let found = items.len();
            self.wrong(
                first_beyond.span().start,
                key,
                format_args!("found {found}, expected at most {limit}"),
            );
        }
        self.open_all(key, items, limit, place)
    }

    fn open_all(
        &self,
        key: &str,
        items: &'a DeArray<'a>,
        limit: usize,
        place: impl Fn(Option<&'a str>, usize) -> Place<'a>,
    ) -> Vec<Table<'a>> {
        let numbered = items.iter().zip(1..).take(limit);
        let tables = numbered.filter_map(|(item, number)| match item.get_ref() {
            DeValue::Table(entries) => {
                let name = entries.get("name").and_then(|name| name.get_ref().as_str());
                Some(self.open(place(name, number), item.span().start, entries))
            }
            _ => {
                self.unexpected(key, at(item), "a table");
                None
            }
        });
        tables.collect()
    }
}

fn at<'a, 'i>(value: &'a Spanned<DeValue<'i>>) -> At<&'a DeValue<'i>> {
    At { at: value.span().start, value: value.get_ref() }
}

/// A value in the words of a message.
fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {}", quoted(text)),
        DeValue::Integer(digits) => format!("the number {}", unquoted(&digits.to_string())),
        DeValue::Float(digits) => format!("the number {}", unquoted(digits.as_str())),
        DeValue::Boolean(word) => word.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Bounds a number of a million digits.
fn unquoted(digits: &str) -> String {
    quoted(digits).trim_matches('"').to_owned()
}
