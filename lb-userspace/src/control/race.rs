//! The race that fills a table: each member takes the slots it is first to reach, until it has its share.
//!
//! The outcome is defined without an algorithm: of all (member, slot) pairs, in order of arrival, each that finds its
//! slot free and its member in want is kept. (A stable matching with capacities; arrivals are a ranking that both
//! sides share, so there is exactly one.) What follows only finds it fast:
//! - While many slots are free, members run: their next places are looked up in a bitmap that the first-level cache
//!   holds. Where all have one pace, a step of each in turn *is* the order of arrival. Otherwise the visits of a
//!   window of time are collected and sorted.
//! - When few slots are free nearly all visits are in vain, so the question is turned round: each free slot asks the
//!   members still in want when they would come (arrivals can be computed from either end), and the earliest wins.
//!
//! Where to change over is a matter of cost alone; the tests move it about and get the same table.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::arith::Modulus;
use super::rendezvous::{Clock, EMPTY, MAX_SLOTS, Rendezvous, Runner, Slot};

/// Words of the bitmap; a power of two, so that a masked index needs no check.
const WORDS: usize = (MAX_SLOTS as usize + 1).next_power_of_two() / 64;
/// A window grows when fewer visits than that come to a free slot.
/// Lanes that are looked up before any of them is served.
const BLOCK: usize = 64;
const WINDOW_VISITS: usize = 1 << 14;
/// Bits of a slot number, and the mask for them.
const SLOT_BITS: u32 = 20;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;
/// A visit to be sorted: time in the window, lane, slot, from the top.
const LANE_SHIFT: u32 = SLOT_BITS;
const LANE_BITS: u32 = 14;
const TIME_SHIFT: u32 = LANE_SHIFT + LANE_BITS;
/// Bits of a digit of the sort.
const DIGIT_BITS: u32 = 9;

/// Memory that one build leaves to the next: about 150 KiB, and 16 bytes per slot and 80 per member of the largest.
#[derive(Debug)]
pub struct Scratch {
    taken: Box<[u64; WORDS]>,
    lanes: Lanes,
    course: Course,
    visits: Vec<u64>,
    sorted: Vec<u64>,
    asked: Vec<Asked>,
    offers: Vec<Reverse<Offer>>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            taken: Box::new([0; WORDS]),
            lanes: Lanes::default(),
            course: Course::default(),
            visits: Vec::new(),
            sorted: Vec::new(),
            asked: Vec::new(),
            offers: Vec::new(),
        }
    }
}

/// A slot's earliest arrival: time, lane, slot. Lanes are in order of rank.
type Offer = (u64, u32, u32);

/// A member that is asked when it would come, and its lane.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// Fractions of the modulus: the place of a slot is the residue of `scale · slot + offset`.
    scale: u64,
    offset: u64,
    pace: u64,
    /// [`Clock::slope`].
    slope: u64,
    lane: u32,
}

/// The members in the race, in order of rank: one array per use, as a build is bound by what the caches bring.
#[derive(Debug, Default)]
struct Lanes {
    lines: Vec<Line>,
    /// Slots that the member still wants.
    left: Vec<u32>,
    member: Vec<Slot>,
    /// Index of the member's pace among `paces`.
    pace: Vec<Slot>,
    /// The different paces.
    paces: Vec<Pace>,
    /// How many want none and have not been removed yet.
    spent: usize,
}

/// The slot at a place is the residue of `scale · place + offset`: fractions of the modulus.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    scale: u64,
    offset: u64,
}

/// How far all members of one pace have run.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// [`Runner::pace`].
    pace: u64,
    /// Visits of the course before the current window, and with it.
    from: u32,
    to: u32,
}

/// The steps of a course that lead somewhere, as far as somebody has run.
#[derive(Debug, Default)]
struct Course {
    /// The next step to be looked at.
    step: u32,
    places: Vec<u32>,
    /// [`Clock::run`] of each.
    runs: Vec<u64>,
}

/// What a look-up costs, in tenths of a nanosecond on a server of 2021; only the ratios matter, and only to time.
#[derive(Clone, Copy, Debug)]
struct Price {
    /// A member's visit to a slot.
    visit: u64,
    /// A slot's question to a member.
    question: u64,
    /// What a slot costs besides when it asks.
    slot: u64,
}

