//! Next hops: for each backend address the interface and the MAC addresses to send to, followed live.
//!
//! ```text
//! set_targets ─►  worker task  ─► watch<Snapshot> ─► the daemon writes backend records
//!                   │ route look-ups (route.rs)      per target, repeated when routes, links or addresses change
//!                   │ neighbours (neighbours.rs)     per (interface, router or target): state, and the "managed" mark
//!                   └ verdict (verdict.rs)           pure: route + link + neighbour → Resolution, in words
//! ```
//! XDP cannot wait for ARP, so every neighbour must be resolved before its first packet and stay so. The kernel does
//! that by itself for neighbours with the "managed" mark (`NTF_EXT_MANAGED`, Linux 5.16); where it is refused, a
//! timer asks the kernel to use (and so to probe) the neighbour.
//!
//! Memory: one record per target and one per neighbour in use; notifications wait in a bounded kernel buffer, and
//! are replaced by a full reading when that overflows.
//!
//! After a failed socket the task opens new ones on whatever thread it runs then: the threads of one process are
//! taken to share a network namespace.

mod entry;
mod neighbours;
mod verdict;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    Mac, NetError, Netlink, Task,
    links::{Inventory, InventoryWatch},
    netlink::EVENT_BUFFER_BYTES,
};

/// Where packets for one target go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Interface that packets leave through.
    pub ifindex: u32,
    /// The neighbour that is asked for its MAC address: a router, or the target itself when it is on the link.
    pub gateway: IpAddr,
    /// Destination of the Ethernet header: the neighbour's MAC address.
    pub dmac: Mac,
    /// Source of the Ethernet header: the interface's own MAC address.
    pub smac: Mac,
    /// Source address that the route prefers, in the family of the target; unspecified (`0.0.0.0`, `::`) when this
    /// host has no address to give, which matters only to a tunnel without `tunnel_source`.
    pub source: IpAddr,
    /// Bytes of IP packet that fit: the smaller of the route's and the interface's MTU.
    pub mtu: u32,
}

/// What is known of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Packets can be sent.
    Resolved(NextHop),
    /// They cannot.
    Unresolved {
        /// Why, in words for an operator: "198.51.100.11: no ARP answer on eth0".
        reason: String,
    },
}

impl Resolution {
    /// The next hop, if there is one.
    #[must_use]
    pub fn next_hop(&self) -> Option<&NextHop> {
        match self {
            Self::Resolved(next_hop) => Some(next_hop),
            Self::Unresolved { .. } => None,
        }
    }
}

/// What is known of all targets at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Counts up with every snapshot.
    pub generation: u64,
    /// The last [`Resolver::set_targets`] call that this snapshot answers, by the number it returned.
    pub answers: u64,
    /// One entry per target.
    pub entries: BTreeMap<IpAddr, Resolution>,
    /// Targets whose neighbour has been asked and may still answer: unresolved for now.
    pub pending: usize,
}

/// Handle to the resolving task, which ends when this is dropped.
///
/// Dropping leaves the marks in the kernel's neighbour table, so that neighbours stay resolved for a datapath that
/// goes on without the daemon; [`Resolver::release`] and [`release_leftovers`] remove them.
#[derive(Debug)]
pub struct Resolver {
    links: InventoryWatch,
    wanted: watch::Sender<Wanted>,
    calls: AtomicU64,
    release: mpsc::Sender<oneshot::Sender<usize>>,
    current: watch::Receiver<Arc<Snapshot>>,
    _task: Task,
}

/// The last call of [`Resolver::set_targets`].
#[derive(Clone, Debug, Default)]
struct Wanted {
    call: u64,
    targets: Arc<BTreeSet<IpAddr>>,
}

/// What tests turn.
#[derive(Clone, Copy, Debug)]
struct Options {
    /// Receive buffer of the change socket, in bytes.
    event_buffer_bytes: usize,
    /// Whether the kernel is asked to manage neighbours; else the timer does.
    managed: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { event_buffer_bytes: EVENT_BUFFER_BYTES, managed: true }
    }
}

