//! The tables as the datapath sees them.

use super::{
    limit,
    track::{self, FlowEvent, Query},
};
use crate::{
    abi::{BUCKET_ENTRIES, Backend, Globals, QuicConfig, Reply, Service, Vip6},
    aes::{self, Block},
};

/// Eight bytes shared by all CPUs and user space.
pub trait Word {
    /// A plain load.
    fn load(&self) -> u64;
    /// A plain store.
    fn store(&self, new: u64);
    /// Stores `new` if the word still is `old`; says whether it did.
    fn replace(&self, old: u64, new: u64) -> bool;
}

/// Everything the balancer looks up. In XDP a zero-sized type over the maps, on the host memory.
///
/// Each look-up is one array access; `None` is an index out of range, which the tables as user space writes them
/// never lead to.
pub trait Tables: Sized {
    /// A word of a bucket.
    type Word: Word;

    /// The generation in force. Read once per packet.
    fn globals(&self) -> Option<&Globals>;
    /// A cell of the IPv4 VIP table.
    fn vip4(&self, index: u32) -> Option<u64>;
    /// A cell of the IPv6 VIP table.
    fn vip6(&self, index: u32) -> Option<&Vip6>;
    /// A cell of the port table.
    fn port(&self, index: u32) -> Option<u64>;
    /// A service.
    fn service(&self, index: u32) -> Option<&Service>;
    /// Four slots.
    fn slots(&self, index: u32) -> Option<u64>;
    /// Old owner and last exception of a slot.
    fn slot_meta(&self, index: u32) -> Option<u32>;
    /// Candidates of a slot besides its owner.
    fn candidates(&self, index: u32) -> Option<u64>;
    /// Writes the time of the last exception of a slot.
    fn stamp_slot(&self, index: u32, time: u16);
    /// A bucket of the flow table.
    fn flow_bucket(&self, index: u32) -> Option<&[Self::Word; BUCKET_ENTRIES]>;
    /// A bucket of the flow table from before its size was changed.
    fn old_flow_bucket(&self, index: u32) -> Option<&[Self::Word; BUCKET_ENTRIES]>;
    /// Counts something that happened there.
    fn count_flow(&self, event: FlowEvent);
    /// [`super::track::select`] for the service at `service`: the program may put it behind a call, because packets
    /// of settled slots, which are nearly all, never come here.
    fn track(&self, globals: &Globals, service: &Service, query: Query) -> u16 {
        let now = track::seconds(globals, self.jiffies());
        let in_old = globals.flow_old != 0 && track::bring(self, globals, service, now, query.hash);
        track::select(self, globals, service, now, query, in_old)
    }
    /// [`super::limit::allows`]; behind a call for the same reason.
    fn admits(&self, globals: &Globals, service: &Service, source: u64) -> bool {
        limit::allows(self, globals, service, source)
    }
    /// A member of a service.
    fn backend(&self, index: u32) -> Option<&Backend>;
    /// A cell of the table of replies.
    fn reply(&self, index: u32) -> Option<&Reply>;
    /// A configuration of QUIC connection IDs.
    fn quic(&self, index: u32) -> Option<&QuicConfig>;
    /// Encrypts a block with the key of a configuration; behind a call, since a connection ID takes four of them.
    fn encrypt(&self, config: &QuicConfig, block: Block) -> Block {
        aes::encrypt(&config.encrypt, block)
    }
    /// Decrypts a block with the key of a configuration; behind a call too.
    fn decrypt(&self, config: &QuicConfig, block: Block) -> Block {
        aes::decrypt(&config.decrypt, block)
    }
    /// A bucket of the rate limiter.
    fn limit_bucket(&self, index: u32) -> Option<&[Self::Word; BUCKET_ENTRIES]>;
    /// The coarse clock: kernel ticks since boot.
    fn jiffies(&self) -> u64;
    /// The fine clock: nanoseconds since boot.
    fn nanoseconds(&self) -> u64;
    /// MAC address of an interface the program is attached to.
    fn interface_mac(&self, ifindex: u32) -> Option<[u8; 6]>;
}
