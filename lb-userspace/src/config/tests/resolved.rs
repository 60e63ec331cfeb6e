//! What files mean: defaults, notations, what is allowed on purpose.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use super::{AGENT, WEB};
use crate::config::{
    AdminState, Affinity, Announce, Backend, Check, Config, Daemon, Forward, Health, Limit, OnFailure, Ports,
    Protocol, Rate, Secrets, Seed, Service, Tracking, XdpMode, defaults, format_duration, parse_duration,
    parse_expect,
};

fn parse(text: &str) -> Config {
    Config::parse("lb.toml", text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn service(lines: &str) -> Service {
    Arc::unwrap_or_clone(parse(&format!("{WEB}{lines}")).services.remove(0))
}

/// The example of the design, as far as this version goes.
const FULL: &str = r#"
[daemon]
interfaces = ["eth0", "eth1"]
xdp_mode = "native"
hash_seed = "00000000000000000000000000000000000000000000000000000000000000ff"
tunnel_source = ["198.51.100.0/28", "2001:db8:ffff::/64"]
gue_port = 6081
announce = "arp"
flow_table = { capacity = 2_097_152 }
limit_table = { capacity = 1_024 }
listen = "127.0.0.1:9870"

[[service]]
name = "web"
addresses = ["192.0.2.10", "2001:db8::10"]
ports = [443, "8000-8100", 80]
protocol = "both"
affinity = "source"
forward = "ipip"
tracking = "always"
settle = "1h30m"
slow_start = "30s"
on_failure = "reset"
table_slots = 65537
[service.health]
type = "http"
path = "/ready"
expect = "300-399,200,204,201"
host = "web.example:8080"
port = 81
interval = "5s"
timeout = "500ms"
rise = 1
fall = 4
max_ejected = 50
panic_below = 30
min_ready = 2
via = "address"
[[service.backend]]
name = "b1"
address = "198.51.100.11"
port = 8080
weight = 0
state = "drain"
sorry = true
[[service.backend]]
address = "2001:DB8:0:0::11"
[service.limit]
anonymous = { rate = 1000, burst = 2000 }
"#;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn every_key_arrives() {
    let config = parse(FULL);
    let mut seed = [0; 32];
    seed[31] = 0xff;
    let daemon = Daemon {
        interfaces: vec!["eth0".into(), "eth1".into()],
        xdp_mode: XdpMode::Native,
        hash_seed: Some(Seed(seed)),
        tunnel_source: vec!["198.51.100.0/28".parse().unwrap(), "2001:db8:ffff::/64".parse().unwrap()],
        gue_port: 6081,
        announce: Announce::Arp,
        flow_capacity: 1 << 21,
        limit_capacity: 1 << 10,
        listen: Some("127.0.0.1:9870".parse().unwrap()),
    };
    let health = Health {
        check: Check::Http {
            path: "/ready".into(),
            expect: vec![200..=201, 204..=204, 300..=399],
            host: Some("web.example:8080".into()),
            body: None,
            tls: None,
        },
        port: Some(81),
        interval: Duration::from_secs(5),
        timeout: Duration::from_millis(500),
        rise: 1,
        fall: 4,
        mass: crate::config::Mass { max_ejected: 50, panic_below: 30, min_ready: 2 },
    };
    let first = Backend {
        name: "b1".into(),
        address: ip("198.51.100.11"),
        port: Some(8080),
        weight: 0,
        state: AdminState::Drain,
        sorry: true,
        server_id: None,
    };
    let second = Backend {
        name: "2001:db8::11".into(),
        address: ip("2001:db8::11"),
        port: None,
        weight: 100,
        state: AdminState::Up,
        sorry: false,
        server_id: None,
    };
    let service = Service {
        name: "web".into(),
        addresses: vec![ip("192.0.2.10"), ip("2001:db8::10")],
        ports: Ports::Ranges(vec![80..=80, 443..=443, 8000..=8100]),
        protocol: Protocol::Both,
        affinity: Affinity::Source,
        forward: Forward::Ipip,
        tracking: Tracking::Always,
        settle: Duration::from_secs(5_400),
        slow_start: Duration::from_secs(30),
        on_failure: OnFailure::Reset,
        table_slots: 65_537,
        health,
        limit: Some(Limit { anonymous: Rate { rate: 1000, burst: 2000 } }),
        backends: vec![first, second],
    };
    assert_eq!(config, Config { daemon, quic: Vec::new(), services: vec![service.into()], agent: None });
}

#[test]
fn the_smallest_service_has_defaults() {
    let config = parse(WEB);
    assert_eq!(config.daemon, Daemon::default());
    let expected = Service {
        name: "web".into(),
        addresses: vec![ip("192.0.2.10")],
        ports: Ports::Ranges(vec![80..=80]),
        protocol: Protocol::Tcp,
        affinity: Affinity::Addresses,
        forward: Forward::Ipip,
        tracking: Tracking::Changes,
        settle: Duration::from_secs(900),
        slow_start: Duration::ZERO,
        on_failure: OnFailure::Rehash,
        table_slots: 16_381,
        health: defaults::health(),
        limit: None,
        backends: Vec::new(),
    };
    assert_eq!(config.services, [Arc::new(expected)]);
}

#[test]
fn an_agent_needs_no_daemon() {
    let agent = parse(AGENT).agent.unwrap();
    assert_eq!((agent.interface.as_str(), agent.xdp_mode), ("eth0", XdpMode::Auto));
    assert_eq!(
        (agent.vips, agent.tunnel_sources),
        (vec![ip("192.0.2.10")], vec!["198.51.100.0/28".parse().unwrap()])
    );
    let single = AGENT.replace("[\"198.51.100.0/28\"]", "\"198.51.100.1\"");
    assert_eq!(parse(&single).agent.unwrap().tunnel_sources, ["198.51.100.1/32".parse().unwrap()]);
}

#[test]
fn a_daemon_alone_is_a_configuration() {
    assert_eq!(parse("[daemon]"), Config::default());
}

#[test]
fn tracking_and_settle_follow_protocol_and_affinity() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let rows = [
        ("tcp", "addresses", Tracking::Changes, minutes(15)),
        ("tcp", "flow", Tracking::Changes, minutes(15)),
        ("udp", "source", Tracking::Changes, minutes(1)),
        ("udp", "flow", Tracking::Always, minutes(1)),
        ("both", "addresses", Tracking::Changes, minutes(15)),
        ("both", "flow", Tracking::Always, minutes(15)),
    ];
    for (protocol, affinity, tracking, settle) in rows {
        let service = service(&format!("protocol = \"{protocol}\"\naffinity = \"{affinity}\""));
        assert_eq!((service.tracking, service.settle), (tracking, settle), "{protocol} {affinity}");
    }
}