const PRICE_EVEN: Price = Price { visit: 16, question: 35, slot: 600 };
const PRICE_UNEVEN: Price = Price { visit: 25, question: 60, slot: 600 };

/// Fills the free ([`EMPTY`]) slots of `table`, whose length is the order's. `wants`: members with how many slots they
/// take at most, in order of rank, each with a weight above 0. Slots that nobody wants any more stay empty.
pub(super) fn run(
    order: &Rendezvous,
    wants: impl Iterator<Item = (Slot, u32)>,
    table: &mut [Slot],
    scratch: &mut Scratch,
) {
    Race::new(order, wants, table, scratch).run(None);
}

/// Sets the bit of every slot that has an owner, and of those beyond the end; counts the others.
#[inline(never)]
fn mark_taken(table: &[Slot], taken: &mut [u64; WORDS]) -> u32 {
    taken.fill(u64::MAX);
    let mut free = 0;
    for (word, slots) in taken.iter_mut().zip(table.chunks(64)) {
        let open = slots.iter().rev().fold(0, |bits, &slot| bits << 1 | u64::from(slot == EMPTY));
        *word = !open;
        free += open.count_ones();
    }
    free
}

struct Race<'a> {
    order: &'a Rendezvous,
    table: &'a mut [Slot],
    scratch: &'a mut Scratch,
    /// Free slots.
    free: u32,
    /// All members have one pace.
    even: bool,
}

impl<'a> Race<'a> {
    fn new(
        order: &'a Rendezvous,
        wants: impl Iterator<Item = (Slot, u32)>,
        table: &'a mut [Slot],
        scratch: &'a mut Scratch,
    ) -> Self {
        let free = mark_taken(table, &mut scratch.taken);
        scratch.lanes.fill(order, wants);
        let even = scratch.lanes.paces.len() <= 1;
        Self { order, table, scratch, free, even }
    }

    /// `change_at`: ask when so few slots are free; otherwise when that is cheaper.
    fn run(&mut self, change_at: Option<u32>) {
        let time_to_ask = |race: &Self| match change_at {
            Some(free) => race.free <= free,
            None => race.asking_is_cheaper(),
        };
        if !time_to_ask(self) {
            self.line_up();
        }
        let mut from = 0;
        let mut bits = self.order.clock.window_bits;
        while self.free > 0 && self.scratch.lanes.len() > 0 && !time_to_ask(self) {
            if self.even {
                // A few hundred visits between two looks at the cost.
                for _ in 0..256usize.div_ceil(self.scratch.lanes.len()) {
                    self.step_together();
                }
            } else {
                let visits = self.window(from, bits);
                from += 1 << bits;
                if visits < WINDOW_VISITS && bits < Clock::WINDOW_BITS {
                    bits += 1;
                }
            }
            self.scratch.lanes.remove_spent();
        }
        if self.free > 0 {
            self.ask();
        }
    }

    /// Compares what is left of the run, slots · ln(free) visits, with asking every lane for every free slot.
    fn asking_is_cheaper(&self) -> bool {
        let (free, lanes) = (u64::from(self.free), self.scratch.lanes.len() as u64);
        let price = if self.even { PRICE_EVEN } else { PRICE_UNEVEN };
        free * (lanes * price.question + price.slot) < u64::from(self.order.slots()) * price.visit
    }

    /// Puts everybody on the start: turns each member's map from slots to places round.
    fn line_up(&mut self) {
        let (order, modulus) = (self.order, self.order.modulus);
        let Scratch { lanes, course, .. } = &mut *self.scratch;
        // One inversion for all: invert the product of the scales, then take them off one by one. `offset` keeps the
        // product of the scales before.
        let mut product = 1;
        for (line, &member) in lanes.lines.iter_mut().zip(&lanes.member) {
            line.offset = u64::from(product);
            product = modulus.mul(product, order.runner(member).scale);
        }
        let mut inverse = modulus.invert(product);
        for (line, &member) in lanes.lines.iter_mut().zip(&lanes.member).rev() {
            let runner = order.runner(member);
            let scale = modulus.mul(inverse, line.offset as u32);
            let offset = modulus.mul(scale, order.slots() - runner.offset);
            line.scale = modulus.fraction(u64::from(scale));
            line.offset = modulus.fraction(u64::from(offset));
            inverse = modulus.mul(inverse, runner.scale);
        }
        course.start();
    }

