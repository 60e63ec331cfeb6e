//! The resolving task: hears of changes, looks up what they may touch, publishes when a verdict changed.
//!
//! The order inside a turn matters: events are taken in first, then one reconciliation works on everything that
//! they made doubtful, however many they were. What arrives meanwhile waits in the kernel's buffer for the next turn.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use rtnetlink::{
    MulticastGroup,
    packet_route::{
        RouteNetlinkMessage,
        route::{RouteAddress, RouteAttribute, RouteMessage},
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{
    Options, Snapshot, Wanted,
    neighbours::Neighbours,
    verdict::{self, Target},
};
use crate::net::{
    NetError, Netlink,
    links::Inventory,
    netlink::{Event, EventSocket},
    route::{self, Route},
};

/// Everything is looked up again this often, for what the kernel does not announce (path MTU exceptions).
const REFRESH: Duration = Duration::from_secs(30);
/// After a publication: bounds how often thousands of targets that resolve one by one are copied.
const BREATH: Duration = Duration::from_millis(10);
/// After a failed socket.
const RECONNECT: Duration = Duration::from_millis(500);
/// A round of look-ups is followed by a rest of this many times its own length, so that a storm of route changes
/// takes at most a fifth of one CPU.
const REST_FACTOR: u32 = 4;

/// The task's ends of the channels to its [`super::Resolver`].
pub(super) struct Channels {
    pub(super) links: watch::Receiver<Arc<Inventory>>,
    pub(super) wanted: watch::Receiver<Wanted>,
    pub(super) release: mpsc::Receiver<oneshot::Sender<usize>>,
    pub(super) publish: watch::Sender<Arc<Snapshot>>,
}

/// The task's sockets, both in the network namespace of the thread that opened them.
pub(super) struct Sockets {
    events: EventSocket,
    netlink: Netlink,
}

impl Sockets {
    pub(super) fn open(options: Options) -> Result<Self, NetError> {
        let groups = [
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
            MulticastGroup::Nexthop,
        ];
        let events = EventSocket::open(&groups, options.event_buffer_bytes)?;
        Ok(Self { events, netlink: Netlink::connect()? })
    }
}

/// What has to be done again.
#[derive(Default)]
struct Doubts {
    /// The neighbour table.
    neighbours: bool,
    /// Routes of every target.
    all_routes: bool,
    /// Routes of these targets.
    routes: BTreeSet<IpAddr>,
    /// Verdicts.
    verdicts: bool,
}

struct Worker {
    channels: Channels,
    /// The set and the call number that `targets` is of.
    wanted: Wanted,
    targets: BTreeMap<IpAddr, Target>,
    neighbours: Neighbours,
    doubts: Doubts,
    /// No look-ups before this moment.
    rest_until: Instant,
    /// Everything is in doubt from this moment on.
    refresh_at: Instant,
    /// Neighbours want to be asked again at this moment.
    ask_at: Option<Instant>,
}

/// Why a session ended.
enum End {
    /// The resolver is gone or has released everything.
    Done,
    Failed(NetError),
}

/// Runs until the resolver is dropped or released; opens new sockets when they fail.
pub(super) async fn run(options: Options, first: Sockets, channels: Channels) {
    let mut worker = Worker {
        channels,
        wanted: Wanted::default(),
        targets: BTreeMap::new(),
        neighbours: Neighbours::new(options.managed),
        doubts: Doubts::default(),
        rest_until: Instant::now(),
        refresh_at: Instant::now() + REFRESH,
        ask_at: None,
    };
    let mut sockets = first;
    loop {
        match worker.session(&mut sockets).await {
            End::Done => return,
            End::Failed(error) => log::warn!("following next hops: {error}; starting again"),
        }
        sockets = loop {
            sleep(RECONNECT).await;
            match Sockets::open(options) {
                Ok(sockets) => break sockets,
                Err(error) => log::warn!("following next hops: {error}; trying again"),
            }
        };
        worker.doubt_everything();
    }
}

impl Worker {
    async fn session(&mut self, sockets: &mut Sockets) -> End {
        loop {
            self.take_targets();
            match self.reconcile(&sockets.netlink).await {
                Ok(true) => sleep(BREATH).await,
                Ok(false) => {}
                Err(error) => return End::Failed(error),
            }
            let wake = self.next_wake();
            tokio::select! {
                events = sockets.events.recv() => match events {
                    Ok(events) => events.iter().for_each(|event| self.note(event)),
                    Err(error) => return End::Failed(error),
                },
                changed = self.channels.wanted.changed() => if changed.is_err() {
                    return End::Done;
                },
                changed = self.channels.links.changed() => {
                    if changed.is_err() {
                        return End::Done;
                    }
                    // The kernel drops IPv4 routes of a link or an address that goes away without a word.
                    self.doubts.all_routes = true;
                    self.doubts.verdicts = true;
                },
                reply = self.channels.release.recv() => {
                    let Some(reply) = reply else { return End::Done };
                    return self.release(&sockets.netlink, reply).await;
                },
                () = sleep_until(wake) => {}
            }
            if self.refresh_at <= Instant::now() {
                self.doubts.all_routes = true;
                self.refresh_at = Instant::now() + REFRESH;
            }
        }
    }

    async fn release(&mut self, netlink: &Netlink, reply: oneshot::Sender<usize>) -> End {
        match self.neighbours.release_all(netlink).await {
            Ok(released) => {
                if reply.send(released).is_err() {
                    log::debug!("{released} neighbours released, and nobody asks any more");
                }
                End::Done
            }
            Err(error) => {
                log::warn!("releasing neighbours: {error}");
                End::Done
            }
        }
    }

    fn doubt_everything(&mut self) {
        self.doubts = Doubts { neighbours: true, all_routes: true, verdicts: true, ..Doubts::default() };
    }

    fn next_wake(&self) -> Instant {
        let mut wake = self.refresh_at;
        if self.doubts.neighbours || self.doubts.all_routes || !self.doubts.routes.is_empty() {
            wake = wake.min(self.rest_until);
        }
        self.ask_at.map_or(wake, |ask_at| wake.min(ask_at))
    }

    /// Takes over a new set of targets: those that stay keep what is known of them.
    fn take_targets(&mut self) {
        let wanted = self.channels.wanted.borrow_and_update().clone();
        if wanted.call == self.wanted.call {
            return;
        }
        self.targets.retain(|ip, _| wanted.targets.contains(ip));
        let new = wanted.targets.iter().filter(|ip| !self.targets.contains_key(ip));
        self.doubts.routes.extend(new);
        self.doubts.routes.retain(|ip| wanted.targets.contains(ip));
        self.doubts.verdicts = true;
        self.wanted = wanted;
        // An operator who adds a backend does not wait for the end of a route storm.
        self.rest_until = Instant::now();
    }

    /// Works out what a notification puts in doubt.
    fn note(&mut self, event: &Event) {
        match event {
            Event::Lost => self.doubt_everything(),
            Event::NextHopObject => self.doubts.all_routes = true,
            Event::Changed(message) => match message {
                RouteNetlinkMessage::NewNeighbour(message) => {
                    self.doubts.verdicts |= self.neighbours.apply(message, false);
                }
                RouteNetlinkMessage::DelNeighbour(message) => {
                    self.doubts.verdicts |= self.neighbours.apply(message, true);
                }
                RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
                    self.note_route(message);
                }
                RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => {
                    self.doubts.all_routes = true;
                }
                _ => {}
            },
        }
    }

    /// A route touches the targets inside its prefix and no other.
    fn note_route(&mut self, message: &RouteMessage) {
        match destination(message) {
            // With everything in doubt there is nothing to add.
            _ if self.doubts.all_routes => {}
            Some(net) => {
                let inside = self.targets.range(net.network()..=net.broadcast()).map(|(ip, _)| *ip);
                self.doubts.routes.extend(inside);
            }
            None => self.doubts.all_routes = true,
        }
    }

    /// Settles all doubts, as far as the rest allows; says whether something was published.
    async fn reconcile(&mut self, netlink: &Netlink) -> Result<bool, NetError> {
        // Not marked as seen: only the branch that puts routes in doubt may do that.
        let links = Arc::clone(&self.channels.links.borrow());
        let started = Instant::now();
        if started >= self.rest_until && self.look_up(netlink).await? {
            self.rest_until = Instant::now() + started.elapsed() * REST_FACTOR;
        }
        // All that can change who is to be asked puts verdicts in doubt, too.
        if self.doubts.verdicts || self.ask_at.is_some_and(|ask_at| ask_at <= Instant::now()) {
            let (asked, ask_at) = self.neighbours.ensure(netlink, &links).await?;
            self.doubts.verdicts |= asked;
            self.ask_at = ask_at;
        }
        Ok(self.publish(&links))
    }

    /// Looks up what is in doubt; says whether there was anything.
    async fn look_up(&mut self, netlink: &Netlink) -> Result<bool, NetError> {
        let doubts = std::mem::take(&mut self.doubts);
        self.doubts.verdicts = doubts.verdicts;
        let routes = if doubts.all_routes { BTreeSet::clone(&self.wanted.targets) } else { doubts.routes };
        let targets_left = self.wanted.call != self.channels.publish.borrow().answers;
        if routes.is_empty() && !doubts.neighbours && !targets_left {
            return Ok(false);
        }
        for ip in routes {
            let route = route::lookup(netlink, ip).await?;
            self.put_route(ip, route);
        }
        let needed = self.targets.iter().filter_map(|(ip, target)| target.neighbour(*ip)).collect();
        self.neighbours.use_only(netlink, &needed).await?;
        if doubts.neighbours {
            self.neighbours.read(netlink).await?;
        }
        self.doubts.verdicts = true;
        Ok(true)
    }

    fn put_route(&mut self, ip: IpAddr, route: Route) {
        let oif = match &route {
            Route::Via(via) => Some(via.oif),
            Route::Local | Route::None(_) => None,
        };
        let last_oif = oif.or_else(|| self.targets.get(&ip).and_then(|target| target.last_oif));
        self.targets.insert(ip, Target { route, last_oif });
    }

    /// Judges all targets and publishes if a verdict or the set changed; says whether it did.
    fn publish(&mut self, links: &Inventory) -> bool {
        if !std::mem::take(&mut self.doubts.verdicts) {
            return false;
        }
        let mut next = Snapshot { answers: self.wanted.call, ..Snapshot::default() };
        for (ip, target) in &self.targets {
            let neighbour = target.neighbour(*ip).and_then(|key| self.neighbours.get(&key));
            let (resolution, waiting) = verdict::judge(*ip, target, links, neighbour);
            next.entries.insert(*ip, resolution);
            next.pending += usize::from(waiting);
        }
        self.channels.publish.send_if_modified(|current| {
            next.generation = current.generation;
            let changed = **current != next;
            if changed {
                next.generation += 1;
                *current = Arc::new(std::mem::take(&mut next));
            }
            changed
        })
    }
}

/// The prefix that a route is for; `None` when it may be for anything, as a default route, which carries none.
fn destination(message: &RouteMessage) -> Option<IpNet> {
    let ip = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    IpNet::new(ip, message.header.destination_prefix_length).ok()
}
