//! What the race runs on: lanes with their members, the course that they share, and the visits that come of it.

use super::super::{
    arith::Modulus,
    rendezvous::{EMPTY, MAX_SLOTS, Rendezvous, Slot},
};

/// Words of the bitmap; a power of two, so that a masked index needs no check.
pub(super) const WORDS: usize = (MAX_SLOTS as usize + 1).next_power_of_two() / 64;
/// A visit: time in the window, lane, slot, from the top.
pub(super) const LANE_SHIFT: u32 = 20;
pub(super) const TIME_SHIFT: u32 = LANE_SHIFT + 14;
/// Bits of a digit of the sort.
const DIGIT_BITS: u32 = 9;

/// The members in the race, in order of rank, and so those of one pace together.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    pub(super) lines: Vec<Line>,
    pub(super) wants: Vec<Want>,
    pub(super) groups: Vec<Group>,
    /// How many want nothing and have not been removed yet.
    spent: usize,
}

/// The slot at a place is the residue of `scale · place + offset`: fractions of the modulus.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    pub(super) scale: u64,
    pub(super) offset: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) member: Slot,
    /// Slots that it still wants.
    pub(super) left: u32,
}

/// Lanes of one pace, next to each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// [`Runner::pace`].
    pub(super) pace: u64,
    pub(super) first: usize,
    pub(super) lanes: usize,
    /// Visits of the course before the current window, and with it.
    pub(super) from: usize,
    pub(super) to: usize,
}

/// The steps of a course that lead somewhere, as far as somebody has run.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// The next step to be looked at.
    step: u32,
    pub(super) places: Vec<u32>,
    /// [`Clock::run`] of each, if anybody needs it.
    pub(super) runs: Vec<u64>,
    timed: bool,
}

/// Sets the bit of every slot that has an owner, and of those beyond the end; counts the others.
pub(super) fn mark_taken(table: &[Slot], taken: &mut [u64; WORDS]) -> u32 {
    taken.fill(u64::MAX);
    let mut free = 0;
    for (word, slots) in taken.iter_mut().zip(table.chunks(64)) {
        let open = slots.iter().rev().fold(0, |bits, &slot| bits << 1 | u64::from(slot == EMPTY));
        *word = !open;
        free += open.count_ones();
    }
    free
}

#[inline]
pub(super) fn is_free(taken: &[u64; WORDS], slot: u32) -> bool {
    taken[(slot / 64) as usize % WORDS] >> (slot % 64) & 1 == 0
}

/// The free slots among those of many lines at one place, as visits: `key` plus the index of the line. `found` has
/// room for all.
#[inline]
pub(super) fn meet(
    modulus: Modulus,
    lines: &[Line],
    place: u32,
    taken: &[u64; WORDS],
    key: u64,
    found: &mut [u64],
) -> usize {
    let mut len = 0;
    for (key, line) in (key..).step_by(1 << LANE_SHIFT).zip(lines) {
        let slot = line.slot(modulus, place);
        // No branch: the next find overwrites what turns out to be none.
        found[len] = key | u64::from(slot);
        len += usize::from(is_free(taken, slot));
    }
    len
}

/// The free slots among those of one line at many places, as visits: the time of the place plus `key`. `found` has
/// room for all.
#[inline]
pub(super) fn follow(
    modulus: Modulus,
    line: Line,
    places: &[u32],
    taken: &[u64; WORDS],
    (times, key): (&[u64], u64),
    found: &mut [u64],
) -> usize {
    let mut len = 0;
    for (&place, time) in places.iter().zip(times) {
        let slot = line.slot(modulus, place);
        found[len] = time | key | u64::from(slot);
        len += usize::from(is_free(taken, slot));
    }
    len
}

