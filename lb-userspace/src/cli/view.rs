//! Answers of the daemon as people read them. Pure functions: the tests hold their text.

use std::{fmt::Write, net::SocketAddr};

use super::{
    context::Look,
    table::{Align::Left, Align::Right, Cell, Style, Table, printable},
};
use crate::{
    api::{
        BackendState, BackendStatus, InterfaceMode, ServiceStatus, Status,
        types::{BackendRow, ServiceLimit},
        words::{age, bytes, count, percent, percent_of, plural},
    },
    config::{Affinity, Forward, Protocol},
};

/// `lb status`.
pub(super) fn status(s: &Status, look: &Look) -> String {
    let mut out = head(s, look);
    for service in &s.services {
        out.push('\n');
        out.push_str(&self::service(service, look));
    }
    if s.services.is_empty() {
        out.push_str("\nno service is configured\n");
    }
    let seen: Vec<_> = s.reasons.iter().filter(|(_, n)| **n > 0).collect();
    if !seen.is_empty() {
        let mut t = Table::new(&[("REASON", Left), ("PACKETS", Right)]);
        for (reason, packets) in seen {
            t.row(vec![reason.as_str().into(), count(*packets).into()]);
        }
        out.push('\n');
        out.push_str(&t.render("", look.color));
    }
    out
}

/// What belongs to the instance as a whole. Writing to a `String` cannot fail, hence the ignored results.
fn head(s: &Status, look: &Look) -> String {
    let mut out = String::new();
    let name = format!("lb {}", printable(&s.name));
    let _ = writeln!(
        out,
        "{}: version {}, ABI {}, generation {}, up {}",
        Style::Strong.paint(&name, look.color),
        printable(&s.version),
        s.abi,
        s.generation,
        age(s.started, look.now)
    );
    for i in &s.interfaces {
        let (style, mode) = match i.mode {
            InterfaceMode::Native => (Style::Good, "native"),
            InterfaceMode::Generic => (Style::Notice, "generic"),
        };
        let _ = write!(out, "interface {}: {}", printable(&i.name), style.paint(mode, look.color));
        if !i.mode_reason.is_empty() {
            let _ = write!(out, " ({})", printable(&i.mode_reason));
        }
        out.push('\n');
    }
    let t = s.flow_table;
    let _ = writeln!(
        out,
        "flow table: {} of {} in use ({}), {} hits, {} refused, {} evicted, {} inherited, {} rehashed, {} expired, \
         {} reopened",
        count(t.used),
        count(t.capacity),
        percent_of(t.used, t.capacity),
        count(t.hits),
        count(t.refused),
        count(t.evicted),
        count(t.inherited),
        count(t.rehashed),
        count(t.expired),
        count(t.reopened)
    );
    let _ = writeln!(out, "memory: {}", bytes(s.memory_bytes));
    for warning in &s.warnings {
        let _ = writeln!(out, "{} {}", Style::Bad.paint("warning:", look.color), printable(warning));
    }
    out
}

/// `lb service show`.
pub(super) fn service(s: &ServiceStatus, look: &Look) -> String {
    let name = printable(&s.name);
    let limit = s.limit.map_or("no limit".into(), |l| {
        format!("limit {}/s per source, burst {}", count(l.rate.into()), count(l.burst.into()))
    });
    let mut out = format!(
        "{}: {}, {} {}\n  forward {}, affinity {}, {limit}\n",
        Style::Strong.paint(&format!("service {name}"), look.color),
        addresses(s),
        protocol(s.protocol),
        ports(&s.ports),
        forward(s.forward),
        affinity(s.affinity),
    );
    let _ = writeln!(
        out,
        "  {}, {} unsettled, {} with exceptions; {}\n  {}, {}",
        plural(s.slots.into(), "slot"),
        count(s.unsettled.into()),
        count(s.exceptions.into()),
        digests(s),
        plural(s.packets, "packet"),
        bytes(s.bytes)
    );
    if s.backends.is_empty() {
        let _ = writeln!(out, "  {}", Style::Bad.paint("no backend: every packet is dropped", look.color));
        return out;
    }
    let mut t = Table::new(&COLUMNS);
    for b in &s.backends {
        t.row(backend(b.name.clone(), b, look));
    }
    out.push_str(&t.render("  ", look.color));
    out
}

/// "any port", "port 80", "ports 80, 443".
fn ports(ports: &[String]) -> String {
    match ports {
        [one] if one == "any" => "any port".into(),
        [one] if !one.contains('-') => format!("port {}", printable(one)),
        many => format!("ports {}", printable(&many.join(", "))),
    }
}

/// Both digests, short: enough to compare two balancers by eye.
fn digests(s: &ServiceStatus) -> String {
    let short = |digest: &str| printable(digest).chars().take(12).collect::<String>();
    let desired = short(&s.desired_digest);
    if s.desired_digest == s.installed_digest {
        return format!("table {desired}");
    }
    format!("table {desired}, with health applied {}", short(&s.installed_digest))
}

