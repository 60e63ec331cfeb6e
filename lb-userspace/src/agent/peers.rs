//! Other backends: the ways to them, followed live, for packets of connections that this host does not know.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use tokio::sync::watch;

use crate::{
    dataplane::Way,
    net::{
        NetError,
        nexthop::{Resolution, Resolver, Snapshot},
    },
};

/// The resolver and its targets. The kernel keeps the neighbours resolved when the agent ends, as its program goes on.
pub(super) struct Peers {
    resolver: Resolver,
    changes: watch::Receiver<Arc<Snapshot>>,
    peers: BTreeSet<IpAddr>,
}

impl Peers {
    /// Without peers yet.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub(super) async fn start() -> Result<Self, NetError> {
        let (resolver, changes) = Resolver::start().await?;
        Ok(Self { resolver, changes, peers: BTreeSet::new() })
    }

    /// Replaces the peers.
    pub(super) fn set(&mut self, peers: &[IpAddr]) {
        let peers: BTreeSet<IpAddr> = peers.iter().copied().collect();
        if peers != self.peers {
            self.resolver.set_targets(peers.clone());
            self.peers = peers;
        }
    }

    /// Waits for the next change of a way.
    pub(super) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The resolver lives as long as `self`: this does not happen, and must not spin if it did.
            std::future::pending::<()>().await;
        }
    }

    /// The way to each peer as known now.
    pub(super) fn ways(&mut self) -> BTreeMap<IpAddr, Way> {
        let snapshot = Arc::clone(&self.changes.borrow_and_update());
        let way = |peer: &IpAddr| {
            snapshot.entries.get(peer).and_then(Resolution::next_hop).map(|next| Way {
                ifindex: next.ifindex,
                dmac: next.dmac,
                smac: next.smac,
                mtu: next.mtu,
            })
        };
        self.peers.iter().map(|peer| (*peer, way(peer).unwrap_or(Way::UNKNOWN))).collect()
    }
}
