//! The rules of `docs/connections.md`, small enough to visit every state: one slot, three members, one flow.
//!
//! The code is the datapath's own ([`track::select`]) and [`Settling`]. Every action is tried in every state that can be
//! reached, until there are no new ones. What time does to a state depends on ages only, and no age matters beyond the
//! settling time, so there is an end to them. In each state an oracle knows where the flow lives; a packet of it that
//! goes elsewhere while that member is alive is a fault, and is shown with the actions that led there.
//!
//! One flow is enough: others touch it only by stamping its slot and by taking its entry's place, and both are actions
//! that may happen at any time ([`Action::Other`], [`Action::Flood`]). What is excepted here ([`State::allows`],
//! [`State::forget`]) is listed in `docs/connections.md`, section "What is not saved", and nothing else is.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
};

use lb_common::{
    abi::{
        BUCKET_ENTRIES, Backend, Globals, QuicConfig, Reply, Service, Vip6, backend_flags, slot, tracking,
    },
    datapath::{
        Tables, Word,
        track::{self, FlowEvent, Query, entry, meta, packet},
    },
};

use super::{Seconds, Settling, Unsettled, never};

const MEMBERS: u16 = 3;
/// Seconds.
const SETTLE: u16 = 3;
/// Ages beyond are all alike.
const OLD: u16 = SETTLE + 2;
/// The flow's hash.
const HASH: u64 = 1 << 40;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cellular(Cell<u64>);

impl Word for Cellular {
    fn load(&self) -> u64 {
        self.0.get()
    }
    fn store(&self, new: u64) {
        self.0.set(new);
    }
    fn replace(&self, old: u64, new: u64) -> bool {
        let same = self.0.get() == old;
        if same {
            self.0.set(new);
        }
        same
    }
}

/// The flow, while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flow {
    member: u16,
    /// When its last packet was seen that can count as a sign of life.
    seen: Seconds,
    /// Has sent nothing that proves more than its SYN does.
    opens: bool,
    /// Lost its entry on probation to a flood, and has sent nothing since.
    evicted: bool,
}

/// A balancer, the world's part of it, and what the oracle knows.
#[derive(Clone, Debug)]
struct State {
    now: Seconds,
    slot: u16,
    meta: Cell<u32>,
    bucket: [Cellular; BUCKET_ENTRIES],
    backends: [Backend; MEMBERS as usize],
    settling: Settling,
    owner: u16,
    flow: Option<Flow>,
    /// The service answers with a reset where a connection is lost.
    resets: bool,
}

impl Tables for State {
    type Word = Cellular;

    fn globals(&self) -> Option<&Globals> {
        None
    }
    fn vip4(&self, _: u32) -> Option<u64> {
        None
    }
    fn vip6(&self, _: u32) -> Option<&Vip6> {
        None
    }
    fn port(&self, _: u32) -> Option<u64> {
        None
    }
    fn service(&self, _: u32) -> Option<&Service> {
        None
    }
    fn slots(&self, _: u32) -> Option<u64> {
        None
    }
    fn candidates(&self, _: u32) -> Option<u64> {
        None
    }
    fn slot_meta(&self, _: u32) -> Option<u32> {
        Some(self.meta.get())
    }
    fn stamp_slot(&self, _: u32, time: u16) {
        self.meta.set(meta::new(meta::old(self.meta.get()), time));
    }
    fn flow_bucket(&self, _: u32) -> Option<&[Cellular; BUCKET_ENTRIES]> {
        Some(&self.bucket)
    }
    fn old_flow_bucket(&self, _: u32) -> Option<&[Cellular; BUCKET_ENTRIES]> {
        None
    }
    fn count_flow(&self, _: FlowEvent) {}
    fn backend(&self, index: u32) -> Option<&Backend> {
        self.backends.get(index as usize)
    }
    fn reply(&self, _: u32) -> Option<&Reply> {
        None
    }
    fn quic(&self, _: u32) -> Option<&QuicConfig> {
        None
    }
    fn limit_bucket(&self, _: u32) -> Option<&[Cellular; BUCKET_ENTRIES]> {
        None
    }
    fn jiffies(&self) -> u64 {
        0
    }
    fn nanoseconds(&self) -> u64 {
        0
    }
    fn interface_mac(&self, _: u32) -> Option<[u8; 6]> {
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    /// The slot gets another owner: a member came, drains, weighs more.
    Own(u16),
    /// A member fails; its slots go to another one.
    Fail(u16, u16),
    Recover(u16),
    /// The flow's SYN.
    Open,
    Send,
    /// A FIN; the other half may go on.
    Close,
    /// The flow is over, with or without a FIN.
    End,
    /// Packets from elsewhere with the flow's addresses and ports, whether it lives or not. A SYN is also the flow's own,
    /// repeated.
    Spoof(u8),
    /// Another flow of this slot was seen away from the owner.
    Other,
    /// A flood takes the entry's place.
    Flood,
    /// A second passes.
    Pass,
    /// The daemon looks what has settled, and sweeps.
    Tick,
    /// Another daemon takes over.
    Restart,
}

/// What a state is, but for the moment and the names of members: the slot's state; its old owner and stamp; the entry's
/// member, kind and age; who is alive; what user space knows; what the oracle knows.
type Key = (
    u16,
    Option<(u16, u16)>,
    Option<(u16, u16, u16)>,
    [bool; MEMBERS as usize],
    Option<(u16, u16, u16)>,
    Option<(u16, u16, bool, bool)>,
);

impl State {
    fn new(resets: bool) -> Self {
        let alive = Backend { flags: backend_flags::ALIVE, ..Backend::default() };
        let mut state = Self {
            now: 1000,
            slot: 0,
            meta: Cell::new(0),
            bucket: Default::default(),
            backends: [alive; MEMBERS as usize],
            settling: Settling::default(),
            owner: 0,
            flow: None,
            resets,
        };
        state.issue();
        state
    }

