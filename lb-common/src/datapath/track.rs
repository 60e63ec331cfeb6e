//! State only where the table changed: which member a packet of an unsettled slot goes to.
//!
//! A flow whose slot has not changed owner since before the flow began needs no state: the table gives the same
//! answer every time. Only packets of slots that are not settled (or of services that track always) come here. The
//! rules, and why each is there, are in `docs/connections.md`; an oracle that remembers
//! every flow plays them (`lb-userspace/src/dataplane/oracle.rs`). In short, for a slot that changed its owner a moment ago:
//!
//! - a SYN goes to the new owner and leaves an entry; so does every flow that begins now;
//! - an unknown packet in mid-connection belongs to a connection from before the change: to the old owner, if that is
//!   still there, leaving an entry on probation;
//! - a known flow goes where it always went.
//!
//! An entry is one eight-byte word in a bucket of eight, one cache line. Refreshing is a plain store; inserting is a
//! compare-and-swap, from every CPU and from user space.

use super::{Tables, Word};
use crate::abi::{BUCKET_ENTRIES, Globals, Service, backend_flags, slot, tracking};

/// A word of the flow table: `fingerprint(26) | tag(8) | member(14) | kind(2) | time(14)`; 0 = free.
///
/// The tag stands for the service, so that whoever walks the table knows whose flow an entry is. It is never 0.
pub mod entry {
    /// Made by a SYN; the first packet that is none makes it established.
    pub const SYN: u16 = 0;
    /// Made by a packet in mid-connection; a second one at least a second later makes it established.
    pub const PROBATION: u16 = 1;
    /// A flow that goes on.
    pub const ESTABLISHED: u16 = 2;
    /// A flow that saw a FIN or RST; any other packet makes it established again.
    pub const CLOSING: u16 = 3;

    /// Mask of a time.
    pub const TIME: u16 = 0x3fff;

    /// Fingerprint and tag: what says whose entry it is.
    const KEY: u64 = !((1 << 30) - 1);

    /// The key of a flow of this service, from the upper half of the flow's hash.
    #[inline(always)]
    pub fn key(hash: u64, service: u32) -> u64 {
        (hash >> 38) << 38 | (tag_of(service) as u64) << 30
    }
    /// The tag of a service by its number (1 and above): 1 to 255, different for numbers up to 255.
    #[inline(always)]
    pub fn tag_of(service: u32) -> u8 {
        (service.wrapping_sub(1) % 255) as u8 + 1
    }
    /// Makes a word; of `key` only fingerprint and tag count.
    #[inline(always)]
    pub fn new(key: u64, member: u16, kind: u16, time: u16) -> u64 {
        key & KEY | ((member & 0x3fff) as u64) << 16 | (kind as u64) << 14 | (time & TIME) as u64
    }
    /// Tag of a word.
    #[inline(always)]
    pub fn tag(word: u64) -> u8 {
        (word >> 30) as u8
    }
    /// Whether both words are of the same flow.
    #[inline(always)]
    pub fn is_same(word: u64, other: u64) -> bool {
        (word ^ other) & KEY == 0
    }
    /// Member of a word.
    #[inline(always)]
    pub fn member(word: u64) -> u16 {
        (word >> 16) as u16 & 0x3fff
    }
    /// Kind of a word.
    #[inline(always)]
    pub fn kind(word: u64) -> u16 {
        (word as u16) >> 14
    }
    /// Time of a word: seconds modulo 2^14.
    #[inline(always)]
    pub fn time(word: u64) -> u16 {
        word as u16 & TIME
    }
    /// Seconds from `time` to `now`, modulo 2^14.
    #[inline(always)]
    pub fn age(time: u16, now: u16) -> u16 {
        now.wrapping_sub(time) & TIME
    }
}

/// How long a SYN entry waits for its connection, in seconds: longer than a client waits before its first repeats.
pub const SYN_SECONDS: u16 = 10;
/// How long a closing entry stays, in seconds: answers to a FIN may take a while.
pub const CLOSING_SECONDS: u16 = 60;
/// Within so many seconds of a FIN another packet is the last of its connection (the ACK of the other side's FIN), not
/// a sign of life.
pub const LAST_SECONDS: u16 = 1;

