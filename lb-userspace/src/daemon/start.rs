//! Bringing the daemon up, and down, without ever leaving the datapath with less than it had.
//!
//! Order: everything that can be refused is looked at first; then maps are made or adopted; routes and health are
//! asked once for all backends; the first generation is installed; only then does the program go on the interfaces
//! (or replace the one that is there). An adopted generation stays in force until then.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use log::{info, warn};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior},
};

use super::{
    Options,
    core::{Core, Health, addresses, adopted_health, check_vips, monotonic_nanoseconds, targets},
    handle::{Handle, JOBS, Job},
    history::History,
    journal::Journal,
    lock::{InstanceLock, socket_path},
    manager::Manager,
    seed, transaction,
};
use crate::{
    api::{Author, TcpServer, Timestamp, Transaction, UnixServer, Via, What, types::Drift},
    config::{Announce, Config, Digest, read_text},
    control::{
        desired::{Desired, Touched},
        past,
        settling::Seconds,
    },
    dataplane::{self, Adopted, Attachment, Capacity, Grace, Installer, Pins, Swept},
    health::{Checker, Event, TargetKey},
    net::{
        Netlink, announce,
        links::Inventory,
        nexthop::{self, Resolver},
        xdp_state::{self, AttachMode},
    },
};

/// Beyond the longest timeout, for the first round of checks.
const FIRST_ROUND_GRACE: Duration = Duration::from_secs(1);
/// Between two looks at what settles and what can be forgotten.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at a change that waits to be confirmed.
const CONFIRMATIONS: Duration = Duration::from_secs(1);
/// Bytes of the newest records, which are read at start for who was in the services before.
const BYTES_OF_THE_PAST: u64 = 8 << 20;
/// For the neighbours to answer at start.
const FIRST_ROUTES: Duration = Duration::from_millis(1500);

/// Runs until SIGINT or SIGTERM.
pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let _lock = InstanceLock::take(&options.name)?;
    let socket = options.socket.clone().unwrap_or_else(|| socket_path(&options.name));
    let detach_on_exit = options.detach_on_exit;
    let pins = Pins::balancer(&options.name);

    let unix = UnixServer::bind(&socket, None).await?;
    let migrated = dataplane::migrate(&pins)?;
    dataplane::recover(&pins)?;
    let before = pins.now();
    let back = || {
        pins.back_to(&before)?;
        if let Some(migrated) = &migrated {
            migrated.undo(&pins);
        }
        Ok::<(), dataplane::DataplaneError>(())
    };
    let started = tokio::select! {
        started = Started::new(options, &pins) => started,
        () = stop.wait() => {
            back()?;
            if detach_on_exit {
                detach(&pins).await?;
            }
            return Ok(());
        }
    };
    let started = match started {
        Ok(started) => started,
        Err(error) => {
            if let Err(left) = back() {
                warn!("not everything that this start had made is gone: {left}");
            }
            return Err(error);
        }
    };
    let result = started.serve(unix, &mut stop).await;
    if detach_on_exit {
        detach(&pins).await?;
    } else {
        info!("stopped; the datapath goes on (remove it with `lb detach --name {}`)", pins.name());
    }
    result
}

/// Removes the datapath of an instance; says what went.
pub(super) async fn detach(pins: &Pins) -> anyhow::Result<dataplane::Removed> {
    let removed = pins.remove()?;
    for interface in &removed.interfaces {
        info!("detached from {interface}");
    }
    match nexthop::release_leftovers().await {
        Ok(_) => {}
        Err(error) => warn!("neighbour entries stay marked as managed: {error}"),
    }
    Ok(removed)
}

/// SIGINT and SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        Ok(Self { interrupt, terminate })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => info!("SIGINT: stopping"),
            _ = self.terminate.recv() => info!("SIGTERM: stopping"),
        }
    }
}

/// A daemon whose datapath is in force.
struct Started {
    core: Core,
    /// Metrics and status page, where they are wanted.
    tcp: Option<TcpServer>,
    health: mpsc::Receiver<Event>,
    routes: watch::Receiver<Arc<nexthop::Snapshot>>,
    links: watch::Receiver<Arc<Inventory>>,
}