/// `lb service list`.
pub(super) fn services(all: &[ServiceStatus], look: &Look) -> String {
    let mut t = Table::new(&[
        ("SERVICE", Left),
        ("ADDRESSES", Left),
        ("PORTS", Left),
        ("PROTOCOL", Left),
        ("FORWARD", Left),
        ("AFFINITY", Left),
        ("READY", Right),
        ("UNSETTLED", Right),
        ("PACKETS", Right),
        ("BYTES", Right),
    ]);
    for s in all {
        let ready = s.backends.iter().filter(|b| b.state == BackendState::Ready).count();
        let style = match ready {
            0 => Style::Bad,
            n if n < s.backends.len() => Style::Notice,
            _ => Style::Good,
        };
        t.row(vec![
            s.name.as_str().into(),
            addresses(s).into(),
            s.ports.join(",").into(),
            protocol(s.protocol).into(),
            forward(s.forward).into(),
            affinity(s.affinity).into(),
            Cell::new(&format!("{ready} of {}", s.backends.len()), style),
            count(s.unsettled.into()).into(),
            count(s.packets).into(),
            bytes(s.bytes).into(),
        ]);
    }
    t.render("", look.color)
}

/// `lb backend list`.
pub(super) fn backends(rows: &[BackendRow], look: &Look) -> String {
    let mut t = Table::new(&COLUMNS);
    for row in rows {
        t.row(backend(format!("{}/{}", row.service, row.backend.name), &row.backend, look));
    }
    t.render("", look.color)
}

/// `lb limit show`.
pub(super) fn limits(rows: &[ServiceLimit], look: &Look) -> String {
    let mut t = Table::new(&[("SERVICE", Left), ("RATE", Right), ("BURST", Right)]);
    for row in rows {
        let (rate, burst) = match row.limit {
            Some(l) => (format!("{}/s per source", count(l.rate.into())), count(l.burst.into())),
            None => ("no limit".into(), "-".into()),
        };
        t.row(vec![row.service.as_str().into(), rate.into(), burst.into()]);
    }
    t.render("", look.color)
}

/// Columns of every table of backends.
const COLUMNS: [(&str, super::table::Align); 10] = [
    ("BACKEND", Left),
    ("ADDRESS", Left),
    ("STATE", Left),
    ("SINCE", Right),
    ("WEIGHT", Right),
    ("SHARE", Right),
    ("FLOWS", Right),
    ("PACKETS", Right),
    ("BYTES", Right),
    ("WHY", Left),
];

fn backend(name: String, b: &BackendStatus, look: &Look) -> Vec<Cell> {
    let address = b.port.map_or_else(|| b.address.to_string(), |p| SocketAddr::new(b.address, p).to_string());
    let state = match b.state {
        BackendState::Ready => Style::Good,
        BackendState::Failed => Style::Bad,
        BackendState::Unknown | BackendState::NotReady | BackendState::Draining | BackendState::Down => {
            Style::Notice
        }
    };
    let next_hop = (b.next_hop != "resolved").then(|| format!("next hop: {}", b.next_hop));
    let slow_start = b.slow_start.map(|percent| format!("slow start: takes {percent} % of its slots"));
    let why: Vec<String> = [Some(b.reason.clone()), slow_start, next_hop]
        .into_iter()
        .flatten()
        .filter(|why| !why.is_empty())
        .collect();
    vec![
        name.into(),
        address.into(),
        Cell::new(&b.state.word().replace('_', " "), state),
        age(b.since, look.now).into(),
        b.weight.to_string().into(),
        percent(b.share).into(),
        b.flows.map_or("-".into(), count).into(),
        count(b.packets).into(),
        bytes(b.bytes).into(),
        why.join("; ").into(),
    ]
}

fn addresses(s: &ServiceStatus) -> String {
    let texts: Vec<_> = s.addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// The words of `lb.toml`, as in the API.
fn protocol(p: Protocol) -> &'static str {
    match p {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Both => "both",
    }
}

fn forward(f: Forward) -> &'static str {
    match f {
        Forward::L2 => "l2",
        Forward::Ipip => "ipip",
        Forward::Gue => "gue",
        Forward::Nat => "nat",
    }
}