/// What happens in the flow table, counted per CPU. Packets of settled slots never come here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FlowEvent {
    /// A packet found its flow.
    Hit = 0,
    /// A flow found no place: eight established flows in its bucket.
    Refused = 1,
    /// An entry of a SYN or on probation had to leave for another.
    Evicted = 2,
    /// A packet of an unknown flow went to its slot's owner from before the change.
    Inherited = 3,
    /// A packet of a flow whose backend is gone went to another one: that connection is lost.
    Rehashed = 4,
    /// A packet came for an entry that had been silent for too long, and was treated as unknown.
    Expired = 5,
    /// A SYN of a flow that had seen a FIN or RST began at another member: the same tuple again, or a forgery.
    Reopened = 6,
}

impl FlowEvent {
    /// Every event, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Hit,
        Self::Refused,
        Self::Evicted,
        Self::Inherited,
        Self::Rehashed,
        Self::Expired,
        Self::Reopened,
    ];
}

/// What is known of a packet when its slot is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Keyed hash of the flow: the low half picks the bucket, the high half is the fingerprint.
    pub hash: u64,
    /// The slot: state and owner.
    pub slot: u16,
    /// Index of the slot in `SLOTS` and `SLOT_META`.
    pub index: u32,
    /// [`packet`].
    pub packet: u8,
}

/// Values of [`Query::packet`].
pub mod packet {
    /// TCP SYN without ACK: a connection begins.
    pub const SYN: u8 = 0;
    /// TCP in mid-connection, or any packet of a protocol without connections.
    pub const DATA: u8 = 1;
    /// TCP FIN or RST.
    pub const CLOSE: u8 = 2;
    /// TCP in mid-connection, of a service that answers with a reset where the connection is lost.
    pub const RESETTABLE: u8 = 3;
}

/// Bit of what [`select`] says, above the member: the packet is [`packet::RESETTABLE`], and its connection is lost.
pub const LOST: u16 = 1 << 15;

/// A cell of `SLOT_META`: two slots, `stamp(16) | old owner(16)` each, the first in the low half.
pub mod meta {
    /// Makes the word of one slot.
    #[inline(always)]
    pub fn new(old: u16, stamp: u16) -> u32 {
        (stamp as u32) << 16 | old as u32
    }
    /// Owner before the change.
    #[inline(always)]
    pub fn old(word: u32) -> u16 {
        word as u16
    }
    /// Time when a flow was last seen away from the owner.
    #[inline(always)]
    pub fn stamp(word: u32) -> u16 {
        (word >> 16) as u16
    }
}

/// The coarse clock in seconds, modulo 2^14.
#[inline(always)]
pub fn seconds(globals: &Globals, jiffies: u64) -> u16 {
    (jiffies.wrapping_mul(u64::from(globals.seconds_mult)) >> 32) as u16 & entry::TIME
}

/// Which member gets the packet, or [`LOST`]. Never fails: without room for an entry the answer is the same, only not
/// remembered.
///
/// `in_old` is what [`bring`] has said while flows move out of a table of another size, else `false`.
#[inline(always)]
pub fn select<T: Tables>(
    tables: &T,
    globals: &Globals,
    service: &Service,
    now: u16,
    query: Query,
    in_old: bool,
) -> u16 {
    let owner = query.slot & slot::MEMBER;
    let state = query.slot & slot::STATE;
    let Some(bucket) = bucket_of(tables, globals, query.hash, in_old) else { return owner };
    let key = entry::key(query.hash, service.id);
    let lives = lives(service);
    let is_new = query.packet == packet::SYN;
    let found = find(bucket, key);
    if let Some((word, old)) = found
        && !is_expired(lives, old, now)
        && is_alive(tables, service, entry::member(old))
    {
        let new = seen_again(old, owner, query.packet, now);
        if new != old {
            word.store(new);
        }
        let member = entry::member(new);
        if !is_new {
            tables.count_flow(FlowEvent::Hit);
        } else if member != entry::member(old) {
            tables.count_flow(FlowEvent::Reopened);
        }
        stamp(tables, query.index, member, owner, now);
        return member;
    }
    let is_unsettled = state == slot::UNSETTLED;
    let mut member = owner;
    // Its member is gone.
    let mut is_lost = found.is_some_and(|(_, old)| !is_expired(lives, old, now));
    if is_unsettled && !is_new {
        let before = tables.slot_meta(query.index).map_or(owner, meta::old);
        let is_there = is_alive(tables, service, before);
        if is_there {
            member = before;
        }
        is_lost |= !is_there;
        if found.is_none() {
            tables.count_flow(if is_there { FlowEvent::Inherited } else { FlowEvent::Rehashed });
        }
        stamp(tables, query.index, member, owner, now);
    }
    if let Some((_, old)) = found
        && !is_new
    {
        tables.count_flow(if is_expired(lives, old, now) { FlowEvent::Expired } else { FlowEvent::Rehashed });
    }
    if is_lost && query.packet == packet::RESETTABLE {
        // What is known stays: the next packet of this connection gets the same answer.
        return owner | LOST;
    }
    if is_unsettled || service.tracking == tracking::ALWAYS {
        let kind = if is_new { entry::SYN } else { entry::PROBATION };
        let new = entry::new(key, member, kind, now);
        match found {
            // What is left of an earlier flow: it would hide a new entry behind it.
            Some((word, old)) => {
                word.replace(old, new);
            }
            None => {
                insert(tables, lives, bucket, new, now);
            }
        }
    } else if let Some((word, old)) = found {
        // Its member may come back: then it would take away the flow that goes to the owner from now on.
        word.replace(old, 0);
    }
    member
}

