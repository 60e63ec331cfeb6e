//! The neighbours in use: what the kernel knows of them, and the mark that keeps them resolved.
//!
//! Who owns an entry of the kernel's table decides what we may do with it ([`Holder`]). Ours are told apart by their
//! protocol number, which the kernel keeps for us, so that they can be released by another process later.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage},
    },
};
use tokio::time::Instant;

use super::entry::{Holder, Key, MARKED, Neighbour, State, key_of};
use crate::net::{NetError, Netlink, links::Inventory};

/// Least time between two requests about one neighbour: what the kernel or an operator removes comes back, but not
/// in a tight loop.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// The same for neighbours that we keep resolved by using them: a stale one is probed 5 s after its use.
const USE_AGAIN: Duration = Duration::from_secs(5);

/// The neighbours in use.
#[derive(Debug)]
pub(super) struct Neighbours {
    entries: BTreeMap<Key, Neighbour>,
    /// False once the kernel has refused the managed mark as such.
    managed: bool,
}

impl Neighbours {
    pub(super) fn new(managed: bool) -> Self {
        Self { entries: BTreeMap::new(), managed }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Neighbour> {
        self.entries.get(key)
    }

    /// Takes in a notification; says whether there is anything to judge or to ask anew.
    pub(super) fn apply(&mut self, message: &NeighbourMessage, deleted: bool) -> bool {
        let Some(entry) = key_of(message).and_then(|key| self.entries.get_mut(&key)) else { return false };
        let before = (entry.state.clone(), entry.holder, entry.managed);
        if deleted {
            (entry.state, entry.holder, entry.managed) = (State::Absent, Holder::Nobody, false);
        } else {
            entry.learn(message);
        }
        (entry.state.clone(), entry.holder, entry.managed) != before
    }

    /// Makes `needed` the set in use: reads the kernel's table once if there are new ones, releases those gone.
    pub(super) async fn use_only(
        &mut self,
        netlink: &Netlink,
        needed: &BTreeSet<Key>,
    ) -> Result<(), NetError> {
        let gone: Vec<Key> = self.entries.keys().filter(|key| !needed.contains(key)).copied().collect();
        for key in gone {
            if let Some(entry) = self.entries.remove(&key) {
                release(netlink, key, entry.holder).await?;
            }
        }
        if needed.iter().any(|key| !self.entries.contains_key(key)) {
            for key in needed {
                self.entries.entry(*key).or_default();
            }
            self.read(netlink).await?;
        }
        Ok(())
    }

    /// Reads the kernel's table for every neighbour in use: the first time, and after lost notifications.
    pub(super) async fn read(&mut self, netlink: &Netlink) -> Result<(), NetError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let entries = &self.entries;
        let seen: BTreeMap<Key, NeighbourMessage> = dump(netlink, |seen: &mut BTreeMap<_, _>, message| {
            if let Some(key) = key_of(&message).filter(|key| entries.contains_key(key)) {
                seen.insert(key, message);
            }
        })
        .await?;
        for (key, entry) in &mut self.entries {
            match seen.get(key) {
                Some(message) => entry.learn(message),
                None => (entry.state, entry.holder, entry.managed) = (State::Absent, Holder::Nobody, false),
            }
        }
        Ok(())
    }

    /// Asks the kernel to resolve, and to keep resolved, every neighbour that needs it, on links that are up.
    /// Returns whether any was asked, and when to come back for those that it is too early for.
    pub(super) async fn ensure(
        &mut self,
        netlink: &Netlink,
        links: &Inventory,
    ) -> Result<(bool, Option<Instant>), NetError> {
        let (mut asked, mut come_back) = (false, None::<Instant>);
        for (key, entry) in &mut self.entries {
            let usable = links.by_index(key.0).is_some_and(|link| link.up && link.mac.is_some());
            if !usable || entry.holder == Holder::Foreign || (self.managed && entry.managed) {
                continue;
            }
            let pause = if self.managed { ASK_AGAIN } else { USE_AGAIN };
            let due = entry.asked.map(|asked| asked + pause);
            if due.is_none_or(|due| due <= Instant::now()) {
                ask(netlink, *key, entry, &mut self.managed).await?;
                asked = true;
            }
            if !(self.managed && entry.managed) {
                let next = entry.asked.map_or_else(Instant::now, |asked| asked + pause);
                come_back = Some(come_back.map_or(next, |earlier| earlier.min(next)));
            }
        }
        Ok((asked, come_back))
    }