    /// One step of every lane.
    #[inline(never)]
    fn step_together(&mut self) {
        let modulus = self.order.modulus;
        let Some(place) = self.scratch.course.next_place(self.order) else { return };
        let Scratch { lanes, taken, .. } = &mut *self.scratch;
        for first in (0..lanes.len()).step_by(BLOCK) {
            let mut hits = [0; BLOCK];
            let lines = &lanes.lines[first..lanes.len().min(first + BLOCK)];
            let count = find_free_together(modulus, lines, place, taken, &mut hits);
            for &hit in &hits[..count] {
                let lane = first + (hit >> SLOT_BITS) as usize;
                self.free -= lanes.offer(lane, hit & SLOT_MASK, taken, self.table);
            }
        }
    }

    /// All visits before `from` + 2^bits that have not been; says how many came to a free slot.
    #[inline(never)]
    fn window(&mut self, from: u64, bits: u32) -> usize {
        let (modulus, clock) = (self.order.modulus, self.order.clock);
        let until = from + (1 << bits);
        let Scratch { lanes, taken, course, visits, sorted, .. } = &mut *self.scratch;
        lanes.paces.iter_mut().for_each(|pace| pace.advance(course, self.order, until));
        let mut len = 0;
        for (i, (line, &pace)) in (0..).zip(lanes.lines.iter().zip(&lanes.pace)) {
            let Pace { from, to, .. } = lanes.paces[usize::from(pace)];
            if visits.len() < len + (to - from) as usize {
                visits.resize(2 * (len + (to - from) as usize), 0);
            }
            let key = u64::from(from) << TIME_SHIFT | i << LANE_SHIFT;
            let places = &course.places[from as usize..to as usize];
            len += find_free(modulus, *line, places, taken, key, &mut visits[len..]);
        }
        for visit in &mut visits[..len] {
            let run = course.runs[(*visit >> TIME_SHIFT) as usize];
            let lane = (*visit >> LANE_SHIFT) as usize % (1 << LANE_BITS);
            let pace = lanes.paces[usize::from(lanes.pace[lane])].pace;
            let time = clock.at_pace(run, pace) - from;
            *visit = (time << TIME_SHIFT) | (*visit % (1 << TIME_SHIFT));
        }
        sort_visits(&mut visits[..len], sorted, TIME_SHIFT + bits);
        for &visit in &visits[..len] {
            let lane = (visit >> LANE_SHIFT) as usize % (1 << LANE_BITS);
            self.free -= lanes.offer(lane, visit as u32 & SLOT_MASK, taken, self.table);
        }
        len
    }

    /// Gives each free slot to the first member in want that would come to it.
    #[inline(never)]
    fn ask(&mut self) {
        let (order, even) = (self.order, self.even);
        let Scratch { lanes, taken, asked, offers, .. } = &mut *self.scratch;
        asked.clear();
        let in_want = (0..).zip(lanes.left.iter().zip(&lanes.member)).filter(|(_, (left, _))| **left > 0);
        asked.extend(in_want.map(|(lane, (_, &member))| Asked::new(order, order.runner(member), lane)));
        offers.clear();
        for (word, first) in taken.iter().zip((0..order.slots()).step_by(64)) {
            let mut open = !word;
            while open > 0 {
                offers.extend(earliest(order, asked, first + open.trailing_zeros(), even));
                open &= open - 1;
            }
        }
        let mut queue = BinaryHeap::from(std::mem::take(offers));
        // In order of arrival over all slots, so that a member's last place goes to whom it belongs.
        while let Some(Reverse((_, lane, slot))) = queue.pop() {
            let lane = lane as usize;
            if lanes.left[lane] == 0 {
                queue.extend(earliest(order, asked, slot, even));
                continue;
            }
            self.free -= lanes.offer(lane, slot, taken, self.table);
            if lanes.left[lane] == 0 {
                asked.retain(|other| other.lane as usize != lane);
            }
        }
        *offers = queue.into_vec();
    }
}