/// After a change of the flow table's size: moves the flow's entry, if it still is in the table from before, to its place
/// in the one that is in force. An entry does not have all of its hash, so only a packet of the flow itself can tell where.
///
/// Says whether the flow stays in the old table, because it has found no place in the other one.
#[inline(always)]
pub fn bring<T: Tables>(tables: &T, globals: &Globals, service: &Service, now: u16, hash: u64) -> bool {
    let key = entry::key(hash, service.id);
    let lives = lives(service);
    let Some(from) = bucket_of(tables, globals, hash, true) else { return false };
    let old = value_of(from, key);
    if old == 0 || is_expired(lives, old, now) {
        return false;
    }
    let Some(to) = bucket_of(tables, globals, hash, false) else { return false };
    // What is there is younger.
    if value_of(to, key) != 0 {
        return false;
    }
    if !insert(tables, lives, to, old, now) {
        return true;
    }
    let mut i = 0;
    while i < BUCKET_ENTRIES {
        let Some(word) = from.get(i) else { break };
        word.replace(old, 0);
        i += 1;
    }
    false
}

/// The entry with this key, or 0. A pointer to it would have eight possible values in all that follows, and the verifier
/// would follow each.
#[inline(always)]
fn value_of<W: Word>(bucket: &[W; BUCKET_ENTRIES], key: u64) -> u64 {
    let mut found = 0;
    let mut i = 0;
    while i < BUCKET_ENTRIES {
        let Some(word) = bucket.get(i) else { break };
        let value = word.load();
        if entry::is_same(value, key) {
            found = value;
        }
        i += 1;
    }
    found
}

/// The bucket of a flow with this hash, in the table that is in force or the one from before.
#[inline(always)]
fn bucket_of<'t, T: Tables>(
    tables: &'t T,
    globals: &Globals,
    hash: u64,
    is_old: bool,
) -> Option<&'t [T::Word; BUCKET_ENTRIES]> {
    if is_old {
        return tables.old_flow_bucket(hash as u32 & globals.flow_old.wrapping_sub(1));
    }
    tables.flow_bucket(hash as u32 & globals.flow_mask)
}

/// Seconds after which an entry says nothing any more, 16 bits for each kind. In one word because a choice by
/// arithmetic does not make the verifier follow both ways in every round of a loop.
#[inline(always)]
fn lives(service: &Service) -> u64 {
    let settle = u64::from(service.settle);
    let closing = u64::from(CLOSING_SECONDS.min(service.settle));
    const { assert!(entry::SYN == 0 && entry::PROBATION == 1 && entry::ESTABLISHED == 2 && entry::CLOSING == 3) };
    u64::from(SYN_SECONDS) | settle << 16 | settle << 32 | closing << 48
}

#[inline(always)]
fn is_expired(lives: u64, word: u64, now: u16) -> bool {
    entry::age(entry::time(word), now) > (lives >> (entry::kind(word) * 16)) as u16
}

