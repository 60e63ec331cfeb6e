//! The file as it was written: every key with its type, nothing interpreted yet. `resolve` gives it meaning.

use std::ops::RangeInclusive;

use toml::de::{DeTable, DeValue};

use super::{
    keys::{Place, Who},
    limits,
    problem::Problems,
    reader::{At, Field, Table},
    types::Ports,
    value::{ValueError, parse_port_range, ports_of},
};

/// The whole file.
pub(super) struct RawConfig<'a> {
    pub(super) daemon: Option<RawDaemon<'a>>,
    pub(super) quic: Vec<RawQuic<'a>>,
    pub(super) services: Vec<RawService<'a>>,
    pub(super) agent: Option<RawAgent<'a>>,
}

/// `[daemon]`.
pub(super) struct RawDaemon<'a> {
    pub(super) table: Table<'a>,
    pub(super) interfaces: Field<Vec<At<&'a str>>>,
    pub(super) xdp_mode: Field<&'a str>,
    pub(super) hash_seed: Field<&'a str>,
    pub(super) tunnel_source: Field<Vec<At<&'a str>>>,
    pub(super) gue_port: Field<i64>,
    pub(super) announce: Field<&'a str>,
    pub(super) flow_table: Option<RawCapacity<'a>>,
    pub(super) limit_table: Option<RawCapacity<'a>>,
    pub(super) listen: Field<&'a str>,
}

/// `flow_table` and `limit_table`.
pub(super) struct RawCapacity<'a> {
    pub(super) table: Table<'a>,
    pub(super) capacity: Field<i64>,
}

/// `[[quic]]`.
pub(super) struct RawQuic<'a> {
    pub(super) table: Table<'a>,
    pub(super) config: Field<i64>,
    pub(super) server_id_bytes: Field<i64>,
    pub(super) nonce_bytes: Field<i64>,
    pub(super) aes_key: Field<&'a str>,
}

/// `[[service]]`.
pub(super) struct RawService<'a> {
    pub(super) table: Table<'a>,
    pub(super) name: Field<&'a str>,
    pub(super) addresses: Field<Vec<At<&'a str>>>,
    pub(super) ports: Field<Ports>,
    pub(super) protocol: Field<&'a str>,
    pub(super) affinity: Field<&'a str>,
    pub(super) forward: Field<&'a str>,
    pub(super) tracking: Field<&'a str>,
    pub(super) settle: Field<&'a str>,
    pub(super) slow_start: Field<&'a str>,
    pub(super) on_failure: Field<&'a str>,
    pub(super) table_slots: Field<i64>,
    pub(super) health: Option<RawHealth<'a>>,
    pub(super) anonymous: Option<RawRate<'a>>,
    pub(super) backends: Vec<RawBackend<'a>>,
}

/// `[service.health]`.
pub(super) struct RawHealth<'a> {
    pub(super) table: Table<'a>,
    pub(super) kind: Field<&'a str>,
    pub(super) path: Field<&'a str>,
    /// A number is a single code: kept as text like the rest.
    pub(super) expect: Field<String>,
    pub(super) host: Field<&'a str>,
    pub(super) service: Field<&'a str>,
    pub(super) query: Field<&'a str>,
    pub(super) send: Field<&'a str>,
    pub(super) receive: Field<&'a str>,
    pub(super) body: Field<&'a str>,
    pub(super) sni: Field<&'a str>,
    pub(super) ca: Field<&'a str>,
    pub(super) insecure: Field<bool>,
    pub(super) command: Field<Vec<At<&'a str>>>,
    pub(super) port: Field<i64>,
    pub(super) interval: Field<&'a str>,
    pub(super) timeout: Field<&'a str>,
    pub(super) rise: Field<i64>,
    pub(super) fall: Field<i64>,
    pub(super) max_ejected: Field<i64>,
    pub(super) panic_below: Field<i64>,
    pub(super) min_ready: Field<i64>,
    pub(super) via: Field<&'a str>,
}

/// `[service.limit] anonymous`.
pub(super) struct RawRate<'a> {
    pub(super) table: Table<'a>,
    pub(super) rate: Field<i64>,
    pub(super) burst: Field<i64>,
}

