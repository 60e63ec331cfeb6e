//! `forward = "nat"`: what comes back from a backend must lead to one VIP and port.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::{
    cross,
    service::{Draft, Place, family},
};
use crate::config::{
    limits,
    problem::Problems,
    types::{Forward, Ports, Service},
};

/// One service: a VIP of each family at most, and no port of a backend that stands for several of the service.
pub(super) fn check(service: &Service, address_places: &[usize], places: &[Place<'_>]) {
    let Some(first) = places.first() else { return };
    for is_ipv4 in [true, false] {
        let mut of_family =
            service.addresses.iter().zip(address_places).filter(|(vip, _)| vip.is_ipv4() == is_ipv4);
        let (Some((vip, _)), Some((other, at))) = (of_family.next(), of_family.next()) else { continue };
        let what = format_args!(
            "found {other} beside {vip}, expected one {} address: with forward = \"nat\" an answer of a backend must \
             belong to one VIP; use a service and a port of the backends for each VIP",
            family(*vip),
        );
        first.table.wrong(*at, "addresses", what);
    }
    let ports: usize = match &service.ports {
        Ports::Any => usize::MAX,
        Ports::Ranges(ranges) => ranges.iter().map(ExactSizeIterator::len).sum(),
    };
    for (place, backend) in places.iter().zip(&service.backends) {
        if let Some(port) = backend.port.filter(|_| ports > 1) {
            let what = format_args!(
                "found {port}, expected none: with forward = \"nat\" an answer from one port of a backend must belong \
                 to one port of the service; give the service one port, or use a service for each"
            );
            place.table.wrong(place.table.at, "port", what);
        }
    }
}

/// Where an answer of a backend belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Belongs {
    vip: IpAddr,
    /// 0: the backend's.
    port: u16,
    service: usize,
}

/// Address, protocol and port (0: any) of a backend.
type Origin = (IpAddr, &'static str, u16);

/// All services: no two may expect answers from the same port of a backend.
pub(super) fn check_all(problems: &Problems<'_>, drafts: &[Draft<'_>]) {
    let translating = || drafts.iter().enumerate().filter(|(_, d)| d.service.forward == Forward::Nat);
    let origins: u64 = translating().map(|(_, draft)| origins_of(&draft.service)).sum();
    if origins > limits::REPLIES {
        let Some((_, draft)) = translating().next() else { return };
        problems.add(draft.table.at, || {
            format!(
                "{}: with forward = \"nat\" there are {origins} pairs of backend and port in the file, expected at \
                 most {}",
                draft.table.place,
                limits::REPLIES
            )
        });
        return;
    }
    let mut known: HashMap<Origin, Belongs> = HashMap::new();
    for (index, draft) in translating().filter(|(_, draft)| draft.keys_known) {
        for (origin, belongs, _) in answers(index, draft) {
            known.entry(origin).or_insert(belongs);
        }
    }
    // Two services that share one port of a backend often share all: said once.
    let mut reported = HashSet::new();
    for (index, draft) in translating().filter(|(_, draft)| draft.keys_known) {
        for (origin, belongs, place) in answers(index, draft) {
            let any = (origin.0, origin.1, 0);
            let same = known.get(&origin).filter(|other| **other != belongs);
            let rival = same.or_else(|| known.get(&any).filter(|other| other.vip != belongs.vip));
            let Some(rival) = rival.filter(|rival| rival.service != index) else { continue };
            if reported.insert((index.min(rival.service), index.max(rival.service))) {
                report(drafts, draft, place, origin, *rival);
            }
        }
    }
}

fn report(drafts: &[Draft<'_>], draft: &Draft<'_>, place: &Place<'_>, origin: Origin, rival: Belongs) {
    let (Some(other), (address, protocol, port)) = (drafts.get(rival.service), origin) else { return };
    let port = if port == 0 { "any port".to_owned() } else { format!("port {port}") };
    let at = place.address.map_or(draft.table.at, |address| address.at);
    let what = format_args!(
        "answers from {address} {protocol} {port} belong to {} (line {}) already: with forward = \"nat\" give each \
         service another port of the backend",
        other.table.place,
        draft.table.problems.line_of(other.table.at),
    );
    place.table.wrong(at, "address", what);
}

fn origins_of(service: &Service) -> u64 {
    let ports: usize = match &service.ports {
        Ports::Any => 1,
        Ports::Ranges(ranges) => ranges.iter().map(ExactSizeIterator::len).sum(),
    };
    (service.backends.len() * ports * cross::protocols(service.protocol).len()) as u64
}

fn answers<'d, 'a>(
    index: usize,
    draft: &'d Draft<'a>,
) -> impl Iterator<Item = (Origin, Belongs, &'d Place<'a>)> {
    let service = &draft.service;
    let ports: Vec<u16> = match &service.ports {
        Ports::Any => vec![0],
        Ports::Ranges(ranges) => ranges.iter().cloned().flatten().collect(),
    };
    let of = move |(place, port): (&'d Place<'a>, Option<u16>)| {
        let address = place.address?.value;
        let vip = *service.addresses.iter().find(|vip| vip.is_ipv4() == address.is_ipv4())?;
        let ports = ports.clone();
        Some(cross::protocols(service.protocol).iter().flat_map(move |protocol| {
            ports.clone().into_iter().map(move |listed| {
                let belongs = Belongs { vip, port: port.map_or(0, |_| listed), service: index };
                ((address, *protocol, port.unwrap_or(listed)), belongs, place)
            })
        }))
    };
    let backends = draft.backends.iter().zip(&service.backends).map(|(place, backend)| (place, backend.port));
    backends.filter_map(of).flatten()
}