/// Who of the asked comes to the slot first, and when.
fn earliest(order: &Rendezvous, asked: &[Asked], slot: u32, even: bool) -> Option<Reverse<Offer>> {
    let (mut best, mut who) = (u64::MAX, None);
    for member in asked {
        let place = member.scale.wrapping_mul(u64::from(slot)).wrapping_add(member.offset);
        let step = order.shuffle.step(order.modulus.residue(place));
        let time = if even {
            u64::from(step)
        } else if u64::from(step) * member.slope > best.saturating_add(Clock::ALLOWANCE) {
            continue; // and spare the logarithm
        } else {
            order.clock.time(step, member.pace)
        };
        if time < best {
            (best, who) = (time, Some(member.lane));
        }
    }
    who.map(|lane| Reverse((best, lane, slot)))
}

impl Line {
    #[inline]
    fn slot(self, modulus: Modulus, place: u32) -> u32 {
        modulus.residue(self.scale.wrapping_mul(u64::from(place)).wrapping_add(self.offset))
    }
}

impl Pace {
    /// Goes on to the first visit that is not before `until`.
    fn advance(&mut self, course: &mut Course, order: &Rendezvous, until: u64) {
        let is_before = |run: u64| order.clock.at_pace(run, self.pace) < until;
        // The guess: as far as in the last window.
        let mut to = 2 * self.to as usize - self.from as usize;
        while course.runs.len() <= to && course.extend(order) {}
        to = to.min(course.runs.len());
        while to > self.to as usize && !is_before(course.runs[to - 1]) {
            to -= 1;
        }
        while (to < course.runs.len() || course.extend(order)) && is_before(course.runs[to]) {
            to += 1;
        }
        (self.from, self.to) = (self.to, to as u32);
    }
}

impl Asked {
    fn new(order: &Rendezvous, runner: &Runner, lane: u32) -> Self {
        Self {
            scale: order.modulus.fraction(u64::from(runner.scale)),
            offset: order.modulus.fraction(u64::from(runner.offset)),
            pace: runner.pace,
            slope: order.clock.slope(runner.pace),
            lane,
        }
    }
}

impl Lanes {
    fn fill(&mut self, order: &Rendezvous, wants: impl Iterator<Item = (Slot, u32)>) {
        self.left.clear();
        self.member.clear();
        for (member, left) in wants.filter(|&(_, left)| left > 0) {
            self.member.push(member);
            self.left.push(left);
        }
        self.lines.clear();
        self.lines.resize(self.member.len(), Line::default());
        let paces = self.member.iter().map(|&member| order.runner(member).pace);
        let mut known: Vec<u64> = paces.clone().collect();
        known.sort_unstable();
        known.dedup();
        self.pace.clear();
        self.pace.extend(paces.map(|pace| known.partition_point(|&other| other < pace) as Slot));
        self.paces.clear();
        self.paces.extend(known.into_iter().map(|pace| Pace { pace, from: 0, to: 0 }));
        self.spent = 0;
    }

    fn len(&self) -> usize {
        self.member.len()
    }

    /// Hands the slot to the lane's member if the one is free and the other wants it; the number of slots handed out.
    #[inline]
    fn offer(&mut self, lane: usize, slot: u32, taken: &mut [u64; WORDS], table: &mut [Slot]) -> u32 {
        let left = &mut self.left[lane];
        if *left == 0 || !is_free(taken, slot) {
            return 0;
        }
        taken[(slot / 64) as usize % WORDS] |= 1 << (slot % 64);
        table[slot as usize] = self.member[lane];
        *left -= 1;
        self.spent += usize::from(*left == 0);
        1
    }