impl Started {
    async fn new(options: Options, pins: &Pins) -> anyhow::Result<Self> {
        let netlink = Netlink::connect()?;
        let (history, journal) = recovered(&options, pins)?;
        let text = read_text(&options.config)?;
        let mut config = Config::parse(&options.config.display().to_string(), &text)?;
        if !options.interfaces.is_empty() {
            config.daemon.interfaces.clone_from(&options.interfaces);
        }
        let links = Inventory::read(&netlink).await?;
        let modes = check_interfaces(&config, &links, &netlink, pins).await?;
        check_vips(&config, &links)?;
        let (seed, seed_is_own) = seed::of(config.daemon.hash_seed, &options.name)?;
        // An address that is taken is known before anything is attached.
        let tcp = match config.daemon.listen {
            Some(address) => Some(TcpServer::bind(address).await?),
            None => None,
        };

        let loaded = dataplane::load(Some(pins), &Capacity::for_config(&config))?;
        let mut desired = Desired::new(seed);
        let (installer, adopted) = open_installer(loaded.adopted, loaded.memory, loaded.clock)?;
        let now = loaded.clock.seconds(monotonic_nanoseconds());
        desired.set_time(now);
        remember(&mut desired, &history, &Digest::of(&text), now);
        for (identity, service) in &adopted.services {
            let members = service.members.iter().map(|(id, m)| (*id, m.index));
            desired.adopt(*identity, members, &service.slots, |slot| {
                service.meta.get(&slot).copied().unwrap_or_default()
            });
        }

        let (resolver, mut routes) = Resolver::start().await?;
        resolver.set_targets(addresses(&config));
        let (checker, mut events) = Checker::new();
        let initial = adopted_health(&config, &desired, &adopted);
        checker.set_targets(targets(&config, &initial));
        let mut health = Health::default();
        first_round(&config, &mut events, &mut health).await;
        resolver.settled(FIRST_ROUTES).await;

        let links_now = resolver.links();
        let mut core = Core {
            name: options.name,
            config_path: options.config,
            applied: Digest::of(&text),
            config: config.clone(),
            interfaces: options.interfaces,
            desired,
            installer,
            ebpf: loaded.ebpf,
            pins: pins.clone(),
            clock: loaded.clock,
            swept: Swept::default(),
            ticks: 0,
            generation: 0,
            snapshot: Default::default(),
            checker,
            health,
            joining: HashMap::new(),
            links: Arc::clone(&links_now.borrow()),
            routes: Arc::clone(&routes.borrow_and_update()),
            resolver,
            attachments: Vec::new(),
            started: Timestamp::now(),
            seed_is_own,
            history,
            journal,
            drift: Drift::default(),
            rewrite: false,
            touched: Touched::All,
        };
        core.apply(config)?;
        core.attach(&modes, &links)?;
        core.detach_left();
        core.note_start(&text);
        core.say_hello(loaded.adopted);
        Ok(Self { core, tcp, health: events, routes, links: links_now })
    }

    /// Answers requests and follows the world until told to stop.
    async fn serve(mut self, unix: UnixServer, stop: &mut Stop) -> anyhow::Result<()> {
        let (jobs, mut queue) = mpsc::channel::<Job>(JOBS);
        let handle = Arc::new(Handle(jobs));
        let (end, _) = watch::channel(false);
        let ended = |end: &watch::Sender<bool>| {
            let mut ended = end.subscribe();
            async move {
                // An error means that the sender is gone: an end as well.
                let _ = ended.wait_for(|end| *end).await;
            }
        };
        let mut servers = vec![tokio::spawn(unix.serve(handle.clone(), ended(&end)))];
        if let Some(tcp) = self.tcp.take() {
            servers.push(tokio::spawn(tcp.serve(handle.clone(), ended(&end))));
        }
        drop(handle);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut confirmations = tokio::time::interval(CONFIRMATIONS);
        confirmations.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let mut manager = Manager::new();
        manager.ready(&self.core.summary());

        loop {
            tokio::select! {
                () = stop.wait() => break,
                () = manager.alive() => {}
                _ = hangup.recv() => {
                    manager.reloading();
                    self.core.reload();
                    manager.ready(&self.core.summary());
                }
                _ = ticks.tick() => self.core.tick(),
                _ = confirmations.tick() => self.core.expire(),
                Some(job) = queue.recv() => job(&mut self.core),
                Some(event) = self.health.recv() => self.take_health(&event),
                Ok(()) = self.routes.changed() => {
                    self.core.routes = Arc::clone(&self.routes.borrow_and_update());
                    self.core.touched = Touched::All;
                    self.core.refresh();
                }
                Ok(()) = self.links.changed() => {
                    self.core.links = Arc::clone(&self.links.borrow_and_update());
                    self.core.follow_interfaces();
                    self.core.touched = Touched::All;
                    self.core.refresh();
                }
            }
        }
        manager.stopping();
        let _ = end.send(true);
        // Requests that are under way are answered; the servers bound the time for that.
        while servers.iter().any(|s| !s.is_finished()) {
            tokio::select! {
                Some(job) = queue.recv() => job(&mut self.core),
                () = all(&mut servers) => break,
            }
        }
        Ok(())
    }

