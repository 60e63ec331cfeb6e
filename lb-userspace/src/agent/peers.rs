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
    /// Number of the last call that said who they are.
    call: u64,
}

impl Peers {
    /// Without peers yet.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub(super) async fn start() -> Result<Self, NetError> {
        let (resolver, changes) = Resolver::start().await?;
        Ok(Self { resolver, changes, peers: BTreeSet::new(), call: 0 })
    }

    /// Replaces the peers.
    pub(super) fn set(&mut self, peers: &[IpAddr]) {
        let peers: BTreeSet<IpAddr> = peers.iter().copied().collect();
        if peers != self.peers {
            self.call = self.resolver.set_targets(peers.clone());
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

    /// The way to each peer as known now; `None`: it is being looked for, and one from an earlier agent may still lead
    /// there.
    pub(super) fn ways(&mut self) -> BTreeMap<IpAddr, Option<Way>> {
        let snapshot = Arc::clone(&self.changes.borrow_and_update());
        let is_complete = snapshot.answers >= self.call && snapshot.pending == 0;
        let way = |peer: &IpAddr| match snapshot.entries.get(peer).and_then(Resolution::next_hop) {
            Some(next) => {
                Some(Way { ifindex: next.ifindex, dmac: next.dmac, smac: next.smac, mtu: next.mtu })
            }
            None => is_complete.then_some(Way::UNKNOWN),
        };
        self.peers.iter().map(|peer| (*peer, way(peer))).collect()
    }
}
