//! What all tables need: numbers in a range, words of a list, durations, notations.

use std::{fmt, ops::RangeInclusive, time::Duration};

use super::words::Words;
use crate::config::{
    problem::{listed, nearest, quoted},
    reader::{At, Field, Table},
    value::{ValueError, format_duration, parse_duration},
};

impl<'a> Table<'a> {
    /// A whole number of a range.
    pub(super) fn number<T>(&self, key: &str, field: &Field<i64>, range: RangeInclusive<T>, default: T) -> T
    where
        T: TryFrom<i64> + PartialOrd + fmt::Display,
    {
        self.optional_number(key, field, range).unwrap_or(default)
    }

    /// A whole number of a range, or nothing.
    pub(super) fn optional_number<T>(
        &self,
        key: &str,
        field: &Field<i64>,
        range: RangeInclusive<T>,
    ) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + fmt::Display,
    {
        let Field::Given(given) = field else { return None };
        let number = T::try_from(given.value).ok().filter(|number| range.contains(number));
        if number.is_none() {
            let (low, high) = (range.start(), range.end());
            self.wrong(given.at, key, format_args!("found {}, expected {low} to {high}", given.value));
        }
        number
    }

    /// One of the words that a key allows.
    pub(super) fn word<T: Copy>(&self, key: &str, field: &Field<&'a str>, words: &Words<T>) -> Option<T> {
        let Field::Given(given) = field else { return None };
        let text = given.value;
        if let Some((_, meaning)) = words.known.iter().find(|(word, _)| *word == text) {
            return Some(*meaning);
        }
        let known = || words.known.iter().map(|(word, _)| *word);
        let list = listed(known());
        if words.later.contains(&text) {
            self.wrong(
                given.at,
                key,
                format_args!("{text:?} is not available in this version (known: {list})"),
            );
            return None;
        }
        match nearest(text, known()) {
            Some(near) => {
                self.wrong(
                    given.at,
                    key,
                    format_args!("found {}; did you mean {near:?}? (known: {list})", quoted(text)),
                );
            }
            None => {
                self.wrong(given.at, key, format_args!("found {}, expected one of: {list}", quoted(text)));
            }
        }
        None
    }

    /// A duration of a range.
    pub(super) fn duration(
        &self,
        key: &str,
        field: &Field<&'a str>,
        range: &RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let duration = self.notation(key, field, parse_duration)?;
        if range.contains(&duration.value) {
            return Some(duration.value);
        }
        let (low, high) = (format_duration(*range.start()), format_duration(*range.end()));
        let found = format_duration(duration.value);
        self.wrong(duration.at, key, format_args!("found {found:?}, expected {low:?} to {high:?}"));
        None
    }

    /// A value in a notation of its own.
    pub(super) fn notation<T>(
        &self,
        key: &str,
        field: &Field<&'a str>,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<At<T>> {
        match field {
            Field::Given(given) => self.parsed(key, *given, parse),
            Field::Absent | Field::Bad => None,
        }
    }

    /// One text in a notation of its own.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        given: At<&'a str>,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<At<T>> {
        let parsed = parse(given.value).map_err(|error| self.wrong(given.at, key, error));
        parsed.ok().map(|value| At { at: given.at, value })
    }

    /// A list: at most `limit` items, each in its notation, none twice. `None` when the list is absent or too long.
    pub(super) fn list<T: Clone + Eq + std::hash::Hash>(
        &self,
        key: &str,
        field: &Field<Vec<At<&'a str>>>,
        limit: usize,
        parse: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Option<Vec<At<T>>> {
        let Field::Given(list) = field else { return None };
        if list.value.len() > limit {
            self.wrong(
                list.at,
                key,
                format_args!("found {} items, expected at most {limit}", list.value.len()),
            );
            return None;
        }
        let mut seen = std::collections::HashSet::with_capacity(list.value.len());
        let items = list.value.iter().filter_map(|item| {
            let parsed = self.parsed(key, *item, &parse)?;
            if seen.insert(parsed.value.clone()) {
                return Some(parsed);
            }
            self.wrong(item.at, key, format_args!("found {} twice; remove one", quoted(item.value)));
            None
        });
        Some(items.collect())
    }
}

/// The values without their places.
pub(super) fn values<T>(list: Vec<At<T>>) -> Vec<T> {
    list.into_iter().map(|item| item.value).collect()
}