/// Whether packets of flows that were there before may still go to this member.
#[inline(always)]
fn is_alive<T: Tables>(tables: &T, service: &Service, member: u16) -> bool {
    u32::from(member) < service.backend_count
        && tables
            .backend(service.backend_base.wrapping_add(u32::from(member)))
            .is_some_and(|backend| backend.flags & backend_flags::ALIVE != 0)
}

/// The entry with this key.
#[inline(always)]
fn find<W: Word>(bucket: &[W; BUCKET_ENTRIES], key: u64) -> Option<(&W, u64)> {
    let mut i = 0;
    while i < BUCKET_ENTRIES {
        let word = bucket.get(i)?;
        let value = word.load();
        if entry::is_same(value, key) {
            return Some((word, value));
        }
        i += 1;
    }
    None
}

/// The entry of a flow that was seen again.
///
/// A SYN begins at the owner only after a FIN or RST. A flow that goes on keeps its member, proven or not (an off-path or
/// late SYN must not move a connection; its server answers as RFC 5961 says), and so does one that opens: the answer to
/// its first SYN may be under way. Its time is new, so that the entry does not expire before the SYN's connection begins.
#[inline(always)]
fn seen_again(old: u64, owner: u16, packet: u8, now: u16) -> u64 {
    let (kind, age) = (entry::kind(old), entry::age(entry::time(old), now));
    let mut member = entry::member(old);
    let kind = if packet == packet::SYN && kind == entry::CLOSING {
        member = owner;
        entry::SYN
    } else if packet == packet::SYN {
        kind
    } else if packet == packet::CLOSE {
        entry::CLOSING
    } else if (kind == entry::PROBATION && age == 0) || (kind == entry::CLOSING && age <= LAST_SECONDS) {
        // Not proven yet: keeps its time, so that the proof is a second packet *later*. Or the last of its connection.
        return old;
    } else {
        entry::ESTABLISHED
    };
    entry::new(old, member, kind, now)
}

/// Writes an entry over a free or expired one, else over one that a flood may evict: the oldest on probation first,
/// then the oldest SYN. Established flows are never evicted; without room nothing is written. Lost to another CPU, the
/// flow tries again with its next packet. Says whether it was written.
///
/// The victim is searched twice, first its rank and then its place: a place found in a loop would be a pointer with
/// eight possible values in each of its rounds, and the verifier would follow every sequence of them.
#[inline(always)]
fn insert<T: Tables>(tables: &T, lives: u64, bucket: &[T::Word; BUCKET_ENTRIES], new: u64, now: u16) -> bool {
    let mut best = 0;
    let mut i = 0;
    while i < BUCKET_ENTRIES {
        let Some(word) = bucket.get(i) else { return false };
        let value = word.load();
        if value == 0 || is_expired(lives, value, now) {
            return word.replace(value, new);
        }
        let rank = rank(value, i, now);
        if rank > best {
            best = rank;
        }
        i += 1;
    }
    if best == 0 {
        tables.count_flow(FlowEvent::Refused);
        return false;
    }
    tables.count_flow(FlowEvent::Evicted);
    let mut i = 0;
    while i < BUCKET_ENTRIES {
        let Some(word) = bucket.get(i) else { return false };
        let value = word.load();
        if rank(value, i, now) == best {
            return word.replace(value, new);
        }
        i += 1;
    }
    false
}

/// How willingly the entry at `place` is given up: `1 | kind | age(14) | place(3)`; 0 = never.
#[inline(always)]
fn rank(value: u64, place: usize, now: u16) -> u32 {
    let kind = u32::from(entry::kind(value));
    if kind > u32::from(entry::PROBATION) {
        return 0;
    }
    let age = u32::from(entry::age(entry::time(value), now));
    1 << 18 | kind << 17 | age << 3 | place as u32
}

/// Remembers that a flow of this slot lives elsewhere than at its owner: until that has not been seen for the settling
/// time, the slot must be looked up.
#[inline(always)]
fn stamp<T: Tables>(tables: &T, index: u32, member: u16, owner: u16, now: u16) {
    if member != owner {
        tables.stamp_slot(index, now);
    }
}
