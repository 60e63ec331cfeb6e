//! The race that fills a table: each member takes the slots it is first to reach, until it has its share.
//!
//! The outcome is defined without an algorithm: of all (member, slot) pairs, in order of arrival, each that finds its
//! slot free and its member in want is kept. (A stable matching with capacities; both sides rank by arrival, so there
//! is exactly one.) What follows only finds it fast:
//! - While many slots are free, members run: their next places are looked up in a bitmap that the first-level cache
//!   holds. All members of one weight take a step at the same time, so where there are few weights, steps of whole
//!   groups are taken in order of time. Where there are many, the visits of a window of time are collected and sorted.
//! - When few slots are free nearly all visits are in vain, so the question is turned round: each free slot asks the
//!   members still in want when they would come (arrivals can be computed from either end), and the earliest wins.
//!
//! Where to change over is a matter of cost alone; the tests move it about and get the same table.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
};

use super::rendezvous::{Clock, Rendezvous, Runner, Slot};
use lanes::{Course, LANE_SHIFT, Lanes, Line, TIME_SHIFT, WORDS, follow, mark_taken, meet, sort_visits};

mod lanes;

/// Lanes that are looked up before any of them is served.
const BLOCK: usize = 64;
/// From so many lanes a group on average, groups take steps; below, visits are sorted.
const GROUP: usize = 48;
/// Memory that one build leaves to the next: about 140 KiB, up to 14 bytes per slot and 100 per member
/// of the largest.
#[derive(Debug)]
pub struct Scratch {
    /// A bit per slot.
    taken: Box<[u64; WORDS]>,
    lanes: Lanes,
    course: Course,
    times: Vec<u64>,
    visits: Vec<u64>,
    sorted: Vec<u64>,
    asked: Vec<Asked>,
    offers: Vec<Reverse<Offer>>,
    /// When each group takes its next step.
    queue: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            taken: Box::new([0; WORDS]),
            lanes: Lanes::default(),
            course: Course::default(),
            times: Vec::new(),
            visits: Vec::new(),
            sorted: Vec::new(),
            asked: Vec::new(),
            offers: Vec::new(),
            queue: BinaryHeap::new(),
        }
    }
}

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

/// A slot's earliest arrival: time, lane, slot.
type Offer = (u64, u32, u32);

/// What a look-up costs, in tenths of a nanosecond on a server of 2021; only the ratios matter, and only to time.
#[derive(Clone, Copy, Debug)]
struct Price {
    /// A member's visit to a slot.
    visit: u64,
    /// A slot's question to a member; more than one question's price, as members that have enough refuse.
    question: u64,
    /// What a slot costs besides when it asks.
    slot: u64,
}

const PRICE_EVEN: Price = Price { visit: 16, question: 35, slot: 600 };
const PRICE_UNEVEN: Price = Price { visit: 25, question: 60, slot: 600 };

