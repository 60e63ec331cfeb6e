//! What is made from the last snapshot is what would be made from nothing but the inputs.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;

use super::{Desired, Touched, View};
use crate::{
    config::{AdminState, Backend, Config, Forward, Seed, Service},
    control::{
        desired::{Condition, FAILED, READY},
        model::Hop,
        past::KEPT_FOR,
        settling::Seconds,
    },
};

const TEXT: &str = r#"
[[quic]]
config = 0
server_id_bytes = 2
nonce_bytes = 6

[[service]]
name = "plain"
addresses = ["192.0.2.1"]
ports = [80]
table_slots = 251

[[service]]
name = "tunnel"
addresses = ["192.0.2.2"]
ports = [80]
forward = "gue"
table_slots = 251

[[service]]
name = "slow"
addresses = ["192.0.2.3"]
ports = [80]
slow_start = "40s"
table_slots = 251

[[service]]
name = "quic"
addresses = ["192.0.2.4"]
ports = [443]
protocol = "udp"
affinity = "quic"
table_slots = 251
"#;

/// Everything that snapshots are made from.
#[derive(Clone)]
struct World {
    config: Config,
    conditions: HashMap<(String, String), Condition>,
    joining: HashSet<(String, String)>,
    /// Last byte of the MAC address of every neighbour.
    mac: u8,
    now: Seconds,
    unix_time: u64,
    touched: Touched,
}

impl View for World {
    fn condition(&self, service: &str, backend: &str) -> Condition {
        self.conditions.get(&(service.into(), backend.into())).copied().unwrap_or_default()
    }

    fn joining(&self, service: &str, backend: &str) -> bool {
        self.joining.contains(&(service.into(), backend.into()))
    }

    fn hop(&self, _: IpAddr) -> Option<Hop> {
        let source = Ipv4Addr::new(198, 51, 100, 254).into();
        Some(Hop { ifindex: 1, dmac: [2, 0, 0, 0, 0, self.mac], smac: [2; 6], source, mtu: 1500 })
    }

    fn unix_time(&self) -> u64 {
        self.unix_time
    }
}

/// What happens next; `which` and `what` choose among what there is.
#[derive(Clone, Debug)]
enum Event {
    AddBackend {
        which: u8,
    },
    RemoveBackend {
        which: u8,
        what: u8,
    },
    Weight {
        which: u8,
        what: u8,
        weight: u16,
    },
    State {
        which: u8,
        what: u8,
        state: AdminState,
    },
    Settings {
        which: u8,
        settle: u8,
        slow_start: u8,
        forward: Forward,
    },
    AddService {
        at: u8,
        name: u8,
    },
    RemoveService {
        which: u8,
    },
    Swap {
        which: u8,
        other: u8,
    },
    Quic {
        nonce_bytes: u8,
    },
    GuePort {
        port: u16,
    },
    /// The file is read anew and says the same.
    SameFile,
    Health {
        which: u8,
        what: u8,
        state: u8,
    },
    Joining {
        which: u8,
        what: u8,
    },
    Routes {
        mac: u8,
    },
    Wait {
        seconds: Seconds,
    },
    ClockSetBack {
        seconds: u64,
    },
    /// Slots settle, unless their number and this have a bit in common.
    Settle {
        busy: u8,
    },
}