/// Sorts keys below 2^bits: by their top digits with two counting passes, then by insertion, which has little to do.
pub(super) fn sort_visits(visits: &mut [u64], other: &mut Vec<u64>, bits: u32) {
    other.resize(other.len().max(visits.len()), 0);
    let other = &mut other[..visits.len()];
    let shift = bits.saturating_sub(2 * DIGIT_BITS);
    let digit = |visit: u64, place: usize| {
        (visit >> shift >> (place as u32 * DIGIT_BITS)) as usize % (1 << DIGIT_BITS)
    };
    let mut starts = [[0u32; 1 << DIGIT_BITS]; 2];
    for &visit in &*visits {
        starts[0][digit(visit, 0)] += 1;
        starts[1][digit(visit, 1)] += 1;
    }
    for starts in &mut starts {
        let mut sum = 0;
        starts.iter_mut().for_each(|start| (*start, sum) = (sum, sum + *start));
    }
    let mut pass = |from: &[u64], to: &mut [u64], place: usize| {
        for &visit in from {
            let start = &mut starts[place][digit(visit, place)];
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

impl Line {
    #[inline]
    fn slot(self, modulus: Modulus, place: u32) -> u32 {
        modulus.residue(self.scale.wrapping_mul(u64::from(place)).wrapping_add(self.offset))
    }
}

impl Group {
    /// When the next step is due; none at the end of the course.
    pub(super) fn next_time(&self, course: &mut Course, order: &Rendezvous) -> Option<u64> {
        if self.to == course.runs.len() {
            course.extend(order);
        }
        course.runs.get(self.to).map(|&run| order.clock.at_pace(run, self.pace))
    }

    /// Goes on to the first visit that is not before `until`.
    pub(super) fn advance(&mut self, course: &mut Course, order: &Rendezvous, until: u64) {
        let is_before = |run: u64| order.clock.at_pace(run, self.pace) < until;
        // The guess: as far as in the last window.
        let mut to = 2 * self.to - self.from;
        while course.runs.len() <= to && course.extend(order) {}
        to = to.min(course.runs.len());
        while to > self.to && !is_before(course.runs[to - 1]) {
            to -= 1;
        }
        while (to < course.runs.len() || course.extend(order)) && is_before(course.runs[to]) {
            to += 1;
        }
        (self.from, self.to) = (self.to, to);
    }
}

impl Lanes {
    pub(super) fn fill(&mut self, order: &Rendezvous, wants: impl Iterator<Item = (Slot, u32)>) {
        self.wants.clear();
        self.wants.extend(wants.map(|(member, left)| Want { member, left }).filter(|want| want.left > 0));
        self.lines.clear();
        self.lines.resize(self.wants.len(), Line::default());
        self.groups.clear();
        for (first, want) in self.wants.iter().enumerate() {
            let pace = order.runner(want.member).pace;
            match self.groups.last_mut() {
                Some(group) if group.pace == pace => group.lanes += 1,
                _ => self.groups.push(Group { pace, first, lanes: 1, from: 0, to: 0 }),
            }
        }
        self.spent = 0;
    }

    /// Hands the slots of the visits to those who want them, first come, first served; says how many.
    #[inline]
    pub(super) fn serve(&mut self, visits: &[u64], taken: &mut [u64; WORDS], table: &mut [Slot]) -> u32 {
        let mut served = 0;
        for &visit in visits {
            let slot = visit as u32 % (1 << LANE_SHIFT);
            let want = &mut self.wants[(visit >> LANE_SHIFT) as usize % (1 << (TIME_SHIFT - LANE_SHIFT))];
            if want.left > 0 && is_free(taken, slot) {
                taken[(slot / 64) as usize % WORDS] |= 1 << (slot % 64);
                table[slot as usize] = want.member;
                want.left -= 1;
                self.spent += usize::from(want.left == 0);
                served += 1;
            }
        }
        served
    }

    /// Lanes that want nothing only cost time, so they go when there are enough of them to pay for the copying.
    pub(super) fn remove_spent(&mut self) {
        if self.spent == 0 || self.spent * 16 < self.wants.len() {
            return;
        }
        let mut kept = 0;
        for group in &mut self.groups {
            let first = kept;
            for lane in group.first..group.first + group.lanes {
                if self.wants[lane].left > 0 {
                    self.wants[kept] = self.wants[lane];
                    self.lines[kept] = self.lines[lane];
                    kept += 1;
                }
            }
            (group.first, group.lanes) = (first, kept - first);
        }
        self.wants.truncate(kept);
        self.lines.truncate(kept);
        self.groups.retain(|group| group.lanes > 0);
        self.spent = 0;
    }
}

impl Course {
    pub(super) fn start(&mut self, timed: bool) {
        (self.step, self.timed) = (0, timed);
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
    fn extend(&mut self, order: &Rendezvous) -> bool {
        let known = self.places.len();
        while self.places.len() < known + 256
            && let Some(place) = self.next_place(order)
        {
            self.places.push(place);
            self.runs.push(if self.timed { order.clock.run(self.step - 1) } else { 0 });
        }
        self.places.len() > known
    }
}
