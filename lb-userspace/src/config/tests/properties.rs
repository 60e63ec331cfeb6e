//! What holds for every file: nothing panics, what is printed reads back, edits change what they say and no more.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::RngSeed};

use crate::config::{
    AdminState, Affinity, Agent, Announce, Backend, Check, Config, Daemon, Digest, Forward, Health, Limit,
    OnFailure, Ports, Protocol, Rate, Secrets, Seed, Service, Tls, Tracking, Trust, XdpMode,
    edit::{BackendPatch, BackendSpec, Document},
    keys::TABLES,
    limits,
};

fn states() -> impl Strategy<Value = AdminState> {
    select(vec![AdminState::Up, AdminState::Drain, AdminState::Down])
}

fn modes() -> impl Strategy<Value = XdpMode> {
    select(vec![XdpMode::Auto, XdpMode::Native, XdpMode::Generic])
}

/// Ranges that do not touch: cut from sorted numbers.
fn ranges(of: RangeInclusive<u16>, most: usize) -> impl Strategy<Value = Vec<RangeInclusive<u16>>> {
    vec((of, 0_u16..20), 1..most).prop_map(|parts| {
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        for (start, length) in parts.into_iter().collect::<BTreeSet<_>>() {
            if ranges.last().is_none_or(|last| start > last.end() + 1) {
                ranges.push(start..=start + length);
            }
        }
        ranges
    })
}

fn healths() -> impl Strategy<Value = Health> {
    let http = ("/[!$-~]{0,20}", ranges(100..=580, 4), option::of("[a-z0-9.-]{1,20}(:[0-9]{1,5})?"));
    let trust = prop_oneof![Just(Trust::System), Just(Trust::Anyone), "/[^\0]{0,20}".prop_map(Trust::File),];
    let tls =
        (option::of("[a-z]{1,20}(\\.[a-z]{1,20})?"), trust).prop_map(|(name, trust)| Tls { name, trust });
    let http = (http, option::of(".{1,30}"), option::of(tls));
    let check = prop_oneof![
        Just(Check::None),
        Just(Check::Tcp),
        http.prop_map(|((path, expect, host), body, tls)| Check::Http { path, expect, host, body, tls }),
        "[!-~]{0,40}".prop_map(|service| Check::Grpc { service }),
        "[a-z0-9_-]{1,20}(\\.[a-z0-9]{1,20}){0,3}\\.?".prop_map(|query| Check::Dns { query }),
        (".{1,30}", option::of(".{1,30}")).prop_map(|(send, receive)| Check::Udp { send, receive }),
        vec("/[^\0]{0,20}", 1..4).prop_map(|command| Check::Exec { command }),
    ];
    let times = (100_u64..=3_600_000).prop_flat_map(|interval| (Just(interval), 1..=interval));
    (check, option::of(1_u16..), times, 1_u32..=100, 1_u32..=100).prop_map(
        |(check, port, times, rise, fall)| {
            let (interval, timeout) = (Duration::from_millis(times.0), Duration::from_millis(times.1));
            // Without a port of its own a check of a service for any port has none.
            let mass = crate::config::Mass {
                max_ejected: (fall % 101) as u8,
                panic_below: (rise % 101) as u8,
                min_ready: 3,
            };
            Health { check, port: port.or(Some(80)), interval, timeout, rise, fall, mass }
        },
    )
}

fn backends() -> impl Strategy<Value = Vec<Backend>> {
    let one = (option::of(1_u16..), 0_u16.., states(), any::<bool>());
    vec(one, 0..6).prop_map(|parts| {
        let backends = parts.into_iter().zip(1_u8..).map(|((port, weight, state, named), number)| {
            let address = if number % 2 == 0 {
                IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 1, u16::from(number)])
            } else {
                IpAddr::from([198, 51, 100, number])
            };
            let name = if named { format!("b{number}") } else { address.to_string() };
            // One weight above zero is demanded of every service.
            Backend {
                name,
                address,
                port,
                weight: weight.max(u16::from(number == 1)),
                state,
                sorry: number % 3 == 0,
                server_id: None,
            }
        });
        backends.collect()
    })
}

