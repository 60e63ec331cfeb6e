//! One row per message: a file and every problem that it has, word for word.

mod service;

use super::{AGENT, WEB};
use crate::config::{Config, MAX_PROBLEMS, limits};

/// What a file is refused with.
fn refusal(text: &str) -> String {
    match Config::parse("lb.toml", text) {
        Ok(config) => format!("accepted: {config:?}"),
        Err(error) => error.to_string(),
    }
}

/// Checks rows of lines that follow `head` in a file, and the whole of what is said about it.
fn demand(head: &str, rows: &[(&str, &str)]) {
    let wrong: Vec<_> = rows
        .iter()
        .map(|(tail, expected)| (tail, expected, refusal(&format!("{head}{tail}"))))
        .filter(|(_, expected, found)| found != *expected)
        .map(|(tail, expected, found)| format!("---- {tail}\nexpected {expected}\n   found {found}"))
        .collect();
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn the_file_itself() {
    demand(
        "",
        &[
            (
                "",
                "lb.toml: nothing to do: expected [[service]] tables and [daemon] for a balancer, or [agent] for a \
                 backend host; docs/configuration.md shows both",
            ),
            (
                "# only a comment\nservice = []",
                "lb.toml: nothing to do: expected [[service]] tables and [daemon] for a balancer, or [agent] for a \
                 backend host; docs/configuration.md shows both",
            ),
            (
                "[daemon]\nannounce = arp",
                "lb.toml:2:12: not TOML: string values must be quoted, expected literal string, found \"arp\"",
            ),
            (
                "[daemon]\nannounce = \"arp\nlisten = 1",
                "lb.toml:2:16: not TOML: invalid basic string, expected `\"`",
            ),
            ("[daemon\n", "lb.toml:1:8: not TOML: unclosed table, expected `]`"),
            (
                "[daemon]\n[daemon]",
                "lb.toml:2:2: \"daemon\" is set a second time in the same table; remove one",
            ),
            (
                "[daemon]\nlisten = \"[::1]:1\"\nlisten = \"[::1]:2\"",
                "lb.toml:3:1: \"listen\" is set a second time in the same table; remove one",
            ),
            ("[services]", "lb.toml:1:2: top level: unknown key \"services\"; did you mean service?"),
            (
                "[frontend]",
                "lb.toml:1:2: top level: unknown key \"frontend\" (known: daemon, quic, service, agent)",
            ),
            ("daemon = 5", "lb.toml:1:10: top level: daemon: found the number 5, expected a table"),
            ("agent = []", "lb.toml:1:9: top level: agent: found a list, expected a table"),
            (
                "[service]\nname = \"web\"",
                "lb.toml:1:1: top level: service: found a table, expected a list of tables; write [[service]] with two \
                 brackets on each side",
            ),
            ("service = [5]", "lb.toml:1:12: top level: service: found the number 5, expected a table"),
        ],
    );
}

#[test]
fn daemon() {
    demand(
        "[daemon]\n",
        &[
            (
                "interface = [\"a\"]",
                "lb.toml:2:1: [daemon]: unknown key \"interface\"; did you mean interfaces?",
            ),
            (
                "color = 1",
                "lb.toml:2:1: [daemon]: unknown key \"color\" (known: interfaces, xdp_mode, hash_seed, tunnel_source, \
                 gue_port, announce, flow_table, limit_table, listen)",
            ),
            (
                "interfaces = \"eth0\"",
                "lb.toml:2:14: [daemon]: interfaces: found the string \"eth0\", expected a list of strings; write \
                 [\"eth0\"]",
            ),
            (
                "interfaces = 5",
                "lb.toml:2:14: [daemon]: interfaces: found the number 5, expected a list of strings",
            ),
            (
                "interfaces = [\"eth0\", 5]",
                "lb.toml:2:23: [daemon]: interfaces: found the number 5, expected a string in quotes",
            ),
            (
                "interfaces = [\"eth0\", \"eth0\"]",
                "lb.toml:2:23: [daemon]: interfaces: found \"eth0\" twice; remove one",
            ),
            (
                "interfaces = [\"a/b\", \"sixteen-letters-\", \"\", \"..\", \"fine\"]",
                "lb.toml:2:15: [daemon]: interfaces: found \"a/b\", expected an interface name: 1 to 15 bytes without \
                 slash, colon or blank, as `ip link` shows it\n\
                 lb.toml:2:22: [daemon]: interfaces: found \"sixteen-letters-\", expected an interface name: 1 to 15 \
                 bytes without slash, colon or blank, as `ip link` shows it\n\
                 lb.toml:2:42: [daemon]: interfaces: found \"\", expected an interface name: 1 to 15 bytes without \
                 slash, colon or blank, as `ip link` shows it\n\
                 lb.toml:2:46: [daemon]: interfaces: found \"..\", expected an interface name: 1 to 15 bytes without \
                 slash, colon or blank, as `ip link` shows it",
            ),
            (
                "xdp_mode = \"skb\"",
                "lb.toml:2:12: [daemon]: xdp_mode: found \"skb\", expected one of: auto, native, generic",
            ),
            (
                "xdp_mode = \"Native\"",
                "lb.toml:2:12: [daemon]: xdp_mode: found \"Native\"; did you mean \"native\"? (known: auto, native, \
                 generic)",
            ),
            ("xdp_mode = true", "lb.toml:2:12: [daemon]: xdp_mode: found true, expected a string in quotes"),
            (
                "hash_seed = \"00ff\"",
                "lb.toml:2:13: [daemon]: hash_seed: found 4 characters, expected 64 hexadecimal digits; make one with \
                 `openssl rand -hex 32`",
            ),
            (
                "hash_seed = \"000000000000000000000000000000000000000000000000000000000000000x\"",
                "lb.toml:2:13: [daemon]: hash_seed: found another character at position 64, expected 64 hexadecimal \
                 digits; make one with `openssl rand -hex 32`",
            ),
            (
                "announce = \"bgp\"",
                "lb.toml:2:12: [daemon]: announce: found \"bgp\", expected one of: none, arp",
            ),
            (
                "flow_table = { capacity = 1_000_000 }",
                "lb.toml:2:27: [daemon] flow_table: capacity: found 1000000, expected a power of two; the nearest are \
                 524288 and 1048576",
            ),
            (
                "flow_table.capacity = 512",
                "lb.toml:2:23: [daemon] flow_table: capacity: found 512, expected a power of two from 1024 to \
                 268435456",
            ),
            (
                "[daemon.limit_table]\ncapacity = -1",
                "lb.toml:3:12: [daemon] limit_table: capacity: found -1, expected a power of two from 1024 to 67108864",
            ),
            (
                "limit_table = { capacity = 99999999999 }",
                "lb.toml:2:28: [daemon] limit_table: capacity: found 99999999999, expected a power of two from 1024 to \
                 67108864",
            ),
            (
                "limit_table = { capacity = 99999999999999999999 }",
                "lb.toml:2:28: [daemon] limit_table: capacity: found the number 99999999999999999999, expected a whole \
                 number",
            ),
            ("flow_table = 5", "lb.toml:2:14: [daemon]: flow_table: found the number 5, expected a table"),
            (
                "flow_table = { size = 1 }",
                "lb.toml:2:16: [daemon] flow_table: unknown key \"size\" (known: capacity)",
            ),
            (
                "listen = \"localhost:80\"",
                "lb.toml:2:10: [daemon]: listen: found \"localhost:80\", expected an address and a port like \
                 \"127.0.0.1:9870\" or \"[::1]:9870\"",
            ),
        ],
    );
}

#[test]
fn tunnel_source() {
    demand(
        "[daemon]\n",
        &[
            (
                "tunnel_source = \"198.51.100.1/28\"",
                "lb.toml:2:17: [daemon]: tunnel_source: found \"198.51.100.1/28\", expected no bits behind the prefix \
                 length: write \"198.51.100.0/28\" or \"198.51.100.1/32\"",
            ),
            (
                "tunnel_source = [\"198.51.100.0/28\", \"203.0.113.0/28\"]",
                "lb.toml:2:37: [daemon]: tunnel_source: found a second IPv4 prefix 203.0.113.0/28, expected one",
            ),
            (
                "tunnel_source = [\"2001:db8::/64\", \"2001:db8:1::/64\"]",
                "lb.toml:2:35: [daemon]: tunnel_source: found a second IPv6 prefix 2001:db8:1::/64, expected one",
            ),
            (
                "tunnel_source = \"::/0\"",
                "lb.toml:2:17: [daemon]: tunnel_source: found \"::/0\", expected a prefix longer than /0: that one is \
                 every address",
            ),
            (
                "tunnel_source = \"224.0.0.0/28\"",
                "lb.toml:2:17: [daemon]: tunnel_source: found \"224.0.0.0/28\", expected addresses that hosts send \
                 from, not a multicast address",
            ),
            (
                "tunnel_source = \"here\"",
                "lb.toml:2:17: [daemon]: tunnel_source: found \"here\", expected a prefix like \"198.51.100.0/28\" or \
                 an address",
            ),
            (
                "tunnel_source = 5",
                "lb.toml:2:17: [daemon]: tunnel_source: found the number 5, expected a list of strings",
            ),
        ],
    );
}

#[test]
fn agent() {
    demand(
        "[agent]\n",
        &[
            (
                "",
                "lb.toml:1:1: [agent]: interface is missing; add for example `interface = \"eth0\"`\n\
                 lb.toml:1:1: [agent]: vips is missing; add for example `vips = [\"192.0.2.10\"]`\n\
                 lb.toml:1:1: [agent]: tunnel_sources is missing; add for example `tunnel_sources = \
                 [\"198.51.100.0/28\"]`",
            ),
            (
                "interface = \"a:b\"\nvips = []\ntunnel_sources = [\"10.0.0.1/8\"]\nxdp_mode = \"offload\"\ntype = 1",
                "lb.toml:2:13: [agent]: interface: found \"a:b\", expected an interface name: 1 to 15 bytes without \
                 slash, colon or blank, as `ip link` shows it\n\
                 lb.toml:3:8: [agent]: vips: found an empty list, expected at least one, for example `vips = \
                 [\"192.0.2.10\"]`\n\
                 lb.toml:4:19: [agent]: tunnel_sources: found \"10.0.0.1/8\", expected no bits behind the prefix length: \
                 write \"10.0.0.0/8\" or \"10.0.0.1/32\"\n\
                 lb.toml:5:12: [agent]: xdp_mode: found \"offload\", expected one of: auto, native, generic\n\
                 lb.toml:6:1: [agent]: unknown key \"type\" (known: interface, vips, tunnel_sources, gue_port, peers, xdp_mode)",
            ),
        ],
    );
    demand(AGENT, &[("vip = 5", "lb.toml:5:1: [agent]: unknown key \"vip\"; did you mean vips?")]);
}

#[test]
fn bounds_on_numbers_of_things() {
    let list =
        |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(",");
    let address = |number: usize| format!("\"2001:db8::{number:x}\"");

    let vips = list(limits::ADDRESSES + 1, &address);
    let text = format!("[[service]]\nname = \"web\"\nports = 80\naddresses = [{vips}]");
    assert_eq!(
        refusal(&text),
        "lb.toml:4:13: service \"web\": addresses: found 1025 items, expected at most 1024"
    );

    let interfaces = list(limits::INTERFACES + 1, &|number| format!("\"eth{number}\""));
    let text = format!("[daemon]\ninterfaces = [{interfaces}]");
    assert_eq!(refusal(&text), "lb.toml:2:14: [daemon]: interfaces: found 65 items, expected at most 64");

    let backend = |number: usize| {
        format!("{{ address = \"2001:db8:{:x}::{:x}\" }}", 1 + (number >> 14), number & 0x3fff)
    };
    let backends = list(limits::BACKENDS + 1, &backend);
    let found = refusal(&format!("{WEB}table_slots = 1048573\nbackend = [{backends}]"));
    assert!(found.starts_with("lb.toml:6:"), "{found}");
    assert!(found.ends_with(": service \"web\": backend: found 16384, expected at most 16383"), "{found}");

    let backends = list(252, &backend);
    let expected = "lb.toml:5:15: service \"web\": table_slots: found 251, expected at least one for each of the 252 \
                    backends";
    assert_eq!(refusal(&format!("{WEB}table_slots = 251\nbackend = [{backends}]")), expected);

    let services = list(limits::SERVICES + 1, &|number| {
        let [_, high, middle, low] = (number as u32).to_be_bytes();
        format!(
            "{{ name = \"s{number}\", addresses = [\"2001:db8::{high:x}:{middle:x}:{low:x}\"], ports = 80 }}"
        )
    });
    let found = refusal(&format!("service = [{services}]"));
    assert!(found.ends_with(": top level: service: found 60001, expected at most 60000"), "{found}");

    let vips = list(limits::ADDRESSES, &address);
    let text = format!("[[service]]\nname = \"web\"\nports = \"1-1025\"\naddresses = [{vips}]");
    let expected = "lb.toml:1:1: service \"web\": with this service there are 1049600 pairs of address, port and \
                    protocol, expected at most 1048576 in a file; ports = \"any\" counts as one port";
    assert_eq!(refusal(&text), expected);
}

#[test]
fn too_large_a_file_is_not_parsed() {
    let text = "#".repeat(usize::try_from(limits::FILE_BYTES).unwrap() + 1);
    assert_eq!(refusal(&text), "lb.toml: the file is too large, expected at most 16777216 bytes (16 MiB)");
}

#[test]
fn a_file_full_of_problems_is_refused_within_bounds() {
    let text = format!("[daemon]\n{}", (0..3_000).map(|n| format!("key_{n} = 1\n")).collect::<String>());
    let error = Config::parse("lb.toml", &text).unwrap_err();
    assert_eq!((error.problems.len(), error.omitted), (MAX_PROBLEMS, 2_000));
}

#[test]
fn a_secret_is_never_repeated() {
    let secret = "0123456789abcdef".repeat(4);
    let tail = &secret[1..];
    let wrong = [
        format!("\"{secret}f\""),
        format!("\"{tail}g\""),
        format!("[\"{secret}\"]"),
        secret.clone(),
        format!("\"{secret}"),
        secret.replace(|c: char| c.is_ascii_alphabetic(), "7"),
        format!("1{}", secret.replace(|c: char| c.is_ascii_alphabetic(), "7")),
        format!("\"{secret}\" {secret}"),
    ];
    for value in wrong {
        let found = refusal(&format!("[daemon]\nhash_seed = {value}"));
        assert!(
            found.starts_with("lb.toml:2:") && !found.contains("123") && !found.contains("567"),
            "{found}"
        );
    }
    let config = Config::parse("lb.toml", &format!("[daemon]\nhash_seed = \"{secret}\"")).unwrap();
    assert!(!format!("{config:?}").contains("0123"), "Debug hides it too");
}

const QUIC_SERVICE: &str = "[[service]]\nname = \"h3\"\naddresses = [\"192.0.2.1\"]\nports = [443]\nprotocol = \"udp\"\n\
                            affinity = \"quic\"\nhealth.port = 80\n";

#[test]
fn quic() {
    let config =
        format!("[[quic]]\n{QUIC_SERVICE}backend = [{{ address = \"198.51.100.1\", server_id = 65535 }}]\n");
    assert!(Config::parse("lb.toml", &config).is_ok(), "{}", refusal(&config));
    let wrong = |text: &str, expected: &[&str]| {
        let found = refusal(text);
        assert!(expected.iter().all(|part| found.contains(part)), "{text}\n{found}");
        // One line each, and nothing else.
        assert_eq!(found.lines().count(), expected.len(), "{found}");
    };
    wrong("[[quic]]\nconfig = 7\n", &["config: found 7, expected 0 to 6"]);
    wrong("[[quic]]\n[[quic]]\n", &["config: 0 is taken in line 1; take another of 0 to 6"]);
    wrong(
        "[[quic]]\nserver_id_bytes = 8\nnonce_bytes = 12\n",
        &["found 12 beside a server ID of 8, expected at most 19"],
    );
    wrong(
        "[[quic]]\naes_key = \"secret\"\n",
        &["aes_key: found 6 characters, expected 32 hexadecimal digits"],
    );
    let backend = |id: &str| format!("{QUIC_SERVICE}backend = [{{ address = \"198.51.100.1\"{id} }}]\n");
    wrong(&backend(", server_id = 1"), &["affinity: \"quic\" needs a table [[quic]]"]);
    wrong(&format!("[[quic]]\n{}", backend("")), &["server_id"]);
    wrong(&format!("[[quic]]\n{}", backend(", server_id = 0")), &["server_id: found 0, expected 1 to 65535"]);
    let short = format!("[[quic]]\nserver_id_bytes = 1\n{}", backend(", server_id = 256"));
    wrong(&short, &["found 256, expected 1 to 255 with server_id_bytes = 1"]);
    let tcp = format!("[[quic]]\n{}", backend(", server_id = 1")).replace("udp", "tcp");
    wrong(&tcp, &["affinity: \"quic\" needs protocol = \"udp\""]);
    let flow = backend(", server_id = 1").replace("affinity = \"quic\"", "affinity = \"flow\"");
    wrong(&flow, &["server_id: needs affinity = \"quic\""]);
}