/// `[[service.backend]]`.
pub(super) struct RawBackend<'a> {
    pub(super) table: Table<'a>,
    pub(super) name: Field<&'a str>,
    pub(super) address: Field<&'a str>,
    pub(super) port: Field<i64>,
    pub(super) weight: Field<i64>,
    pub(super) state: Field<&'a str>,
    pub(super) sorry: Field<bool>,
    pub(super) server_id: Field<i64>,
}

/// `[agent]`.
pub(super) struct RawAgent<'a> {
    pub(super) table: Table<'a>,
    pub(super) interface: Field<&'a str>,
    pub(super) vips: Field<Vec<At<&'a str>>>,
    pub(super) tunnel_sources: Field<Vec<At<&'a str>>>,
    pub(super) gue_port: Field<i64>,
    pub(super) peers: Field<Vec<At<&'a str>>>,
    pub(super) xdp_mode: Field<&'a str>,
}

impl<'a> RawConfig<'a> {
    /// Reads a parsed file. Types that do not fit and unknown keys go to `problems`.
    pub(super) fn read(problems: &'a Problems<'a>, entries: &'a DeTable<'a>) -> Self {
        let root = Table::root(problems, entries);
        let place = |name, number| Place::Service(Who { name, number });
        Self {
            daemon: root.table("daemon", Place::Daemon).given().map(|daemon| RawDaemon::read(daemon.value)),
            quic: root
                .tables("quic", limits::QUIC, |_, number| Place::Quic(number))
                .into_iter()
                .map(RawQuic::read)
                .collect(),
            services: root
                .tables("service", limits::SERVICES, place)
                .into_iter()
                .map(RawService::read)
                .collect(),
            agent: root.table("agent", Place::Agent).given().map(|agent| RawAgent::read(agent.value)),
        }
    }
}

impl<'a> RawDaemon<'a> {
    fn read(table: Table<'a>) -> Self {
        Self {
            table,
            interfaces: table.strings("interfaces", false),
            xdp_mode: table.string("xdp_mode"),
            hash_seed: table.string("hash_seed"),
            tunnel_source: table.strings("tunnel_source", true),
            gue_port: table.integer("gue_port"),
            announce: table.string("announce"),
            flow_table: RawCapacity::read(&table, "flow_table", Place::FlowTable),
            limit_table: RawCapacity::read(&table, "limit_table", Place::LimitTable),
            listen: table.string("listen"),
        }
    }
}

impl<'a> RawCapacity<'a> {
    fn read(daemon: &Table<'a>, key: &str, place: Place<'a>) -> Option<Self> {
        let table = daemon.table(key, place).given()?.value;
        Some(Self { table, capacity: table.integer("capacity") })
    }
}

impl<'a> RawQuic<'a> {
    fn read(table: Table<'a>) -> Self {
        Self {
            table,
            config: table.integer("config"),
            server_id_bytes: table.integer("server_id_bytes"),
            nonce_bytes: table.integer("nonce_bytes"),
            aes_key: table.string("aes_key"),
        }
    }
}

impl<'a> RawService<'a> {
    fn read(table: Table<'a>) -> Self {
        let who = match table.place {
            Place::Service(who) => who,
            _ => Who { name: None, number: 0 },
        };
        let limit = table.table("limit", Place::Limit(who)).given().map(|limit| limit.value);
        let backend = |name, number| Place::Backend(who, Who { name, number });
        Self {
            table,
            name: table.string("name"),
            addresses: table.strings("addresses", false),
            ports: ports(&table),
            protocol: table.string("protocol"),
            affinity: table.string("affinity"),
            forward: table.string("forward"),
            tracking: table.string("tracking"),
            settle: table.string("settle"),
            slow_start: table.string("slow_start"),
            on_failure: table.string("on_failure"),
            table_slots: table.integer("table_slots"),
            health: table
                .table("health", Place::Health(who))
                .given()
                .map(|health| RawHealth::read(health.value)),
            anonymous: limit.and_then(|limit| RawRate::read(&limit, who)),
            backends: table
                .tables("backend", limits::BACKENDS, backend)
                .into_iter()
                .map(RawBackend::read)
                .collect(),
        }
    }
}