    /// Takes in all the news there is, then installs once.
    fn take_health(&mut self, first: &Event) {
        let mut changed = self.core.take_event(first);
        while let Ok(event) = self.health.try_recv() {
            changed |= self.core.take_event(&event);
        }
        if changed {
            self.core.refresh();
        }
    }
}

async fn all(servers: &mut [tokio::task::JoinHandle<()>]) {
    for server in servers.iter_mut().filter(|s| !s.is_finished()) {
        // A server that panicked is over as well.
        let _ = server.await;
    }
}

/// Tells the tables who was in the services before this start.
fn remember(desired: &mut Desired, history: &History, in_force: &Digest, now: Seconds) {
    let records = history.records();
    let mut bytes = 0;
    let recent = records.iter().rev().take_while(|record| {
        bytes += record.bytes;
        bytes <= BYTES_OF_THE_PAST
    });
    let first = records.len() - recent.count();
    for (i, record) in records.iter().enumerate().skip(first) {
        let until = match records.get(i + 1) {
            Some(next) => next.time,
            None if record.digest == in_force.to_string() => continue,
            None => Timestamp::now(),
        };
        let age = until.seconds_until(Timestamp::now());
        if age > past::KEPT_FOR {
            continue;
        }
        // What cannot be read any more only names fewer candidates.
        let text = history.text(record).ok();
        if let Some(config) = text.and_then(|text| Config::parse("the history", &text).ok()) {
            desired.remember(&config, now.saturating_sub(age));
        }
    }
}

/// What was in force, and the end of what an earlier daemon had begun.
fn recovered(options: &Options, pins: &Pins) -> anyhow::Result<(History, Journal)> {
    let state = Path::new(seed::STATE);
    let mut history = History::open(&state.join(format!("{}.history", options.name)))?;
    let journal = Journal::new(&state.join(format!("{}.journal", options.name)));
    let in_force = dataplane::desired_in_force(pins);
    transaction::recover(&journal, &mut history, &options.config, in_force)?;
    Ok((history, journal))
}

/// Refuses interfaces that do not exist or that somebody else's program sits on; gives the mode of ours.
async fn check_interfaces(
    config: &Config,
    links: &Inventory,
    netlink: &Netlink,
    pins: &Pins,
) -> anyhow::Result<BTreeMap<String, AttachMode>> {
    if config.daemon.interfaces.is_empty() {
        bail!("no interface to attach to: set `interfaces` in [daemon], or give --interface");
    }
    let mut modes = BTreeMap::new();
    for name in &config.daemon.interfaces {
        let link = links.by_name(name)?;
        link.ethernet()?;
        let attached = xdp_state::attached_programs(netlink, link.index).await?;
        if let Some(program) = attached.first() {
            // By id, not by the presence of a pin: the pinned link may be dead and the interface somebody else's now.
            let ours = dataplane::pinned_program(pins, name)?;
            if ours.is_none_or(|ours| ours.program != program.id) {
                return Err(dataplane::DataplaneError::Occupied {
                    interface: name.clone(),
                    owner: program.describe(),
                }
                .into());
            }
            modes.insert(name.clone(), program.mode);
        }
    }
    Ok(modes)
}

fn open_installer(
    adopted: bool,
    memory: dataplane::Memory,
    clock: dataplane::Clock,
) -> anyhow::Result<(Installer, Adopted)> {
    if adopted {
        Ok(Installer::adopt(memory, clock, Grace::kernel())?)
    } else {
        Ok((Installer::new(memory, clock, Grace::kernel()), Adopted::default()))
    }
}

/// Waits until every backend has been checked once, or would have been.
async fn first_round(config: &Config, events: &mut mpsc::Receiver<Event>, health: &mut Health) {
    let mut missing: HashSet<TargetKey> =
        targets(config, &HashMap::new()).into_iter().map(|t| t.key).collect();
    let longest = config.services.iter().map(|s| s.health.timeout).max().unwrap_or_default();
    let deadline = Instant::now() + longest + FIRST_ROUND_GRACE;
    while !missing.is_empty() {
        match tokio::time::timeout_at(deadline, events.recv()).await {
            Ok(Some(event)) => {
                missing.remove(&event.key);
                health.update(&event.key, event.status);
            }
            Ok(None) => break,
            Err(_) => {
                warn!("{} backends have not been checked yet; starting without them", missing.len());
                break;
            }
        }
    }
}