fn affinity(a: Affinity) -> &'static str {
    match a {
        Affinity::Addresses => "addresses",
        Affinity::Source => "source",
        Affinity::Flow => "flow",
        Affinity::Quic => "quic",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        Timestamp,
        fake::{NOW, sample_status},
    };

    fn look(color: bool) -> Look {
        Look { color, now: Timestamp::from_unix(NOW) }
    }

    const STATUS: &str = "\
lb main: version 0.1.0, ABI 1, generation 12, up 3h 12m
interface eth0: generic (the driver has no XDP)
flow table: 42 of 1,048,576 in use (0.0 %), 1,000 hits, 0 refused, 0 evicted, 40 inherited, 3 rehashed, 0 expired, 0 reopened
memory: 12.5 MB
warning: interface eth0 runs in generic mode: expect a tenth of the packet rate
";

    const WEB: &str = "\
service web: 192.0.2.10, 2001:db8::10, tcp ports 80, 443
  forward ipip, affinity addresses, limit 1,000/s per source, burst 2,000
  16,381 slots, 5,460 unsettled, 3 with exceptions; table 3f2a9c001122, with health applied 77aa00001122
  123,456 packets, 7.9 MB
  BACKEND  ADDRESS             STATE      SINCE  WEIGHT   SHARE  FLOWS  PACKETS   BYTES  WHY
  b1       198.51.100.11       ready      4d 1h     100  66.7 %      -  100,000  6.4 MB
  b2       198.51.100.12       failed    1m 15s     100   0.0 %      -   23,456  1.5 MB  connection refused; next \
                       hop: no neighbour entry for 198.51.100.12 on eth0
  b3       198.51.100.13:8080  draining   2h 1m     100  33.3 %      -        0     0 B
";

    const DNS: &str = "\
service dns: 192.0.2.53, udp any port
  forward l2, affinity flow, no limit
  251 slots, 0 unsettled, 0 with exceptions; table 3f2a9c001122
  0 packets, 0 B
  BACKEND  ADDRESS        STATE  SINCE  WEIGHT    SHARE  FLOWS  PACKETS  BYTES  WHY
  b1       198.51.100.11  ready    10s     100  100.0 %     42        0    0 B
";

    const REASONS: &str = "\
REASON           PACKETS
forwarded        123,456
limited                7
not_a_service  2,000,000
";

    #[test]
    fn status_shows_everything_and_leaves_out_reasons_that_never_came() {
        assert_eq!(status(&sample_status(), &look(false)), format!("{STATUS}\n{WEB}\n{DNS}\n{REASONS}"));
    }

    #[test]
    fn an_empty_instance_says_so() {
        let mut s = sample_status();
        s.services.clear();
        s.reasons.clear();
        assert_eq!(status(&s, &look(false)), format!("{STATUS}\nno service is configured\n"));
    }

    #[test]
    fn colour_only_repeats_what_words_say() {
        let colored = status(&sample_status(), &look(true));
        for part in ["\x1b[32mready\x1b[0m", "\x1b[31mfailed\x1b[0m", "\x1b[33mgeneric\x1b[0m"] {
            assert!(colored.contains(part), "{colored:?}");
        }
        let mut plain = colored;
        for code in [0, 1, 31, 32, 33] {
            plain = plain.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(plain, status(&sample_status(), &look(false)));
    }

    #[test]
    fn one_line_per_service() {
        let want = "\
SERVICE  ADDRESSES                 PORTS   PROTOCOL  FORWARD  AFFINITY    READY  UNSETTLED  PACKETS   BYTES
web      192.0.2.10, 2001:db8::10  80,443  tcp       ipip     addresses  1 of 3      5,460  123,456  7.9 MB
dns      192.0.2.53                any     udp       l2       flow       1 of 1          0        0     0 B
";
        assert_eq!(services(&sample_status().services, &look(false)), want);
    }

    #[test]
    fn one_line_per_backend_with_its_service() {
        let s = sample_status();
        let row = |s: &ServiceStatus| BackendRow { service: s.name.clone(), backend: s.backends[0].clone() };
        let want = "\
BACKEND  ADDRESS        STATE  SINCE  WEIGHT    SHARE  FLOWS  PACKETS   BYTES  WHY
web/b1   198.51.100.11  ready  4d 1h     100   66.7 %      -  100,000  6.4 MB
dns/b1   198.51.100.11  ready    10s     100  100.0 %     42        0     0 B
";
        assert_eq!(backends(&[row(&s.services[0]), row(&s.services[1])], &look(false)), want);
    }

    #[test]
    fn services_without_a_limit_say_so() {
        let rows = sample_status().services.into_iter();
        let rows: Vec<_> = rows.map(|s| ServiceLimit { service: s.name, limit: s.limit }).collect();
        let want = "\
SERVICE                RATE  BURST
web      1,000/s per source  2,000
dns                no limit      -
";
        assert_eq!(limits(&rows, &look(false)), want);
    }

    #[test]
    fn what_a_backend_sent_cannot_steer_the_terminal() {
        let mut s = sample_status();
        let evil = "503 \x1b]0;x\x07\nfake";
        s.warnings = vec![evil.into()];
        s.services[0].name = evil.into();
        s.services[0].backends[0].reason = evil.into();
        s.reasons.insert(evil.into(), 1);
        let text = status(&s, &look(false));
        assert_eq!(text.matches("503 \\u{1b}]0;x\\u{7}\\nfake").count(), 4, "{text}");
        assert!(!text.contains(['\x1b', '\x07']), "{text:?}");
    }
}
