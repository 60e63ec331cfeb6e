//! `[[service]]` and what stands under it, each service on its own.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt::Display,
    hash::Hash,
    net::IpAddr,
};

use super::{
    daemon::{demand, vip},
    field::values,
    health, nat, words,
};
use crate::config::{
    defaults, limits,
    raw::{RawBackend, RawRate, RawService},
    reader::{At, Field, Table},
    types::{Backend, Forward, Limit, Ports, Protocol, Rate, Service},
    value::{check_backend_name, check_destination, check_service_name, check_slots, parse_address},
};

/// A service with the places that checks across services point at.
pub(super) struct Draft<'a> {
    pub(super) service: Service,
    pub(super) table: Table<'a>,
    /// `None` if the name is missing or unusable.
    pub(super) name: Option<At<&'a str>>,
    /// Offset of each of `service.addresses`.
    pub(super) address_places: Vec<usize>,
    /// Protocol and ports are as the file says, no stand-ins.
    pub(super) keys_known: bool,
    pub(super) backends: Vec<Place<'a>>,
}

/// Where a backend and its address stand; `address` is `None` if it is missing or unusable.
pub(super) struct Place<'a> {
    pub(super) table: Table<'a>,
    pub(super) address: Option<At<IpAddr>>,
    pub(super) server_id: Option<At<u16>>,
    /// It is there, and reported.
    pub(super) server_id_is_wrong: bool,
}

pub(super) fn resolve<'a>(raw: &RawService<'a>) -> Draft<'a> {
    let table = raw.table;
    let name = name(raw);
    let addresses = table.list("addresses", &raw.addresses, limits::ADDRESSES, vip);
    demand(&table, "addresses", &raw.addresses, "addresses = [\"192.0.2.10\"]");
    if matches!(raw.ports, Field::Absent) {
        table.missing("ports", "ports = [80, 443]` or `ports = \"any\"");
    }
    let ports = if let Field::Given(given) = &raw.ports { Some(given.value.clone()) } else { None };
    let protocol = table.word("protocol", &raw.protocol, &words::PROTOCOL);
    let keys_known = ports.is_some() && (protocol.is_some() || matches!(raw.protocol, Field::Absent));
    let (backends, places) = backends(raw);
    let addresses = addresses.unwrap_or_default();
    let address_places: Vec<usize> = addresses.iter().map(|address| address.at).collect();
    let service = assemble(raw, name, values(addresses), ports.unwrap_or(Ports::Any), protocol, backends);
    match service.forward {
        Forward::Ipip | Forward::Gue => {}
        Forward::L2 => check_families(&service, &places),
        Forward::Nat => {
            check_families(&service, &places);
            nat::check(&service, &address_places, &places);
        }
    }
    health::demand_port(raw.health.as_ref(), &service.health, &service.ports, &service.backends);
    Draft { service, table, name, address_places, keys_known, backends: places }
}

fn name<'a>(raw: &RawService<'a>) -> Option<At<&'a str>> {
    if matches!(raw.name, Field::Absent) {
        raw.table.missing("name", "name = \"web\"");
    }
    raw.table.notation("name", &raw.name, check_service_name)?;
    raw.name.given()
}

fn assemble(
    raw: &RawService<'_>,
    name: Option<At<&str>>,
    addresses: Vec<IpAddr>,
    ports: Ports,
    protocol: Option<Protocol>,
    backends: Vec<Backend>,
) -> Service {
    let table = &raw.table;
    let protocol = protocol.unwrap_or(defaults::PROTOCOL);
    let affinity = table.word("affinity", &raw.affinity, &words::AFFINITY).unwrap_or(defaults::AFFINITY);
    let tracking = table.word("tracking", &raw.tracking, &words::TRACKING);
    let settle = table.duration("settle", &raw.settle, &limits::SETTLE);
    let slow_start = table.duration("slow_start", &raw.slow_start, &limits::SLOW_START);
    Service {
        name: name.map(|name| name.value.to_owned()).unwrap_or_default(),
        addresses,
        ports,
        protocol,
        affinity,
        forward: table.word("forward", &raw.forward, &words::FORWARD).unwrap_or(defaults::FORWARD),
        tracking: tracking.unwrap_or_else(|| defaults::tracking(protocol, affinity)),
        settle: settle.unwrap_or_else(|| defaults::settle(protocol)),
        slow_start: slow_start.unwrap_or(defaults::SLOW_START),
        on_failure: table
            .word("on_failure", &raw.on_failure, &words::ON_FAILURE)
            .unwrap_or(defaults::ON_FAILURE),
        table_slots: table_slots(raw, backends.len()),
        health: health::resolve(raw.health.as_ref()),
        limit: raw.anonymous.as_ref().map(limit),
        backends,
    }
}