impl Resolver {
    /// Starts following the network namespace of the calling thread, with no targets yet. Needs a tokio runtime.
    ///
    /// The receiver wakes on every change of the [`Snapshot`]; changes in quick succession arrive as one.
    ///
    /// # Errors
    /// When the kernel gives no socket or no answer. Later failures are logged and tried again, with the last
    /// snapshot left standing.
    pub async fn start() -> Result<(Self, watch::Receiver<Arc<Snapshot>>), NetError> {
        Self::start_with(Options::default()).await
    }

    async fn start_with(options: Options) -> Result<(Self, watch::Receiver<Arc<Snapshot>>), NetError> {
        let links = InventoryWatch::start().await?;
        let (wanted, wanted_receiver) = watch::channel(Wanted::default());
        let (release, release_receiver) = mpsc::channel(1);
        let (publish, current) = watch::channel(Arc::new(Snapshot::default()));
        let channels = worker::Channels {
            links: links.subscribe(),
            wanted: wanted_receiver,
            release: release_receiver,
            publish,
        };
        let sockets = worker::Sockets::open(options)?;
        let task = Task(tokio::spawn(worker::run(options, sockets, channels)));
        let resolver =
            Self { links, wanted, calls: AtomicU64::new(0), release, current: current.clone(), _task: task };
        Ok((resolver, current))
    }

    /// Replaces the set of addresses to resolve and returns the number of this call, which the snapshot that
    /// answers it carries in [`Snapshot::answers`].
    pub fn set_targets(&self, targets: BTreeSet<IpAddr>) -> u64 {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        self.wanted.send_if_modified(|wanted| {
            let newer = call > wanted.call;
            if newer {
                *wanted = Wanted { call, targets: Arc::new(targets) };
            }
            newer
        });
        call
    }

    /// What is known of `ip` now; `None` when it is not a target, or only just became one.
    #[must_use]
    pub fn get(&self, ip: IpAddr) -> Option<Resolution> {
        self.current.borrow().entries.get(&ip).cloned()
    }

    /// What is known of all targets now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.borrow())
    }

    /// Another receiver of the snapshots.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.clone()
    }

    /// Interfaces and local addresses, which the resolver follows as well.
    #[must_use]
    pub fn links(&self) -> watch::Receiver<Arc<Inventory>> {
        self.links.subscribe()
    }

    /// Waits until the last set of targets has been looked up and every neighbour has answered or failed, at most
    /// `limit`; returns the snapshot at that point. For a daemon that would rather start with resolved backends.
    pub async fn settled(&self, limit: Duration) -> Arc<Snapshot> {
        let call = self.calls.load(Ordering::Relaxed);
        let mut current = self.current.clone();
        let settled = current.wait_for(|snapshot| snapshot.answers >= call && snapshot.pending == 0);
        // Late or not, what there is now is the answer.
        drop(timeout(limit, settled).await);
        self.snapshot()
    }

    /// Removes what this resolver put into the kernel's neighbour table and ends: entries it made are deleted,
    /// entries it found and marked go back to what they were. Returns how many were released.
    ///
    /// # Errors
    /// When the task does not answer.
    pub async fn release(self) -> Result<usize, NetError> {
        let what = || "release neighbours".to_owned();
        let (reply, released) = oneshot::channel();
        self.release.send(reply).await.map_err(|_| NetError::Closed { what: what() })?;
        released.await.map_err(|_| NetError::Closed { what: what() })
    }
}

/// Removes every mark and entry that any resolver left in the neighbour table of the calling thread's network
/// namespace, for example one whose daemon was killed. Returns how many were released.
///
/// Neighbours that another running instance still needs are marked again by it at once.
///
/// # Errors
/// When the kernel gives no socket, no answer, or refuses to list neighbours.
pub async fn release_leftovers() -> Result<usize, NetError> {
    neighbours::release_leftovers(&Netlink::connect()?).await
}

/// A resolver with a small receive buffer, or without managed neighbours.
#[cfg(test)]
pub(super) async fn start_for_tests(
    event_buffer_bytes: usize,
    managed: bool,
) -> Result<(Resolver, watch::Receiver<Arc<Snapshot>>), NetError> {
    Resolver::start_with(Options { event_buffer_bytes, managed }).await
}