    fn is_alive(&self, member: u16) -> bool {
        self.backends[usize::from(member)].flags & backend_flags::ALIVE != 0
    }

    fn is(&self, state: u16) -> bool {
        self.slot & slot::STATE == state
    }

    /// What desired state and installer do.
    fn issue(&mut self) {
        let owners: Arc<[u16]> = Arc::from([self.owner]);
        let issued = self.settling.issue(&owners, true, self.now);
        let was_settled = self.is(slot::SETTLED);
        self.slot = issued.slots[0];
        if let Some(old) = issued.old.get(&0) {
            let stamp = if was_settled { never(self.now) } else { meta::stamp(self.meta.get()) };
            self.meta.set(meta::new(*old, stamp));
        }
    }

    fn send(&self, packet: u8) -> u16 {
        let service = Service {
            backend_count: u32::from(MEMBERS),
            settle: SETTLE,
            tracking: tracking::CHANGES,
            id: 1,
            ..Service::default()
        };
        if self.is(slot::SETTLED) {
            return self.slot & slot::MEMBER;
        }
        let packet = if packet == packet::DATA && self.resets { packet::RESETTABLE } else { packet };
        let query = Query { hash: HASH, slot: self.slot, index: 0, packet };
        track::select(self, &Globals::default(), &service, self.clock(), query, false)
    }

    fn clock(&self) -> u16 {
        self.now as u16 & entry::TIME
    }

    fn age(&self, time: u16) -> u16 {
        entry::age(time, self.clock())
    }

    /// The flow's entry, if it says anything.
    fn known(&self) -> Option<u64> {
        self.bucket.iter().map(Word::load).find(|word| {
            let life = if entry::kind(*word) == entry::SYN { track::SYN_SECONDS } else { SETTLE };
            let is_live = self.age(entry::time(*word)) <= life && self.is_alive(entry::member(*word));
            entry::is_same(*word, entry::key(HASH, 1)) && is_live
        })
    }

    /// A packet of the flow. Says what is wrong.
    fn packet(&mut self, packet: u8) -> Result<(), String> {
        let Some(Flow { member, opens, .. }) = self.flow else { return Ok(()) };
        // Not saved: what comes so soon after a FIN counts as the last of the connection that it ended, also if it is
        // the first of the next one.
        let ended =
            self.known().filter(|word| entry::kind(*word) == entry::CLOSING && packet == packet::DATA);
        let last = ended.map_or(0, |word| self.age(entry::time(word)));
        let seen = if last <= track::LAST_SECONDS { self.now - Seconds::from(last) } else { self.now };
        let got = self.send(packet);
        if got != member {
            return Err(format!("the flow lives on member {member}, its packet went to {got}"));
        }
        // A SYN takes over what an earlier packet from elsewhere left on probation.
        let opens = opens && self.known().is_some_and(|word| entry::kind(word) == entry::PROBATION);
        self.flow = Some(Flow { member, seen, opens, evicted: false });
        Ok(())
    }