fn events() -> impl Strategy<Value = Event> {
    use Event::*;
    let state = prop_oneof![Just(AdminState::Up), Just(AdminState::Drain), Just(AdminState::Down)];
    let forward = prop_oneof![Just(Forward::L2), Just(Forward::Gue)];
    let seconds = prop_oneof![8 => 0..90u64, 2 => 900..1100u64, 1 => KEPT_FOR..KEPT_FOR + 100];
    prop_oneof![
        4 => any::<u8>().prop_map(|which| AddBackend { which }),
        2 => any::<(u8, u8)>().prop_map(|(which, what)| RemoveBackend { which, what }),
        2 => (any::<(u8, u8)>(), 0..4u16).prop_map(|((which, what), weight)| Weight { which, what, weight }),
        2 => (any::<(u8, u8)>(), state).prop_map(|((which, what), state)| State { which, what, state }),
        1 => (any::<(u8, u8, u8)>(), forward)
            .prop_map(|((which, settle, slow_start), forward)| Settings { which, settle, slow_start, forward }),
        1 => any::<(u8, u8)>().prop_map(|(at, name)| AddService { at, name }),
        1 => any::<u8>().prop_map(|which| RemoveService { which }),
        1 => any::<(u8, u8)>().prop_map(|(which, other)| Swap { which, other }),
        1 => (4..18u8).prop_map(|nonce_bytes| Quic { nonce_bytes }),
        1 => (1..4u16).prop_map(|port| GuePort { port }),
        1 => Just(SameFile),
        6 => (any::<(u8, u8)>(), 0..4u8).prop_map(|((which, what), state)| Health { which, what, state }),
        2 => any::<(u8, u8)>().prop_map(|(which, what)| Joining { which, what }),
        1 => any::<u8>().prop_map(|mac| Routes { mac }),
        8 => seconds.prop_map(|seconds| Wait { seconds }),
        1 => (1..100u64).prop_map(|seconds| ClockSetBack { seconds }),
        3 => any::<u8>().prop_map(|busy| Settle { busy }),
    ]
}

impl World {
    fn new() -> Self {
        let config = Config::parse("lb.toml", TEXT).unwrap();
        let mut world = Self {
            config,
            conditions: HashMap::new(),
            joining: HashSet::new(),
            mac: 1,
            now: 1000,
            unix_time: 1_000_000,
            touched: Touched::All,
        };
        for which in 0..12 {
            world.happen(&Event::AddBackend { which });
        }
        world
    }

    fn service(&mut self, which: u8) -> Option<&mut Service> {
        let count = self.config.services.len();
        (count > 0).then(|| Arc::make_mut(&mut self.config.services[usize::from(which) % count]))
    }

    fn backend(&mut self, which: u8, what: u8) -> Option<&mut Backend> {
        let service = self.service(which)?;
        let count = service.backends.len();
        (count > 0).then(|| &mut service.backends[usize::from(what) % count])
    }

    /// The names of a backend, without touching its configuration.
    fn key(&self, which: u8, what: u8) -> Option<(String, String)> {
        let services = &self.config.services;
        let service = services.get(usize::from(which) % services.len().max(1))?;
        let backend = service.backends.get(usize::from(what) % service.backends.len().max(1))?;
        Some((service.name.clone(), backend.name.clone()))
    }