impl<'a> RawHealth<'a> {
    fn read(table: Table<'a>) -> Self {
        Self {
            table,
            kind: table.string("type"),
            path: table.string("path"),
            expect: expect(&table),
            host: table.string("host"),
            service: table.string("service"),
            query: table.string("query"),
            send: table.string("send"),
            receive: table.string("receive"),
            body: table.string("body"),
            sni: table.string("sni"),
            ca: table.string("ca"),
            insecure: table.boolean("insecure"),
            command: table.strings("command", false),
            port: table.integer("port"),
            interval: table.string("interval"),
            timeout: table.string("timeout"),
            rise: table.integer("rise"),
            fall: table.integer("fall"),
            max_ejected: table.integer("max_ejected"),
            panic_below: table.integer("panic_below"),
            min_ready: table.integer("min_ready"),
            via: table.string("via"),
        }
    }
}

impl<'a> RawRate<'a> {
    fn read(limit: &Table<'a>, who: Who<'a>) -> Option<Self> {
        match limit.table("anonymous", Place::Anonymous(who)) {
            Field::Given(table) => {
                let table = table.value;
                Some(Self { table, rate: table.integer("rate"), burst: table.integer("burst") })
            }
            Field::Absent => {
                limit.missing("anonymous", "anonymous = { rate = 1000, burst = 2000 }");
                None
            }
            Field::Bad => None,
        }
    }
}

impl<'a> RawBackend<'a> {
    fn read(table: Table<'a>) -> Self {
        Self {
            table,
            name: table.string("name"),
            address: table.string("address"),
            port: table.integer("port"),
            weight: table.integer("weight"),
            state: table.string("state"),
            sorry: table.boolean("sorry"),
            server_id: table.integer("server_id"),
        }
    }
}

impl<'a> RawAgent<'a> {
    fn read(table: Table<'a>) -> Self {
        Self {
            table,
            interface: table.string("interface"),
            vips: table.strings("vips", false),
            tunnel_sources: table.strings("tunnel_sources", true),
            gue_port: table.integer("gue_port"),
            peers: table.strings("peers", false),
            xdp_mode: table.string("xdp_mode"),
        }
    }
}

/// `ports` has four notations: 80, "8000-8100", "any", and a list of the first two.
fn ports(table: &Table<'_>) -> Field<Ports> {
    let Field::Given(given) = table.value("ports") else { return Field::Absent };
    let problems = table.problems.count();
    let ports = match given.value {
        DeValue::String(word) if word == "any" => Ok(Ports::Any),
        DeValue::Array(items) => {
            let ranges = items.iter().filter_map(|item| port_item(table, item.span().start, item.get_ref()));
            ports_of(ranges.collect())
        }
        single => ports_of(port_item(table, given.at, single).into_iter().collect()),
    };
    match ports {
        // What is wrong with an item is said already; the rest of the list means something else than the file.
        _ if table.problems.count() > problems => Field::Bad,
        Ok(value) => Field::Given(At { at: given.at, value }),
        Err(error) => {
            table.wrong(given.at, "ports", error);
            Field::Bad
        }
    }
}

fn port_item(table: &Table<'_>, at: usize, item: &DeValue<'_>) -> Option<RangeInclusive<u16>> {
    let parsed = match item {
        DeValue::String(word) if word == "any" => {
            Err(ValueError::new("\"any\" in a list", "ports = \"any\" alone, or ports and ranges"))
        }
        DeValue::String(text) => parse_port_range(text),
        DeValue::Integer(digits) if digits.radix() == 10 => parse_port_range(digits.as_str()),
        _ => {
            let expected = r#"a port (80), a range ("8000-8100"), a list of these, or "any""#;
            table.unexpected("ports", At { at, value: item }, expected);
            return None;
        }
    };
    parsed.map_err(|error| table.wrong(at, "ports", error)).ok()
}

/// `expect` is a text, or a single code as a number.
fn expect(table: &Table<'_>) -> Field<String> {
    let Field::Given(given) = table.value("expect") else { return Field::Absent };
    match given.value {
        DeValue::String(text) => Field::Given(At { at: given.at, value: text.to_string() }),
        DeValue::Integer(digits) if digits.radix() == 10 => {
            Field::Given(At { at: given.at, value: digits.as_str().to_owned() })
        }
        _ => {
            table.unexpected("expect", given, r#"status codes like "200-299" or 204"#);
            Field::Bad
        }
    }
}