    /// Whether the action means anything here.
    fn allows(&self, action: Action) -> bool {
        let kind = self.known().map(entry::kind);
        match action {
            Action::Own(member) => member != self.owner && self.is_alive(member),
            Action::Fail(member, next) => member != next && self.is_alive(member) && self.is_alive(next),
            Action::Recover(member) => !self.is_alive(member),
            Action::Open => self.flow.is_none(),
            Action::Send | Action::Close | Action::End => self.flow.is_some(),
            // Not saved: a flow without an entry in an unsettled slot, which has sent nothing since the change; and one
            // whose entry saw a FIN.
            Action::Spoof(packet::SYN) => match kind {
                None => !self.is(slot::UNSETTLED) || self.flow.is_none(),
                Some(kind) => kind != entry::CLOSING || self.flow.is_none(),
            },
            Action::Spoof(_) => true,
            Action::Other => !self.is(slot::SETTLED),
            // Not saved: a flow that was not proven before the flood came.
            Action::Flood => {
                matches!(kind, Some(entry::SYN | entry::PROBATION))
                    && self.flow.is_none_or(|flow| !flow.opens)
            }
            Action::Pass | Action::Tick | Action::Restart => true,
        }
    }

    fn act(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Own(member) => {
                self.owner = member;
                self.issue();
            }
            Action::Fail(member, next) => {
                self.backends[usize::from(member)].flags = 0;
                if self.owner == member {
                    self.owner = next;
                }
                self.flow = self.flow.filter(|f| f.member != member);
                self.issue();
            }
            Action::Recover(member) => {
                self.backends[usize::from(member)].flags = backend_flags::ALIVE;
                self.issue();
            }
            Action::Open => {
                let member = self.send(packet::SYN);
                assert!(self.is_alive(member), "a new flow went to a member that failed");
                self.flow = Some(Flow { member, seen: self.now, opens: true, evicted: false });
            }
            Action::Send => self.packet(packet::DATA)?,
            Action::Close => self.packet(packet::CLOSE)?,
            Action::End => self.flow = None,
            Action::Spoof(packet) => {
                self.send(packet);
            }
            Action::Other => self.stamp_slot(0, self.clock()),
            Action::Flood => {
                for word in &self.bucket {
                    word.store(0);
                }
                if let Some(flow) = &mut self.flow {
                    flow.evicted = true;
                }
            }
            Action::Pass => self.now += 1,
            Action::Tick => {
                let stamp = meta::stamp(self.meta.get());
                if self.settling.settle(SETTLE, |_| stamp, self.now) {
                    self.issue();
                }
                for word in &self.bucket {
                    if self.age(entry::time(word.load())) > SETTLE {
                        word.store(0);
                    }
                }
            }
            Action::Restart => {
                let word = self.meta.get();
                self.settling = Settling::adopt(&[self.slot], |_| word, self.now);
                self.issue();
            }
        }
        self.forget();
        Ok(())
    }

    /// Flows that are not saved: silent for too long, or evicted before they were proven, and no longer where an unknown
    /// packet goes.
    fn forget(&mut self) {
        let before = meta::old(self.meta.get());
        let unknown = match self.is(slot::UNSETTLED) {
            true if self.is_alive(before) => Some(before),
            true if self.resets => None,
            _ => Some(self.owner),
        };
        let is_lost = |flow: &Flow| flow.evicted && Some(flow.member) != unknown && !self.is(slot::SETTLED);
        let is_silent = |flow: &Flow| self.now - flow.seen > Seconds::from(SETTLE);
        self.flow = self.flow.filter(|flow| !is_silent(flow) && !is_lost(flow));
    }