    /// Lanes that want no more only cost time, so they go when there are enough of them to pay for the copying.
    fn remove_spent(&mut self) {
        if self.spent == 0 || self.spent * 16 < self.len() {
            return;
        }
        let mut keep = self.left.iter().map(|&left| left > 0);
        self.lines.retain(|_| keep.next().unwrap_or(false));
        let mut keep = self.left.iter().map(|&left| left > 0);
        self.member.retain(|_| keep.next().unwrap_or(false));
        let mut keep = self.left.iter().map(|&left| left > 0);
        self.pace.retain(|_| keep.next().unwrap_or(false));
        self.left.retain(|&left| left > 0);
        self.spent = 0;
    }
}

#[inline]
fn is_free(taken: &[u64; WORDS], slot: u32) -> bool {
    taken[(slot / 64) as usize % WORDS] >> (slot % 64) & 1 == 0
}

/// The free slots among the places of one course, each added to `key`; the key's time grows by one per place.
/// `found` has room for all places.
fn find_free(
    modulus: Modulus,
    line: Line,
    places: &[u32],
    taken: &[u64; WORDS],
    key: u64,
    found: &mut [u64],
) -> usize {
    let mut len = 0;
    for (key, &place) in (key..).step_by(1 << TIME_SHIFT).zip(places) {
        let slot = line.slot(modulus, place);
        // No branch: the next find overwrites what turns out to be none.
        found[len] = key | u64::from(slot);
        len += usize::from(is_free(taken, slot));
    }
    len
}

/// The free slots among the slots of many lines at one place, each with its index in `lines` on top.
fn find_free_together(
    modulus: Modulus,
    lines: &[Line],
    place: u32,
    taken: &[u64; WORDS],
    found: &mut [u32; BLOCK],
) -> usize {
    let mut len = 0;
    for (i, line) in (0..).zip(lines) {
        let slot = line.slot(modulus, place);
        found[len % BLOCK] = i << SLOT_BITS | slot;
        len += usize::from(is_free(taken, slot));
    }
    len
}

/// Sorts keys below 2^bits: by their top digits with two counting passes, then by insertion, which has little to do.
#[inline(never)]
fn sort_visits(visits: &mut [u64], other: &mut Vec<u64>, bits: u32) {
    other.resize(other.len().max(visits.len()), 0);
    let other = &mut other[..visits.len()];
    let shift = bits.saturating_sub(2 * DIGIT_BITS);
    let digit = |visit: u64, place: u32| (visit >> (shift + place * DIGIT_BITS)) as usize % (1 << DIGIT_BITS);
    let mut starts = [[0u32; 1 << DIGIT_BITS]; 2];
    for &visit in &*visits {
        starts[0][digit(visit, 0)] += 1;
        starts[1][digit(visit, 1)] += 1;
    }
    for starts in &mut starts {
        let mut sum = 0;
        starts.iter_mut().for_each(|start| (*start, sum) = (sum, sum + *start));
    }
    let mut pass = |from: &[u64], to: &mut [u64], place: u32| {
        for &visit in from {
            let start = &mut starts[place as usize][digit(visit, place)];
            to[*start as usize] = visit;
            *start += 1;
        }
    };
    pass(visits, other, 0);
    pass(other, visits, 1);
    for i in 1..visits.len() {
        let (visit, mut j) = (visits[i], i);
        while j > 0 && visits[j - 1] > visit {
            visits[j] = visits[j - 1];
            j -= 1;
        }
        visits[j] = visit;
    }
}

impl Course {
    fn start(&mut self) {
        self.step = 0;
        self.places.clear();
        self.runs.clear();
    }

    /// The next place that exists; none at the end of the course.
    fn next_place(&mut self, order: &Rendezvous) -> Option<u32> {
        while self.step < order.shuffle.steps() {
            self.step += 1;
            if let Some(place) = order.shuffle.place(self.step - 1) {
                return Some(place);
            }
        }
        None
    }

    /// Some hundred places and times more; false at the end of the course.
    #[inline(never)]
    fn extend(&mut self, order: &Rendezvous) -> bool {
        let known = self.places.len();
        while self.places.len() < known + 256
            && let Some(place) = self.next_place(order)
        {
            self.places.push(place);
            self.runs.push(order.clock.run(self.step - 1));
        }
        self.places.len() > known
    }
}
