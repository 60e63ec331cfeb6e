//! `[daemon]` and `[agent]`.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use ipnet::IpNet;

use super::{field::values, words};
use crate::config::{
    defaults, limits,
    problem::quoted,
    raw::{RawAgent, RawCapacity, RawDaemon},
    reader::{At, Field, Table},
    types::{Agent, Daemon},
    value::{
        ValueError, check_capacity, check_destination, check_interface, parse_address, parse_prefix,
        parse_seed,
    },
};

pub(super) fn resolve_daemon(raw: &RawDaemon<'_>) -> Daemon {
    let table = &raw.table;
    let interfaces = table.list("interfaces", &raw.interfaces, limits::INTERFACES, interface);
    Daemon {
        interfaces: values(interfaces.unwrap_or_default()),
        xdp_mode: table.word("xdp_mode", &raw.xdp_mode, &words::XDP_MODE).unwrap_or(defaults::XDP_MODE),
        hash_seed: table.notation("hash_seed", &raw.hash_seed, parse_seed).map(|seed| seed.value),
        tunnel_source: tunnel_source(raw),
        gue_port: table.number("gue_port", &raw.gue_port, limits::PORT, defaults::GUE_PORT),
        announce: table.word("announce", &raw.announce, &words::ANNOUNCE).unwrap_or(defaults::ANNOUNCE),
        flow_capacity: capacity(raw.flow_table.as_ref(), limits::FLOW_CAPACITY, defaults::FLOW_CAPACITY),
        limit_capacity: capacity(raw.limit_table.as_ref(), limits::LIMIT_CAPACITY, defaults::LIMIT_CAPACITY),
        listen: table.notation("listen", &raw.listen, listen).map(|listen| listen.value),
    }
}

pub(super) fn resolve_agent(raw: &RawAgent<'_>) -> Agent {
    let table = &raw.table;
    if matches!(raw.interface, Field::Absent) {
        table.missing("interface", "interface = \"eth0\"");
    }
    let interface = table.notation("interface", &raw.interface, interface);
    let vips = table.list("vips", &raw.vips, limits::AGENT_VIPS, vip);
    demand(table, "vips", &raw.vips, "vips = [\"192.0.2.10\"]");
    let sources = table.list("tunnel_sources", &raw.tunnel_sources, limits::AGENT_SOURCES, parse_prefix);
    demand(table, "tunnel_sources", &raw.tunnel_sources, "tunnel_sources = [\"198.51.100.0/28\"]");
    Agent {
        interface: interface.map(|interface| interface.value).unwrap_or_default(),
        vips: values(vips.unwrap_or_default()),
        tunnel_sources: values(sources.unwrap_or_default()),
        gue_port: table.number("gue_port", &raw.gue_port, limits::PORT, defaults::GUE_PORT),
        peers: values(table.list("peers", &raw.peers, limits::AGENT_PEERS, vip).unwrap_or_default()),
        xdp_mode: table.word("xdp_mode", &raw.xdp_mode, &words::XDP_MODE).unwrap_or(defaults::XDP_MODE),
    }
}

/// A list that must be there and must not be empty.
pub(super) fn demand(table: &Table<'_>, key: &str, field: &Field<Vec<At<&str>>>, example: &str) {
    match field {
        Field::Absent => table.missing(key, example),
        Field::Given(list) if list.value.is_empty() => {
            table.wrong(
                list.at,
                key,
                format_args!("found an empty list, expected at least one, for example `{example}`"),
            );
        }
        Field::Given(_) | Field::Bad => {}
    }
}

/// An address that packets are sent to.
pub(super) fn vip(text: &str) -> Result<IpAddr, ValueError> {
    parse_address(text).and_then(|address| check_destination(address).map(|()| address))
}

fn interface(text: &str) -> Result<String, ValueError> {
    check_interface(text).map(|()| text.to_owned())
}

fn listen(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().map_err(|_| {
        ValueError::new(quoted(text), "an address and a port like \"127.0.0.1:9870\" or \"[::1]:9870\"")
    })
}

/// At most one prefix per family: the program keeps one outer source of each.
fn tunnel_source(raw: &RawDaemon<'_>) -> Vec<IpNet> {
    let (table, key) = (&raw.table, "tunnel_source");
    let Some(found) = table.list(key, &raw.tunnel_source, limits::AGENT_SOURCES, parse_prefix) else {
        return Vec::new();
    };
    for (family, is_family) in [("IPv4", is_ipv4 as fn(&IpNet) -> bool), ("IPv6", |net| !is_ipv4(net))] {
        for extra in found.iter().filter(|net| is_family(&net.value)).skip(1) {
            table.wrong(
                extra.at,
                key,
                format_args!("found a second {family} prefix {}, expected one", extra.value),
            );
        }
    }
    values(found)
}

fn is_ipv4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

fn capacity(raw: Option<&RawCapacity<'_>>, range: RangeInclusive<u32>, default: u32) -> u32 {
    let Some(raw) = raw else { return default };
    let Field::Given(given) = raw.capacity else { return default };
    // A number that is no u32 is as far out of range as one can be.
    let number = u32::try_from(given.value).unwrap_or(if given.value < 0 { 0 } else { u32::MAX });
    match check_capacity(number, &range) {
        Ok(()) => number,
        Err(error) => {
            raw.table.wrong(given.at, "capacity", ValueError { found: given.value.to_string(), ..error });
            default
        }
    }
}