    /// Gives every neighbour back; returns how many were ours.
    pub(super) async fn release_all(&mut self, netlink: &Netlink) -> Result<usize, NetError> {
        let mut released = 0;
        for (key, entry) in std::mem::take(&mut self.entries) {
            released += usize::from(release(netlink, key, entry.holder).await?);
        }
        Ok(released)
    }
}

/// Sends the mark (or the use) for one neighbour and takes note of the outcome.
async fn ask(netlink: &Netlink, key: Key, entry: &mut Neighbour, managed: &mut bool) -> Result<(), NetError> {
    let label = entry.label();
    let mut message = message(key);
    // With the use flag the entry is probed at once also where the extended flags are not known.
    message.header.flags = NeighbourFlags::Use;
    message.attributes.push(NeighbourAttribute::Protocol(label));
    if *managed {
        message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    }
    entry.asked = Some(Instant::now());
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let request = RouteNetlinkMessage::NewNeighbour(message);
    let Err(error) = netlink.request("keep a neighbour resolved", request, flags).await else {
        entry.refusal = None;
        entry.managed = *managed;
        entry.holder = if label == MARKED { Holder::Marked } else { Holder::Made };
        if entry.state == State::Absent {
            entry.state = State::Asking;
        }
        return Ok(());
    };
    match error.refusal() {
        Some(libc::EINVAL | libc::EOPNOTSUPP) if *managed => {
            log::warn!("the kernel refuses managed neighbours; keeping them resolved by a timer");
            *managed = false;
            entry.asked = None;
        }
        Some(errno) => entry.refusal = Some(refusal(errno, key.1)),
        None => return Err(error),
    }
    Ok(())
}

fn refusal(errno: i32, ip: IpAddr) -> String {
    match errno {
        libc::ENOBUFS | libc::ENOMEM => {
            let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
            format!("the kernel's neighbour table is full; raise net.{family}.neigh.default.gc_thresh3")
        }
        libc::EPERM => "asking for its MAC address needs CAP_NET_ADMIN".to_owned(),
        other => {
            let error = std::io::Error::from_raw_os_error(other);
            format!("the kernel refuses to ask for its MAC address: {error}")
        }
    }
}

/// Gives one entry back; says whether it was ours.
async fn release(netlink: &Netlink, key: Key, holder: Holder) -> Result<bool, NetError> {
    let mut message = message(key);
    let (request, flags) = match holder {
        Holder::Nobody | Holder::Foreign => return Ok(false),
        Holder::Made => (RouteNetlinkMessage::DelNeighbour(message), NLM_F_ACK),
        Holder::Marked => {
            // "Use" is the request that leaves everything else as it is and clears the managed mark.
            message.header.flags = NeighbourFlags::Use;
            (RouteNetlinkMessage::NewNeighbour(message), NLM_F_ACK | NLM_F_REPLACE)
        }
    };
    match netlink.request("release a neighbour", request, flags).await {
        Ok(_) => Ok(true),
        // Gone already, with or without its interface.
        Err(error) if error.refusal().is_some() => {
            log::debug!("releasing neighbour {} on interface {}: {error}", key.1, key.0);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// See [`super::release_leftovers`].
pub(super) async fn release_leftovers(netlink: &Netlink) -> Result<usize, NetError> {
    let ours: Vec<(Key, Holder)> = dump(netlink, |ours: &mut Vec<_>, message| {
        let mut entry = Neighbour::default();
        entry.learn(&message);
        // A mark that is released already keeps its label: the kernel cannot take a label off.
        let ours_now = entry.holder == Holder::Made || (entry.holder == Holder::Marked && entry.managed);
        if let Some(key) = key_of(&message).filter(|_| ours_now) {
            ours.push((key, entry.holder));
        }
    })
    .await?;
    let mut released = 0;
    for (key, holder) in ours {
        released += usize::from(release(netlink, key, holder).await?);
    }
    Ok(released)
}

async fn dump<T: Default>(
    netlink: &Netlink,
    mut keep: impl FnMut(&mut T, NeighbourMessage),
) -> Result<T, NetError> {
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    netlink
        .dump("list neighbours", &request, |table, message| {
            if let RouteNetlinkMessage::NewNeighbour(message) = message {
                keep(table, message);
            }
        })
        .await
}

fn message((ifindex, ip): Key) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.attributes.push(NeighbourAttribute::Destination(ip.into()));
    message
}
