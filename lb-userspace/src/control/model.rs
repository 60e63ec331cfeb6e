//! A snapshot: everything one generation of the datapath holds, and nothing of how it is stored.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::config::{Affinity, Forward, OnFailure, Ports, Protocol, Quic, Rate, Tracking};

/// Everything that one generation holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Key of every hash in the datapath, from the seed.
    pub key: [u64; 4],
    /// Answer ARP and neighbour solicitations for VIPs.
    pub announce: bool,
    /// First eight bytes of the digest of the desired state, for adoption after a restart.
    pub desired_digest: u64,
    /// Ways to make QUIC connection IDs.
    pub quic: Vec<Quic>,
    /// The services, in the order of the configuration. One that did not change is the one of the snapshot before.
    pub services: Vec<Arc<Service>>,
}

/// One service of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Keyed digest of the name, never 0.
    pub identity: u64,
    /// VIPs.
    pub addresses: Vec<IpAddr>,
    /// Ports.
    pub ports: Ports,
    /// Protocols.
    pub protocol: Protocol,
    /// Which fields choose the slot.
    pub affinity: Affinity,
    /// Rate per source; absent = unlimited.
    pub limit: Option<Rate>,
    /// Owner of each slot with health applied (an index into `members`, or `lb_common::abi::slot::EMPTY`) and its
    /// state. Services that hold the same `Arc` share one table in the kernel.
    pub table: Arc<[u16]>,
    /// Slot → old owner, for every slot of `table` that is not settled.
    pub old: Arc<BTreeMap<u32, u16>>,
    /// The next candidates of each slot of `table`, likeliest first: three members of 16 bits each in a word, from the
    /// lowest, `lb_common::abi::slot::EMPTY` for none. Absent: packets name no candidates.
    pub candidates: Option<Arc<[u64]>>,
    /// When flows are remembered.
    pub tracking: Tracking,
    /// What becomes of TCP connections whose member is not alive.
    pub on_failure: OnFailure,
    /// Settling time in seconds, 1 to 7,200.
    pub settle: u16,
    /// Members by their index. An index keeps its member as long as the member exists; `None` is a free index.
    pub members: Vec<Option<Member>>,
}

/// One member of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Keyed digest of name and address, never 0.
    pub identity: u64,
    /// Where packets go.
    pub address: IpAddr,
    /// How packets go.
    pub forward: Forward,
    /// Destination port of UDP outside; only with [`Forward::Gue`].
    pub gue_port: u16,
    /// Port on the backend, where the mode can translate; `None`: the port that the client named.
    pub port: Option<u16>,
    /// What QUIC connection IDs call it, where the service goes by them; never 0.
    pub server_id: Option<u16>,
    /// Whether flows that were there before may still go there: not failed, not down.
    pub alive: bool,
    /// The way there; `None` while it is not known.
    pub hop: Option<Hop>,
    /// Health, as `lb_common::abi::BackendInfo::health` has it.
    pub health: u8,
    /// `CLOCK_REALTIME` seconds of the last health change.
    pub since: u64,
}

/// A resolved way to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Egress interface.
    pub ifindex: u32,
    /// MAC address of the neighbour.
    pub dmac: [u8; 6],
    /// MAC address of the egress interface.
    pub smac: [u8; 6],
    /// Source of the outer header, of the same family as the backend.
    pub source: IpAddr,
    /// Largest IP packet on this way, in bytes.
    pub mtu: u32,
}