#[test]
fn health_defaults_follow_what_is_given() {
    assert_eq!(service("").health.check, Check::None, "no table, no check");
    assert_eq!(service("[service.health]").health.check, Check::Tcp);
    let http = Check::Http { path: "/".into(), expect: vec![200..=299], host: None, body: None, tls: None };
    assert_eq!(service("health.type = \"http\"").health.check, http);
    let quick = service("health.interval = \"300ms\"").health;
    assert_eq!((quick.interval, quick.timeout), (Duration::from_millis(300), Duration::from_millis(300)));
    let Check::Http { expect, .. } = service("health = { type = \"http\", expect = 204 }").health.check
    else {
        panic!("the type is http")
    };
    assert_eq!(expect, [204..=204]);
}

#[test]
fn burst_defaults_to_one_second() {
    assert_eq!(service("limit.anonymous.rate = 50").limit.unwrap().anonymous, Rate { rate: 50, burst: 50 });
}

#[test]
fn ports_have_four_notations() {
    let ports = |text: &str| parse(&WEB.replace("[80]", text)).services[0].ports.clone();
    assert_eq!(ports("\"any\""), Ports::Any);
    assert_eq!(ports("443"), Ports::Ranges(vec![443..=443]));
    assert_eq!(ports("\"443\""), Ports::Ranges(vec![443..=443]));
    assert_eq!(ports("\"8000-8100\""), Ports::Ranges(vec![8000..=8100]));
    assert_eq!(ports("[\"81-90\", 80, 9]"), Ports::Ranges(vec![9..=9, 80..=80, 81..=90]));
    assert_eq!(ports("[1_000]"), Ports::Ranges(vec![1000..=1000]));
}

/// Allowed: an exact port beside a service for any port of the VIP (the exact one wins), another protocol, another
/// VIP, ports side by side.
#[test]
fn neighbours_do_not_overlap() {
    let more = |name: &str, vip: &str, ports: &str, protocol: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\naddresses = [\"{vip}\"]\nports = {ports}\nprotocol = \"{protocol}\"\n"
        )
    };
    let text = [
        WEB.to_owned(),
        more("any", "192.0.2.10", "\"any\"", "tcp"),
        more("any-udp", "192.0.2.10", "\"any\"", "udp"),
        more("udp", "192.0.2.10", "80", "udp"),
        more("vip", "192.0.2.11", "80", "tcp"),
        more("above", "192.0.2.10", "[\"81-90\", 79]", "tcp"),
    ];
    assert_eq!(parse(&text.concat()).services.len(), 6);
}

#[test]
fn a_wide_range_hides_no_overlap_behind_a_narrow_one() {
    let text = "[[service]]\nname = \"wide\"\naddresses = [\"192.0.2.1\"]\nports = \"1-1000\"\n[[service]]\nname = \
                \"narrow\"\naddresses = [\"192.0.2.1\"]\nports = \"2-3\"\n[[service]]\nname = \"late\"\naddresses = \
                [\"192.0.2.1\"]\nports = 999";
    let error = Config::parse("f", text).unwrap_err().to_string();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), 2, "{error}");
    assert!(
        lines[0].starts_with("f:7:14: service \"narrow\"") && lines[0].contains("ports 2-3 belongs to"),
        "{error}"
    );
    assert!(
        lines[1].starts_with("f:11:14: service \"late\"") && lines[1].contains("port 999 belongs to"),
        "{error}"
    );
}

