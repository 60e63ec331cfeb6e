//! `[service.health]`.

use std::{net::IpAddr, time::Duration};

use super::words::{self, CheckKind};
use crate::config::{
    defaults, limits,
    problem::quoted,
    raw::RawHealth,
    reader::Field,
    types::{Backend, Check, Health, Mass, Ports, Tls, Trust},
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
        mass: Mass {
            max_ejected: table.number(
                "max_ejected",
                &raw.max_ejected,
                limits::PERCENT,
                defaults::MASS.max_ejected,
            ),
            panic_below: table.number(
                "panic_below",
                &raw.panic_below,
                limits::PERCENT,
                defaults::MASS.panic_below,
            ),
            min_ready: table.number("min_ready", &raw.min_ready, limits::MIN_READY, defaults::MASS.min_ready),
        },
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
    let body = table.notation("body", &raw.body, check_body).map(|body| body.value);
    let tls = tls(raw);
    let Some(kind) = kind else { return Check::None };
    refuse_keys_of_others(raw, kind);
    match kind {
        CheckKind::None => Check::None,
        CheckKind::Tcp => Check::Tcp,
        CheckKind::Http | CheckKind::Https => Check::Http {
            path: path.map_or_else(|| defaults::PATH.to_owned(), |path| path.value),
            expect: expect.unwrap_or_else(|| vec![defaults::EXPECT]),
            host: host.map(|host| host.value),
            body,
            tls: (kind == CheckKind::Https).then_some(tls),
        },
        CheckKind::Grpc => {
            let service = table.notation("service", &raw.service, check_grpc_service);
            Check::Grpc { service: service.map(|service| service.value).unwrap_or_default() }
        }
        CheckKind::Dns => {
            Check::Dns { query: demanded(raw, "query", &raw.query, "query = \"www.example\"", check_query) }
        }
        CheckKind::Udp => Check::Udp {
            send: demanded(raw, "send", &raw.send, "send = \"ping\"", check_payload),
            receive: table.notation("receive", &raw.receive, check_payload).map(|receive| receive.value),
        },
        CheckKind::Exec => Check::Exec { command: command(raw) },
    }
}

fn tls(raw: &RawHealth<'_>) -> Tls {
    let table = &raw.table;
    let name = table.notation("sni", &raw.sni, check_sni).map(|name| name.value);
    let ca = table.notation("ca", &raw.ca, check_ca);
    let insecure = matches!(&raw.insecure, Field::Given(given) if given.value);
    let trust = match ca {
        Some(ca) if insecure => {
            let what = "found true beside ca, expected one of both: whoever believes anyone needs no CA; remove \
                        insecure";
            if let Field::Given(given) = &raw.insecure {
                table.wrong(given.at, "insecure", what);
            }
            Trust::File(ca.value)
        }
        Some(ca) => Trust::File(ca.value),
        None if insecure => Trust::Anyone,
        None => Trust::System,
    };
    Tls { name, trust }
}

/// A key that this kind of check cannot do without.
fn demanded(
    raw: &RawHealth<'_>,
    key: &str,
    field: &Field<&str>,
    example: &str,
    check: impl Fn(&str) -> Result<String, ValueError>,
) -> String {
    if matches!(field, Field::Absent) {
        raw.table.missing(key, example);
    }
    raw.table.notation(key, field, check).map(|value| value.value).unwrap_or_default()
}

fn command(raw: &RawHealth<'_>) -> Vec<String> {
    match &raw.command {
        Field::Given(given) => {
            let words: Vec<String> = given.value.iter().map(|word| word.value.to_owned()).collect();
            let fits = (1..=limits::COMMAND_WORDS).contains(&words.len());
            if !fits || !words[0].starts_with('/') || words.iter().any(|word| word.contains('\0')) {
                let most = limits::COMMAND_WORDS;
                let what = format_args!("expected an absolute path and its arguments, 1 to {most} strings");
                raw.table.wrong(given.at, "command", what);
            }
            words
        }
        Field::Absent => {
            raw.table.missing("command", "command = [\"/usr/local/bin/check\", \"--fast\"]");
            Vec::new()
        }
        Field::Bad => Vec::new(),
    }
}

/// A path that nobody asks for is a mistake about what is checked.
fn refuse_keys_of_others(raw: &RawHealth<'_>, kind: CheckKind) {
    let text = |field: &Field<&str>| if let Field::Given(given) = field { Some(given.at) } else { None };
    let expect = if let Field::Given(given) = &raw.expect { Some(given.at) } else { None };
    let command = if let Field::Given(given) = &raw.command { Some(given.at) } else { None };
    let insecure = if let Field::Given(given) = &raw.insecure { Some(given.at) } else { None };
    let http: &[_] = &[CheckKind::Http, CheckKind::Https];
    let places = [
        ("path", text(&raw.path), http, "\"http\" or \"https\""),
        ("expect", expect, http, "\"http\" or \"https\""),
        ("host", text(&raw.host), http, "\"http\" or \"https\""),
        ("body", text(&raw.body), http, "\"http\" or \"https\""),
        ("sni", text(&raw.sni), &[CheckKind::Https], "\"https\""),
        ("ca", text(&raw.ca), &[CheckKind::Https], "\"https\""),
        ("insecure", insecure, &[CheckKind::Https], "\"https\""),
        ("service", text(&raw.service), &[CheckKind::Grpc], "\"grpc\""),
        ("query", text(&raw.query), &[CheckKind::Dns], "\"dns\""),
        ("send", text(&raw.send), &[CheckKind::Udp], "\"udp\""),
        ("receive", text(&raw.receive), &[CheckKind::Udp], "\"udp\""),
        ("command", command, &[CheckKind::Exec], "\"exec\""),
    ];
    for (key, at, owners, words) in places {
        if let Some(at) = at.filter(|_| !owners.contains(&kind)) {
            let what = format_args!("belongs to type = {words}; set that type or remove the key");
            raw.table.wrong(at, key, what);
        }
    }
}

fn check_grpc_service(text: &str) -> Result<String, ValueError> {
    let most = limits::GRPC_SERVICE_BYTES;
    if text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(ValueError::new(
        quoted(text),
        format!("the name of a gRPC service, at most {most} visible ASCII characters"),
    ))
}

fn check_query(text: &str) -> Result<String, ValueError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(text.to_owned());
    }
    Err(ValueError::new(quoted(text), "a domain name like \"www.example\""))
}

fn check_sni(text: &str) -> Result<String, ValueError> {
    // An address would not be sent: RFC 6066 section 3 knows names only.
    if text.parse::<IpAddr>().is_ok() || text.ends_with('.') {
        return Err(ValueError::new(
            quoted(text),
            "a domain name like \"www.example\", without a dot at its end",
        ));
    }
    check_query(text)
}

fn check_ca(text: &str) -> Result<String, ValueError> {
    if text.starts_with('/') && text.len() <= limits::CA_PATH_BYTES && !text.contains('\0') {
        return Ok(text.to_owned());
    }
    Err(ValueError::new(quoted(text), "the absolute path of a PEM file like \"/etc/lb/ca.pem\""))
}

fn check_body(text: &str) -> Result<String, ValueError> {
    let (least, most) = (limits::BODY_BYTES.start(), limits::BODY_BYTES.end());
    if limits::BODY_BYTES.contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(ValueError::new(format!("{} bytes", text.len()), format!("{least} to {most} bytes")))
}

fn check_payload(text: &str) -> Result<String, ValueError> {
    let most = limits::PAYLOAD_BYTES;
    if (1..=most).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(ValueError::new(format!("{} bytes", text.len()), format!("1 to {most} bytes")))
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