fn services() -> impl Strategy<Value = Service> {
    let ports = prop_oneof![Just(Ports::Any), ranges(1..=65_000, 6).prop_map(Ports::Ranges)];
    let what = (
        ports,
        select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Both]),
        select(vec![Affinity::Addresses, Affinity::Source, Affinity::Flow]),
        select(vec![Tracking::Changes, Tracking::Always, Tracking::Never]),
        (1_000_u64..=7_200_000, 0_u64..=3_600_000, select(vec![OnFailure::Rehash, OnFailure::Reset])),
        select(vec![251_u32, 16_381, 65_537, 1_048_573]),
    );
    let limit = option::of((1_u32..=1_000_000, 1_u32..=10_000_000));
    (what, healths(), limit, backends()).prop_map(|(what, health, limit, backends)| {
        let (ports, protocol, affinity, tracking, (settle, slow_start, on_failure), table_slots) = what;
        Service {
            name: String::new(),
            addresses: Vec::new(),
            ports,
            protocol,
            affinity,
            forward: Forward::Ipip,
            tracking,
            settle: Duration::from_millis(settle),
            slow_start: Duration::from_millis(slow_start),
            on_failure,
            table_slots,
            health,
            limit: limit.map(|(rate, burst)| Limit { anonymous: Rate { rate, burst } }),
            backends,
        }
    })
}

fn daemons() -> impl Strategy<Value = Daemon> {
    let nets = (option::of(any::<u32>()), option::of(any::<u64>())).prop_map(|(v4, v6)| {
        let v4 = v4.map(|bits| IpNet::from(IpAddr::V4(Ipv4Addr::from_bits(10 << 24 | bits >> 8))));
        let v6 = v6.map(|bits| {
            IpNet::new(Ipv6Addr::from_bits(0x2001 << 112 | u128::from(bits)).into(), 64).unwrap().trunc()
        });
        v4.into_iter().chain(v6).collect()
    });
    let listen = option::of(any::<u16>().prop_map(|port| (Ipv6Addr::LOCALHOST, port).into()));
    let parts = (vec("[a-z][a-z0-9.@_-]{0,14}", 0..4), modes(), option::of(any::<[u8; 32]>()), nets, listen);
    (parts, any::<bool>(), 10_u32..=28, 10_u32..=26).prop_map(|(parts, arp, flows, limits)| {
        let (interfaces, xdp_mode, seed, tunnel_source, listen) = parts;
        Daemon {
            interfaces: interfaces.into_iter().collect::<BTreeSet<_>>().into_iter().collect(),
            xdp_mode,
            hash_seed: seed.map(Seed),
            tunnel_source,
            gue_port: 1 + flows as u16,
            announce: if arp { Announce::Arp } else { Announce::None },
            flow_capacity: 1 << flows,
            limit_capacity: 1 << limits,
            listen,
        }
    })
}

fn configs(services_at_least: usize) -> impl Strategy<Value = Config> {
    let agent = option::of(modes().prop_map(|xdp_mode| Agent {
        interface: "eth0".into(),
        vips: vec![Ipv4Addr::new(192, 0, 2, 10).into()],
        tunnel_sources: vec!["198.51.100.0/28".parse().unwrap()],
        gue_port: 6081,
        peers: vec![Ipv4Addr::new(198, 51, 100, 12).into()],
        xdp_mode,
    }));
    (daemons(), vec(services(), services_at_least..4), agent).prop_map(|(daemon, mut services, agent)| {
        for (service, number) in services.iter_mut().zip(1_u8..) {
            service.name = format!("s{number}");
            service.addresses = vec![
                IpAddr::from([192, 0, 2, number]),
                IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 2, number.into()]),
            ];
        }
        Config { daemon, quic: Vec::new(), services: services.into_iter().map(Arc::new).collect(), agent }
    })
}

