//! Checks across services: names, service keys, backends that are VIPs. All in sorted or hashed order, never each
//! against each.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
};

use super::service::Draft;
use crate::config::{
    limits,
    problem::Problems,
    types::{Ports, Protocol, Service},
};

pub(super) fn check(problems: &Problems<'_>, drafts: &[Draft<'_>]) {
    check_names(drafts);
    check_backends(drafts);
    if check_key_count(problems, drafts) {
        let mut claims = claims(drafts);
        let mut reported = HashSet::new();
        overlaps(&mut claims, |later, earlier| {
            // Two services that share one port often share all: said once.
            if reported.insert((later.service, earlier.service)) {
                report_overlap(drafts, later, earlier);
            }
        });
    }
}

fn check_names(drafts: &[Draft<'_>]) {
    let mut seen = HashMap::with_capacity(drafts.len());
    for draft in drafts {
        let Some(name) = draft.name else { continue };
        match seen.entry(name.value) {
            Entry::Vacant(free) => {
                free.insert(name.at);
            }
            Entry::Occupied(first) => {
                let line = draft.table.problems.line_of(*first.get());
                draft.table.wrong(
                    name.at,
                    "name",
                    format_args!("taken by the service in line {line}; rename one"),
                );
            }
        }
    }
}

/// Packets for a backend that is a VIP would come back to the balancer.
fn check_backends(drafts: &[Draft<'_>]) {
    let vips: HashSet<IpAddr> = drafts.iter().flat_map(|draft| &draft.service.addresses).copied().collect();
    for place in drafts.iter().flat_map(|draft| &draft.backends) {
        if let Some(address) = place.address.filter(|address| vips.contains(&address.value)) {
            let what = format_args!(
                "found {}, a VIP of this file, expected the backend's own address",
                address.value
            );
            place.table.wrong(address.at, "address", what);
        }
    }
}

/// The bound on the datapath's service table, and on the work of the search for overlaps.
fn check_key_count(problems: &Problems<'_>, drafts: &[Draft<'_>]) -> bool {
    let mut total = 0_u64;
    for draft in drafts {
        total += keys_of(&draft.service);
        if total > limits::SERVICE_KEYS {
            problems.add(draft.table.at, || {
                let most = limits::SERVICE_KEYS;
                format!(
                    "{}: with this service there are {total} pairs of address, port and protocol, expected at most \
                     {most} in a file; ports = \"any\" counts as one port",
                    draft.table.place
                )
            });
            return false;
        }
    }
    true
}

fn keys_of(service: &Service) -> u64 {
    let ports: usize = match &service.ports {
        Ports::Any => 1,
        Ports::Ranges(ranges) => ranges.iter().map(ExactSizeIterator::len).sum(),
    };
    (service.addresses.len() * ports * protocols(service.protocol).len()) as u64
}

pub(super) fn protocols(protocol: Protocol) -> &'static [&'static str] {
    match protocol {
        Protocol::Tcp => &["tcp"],
        Protocol::Udp => &["udp"],
        Protocol::Both => &["tcp", "udp"],
    }
}

/// What a service wants of one address: a range of ports of one protocol.
///
/// Port 0 stands for "any". It overlaps other claims for any port and nothing else: an exact port beside a service
/// for any port of the same VIP is allowed, and the exact one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    vip: IpAddr,
    protocol: &'static str,
    first: u16,
    /// Index of the service, before `last`: of two claims from the same port on, the earlier service comes first.
    service: usize,
    last: u16,
    /// Offset of the address in the file.
    at: usize,
}

fn claims(drafts: &[Draft<'_>]) -> Vec<Claim> {
    let mut claims = Vec::new();
    for (service, draft) in drafts.iter().enumerate().filter(|(_, draft)| draft.keys_known) {
        for (vip, at) in draft.service.addresses.iter().zip(&draft.address_places) {
            for protocol in protocols(draft.service.protocol) {
                let claim = |first, last| Claim { vip: *vip, protocol, first, service, last, at: *at };
                match &draft.service.ports {
                    Ports::Any => claims.push(claim(0, 0)),
                    Ports::Ranges(ranges) => {
                        claims.extend(ranges.iter().map(|range| claim(*range.start(), *range.end())));
                    }
                }
            }
        }
    }
    claims
}

/// Calls `report` with every claim that overlaps one sorted before it (the one that reaches furthest), and returns
/// how many pairs were compared: one per claim.
fn overlaps(claims: &mut [Claim], mut report: impl FnMut(&Claim, &Claim)) -> usize {
    claims.sort_unstable();
    let mut compared = 0;
    let mut widest: Option<Claim> = None;
    for claim in claims.iter() {
        let rival = widest.filter(|rival| (rival.vip, rival.protocol) == (claim.vip, claim.protocol));
        compared += 1;
        match rival.filter(|rival| claim.first <= rival.last) {
            // In the order of the file: the later service is the one that is too many.
            Some(rival) if rival.service > claim.service => report(&rival, claim),
            Some(rival) => report(claim, &rival),
            None => {}
        }
        widest = rival.filter(|rival| rival.last >= claim.last).or(Some(*claim));
    }
    compared
}

fn report_overlap(drafts: &[Draft<'_>], later: &Claim, earlier: &Claim) {
    let (Some(draft), Some(other)) = (drafts.get(later.service), drafts.get(earlier.service)) else { return };
    let line = draft.table.problems.line_of(earlier.at);
    let ports = match (later.first.max(earlier.first), later.last.min(earlier.last)) {
        (0, _) => "any port".to_owned(),
        (first, last) if first == last => format!("port {first}"),
        (first, last) => format!("ports {first}-{last}"),
    };
    let (vip, protocol) = (later.vip, later.protocol);
    let what =
        format_args!("{vip} {protocol} {ports} belongs to {} (line {line}) already", other.table.place);
    draft.table.wrong(later.at, "addresses", what);
}

/// How many claims `services` services with two VIPs and two ports each make, and how many pairs are compared.
#[cfg(test)]
pub(in crate::config) fn cost_of_overlaps(services: u16) -> (usize, usize) {
    let mut claims = Vec::new();
    for service in 0..services {
        for (vip, port) in [(1, 80), (1, 443), (2, 80), (2, 443)] {
            let [high, low] = service.to_be_bytes();
            let vip = IpAddr::from([198, 17 + vip, high, low]);
            claims.push(Claim {
                vip,
                protocol: "tcp",
                first: port,
                service: usize::from(service),
                last: port,
                at: 0,
            });
        }
    }
    let compared = overlaps(&mut claims, |later, earlier| panic!("{later:?} overlaps {earlier:?}"));
    (claims.len(), compared)
}
