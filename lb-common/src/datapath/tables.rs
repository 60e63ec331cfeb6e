//! The tables as the datapath sees them.

use crate::abi::{BUCKET_ENTRIES, Backend, Globals, Service, Vip6};

/// Eight bytes shared by all CPUs and user space.
pub trait Word {
    /// A plain load.
    fn load(&self) -> u64;
    /// Stores `new` if the word still is `old`; says whether it did.
    fn replace(&self, old: u64, new: u64) -> bool;
}

/// Everything the balancer looks up. In XDP a zero-sized type over the maps, on the host memory.
///
/// Each look-up is one array access; `None` is an index out of range, which the tables as user space writes them
/// never lead to.
pub trait Tables {
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
    /// A member of a service.
    fn backend(&self, index: u32) -> Option<&Backend>;
    /// A bucket of the rate limiter.
    fn limit_bucket(&self, index: u32) -> Option<&[Self::Word; BUCKET_ENTRIES]>;
    /// The coarse clock: kernel ticks since boot.
    fn jiffies(&self) -> u64;
    /// The fine clock: nanoseconds since boot.
    fn nanoseconds(&self) -> u64;
    /// MAC address of an interface the program is attached to.
    fn interface_mac(&self, ifindex: u32) -> Option<[u8; 6]>;
}