/// Text made of pieces of real files: gets further than noise.
fn fragments() -> impl Strategy<Value = String> {
    let keys: Vec<String> =
        TABLES.iter().flat_map(|table| table.known).map(|key| format!("{key} = ")).collect();
    let headings: Vec<String> = TABLES.iter().map(|table| format!("{}\n", table.heading)).collect();
    let values = [
        "5\n",
        "\"any\"\n",
        "\"web\"\n",
        "[\"192.0.2.1\", \"::1\"]\n",
        "[80, \"1-9\"]\n",
        "{ rate = 1 }\n",
        "\"1h\"\n",
        "\"10.0.0.0/8\"\n",
        "true\n",
        "-1\n",
        "1e9\n",
        "9223372036854775808\n",
        "\"\"\n",
        "[]\n",
        "[[]]\n",
        "{}\n",
        "\"\u{1F4A5}\"\n",
    ];
    let marks =
        ["[", "]", "{", "}", "\"", "'''", "\n", "\r", ".", ",", "#", "=", "\\u", "\u{feff}", "\0", "é"];
    let pieces = prop_oneof![
        3 => select(keys),
        2 => select(headings),
        3 => select(values.to_vec()).prop_map(str::to_owned),
        1 => select(marks.to_vec()).prop_map(str::to_owned),
    ];
    vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

/// Everything that takes a text from outside.
fn swallow(text: &str) {
    let lines = text.lines().count() + 1;
    let parsed = Config::parse("f", text);
    if let Err(error) = &parsed {
        assert!(!error.problems.is_empty());
        assert!(error.problems.iter().all(|problem| problem.line as usize <= lines), "{error}");
        assert!(!error.to_string().contains('\u{1b}'));
    }
    let address = IpAddr::from([198, 51, 100, 77]);
    let spec = BackendSpec { name: Some("new".into()), address, port: None, weight: Some(5), state: None };
    let patch = BackendPatch { weight: Some(7), address: Some(address), ..BackendPatch::default() };
    if let Ok(document) = Document::parse("f", text) {
        // A change that is refused leaves the text; one that is made leaves TOML.
        let change = |make: &dyn Fn(&mut Document) -> bool| {
            let mut changed = document.clone();
            let made = make(&mut changed);
            assert!(made || changed == document);
            assert!(Document::parse("f", changed.as_str()).is_ok());
        };
        change(&|document| document.add_backend("web", &spec).is_ok());
        change(&|document| document.set_backend("web", "web", patch).is_ok());
        change(&|document| document.remove_backend("web", "web").is_ok());
        change(&|document| {
            document.set_limit("web", Some(Limit { anonymous: Rate { rate: 1, burst: 2 } })).is_ok()
        });
        change(&|document| document.set_limit("web", None).is_ok());
    }
    let _ = Digest::of(text);
}

/// The same cases in every run; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` choose others.
fn settings() -> ProptestConfig {
    let settings = ProptestConfig::default();
    match settings.rng_seed {
        RngSeed::Random => {
            ProptestConfig { rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..settings }
        }
        RngSeed::Fixed(_) => settings,
    }
}

proptest! {
    #![proptest_config(settings())]

    #[test]
    fn any_text_is_accepted_or_refused(text in "\\PC{0,200}") {
        swallow(&text);
    }

    #[test]
    fn any_bytes_are_accepted_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        swallow(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn pieces_of_files_are_accepted_or_refused(text in fragments()) {
        swallow(&text);
    }

    #[test]
    fn every_notation_is_accepted_or_refused(text in "[0-9a-z.:/ -]{0,20}") {
        use crate::config as c;
        let _ = (c::parse_duration(&text), c::parse_port_range(&text), c::parse_expect(&text), c::parse_seed(&text));
        let _ = (c::parse_prefix(&text), c::parse_address(&text), c::check_interface(&text), c::check_path(&text));
        if let Ok(duration) = c::parse_duration(&text) {
            prop_assert_eq!(c::parse_duration(&c::format_duration(duration)), Ok(duration));
        }
    }

    #[test]
    fn what_is_printed_reads_back(config in configs(0)) {
        let text = config.printed(Secrets::Shown).to_toml().unwrap();
        let parsed = Config::parse("f", &text);
        prop_assert_eq!(parsed.as_ref(), Ok(&config), "{}", text);
        let hidden = config.printed(Secrets::Hidden).to_toml().unwrap();
        prop_assert_eq!(Config::parse("f", &hidden).is_ok(), config.daemon.hash_seed.is_none());
    }

    /// On any printed file, in block and inline form: the edited text means the edited configuration.
    #[test]
    fn edits_do_what_they_say(config in configs(1), inline in any::<bool>(), at in any::<proptest::sample::Index>(),
                              weight in 1_u16.., state in states(), limit in option::of((1_u32..99, 1_u32..99))) {
        let mut expected = config.clone();
        let index = at.index(expected.services.len());
        let text = printed(&config, inline);
        let mut document = Document::parse("f", &text).unwrap();

        let service = Arc::make_mut(&mut expected.services[index]);
        let address = IpAddr::from([198, 51, 100, 200]);
        let spec = BackendSpec { name: Some("new".into()), address, port: Some(9), weight: Some(weight), state: Some(state) };
        document.add_backend(&service.name, &spec).unwrap();
        service.backends.push(Backend { name: "new".into(), address, port: Some(9), weight, state, sorry: false, server_id: None });
        prop_assert_eq!(Config::parse("f", document.as_str()), Ok(expected.clone()), "{}", document);

        let service = Arc::make_mut(&mut expected.services[index]);
        let changed = at.index(service.backends.len());
        let patch = BackendPatch { weight: Some(weight), state: Some(state), port: Some(7), address: None };
        document.set_backend(&service.name, &service.backends[changed].name, patch).unwrap();
        let backend = &mut service.backends[changed];
        (backend.weight, backend.state, backend.port) = (weight, state, Some(7));
        prop_assert_eq!(Config::parse("f", document.as_str()), Ok(expected.clone()), "{}", document);

        let service = Arc::make_mut(&mut expected.services[index]);
        service.limit = limit.map(|(rate, burst)| Limit { anonymous: Rate { rate, burst } });
        document.set_limit(&service.name, service.limit).unwrap();
        prop_assert_eq!(Config::parse("f", document.as_str()), Ok(expected.clone()), "{}", document);

        for left in (0..expected.services[index].backends.len()).rev() {
            let service = Arc::make_mut(&mut expected.services[index]);
            let gone = service.backends.remove(at.index(left + 1));
            document.remove_backend(&service.name, &gone.name).unwrap();
            let weighted = service.backends.is_empty() || service.backends.iter().any(|backend| backend.weight > 0);
            if weighted {
                prop_assert_eq!(Config::parse("f", document.as_str()), Ok(expected.clone()), "{}", document);
            }
        }
    }
}

/// The file with blocks as they are printed, or with every service on one line.
fn printed(config: &Config, inline: bool) -> String {
    let text = config.printed(Secrets::Shown).to_toml().unwrap();
    if !inline {
        return text;
    }
    let mut document: toml_edit::DocumentMut = text.parse().unwrap();
    let root = document.as_table_mut();
    if let Some(item) = root.remove("service") {
        root.insert("service", toml_edit::Item::Value(item.into_value().unwrap()));
    }
    document.to_string()
}

#[test]
fn ranges_of_the_generators_are_those_of_the_limits() {
    assert_eq!((limits::STREAK, limits::RATE, limits::BURST), (1..=100, 1..=1_000_000, 1..=10_000_000));
    assert_eq!((limits::FLOW_CAPACITY, limits::LIMIT_CAPACITY), (1 << 10..=1 << 28, 1 << 10..=1 << 26));
}