    fn happen(&mut self, event: &Event) -> Option<()> {
        match *event {
            Event::AddBackend { which } => {
                let service = self.service(which)?;
                let taken: Vec<IpAddr> = service.backends.iter().map(|b| b.address).collect();
                let address = |n| IpAddr::from([198, 51, 100, n]);
                let number = (1..40).find(|n| !taken.contains(&address(*n)))?;
                service.backends.push(Backend {
                    name: format!("b{number}"),
                    address: address(number),
                    port: None,
                    weight: 1,
                    state: AdminState::Up,
                    sorry: number == 9,
                    server_id: (service.name == "quic").then_some(number.into()),
                });
            }
            Event::RemoveBackend { which, what } => {
                let service = self.service(which)?;
                let count = service.backends.len();
                if count > 0 {
                    service.backends.remove(usize::from(what) % count);
                }
            }
            Event::Weight { which, what, weight } => self.backend(which, what)?.weight = weight,
            Event::State { which, what, state } => self.backend(which, what)?.state = state,
            Event::Settings { which, settle, slow_start, forward } => {
                let service = self.service(which)?;
                service.settle = Duration::from_secs(settle.into());
                service.slow_start = Duration::from_secs(slow_start.into());
                service.forward = forward;
            }
            Event::AddService { at, name } => {
                let services = &mut self.config.services;
                let name = format!("more{}", name % 3);
                let mut service =
                    services.first().filter(|_| services.iter().all(|s| s.name != name))?.clone();
                Arc::make_mut(&mut service).name = name;
                let at = usize::from(at) % services.len();
                services.insert(at, service);
            }
            Event::RemoveService { which } => {
                let services = &mut self.config.services;
                if services.len() > 1 {
                    services.remove(usize::from(which) % services.len());
                }
            }
            Event::Swap { which, other } => {
                let count = self.config.services.len();
                self.config.services.swap(usize::from(which) % count, usize::from(other) % count);
            }
            Event::Quic { nonce_bytes } => self.config.quic[0].nonce_bytes = nonce_bytes,
            Event::GuePort { port } => self.config.daemon.gue_port = port,
            Event::SameFile => {
                for service in &mut self.config.services {
                    *service = Arc::new(Service::clone(service));
                }
            }
            Event::Health { which, what, state } => {
                let (key, since) = (self.key(which, what)?, self.unix_time);
                self.touched.add(&key.0);
                // As the checker has it: the time of the change.
                let known = self.conditions.entry(key).or_default();
                if known.health != state {
                    *known = Condition { health: state, since };
                }
            }
            Event::Joining { which, what } => {
                let key = self.key(which, what)?;
                self.touched.add(&key.0);
                if !self.joining.remove(&key) {
                    self.joining.insert(key);
                }
            }
            Event::Routes { mac } => {
                self.mac = mac;
                self.touched = Touched::All;
            }
            Event::Wait { seconds } => {
                self.now += seconds;
                self.unix_time += seconds;
            }
            Event::ClockSetBack { seconds } => self.unix_time -= seconds,
            // The tables' own business.
            Event::Settle { .. } => {}
        }
        Some(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn from_the_last_snapshot_comes_what_comes_from_all(events in prop::collection::vec(events(), 1..60)) {
        let mut world = World::new();
        let (mut quick, mut whole) = (Desired::new(Seed([3; 32])), Desired::new(Seed([3; 32])));
        for (step, event) in events.iter().enumerate() {
            // What was in force keeps its configuration.
            let _before = world.config.clone();
            world.happen(event);
            quick.set_time(world.now);
            whole.set_time(world.now);
            if let Event::Settle { busy } = event {
                let now = world.now as u16 & 0x3fff;
                let stamp = |_, slot: u32| {
                    if slot as u8 & busy == 0 { crate::control::settling::never(world.now) } else { now }
                };
                prop_assert_eq!(quick.settle(stamp), whole.settle(stamp));
            }
            let touched = std::mem::replace(&mut world.touched, Touched::nobody());
            let from_last = quick.snapshot_from_last(&world.config, &world, &touched);
            let from_all = whole.snapshot(&world.config, &world);
            prop_assert_eq!(&from_last, &from_all, "step {}: {:?}", step, event);
            for service in from_all.iter().flat_map(|snapshot| &snapshot.services) {
                prop_assert_eq!(quick.decision(service.identity), whole.decision(service.identity));
                prop_assert_eq!(quick.counts(service.identity), whole.counts(service.identity));
                prop_assert_eq!(quick.report(service), whole.report(service));
            }
            prop_assert_eq!(quick.is_warming_up(), whole.is_warming_up());
        }
    }
}

#[test]
fn services_that_nothing_happened_to_are_shared() {
    let mut world = World::new();
    let mut desired = Desired::new(Seed([3; 32]));
    let first = desired.snapshot(&world.config, &world).unwrap();
    let before = world.config.clone();
    world.happen(&Event::Weight { which: 1, what: 0, weight: 3 });
    assert_ne!(before, world.config);
    for state in [READY, FAILED] {
        world.happen(&Event::Health { which: 1, what: 1, state });
    }
    let second = desired.snapshot_from_last(&world.config, &world, &world.touched).unwrap();
    let shared: Vec<bool> =
        first.services.iter().zip(&second.services).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
    assert_eq!(shared, [true, false, true, true]);
    // Looked at as a whole, nothing is new.
    let third = desired.snapshot_from_last(&world.config, &world, &Touched::All).unwrap();
    assert!(second.services.iter().zip(&third.services).all(|(a, b)| Arc::ptr_eq(a, b)));
}
