//! `[[quic]]`, and what `affinity = "quic"` asks of a service.

use std::collections::{HashMap, hash_map::Entry};

use super::service::Draft;
use crate::config::{
    defaults, limits,
    raw::RawQuic,
    reader::At,
    types::{Affinity, Protocol, Quic},
    value::parse_quic_key,
};

pub(super) fn resolve(raw: &[RawQuic<'_>]) -> Vec<Quic> {
    let mut seen = HashMap::new();
    raw.iter().map(|raw| one(raw, &mut seen)).collect()
}

fn one(raw: &RawQuic<'_>, seen: &mut HashMap<u8, usize>) -> Quic {
    let table = &raw.table;
    let codepoint = table.number("config", &raw.config, limits::CODEPOINT, defaults::CODEPOINT);
    let at = raw.config.given().map_or(table.at, |config| config.at);
    match seen.entry(codepoint) {
        Entry::Vacant(free) => {
            free.insert(at);
        }
        Entry::Occupied(first) => {
            let line = table.problems.line_of(*first.get());
            let what = format_args!("{codepoint} is taken in line {line}; take another of 0 to 6");
            table.wrong(at, "config", what);
        }
    }
    let (bytes, default) = (limits::SERVER_ID_BYTES, defaults::SERVER_ID_BYTES);
    let server = table.number("server_id_bytes", &raw.server_id_bytes, bytes, default);
    let nonce = table.number("nonce_bytes", &raw.nonce_bytes, limits::NONCE_BYTES, defaults::NONCE_BYTES);
    if server + nonce > limits::QUIC_ID_BYTES {
        let at = raw.nonce_bytes.given().map_or(table.at, |nonce| nonce.at);
        let most = limits::QUIC_ID_BYTES;
        let what =
            format_args!("found {nonce} beside a server ID of {server}, expected at most {most} together");
        table.wrong(at, "nonce_bytes", what);
    }
    Quic {
        codepoint,
        server_id_bytes: server,
        nonce_bytes: nonce,
        key: table.notation("aes_key", &raw.aes_key, parse_quic_key).map(|key| key.value),
    }
}

/// What follows for services.
pub(super) fn check(configs: &[Quic], drafts: &[Draft<'_>]) {
    for draft in drafts {
        if draft.service.affinity == Affinity::Quic {
            check_service(configs, draft);
            continue;
        }
        for place in &draft.backends {
            if let Some(id) = place.server_id {
                place.table.wrong(id.at, "server_id", "needs affinity = \"quic\" in its service");
            }
        }
    }
}

fn check_service(configs: &[Quic], draft: &Draft<'_>) {
    let table = &draft.table;
    if draft.keys_known && draft.service.protocol != Protocol::Udp {
        let what = "\"quic\" needs protocol = \"udp\": give TCP a service of its own";
        table.wrong(table.at, "affinity", what);
    }
    if configs.is_empty() {
        let what = "\"quic\" needs a table [[quic]] that says how connection IDs are made";
        table.wrong(table.at, "affinity", what);
    }
    let bytes = configs.iter().map(|config| config.server_id_bytes).min().unwrap_or(8);
    let mut seen: HashMap<u16, usize> = HashMap::new();
    for place in &draft.backends {
        let Some(At { at, value }) = place.server_id else {
            if !place.server_id_is_wrong {
                place.table.missing("server_id", "server_id = 1");
            }
            continue;
        };
        if bytes == 1 && value > 255 {
            let what = format_args!("found {value}, expected 1 to 255 with server_id_bytes = 1");
            place.table.wrong(at, "server_id", what);
        }
        if let Some(first) = seen.insert(value, at) {
            let line = place.table.problems.line_of(first);
            let what = format_args!("{value} is taken by the backend in line {line}; each needs its own");
            place.table.wrong(at, "server_id", what);
        }
    }
}