impl Core {
    /// Attaches to all interfaces, or replaces the program there.
    fn attach(&mut self, modes: &BTreeMap<String, AttachMode>, links: &Inventory) -> anyhow::Result<()> {
        for name in self.config.daemon.interfaces.clone() {
            let link = links.by_name(&name)?;
            dataplane::set_interface(&mut self.ebpf, link.index, link.ethernet()?)?;
            let current = modes.get(&name).map(|mode| match mode {
                AttachMode::Native | AttachMode::Offloaded => "native",
                AttachMode::Generic => "generic",
            });
            let program = dataplane::balancer(&mut self.ebpf)?;
            let attachment =
                dataplane::attach(program, &self.pins, &name, self.config.daemon.xdp_mode, current)?;
            self.attachments.push(Attachment { ifindex: link.index, ..attachment });
        }
        let vips: Vec<IpAddr> = self.config.services.iter().flat_map(|s| s.addresses.clone()).collect();
        self.announce(&vips);
        Ok(())
    }

    /// Takes the program off interfaces that are not configured any more.
    pub(super) fn detach_left(&mut self) {
        let kept = |interface: &String| self.config.daemon.interfaces.contains(interface);
        for interface in self.pins.linked_interfaces().into_iter().filter(|i| !kept(i)) {
            match self.pins.remove_link(&interface) {
                Ok(()) => info!("detached from {interface}, which is not configured any more"),
                Err(error) => warn!("{interface} is not configured any more and still attached: {error}"),
            }
        }
        let interfaces = &self.config.daemon.interfaces;
        self.attachments.retain(|attachment| interfaces.contains(&attachment.interface));
    }

    /// Tells the links where these VIPs are, if configured; runs beside everything else.
    pub(super) fn announce(&self, vips: &[IpAddr]) {
        if self.config.daemon.announce != Announce::Arp || vips.is_empty() {
            return;
        }
        for attachment in &self.attachments {
            let Ok(link) = self.links.by_name(&attachment.interface) else { continue };
            if let Err(error) = announce::subscribe(link, vips) {
                warn!("{}: questions for IPv6 VIPs may not get through: {error}", link.name);
            }
            let (link, vips) = (link.clone(), vips.to_vec());
            tokio::spawn(async move {
                if let Err(error) = announce::send_gratuitous(&link, &vips).await {
                    warn!("VIPs were not announced on {}: {error}", link.name);
                }
            });
        }
    }

    /// Takes one piece of news in; says whether it changes anything.
    fn take_event(&mut self, event: &Event) -> bool {
        let known = self.config.services.iter().find(|s| s.name == event.key.service);
        if known.is_none_or(|s| s.backends.iter().all(|b| b.name != event.key.backend)) {
            return false;
        }
        let changed = self.health.update(&event.key, event.status.clone());
        let joined = self.join();
        self.touched.add(&event.key.service);
        if changed {
            let (service, backend) = (&event.key.service, &event.key.backend);
            info!("{service}/{backend} is {:?}: {}", event.status.state, event.status.reason);
        }
        changed || joined
    }

    /// SIGHUP: the file as it is.
    fn reload(&mut self) {
        match self.change(&Transaction::new(What::File, Author::daemon(Via::Signal))) {
            Ok(change) => info!("SIGHUP: {}", change.message),
            Err(error) => warn!("SIGHUP: {}", error.detail),
        }
    }

    /// What is balanced and where, in one line for the service manager.
    fn summary(&self) -> String {
        let interfaces: Vec<_> =
            self.attachments.iter().map(|at| format!("{} ({})", at.interface, at.mode)).collect();
        let backends: usize = self.config.services.iter().map(|s| s.backends.len()).sum();
        format!("{} services, {backends} backends on {}", self.config.services.len(), interfaces.join(", "))
    }

    fn say_hello(&self, adopted: bool) {
        self.check_way_back();
        let capacity = self.installer.memory().capacity();
        let cpus = aya::util::nr_cpus().map_or(1, |n| n as u32);
        info!(
            "instance {:?}: {} services, {} backends, {} MiB of tables, generation {}{}",
            self.name,
            self.config.services.len(),
            self.config.services.iter().map(|s| s.backends.len()).sum::<usize>(),
            capacity.bytes(cpus) >> 20,
            self.generation,
            if adopted { ", taken over from an earlier daemon" } else { "" }
        );
        for Attachment { interface, mode, reason, .. } in &self.attachments {
            info!("{interface}: {mode} mode ({reason})");
        }
        if self.seed_is_own {
            warn!("no hash_seed is configured: this balancer made its own and is not part of a group");
        }
    }
}

/// Blocks until `future` is done, on a runtime of its own: for commands that are no daemon.
pub(super) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(future)
}
