//! `docs/abi.md` against the types: every map, every size, every offset.

use std::mem::{offset_of, size_of};

use lb_common::abi::{
    ABI_VERSION, AgentSettings, BUCKET_ENTRIES, Backend, BackendInfo, Control, Counter, Globals, Interface,
    Peer, QuicConfig, Reply, Service, ServiceInfo, Vip6, maps,
};

use super::{
    markdown, rust,
    workspace::{nothing_wrong, text_of},
};

const PAGE: &str = "docs/abi.md";

/// A record as the compiler lays it out.
struct Record {
    name: &'static str,
    size: usize,
    /// Offset, bytes, name.
    fields: Vec<(usize, usize, &'static str)>,
}

fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! record {
    ($record:ident: $($field:ident)*) => {
        Record {
            name: stringify!($record),
            size: size_of::<$record>(),
            fields: vec![$((
                offset_of!($record, $field),
                size_of_field(|record: &$record| &record.$field),
                stringify!($field),
            )),*],
        }
    };
}

fn records() -> Vec<Record> {
    vec![
        record!(Control: generation abi_version installed_at desired_digest _reserved),
        record!(Globals: vip4_base vip4_mask vip6_base vip6_mask port_base port_mask service_base flags key limit_mask
            limit_time_mult limit_time_offset salt flow_mask seconds_mult quic_base flow_old _reserved reply_base reply_mask),
        record!(Vip6: address vip _pad),
        record!(Service: table_base table_slots backend_base backend_count limit_cost limit_tolerance affinity flags settle
            id tracking _pad _reserved sole),
        record!(ServiceInfo: identity _reserved),
        record!(Backend: address source macs ifindex counter outer_sum mtu forward flags port _reserved),
        record!(Reply: backend vip port vip_port protocol _pad),
        record!(BackendInfo: identity since health _reserved),
        record!(Peer: macs ifindex mtu),
        record!(QuicConfig: state server_id nonce _pad encrypt decrypt _reserved),
        record!(AgentSettings: gue_port _reserved),
        record!(Counter: packets bytes),
        record!(Interface: mac _pad),
    ]
}

/// Every map with the bytes of its element.
const MAPS: [(&str, usize); 26] = [
    (maps::CONTROL, size_of::<Control>()),
    (maps::GLOBALS, size_of::<Globals>()),
    (maps::VIPS4, size_of::<u64>()),
    (maps::VIPS6, size_of::<Vip6>()),
    (maps::PORTS, size_of::<u64>()),
    (maps::SERVICES, size_of::<Service>()),
    (maps::SERVICE_INFO, size_of::<ServiceInfo>()),
    (maps::SLOTS, size_of::<u64>()),
    (maps::SLOT_META, size_of::<u64>()),
    (maps::CANDIDATES, size_of::<u64>()),
    (maps::FLOWS, BUCKET_ENTRIES * size_of::<u64>()),
    (maps::FLOWS_OLD, BUCKET_ENTRIES * size_of::<u64>()),
    (maps::BACKENDS, size_of::<Backend>()),
    (maps::BACKEND_INFO, size_of::<BackendInfo>()),
    (maps::COUNTERS, size_of::<Counter>()),
    (maps::REASONS, size_of::<u64>()),
    (maps::FLOW_EVENTS, size_of::<u64>()),
    (maps::QUIC, size_of::<QuicConfig>()),
    (maps::LIMITS, BUCKET_ENTRIES * size_of::<u64>()),
    (maps::INTERFACES, size_of::<Interface>()),
    (maps::REPLIES, size_of::<Reply>()),
    (maps::SOURCES4, size_of::<u32>()),
    (maps::SOURCES6, size_of::<u32>()),
    (maps::AGENT_VIPS, size_of::<u32>()),
    (maps::PEERS, size_of::<Peer>()),
    (maps::AGENT_SETTINGS, size_of::<AgentSettings>()),
];

#[test]
fn the_list_of_maps_is_complete() {
    let source = text_of("lb-common/src/abi/mod.rs");
    let module = source.split("pub mod maps {").nth(1).and_then(|rest| rest.split("\n}").next()).unwrap();
    let declared: Vec<&str> =
        module.lines().filter_map(|line| line.trim().strip_prefix("pub const ")?.split(':').next()).collect();
    let known: Vec<&str> = MAPS.iter().map(|(name, _)| *name).collect();
    assert!(!declared.is_empty());
    for name in &declared {
        assert!(known.contains(name), "add {name} to MAPS in this file, and a row to {PAGE}");
    }
    assert_eq!(declared.len(), known.len());
}

#[test]
fn every_map_has_a_row_with_the_size_of_its_element() {
    let page = text_of(PAGE);
    let mut rows = markdown::table(PAGE, &page, "Maps of the balancer");
    rows.extend(markdown::table(PAGE, &page, "Maps of the agent"));
    let mut complaints = Vec::new();
    for (name, size) in MAPS {
        match rows.iter().find(|row| row[0] == format!("`{name}`")) {
            None => complaints.push(format!("{PAGE}: there is no row for map `{name}`")),
            Some(row) if row[3] != size.to_string() => {
                complaints.push(format!(
                    "{PAGE}: an element of `{name}` has {size} bytes, the row says {}",
                    row[3]
                ));
            }
            Some(_) => {}
        }
    }
    for row in rows.iter().filter(|row| !MAPS.iter().any(|(name, _)| row[0] == format!("`{name}`"))) {
        complaints.push(format!("{PAGE}: there is a row for {}, which is no map", row[0]));
    }
    nothing_wrong(&complaints);
}

#[test]
fn every_field_is_documented_where_the_compiler_puts_it() {
    let page = text_of(PAGE);
    let mut complaints = Vec::new();
    for Record { name, size, fields } in records() {
        let heading = format!("`{name}` ({size} bytes)");
        if !page.lines().any(|line| line == format!("### {heading}")) {
            complaints.push(format!("{PAGE}: there is no section \"### {heading}\""));
            continue;
        }
        let rows = markdown::table(PAGE, &page, &heading);
        let documented: Vec<String> =
            rows.iter().map(|row| format!("{} | {} | {}", row[0], row[1], row[2])).collect();
        let expected: Vec<String> =
            fields.iter().map(|(offset, bytes, field)| format!("{offset} | {bytes} | `{field}`")).collect();
        for row in expected.iter().filter(|row| !documented.contains(row)) {
            complaints.push(format!("{PAGE}, {heading}: add the row | {row} |"));
        }
        for row in documented.iter().filter(|row| !expected.contains(row)) {
            complaints.push(format!("{PAGE}, {heading}: there is no such field: | {row} |"));
        }
    }
    nothing_wrong(&complaints);
}

/// A field that is missing in `records` leaves a gap: padding is spelt out in these types.
#[test]
fn the_list_of_fields_is_complete() {
    for Record { name, size, mut fields } in records() {
        fields.sort_unstable();
        let mut end = 0;
        for (offset, bytes, field) in fields {
            assert_eq!(offset, end, "{name}: a field before `{field}` is not in the list of this file");
            end = offset + bytes;
        }
        assert_eq!(end, size, "{name}: its last field is not in the list of this file");
    }
}

#[test]
fn every_record_of_the_abi_is_in_the_list() {
    let known: Vec<&str> = records().iter().map(|record| record.name).collect();
    for file in
        super::workspace::files_with(".rs").iter().filter(|file| file.path.starts_with("lb-common/src/abi/"))
    {
        let code = rust::code(&file.text);
        for declared in code.split("#[repr(C").skip(1) {
            let tokens = rust::tokens(declared);
            let name = tokens.iter().position(|token| *token == "struct").map(|at| tokens[at + 1]).unwrap();
            assert!(
                known.contains(&name),
                "{}: add {name} to `records` of the suite and to {PAGE}",
                file.path
            );
        }
    }
}

#[test]
fn the_page_names_the_version() {
    let line = format!("ABI version: {ABI_VERSION}");
    assert!(text_of(PAGE).lines().any(|found| found == line), "{PAGE} has no line {line:?}");
}