/// The earlier service of the file is the owner, however the ports are sorted.
#[test]
fn the_later_service_is_the_one_too_many() {
    let text = "[[service]]\nname = \"first\"\naddresses = [\"192.0.2.1\"]\nports = 80\n[[service]]\nname = \
                \"second\"\naddresses = [\"192.0.2.1\"]\nports = \"70-90\"";
    let error = Config::parse("f", text).unwrap_err().to_string();
    assert_eq!(
        error,
        "f:7:14: service \"second\": addresses: 192.0.2.1 tcp port 80 belongs to service \"first\" (line 3) already"
    );
}

/// Each claim is compared once: ten times the services cost ten times the work.
#[test]
fn overlaps_cost_one_comparison_per_claim() {
    assert_eq!(crate::config::resolve::cost_of_overlaps(1_000), (4_000, 4_000));
    assert_eq!(crate::config::resolve::cost_of_overlaps(60_000), (240_000, 240_000));
}

#[test]
fn other_notations_of_toml_mean_the_same() {
    let blocks = parse(FULL);
    let mut inline = FULL.split("[service.health]").next().unwrap().to_owned();
    inline += "health.type = \"http\"\nhealth.path = '/ready'\nhealth.expect = \"300-399,200,204,201\"\n\
               health.host = \"web.example:8080\"\nhealth.port = 81\nhealth.interval = \"5s\"\n\
               health.timeout = \"500ms\"\nhealth.rise = 1\nhealth.fall = 4\n\
               health.max_ejected = 50\nhealth.panic_below = 30\nhealth.min_ready = 2\n\
               limit.anonymous.rate = 1000\nlimit.anonymous.burst = 2000\n\
               backend = [{ name = \"b1\", address = \"198.51.100.11\", port = 8080, weight = 0x0, state = \"drain\", sorry = true },\n\
               { address = \"2001:db8::11\" }]\n";
    assert_eq!(parse(&inline), blocks);
    assert_eq!(parse(&FULL.replace('\n', "\r\n")), blocks);
    assert_eq!(parse(&format!("\u{feff}{FULL}")), blocks);
}

#[test]
fn durations_are_strict() {
    let good = [
        ("500ms", 500),
        ("2s", 2_000),
        ("15m", 900_000),
        ("1h30m", 5_400_000),
        ("1d1ms", 86_400_001),
        ("0s", 0),
    ];
    for (text, milliseconds) in good {
        let duration = Duration::from_millis(milliseconds);
        assert_eq!(parse_duration(text), Ok(duration));
        assert_eq!(format_duration(duration), text);
    }
    assert_eq!(format_duration(parse_duration("90s").unwrap()), "1m30s");
    let bad = [
        "", "5", "s", "5 s", " 5s", "5s ", "-5s", "+5s", "1.5s", "5S", "5sec", "30m1h", "1s1s", "5us",
        "1h30", "٣s",
    ];
    let huge = ["99999999999999999999s", "9999999999999999999d"];
    for text in bad.iter().chain(&huge) {
        assert!(parse_duration(text).is_err(), "{text:?}");
    }
}

#[test]
fn status_codes_are_sorted_and_joined() {
    assert_eq!(parse_expect("200-299"), Ok(vec![200..=299]));
    assert_eq!(parse_expect("404, 200 - 204,203-210,211"), Ok(vec![200..=211, 404..=404]));
    for text in ["", "200,", "99", "600", "299-200", "+200", "200-", "2 00", &"200,".repeat(9_999)] {
        assert!(parse_expect(text).is_err(), "{text:?}");
    }
}

#[test]
fn files_are_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lb.toml");
    std::fs::write(&path, FULL).unwrap();
    assert_eq!(Config::load(&path).unwrap(), parse(FULL));
    let error = Config::load(Path::new("/dev/null/lb.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/dev/null/lb.toml: cannot read the file: Not a directory"), "{error}");
}

#[test]
fn the_printed_form_writes_defaults_out_and_hides_the_seed() {
    let agent = parse(AGENT).printed(Secrets::Hidden).to_toml().unwrap();
    assert_eq!(
        agent,
        format!("{AGENT}gue_port = 6080\npeers = []\nxdp_mode = \"auto\"\n"),
        "a backend host has no [daemon]"
    );
    let text = parse(FULL).printed(Secrets::Hidden).to_toml().unwrap();
    for line in [
        "hash_seed = \"hidden\"",
        "ports = [80, 443, \"8000-8100\"]",
        "settle = \"1h30m\"",
        "expect = \"200-201,204,300-399\"",
        "[service.limit.anonymous]",
        "name = \"2001:db8::11\"",
        "weight = 100",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let json = serde_json::to_value(parse(FULL).printed(Secrets::Shown)).unwrap();
    assert_eq!(json["service"][0]["backend"][1]["state"], "up");
    assert!(json["daemon"]["hash_seed"].as_str().unwrap().ends_with("00ff"));
}