    /// Members by the order in which the state names them: which is which makes no difference.
    fn order(&self) -> [u16; MEMBERS as usize] {
        let settling = self.settling.slots.get(&0).map(|unsettled| unsettled.old);
        let before = (!self.is(slot::SETTLED)).then(|| meta::old(self.meta.get()));
        let entry = self.bucket.iter().map(Word::load).find(|word| *word != 0).map(entry::member);
        let named = [Some(self.owner), before, settling, entry, self.flow.map(|f| f.member)];
        let alive = (0..MEMBERS).filter(|m| self.is_alive(*m));
        let mut order = [0; MEMBERS as usize];
        let mut seen = Vec::new();
        for member in named.into_iter().flatten().chain(alive).chain(0..MEMBERS) {
            if !seen.contains(&member) {
                order[usize::from(member)] = seen.len() as u16;
                seen.push(member);
            }
        }
        order
    }

    fn key(&self) -> Key {
        let order = self.order();
        let name = |member: u16| order[usize::from(member)];
        let age = |time: u16| self.age(time).min(OLD);
        let since = |time: Seconds| (self.now - time).min(Seconds::from(OLD)) as u16;
        let mut alive = [false; MEMBERS as usize];
        (0..MEMBERS).for_each(|m| alive[usize::from(name(m))] = self.is_alive(m));
        let meta = self.meta.get();
        let word = self.bucket.iter().map(Word::load).find(|word| *word != 0);
        let settling = self.settling.slots.get(&0);
        (
            self.slot & slot::STATE,
            (!self.is(slot::SETTLED)).then(|| (name(meta::old(meta)), age(meta::stamp(meta)))),
            word.map(|word| (name(entry::member(word)), entry::kind(word), age(entry::time(word)))),
            alive,
            settling.map(|Unsettled { old, since: s, state }| (name(*old), since(*s), *state)),
            self.flow.map(|f| (name(f.member), since(f.seen), f.opens, f.evicted)),
        )
    }
}

fn actions() -> Vec<Action> {
    let pairs = (0..MEMBERS).flat_map(|m| (1..MEMBERS).map(move |n| Action::Fail(m, (m + n) % MEMBERS)));
    let members = (0..MEMBERS).flat_map(|m| [Action::Own(m), Action::Recover(m)]).chain(pairs);
    let flow = [Action::Open, Action::Send, Action::Close, Action::End];
    let spoofs = [packet::SYN, packet::DATA, packet::CLOSE].map(Action::Spoof);
    let world = [Action::Other, Action::Flood, Action::Pass, Action::Tick, Action::Restart];
    members.chain(flow).chain(spoofs).chain(world).collect()
}

/// The way to a state, by the numbers of those before it.
fn way(from: &[(usize, Option<Action>)], mut at: usize) -> Vec<Action> {
    let mut way = Vec::new();
    while let (before, Some(action)) = from[at] {
        way.push(action);
        at = before;
    }
    way.reverse();
    way
}

#[test]
fn no_state_that_can_be_reached_moves_a_flow_without_cause() {
    visit(&State::new(false));
}

#[test]
fn no_state_that_can_be_reached_resets_a_flow_without_cause() {
    visit(&State::new(true));
}

/// Tries every action in every state that can be reached from `start`.
fn visit(start: &State) {
    let mut known = HashMap::from([(start.key(), 0)]);
    let mut from = vec![(0, None)];
    let mut states = vec![start.clone()];
    let mut tried = BTreeSet::new();
    let (mut at, mut unsettled, mut exceptions) = (0, 0, 0);
    while at < states.len() {
        unsettled += usize::from(states[at].is(slot::UNSETTLED));
        exceptions += usize::from(states[at].is(slot::EXCEPTIONS));
        for action in actions() {
            if !states[at].allows(action) {
                continue;
            }
            tried.insert(action);
            let mut next = states[at].clone();
            if let Err(fault) = next.act(action) {
                panic!("{fault}, after {:?}, {action:?}\n{:?}", way(&from, at), states[at]);
            }
            let place = states.len();
            if let Entry::Vacant(vacant) = known.entry(next.key()) {
                vacant.insert(place);
                from.push((at, Some(action)));
                states.push(next);
            }
        }
        at += 1;
        assert!(at < 5_000_000, "there is no end to the states");
    }
    let all: BTreeSet<Action> = actions().into_iter().collect();
    assert_eq!(tried, all, "every action means something somewhere");
    assert!(
        unsettled > 5_000 && exceptions > 1_000,
        "{at} states, {unsettled} unsettled, {exceptions} with exceptions"
    );
}
