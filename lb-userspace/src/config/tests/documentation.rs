//! `docs/configuration.md` names the keys that the reader knows, and the reader looks at every key that it knows.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::{
    Config, Secrets, defaults,
    keys::{self, TABLES},
    limits,
};

const PAGE: &str = include_str!("../../../../docs/configuration.md");

/// Heading of a table → key → default, as the page says.
fn documented() -> BTreeMap<&'static str, BTreeMap<&'static str, &'static str>> {
    let mut tables: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    let mut heading = "";
    for line in PAGE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title.trim().trim_matches('`');
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let ["", key, default, _, _, ""] = cells[..]
            && key.starts_with('`')
        {
            let known =
                tables.entry(heading).or_default().insert(key.trim_matches('`'), default.trim_matches('`'));
            assert_eq!(known, None, "{heading} {key} stands there twice");
        }
    }
    tables
}

#[test]
fn the_page_has_every_key_and_no_other() {
    let known: BTreeMap<_, Vec<_>> = TABLES
        .iter()
        .map(|table| {
            let mut keys = table.known.to_vec();
            keys.sort_unstable();
            (table.heading, keys)
        })
        .collect();
    let documented: BTreeMap<_, Vec<_>> =
        documented().into_iter().map(|(heading, keys)| (heading, keys.into_keys().collect())).collect();
    assert_eq!(documented, known);
}

#[test]
fn the_page_has_the_defaults() {
    let text = "[[service]]\nname = \"web\"\naddresses = [\"192.0.2.1\"]\nports = \"any\"\nhealth.type = \"http\"\n\
                limit.anonymous.rate = 1\nbackend = [{ address = \"198.51.100.1\", port = 80 }]\n\
                [agent]\ninterface = \"eth0\"\nvips = [\"192.0.2.1\"]\ntunnel_sources = \"198.51.100.1\"\n";
    let config = serde_json::to_value(Config::parse("f", text).unwrap().printed(Secrets::Shown)).unwrap();
    let tables = [
        (&keys::DAEMON, "/daemon"),
        (&keys::FLOW_TABLE, "/daemon/flow_table"),
        (&keys::LIMIT_TABLE, "/daemon/limit_table"),
        (&keys::SERVICE, "/service/0"),
        (&keys::HEALTH, "/service/0/health"),
        (&keys::BACKEND, "/service/0/backend/0"),
        (&keys::AGENT, "/agent"),
    ];
    let documented = documented();
    let mut compared = 0;
    for (table, pointer) in tables {
        let values = config.pointer(pointer).unwrap().as_object().unwrap();
        for (key, default) in &documented[table.heading] {
            let plain = default.chars().all(|c| c.is_ascii_alphanumeric() || "\"/-[]".contains(c));
            if !plain || ["required", "none"].contains(default) || *key == "type" {
                continue;
            }
            let expected: Value = serde_json::from_str(default).unwrap();
            assert_eq!(values.get(*key), Some(&expected), "{} {key}", table.heading);
            compared += 1;
        }
    }
    assert_eq!(documented["[service.health]"]["type"], format!("\"{}\"", defaults::HEALTH_TYPE));
    assert_eq!(compared, 28, "a default that is written in another way is not compared");
}

#[test]
fn the_example_is_accepted() {
    let example = PAGE.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(Config::parse("docs/configuration.md", example).unwrap().services[0].backends.len(), 2);
}

/// Every range of `limits` is on the page, in the row of its key.
#[test]
fn the_page_has_the_ranges() {
    let ranges = [
        ("capacity", limits::FLOW_CAPACITY.end().to_string()),
        ("capacity", limits::LIMIT_CAPACITY.end().to_string()),
        ("table_slots", limits::TABLE_SLOTS.end().to_string()),
        ("weight", limits::WEIGHT.end().to_string()),
        ("rate", limits::RATE.end().to_string()),
        ("burst", limits::BURST.end().to_string()),
        ("rise", limits::STREAK.end().to_string()),
        ("fall", limits::STREAK.end().to_string()),
        ("ports", limits::PORTS.to_string()),
        ("addresses", limits::ADDRESSES.to_string()),
        ("backend", limits::BACKENDS.to_string()),
        ("service", limits::SERVICES.to_string()),
        ("vips", limits::AGENT_VIPS.to_string()),
        ("tunnel_sources", limits::AGENT_SOURCES.to_string()),
        ("interfaces", limits::INTERFACES.to_string()),
        ("path", limits::PATH_BYTES.to_string()),
        ("host", limits::HOST_BYTES.to_string()),
        ("settle", crate::config::format_duration(*limits::SETTLE.end())),
        ("slow_start", crate::config::format_duration(*limits::SLOW_START.end())),
        ("interval", crate::config::format_duration(*limits::INTERVAL.end())),
    ];
    for (key, bound) in ranges {
        let row = format!("| `{key}` |");
        let found = PAGE.lines().any(|line| line.starts_with(&row) && line.replace(',', "").contains(&bound));
        assert!(found, "no row of {key} says {bound}");
    }
}

/// A date fits no key: whoever looks at the key complains.
#[test]
fn the_reader_looks_at_every_key() {
    let head = |heading: &str| match heading {
        "lb.toml" => String::new(),
        under if under.starts_with("[service.") || under.starts_with("[[service.") => {
            format!("[[service]]\n{under}\n")
        }
        top => format!("{top}\n"),
    };
    for table in TABLES {
        for key in table.known {
            let text = format!("{}{key} = 1979-05-27\n", head(table.heading));
            let error = Config::parse("f", &text).unwrap_err().to_string();
            assert!(
                error.contains(&format!(": {key}: found a date or time")) || keys::SECRETS.contains(key),
                "{text}{error}"
            );
            assert!(error.contains(&format!(": {key}: found")), "{text}{error}");
            assert!(!error.contains("unknown key"), "{text}{error}");
        }
    }
}