fn table_slots(raw: &RawService<'_>, backends: usize) -> u32 {
    let (place, slots) = match raw.table_slots {
        Field::Bad => return defaults::TABLE_SLOTS,
        Field::Absent => (raw.table.at, defaults::TABLE_SLOTS),
        Field::Given(given) => {
            let number = u32::try_from(given.value).unwrap_or(if given.value < 0 { 0 } else { u32::MAX });
            if let Err(mut error) = check_slots(number) {
                error.found = given.value.to_string();
                raw.table.wrong(given.at, "table_slots", error);
                return defaults::TABLE_SLOTS;
            }
            (given.at, number)
        }
    };
    if (slots as usize) < backends {
        let what = format_args!("found {slots}, expected at least one for each of the {backends} backends");
        raw.table.wrong(place, "table_slots", what);
    }
    slots
}

fn limit(raw: &RawRate<'_>) -> Limit {
    let table = &raw.table;
    if matches!(raw.rate, Field::Absent) {
        table.missing("rate", "rate = 1000");
    }
    let rate = table.number("rate", &raw.rate, limits::RATE, 1);
    Limit { anonymous: Rate { rate, burst: table.number("burst", &raw.burst, limits::BURST, rate) } }
}

fn backends<'a>(raw: &RawService<'a>) -> (Vec<Backend>, Vec<Place<'a>>) {
    let mut names = HashMap::with_capacity(raw.backends.len());
    let mut addresses = HashMap::with_capacity(raw.backends.len());
    let mut weighted = raw.backends.is_empty();
    let mut found = Vec::with_capacity(raw.backends.len());
    for raw in &raw.backends {
        let (backend, place) = backend(raw);
        // A weight that is wrong is a problem already, not a zero.
        weighted |= backend.weight > 0 || matches!(raw.weight, Field::Bad);
        if !backend.name.is_empty() {
            let at = raw.name.given().map_or(place.table.at, |name| name.at);
            once(&place.table, &mut names, "name", At { at, value: backend.name.clone() });
        }
        if let Some(address) = place.address {
            once(&place.table, &mut addresses, "address", address);
        }
        found.push((backend, place));
    }
    if !weighted {
        let fix = "give one at least 1; to take backends out of use set state = \"drain\" or \"down\"";
        raw.table.wrong(raw.backends[0].table.at, "backend", format_args!("every weight is 0; {fix}"));
    }
    found.into_iter().unzip()
}

/// Reports a value that an earlier backend of the service has.
fn once<T: Hash + Eq + Display>(table: &Table<'_>, seen: &mut HashMap<T, usize>, key: &str, value: At<T>) {
    match seen.entry(value.value) {
        Entry::Vacant(free) => {
            free.insert(value.at);
        }
        Entry::Occupied(first) => {
            let line = table.problems.line_of(*first.get());
            let what = format_args!("{} is taken by the backend in line {line}; remove one", first.key());
            table.wrong(value.at, key, what);
        }
    }
}

fn backend<'a>(raw: &RawBackend<'a>) -> (Backend, Place<'a>) {
    let table = raw.table;
    if matches!(raw.address, Field::Absent) {
        table.missing("address", "address = \"198.51.100.11\"");
    }
    let address = table.notation("address", &raw.address, |text| {
        parse_address(text).and_then(|address| check_destination(address).map(|()| address))
    });
    let name = match (&raw.name, address) {
        (Field::Absent, Some(address)) => address.value.to_string(),
        (field, _) => table
            .notation("name", field, |text| check_backend_name(text).map(|()| text.to_owned()))
            .map(|name| name.value)
            .unwrap_or_default(),
    };
    let server_id = table.optional_number("server_id", &raw.server_id, limits::SERVER_ID);
    let backend = Backend {
        name,
        address: address.map_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), |address| address.value),
        port: table.optional_number("port", &raw.port, limits::PORT),
        weight: table.number("weight", &raw.weight, limits::WEIGHT, defaults::WEIGHT),
        state: table.word("state", &raw.state, &words::STATE).unwrap_or(defaults::STATE),
        sorry: raw.sorry.given().map_or(defaults::SORRY, |sorry| sorry.value),
        server_id,
    };
    let at = if let Field::Given(given) = &raw.server_id { given.at } else { table.at };
    let server_id_is_wrong = server_id.is_none() && !matches!(raw.server_id, Field::Absent);
    let server_id = server_id.map(|value| At { at, value });
    (backend, Place { table, address, server_id, server_id_is_wrong })
}

/// A packet that is not wrapped keeps its family: the backend must be of the VIP's.
fn check_families(service: &Service, places: &[Place<'_>]) {
    let ipv4 = service.addresses.iter().find(|vip| vip.is_ipv4());
    let ipv6 = service.addresses.iter().find(|vip| vip.is_ipv6());
    for place in places {
        let Some(address) = place.address else { continue };
        let other = if address.value.is_ipv4() { ipv6 } else { ipv4 };
        if let Some(vip) = other {
            let keeps = match service.forward {
                Forward::Nat => "forward = \"nat\" keeps the family of a packet",
                Forward::L2 | Forward::Ipip | Forward::Gue => "forward = \"l2\" sends packets as they are",
            };
            let what = format_args!(
                "found {} ({}), expected {} like the VIP {vip}: {keeps}; use forward = \"ipip\" or one service per \
                 family",
                address.value,
                family(address.value),
                family(*vip),
            );
            place.table.wrong(address.at, "address", what);
        }
    }
}

pub(super) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