/// Fills the free ([`super::rendezvous::EMPTY`]) slots of `table`, whose length is the order's. `wants`: members with how many slots they
/// take at most, in order of rank, each with a weight above 0. Slots that nobody wants any more stay empty.
pub(super) fn run(
    order: &Rendezvous,
    wants: impl Iterator<Item = (Slot, u32)>,
    table: &mut [Slot],
    scratch: &mut Scratch,
) {
    Race::new(order, wants, table, scratch).run(None);
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
        let even = scratch.lanes.groups.len() <= 1;
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
        let mut window = (0, self.order.clock.window_bits);
        let mut sparse = self.even;
        while self.free > 0 && !self.scratch.lanes.wants.is_empty() && !time_to_ask(self) {
            let (lanes, groups) = (self.scratch.lanes.wants.len(), self.scratch.lanes.groups.len());
            if sparse || lanes >= GROUP * groups {
                self.steps(&mut window.0);
            } else {
                // Where those who remain are a thousand times slower than those the clock was made for, a window may
                // be as good as empty, and the next step far away.
                sparse = self.window(&mut window) < groups && window.1 == Clock::WINDOW_BITS;
            }
            self.scratch.lanes.remove_spent();
        }
        if self.free > 0 {
            self.ask();
        }
    }

    /// Whether the next slot costs less by asking than by a run, in which one visit in (slots / free) finds it.
    fn asking_is_cheaper(&self) -> bool {
        let (free, lanes) = (u64::from(self.free), self.scratch.lanes.wants.len() as u64);
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
        for (line, want) in lanes.lines.iter_mut().zip(&lanes.wants) {
            line.offset = u64::from(product);
            product = modulus.mul(product, order.runner(want.member).scale);
        }
        let mut inverse = modulus.invert(product);
        for (line, want) in lanes.lines.iter_mut().zip(&lanes.wants).rev() {
            let runner = order.runner(want.member);
            let scale = modulus.mul(inverse, line.offset as u32);
            let offset = modulus.mul(scale, order.slots() - runner.offset);
            inverse = modulus.mul(inverse, runner.scale);
            *line = Line {
                scale: modulus.fraction(u64::from(scale)),
                offset: modulus.fraction(u64::from(offset)),
            };
        }
        course.start(!self.even);
    }

    /// Some steps of whole groups, in order of time; `now` is when the last one was taken.
    fn steps(&mut self, now: &mut u64) {
        let order = self.order;
        let Scratch { lanes, taken, visits, course, queue, .. } = &mut *self.scratch;
        visits.resize(visits.len().max(BLOCK), 0);
        queue.clear();
        let count = lanes.groups.len();
        queue
            .extend((0..count).filter_map(|i| Some(Reverse((lanes.groups[i].next_time(course, order)?, i)))));
        let mut steps = 0;
        while steps < 1024 && self.free > 0 {
            let Some(mut soonest) = queue.peek_mut() else { break };
            let Reverse((time, i)) = *soonest;
            *now = time;
            let group = &mut lanes.groups[i];
            let (place, range) = (course.places[group.to], group.first..group.first + group.lanes);
            group.from = group.to;
            group.to += 1;
            match group.next_time(course, order) {
                Some(time) => *soonest = Reverse((time, i)),
                None => drop(PeekMut::pop(soonest)),
            }
            for first in range.clone().step_by(BLOCK) {
                let block = &lanes.lines[first..range.end.min(first + BLOCK)];
                let found = meet(order.modulus, block, place, taken, (first as u64) << LANE_SHIFT, visits);
                self.free -= lanes.serve(&visits[..found], taken, self.table);
            }
            steps += range.len();
        }
    }

    /// All visits before the end of the window that have not been; how many.
    fn window(&mut self, (from, bits): &mut (u64, u32)) -> usize {
        let (order, from_time) = (self.order, *from);
        let until = from_time + (1 << *bits);
        let Scratch { lanes, taken, course, times, visits, sorted, .. } = &mut *self.scratch;
        let (mut len, mut made) = (0, 0);
        for group in &mut lanes.groups {
            group.advance(course, order, until);
            let places = &course.places[group.from..group.to];
            let time = |&run: &u64| (order.clock.at_pace(run, group.pace) - from_time) << TIME_SHIFT;
            made += places.len() * group.lanes;
            times.clear();
            times.extend(course.runs[group.from..group.to].iter().map(time));
            for lane in group.first..group.first + group.lanes {
                if visits.len() < len + places.len() {
                    visits.resize(2 * (len + places.len()), 0);
                }
                let (line, key) = (lanes.lines[lane], (lane as u64) << LANE_SHIFT);
                len += follow(order.modulus, line, places, taken, (times, key), &mut visits[len..]);
            }
        }
        sort_visits(&mut visits[..len], sorted, TIME_SHIFT + *bits);
        self.free -= lanes.serve(&visits[..len], taken, self.table);
        *from = until;
        if len < 1 << 13 && *bits < Clock::WINDOW_BITS {
            *bits += 1;
        }
        made
    }

    /// Gives each free slot to the first member in want that would come to it.
    fn ask(&mut self) {
        let (order, even) = (self.order, self.even);
        let Scratch { lanes, taken, asked, offers, .. } = &mut *self.scratch;
        asked.clear();
        let in_want = (0..).zip(&lanes.wants).filter(|(_, want)| want.left > 0);
        asked.extend(in_want.map(|(lane, want)| Asked::new(order, want.member, lane)));
        offers.clear();
        for (word, first) in taken.iter().zip((0..order.slots()).step_by(64)) {
            let mut open = !word;
            while open > 0 {
                offers.extend(earliest(order, asked, first + open.trailing_zeros(), even));
                open &= open - 1;
            }
        }
        let mut queue = BinaryHeap::from(std::mem::take(offers));
        // In order of arrival over all slots, so that a member's last wish goes to whom it belongs.
        while let Some(Reverse((_, lane, slot))) = queue.pop() {
            if lanes.wants[lane as usize].left == 0 {
                queue.extend(earliest(order, asked, slot, even));
                continue;
            }
            self.free -= lanes.serve(&[u64::from(lane) << LANE_SHIFT | u64::from(slot)], taken, self.table);
            if lanes.wants[lane as usize].left == 0 {
                asked.retain(|other| other.lane != lane);
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

impl Asked {
    fn new(order: &Rendezvous, member: Slot, lane: u32) -> Self {
        let &Runner { scale, offset, pace, .. } = order.runner(member);
        Self {
            scale: order.modulus.fraction(u64::from(scale)),
            offset: order.modulus.fraction(u64::from(offset)),
            pace,
            slope: order.clock.slope(pace),
            lane,
        }
    }
}

#[cfg(test)]
mod tests;
