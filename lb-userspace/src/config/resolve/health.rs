//! `[service.health]`.

use std::time::Duration;

use super::words::{self, CheckKind};
use crate::config::{
    defaults, limits,
    raw::RawHealth,
    reader::Field,
    types::{Backend, Check, Health, Ports},
    value::{ValueError, check_host, check_path, format_duration, parse_expect},
};

pub(super) fn resolve(raw: Option<&RawHealth<'_>>) -> Health {
    let Some(raw) = raw else { return defaults::health() };
    let table = &raw.table;
    table.word("via", &raw.via, &words::VIA);
    let interval = table.duration("interval", &raw.interval, &limits::INTERVAL).unwrap_or(defaults::INTERVAL);
    Health {
        check: check(raw),
        port: table.optional_number("port", &raw.port, limits::PORT),
        interval,
        timeout: timeout(raw, interval),
        rise: table.number("rise", &raw.rise, limits::STREAK, defaults::RISE),
        fall: table.number("fall", &raw.fall, limits::STREAK, defaults::FALL),
    }
}

fn timeout(raw: &RawHealth<'_>, interval: Duration) -> Duration {
    let longest = limits::TIMEOUT_MIN..=*limits::INTERVAL.end();
    let Some(timeout) = raw.table.duration("timeout", &raw.timeout, &longest) else {
        return defaults::timeout(interval);
    };
    if let (true, Field::Given(given)) = (timeout > interval, &raw.timeout) {
        let (found, most) = (format_duration(timeout), format_duration(interval));
        let what =
            format_args!("found {found:?}, expected at most the interval, {most:?}; checks must not overlap");
        raw.table.wrong(given.at, "timeout", what);
    }
    timeout
}

fn check(raw: &RawHealth<'_>) -> Check {
    let table = &raw.table;
    let kind = match raw.kind {
        Field::Absent => Some(CheckKind::Tcp),
        Field::Bad => None,
        Field::Given(_) => table.word("type", &raw.kind, &words::CHECK),
    };
    let path = table.notation("path", &raw.path, |text| check_path(text).map(|()| text.to_owned()));
    let host = table.notation("host", &raw.host, |text| check_host(text).map(|()| text.to_owned()));
    let expect = match &raw.expect {
        Field::Given(given) => {
            parse_expect(&given.value).map_err(|error| table.wrong(given.at, "expect", error)).ok()
        }
        Field::Absent | Field::Bad => None,
    };
    match kind {
        Some(CheckKind::Http) => Check::Http {
            path: path.map_or_else(|| defaults::PATH.to_owned(), |path| path.value),
            expect: expect.unwrap_or_else(|| vec![defaults::EXPECT]),
            host: host.map(|host| host.value),
        },
        Some(kind) => {
            refuse_http_keys(raw);
            if kind == CheckKind::Tcp { Check::Tcp } else { Check::None }
        }
        None => Check::None,
    }
}

/// A path that nobody asks for is a mistake about what is checked.
fn refuse_http_keys(raw: &RawHealth<'_>) {
    let place = |field: &Field<&str>| if let Field::Given(given) = field { Some(given.at) } else { None };
    let expect = if let Field::Given(given) = &raw.expect { Some(given.at) } else { None };
    for (key, at) in [("path", place(&raw.path)), ("expect", expect), ("host", place(&raw.host))] {
        if let Some(at) = at {
            raw.table.wrong(at, key, "belongs to type = \"http\"; set that type or remove the key");
        }
    }
}

/// A check needs a port from somewhere: its own, the backend's, or the first of the service.
pub(super) fn demand_port(raw: Option<&RawHealth<'_>>, health: &Health, ports: &Ports, backends: &[Backend]) {
    let Some(raw) = raw else { return };
    let asked = health.check != Check::None && health.port.is_none() && matches!(raw.port, Field::Absent);
    if asked && *ports == Ports::Any && backends.iter().any(|backend| backend.port.is_none()) {
        let error =
            ValueError::new("none", "one here or in every backend, since ports = \"any\" names none to ask");
        raw.table.wrong(raw.table.at, "port", error);
    }
}
