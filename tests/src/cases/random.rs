//! Random frames: those of the rows, bent, cut and grafted together, and some of nothing but noise.
//!
//! The same seed makes the same frames on every machine.

use super::cast::{ANY_BOTH, FAR4, FAR6, FLOWS, NOBODY, SPREAD, WEB};

/// Seed unless the environment names another.
const SEED: u64 = 0x5eed_0f1b;
/// Longest frame: BPF_PROG_TEST_RUN takes a page less headroom and tailroom.
const LONGEST: usize = 3000;
/// Bytes that hold a meaning somewhere in a header.
const TELLING: [u8; 14] = [0, 1, 4, 6, 17, 41, 44, 58, 0x40, 0x44, 0x46, 0x4f, 0x60, 0xff];

/// The seed that `LB_TEST_SEED` names: a number, or `random`.
pub fn seed() -> u64 {
    match std::env::var("LB_TEST_SEED") {
        Err(_) => SEED,
        Ok(text) if text == "random" => {
            let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            time.as_nanos() as u64
        }
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("LB_TEST_SEED={text}: a number, or `random`")),
    }
}

/// SplitMix64.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `end`; 0 when there is nothing below it.
    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    fn one_of<'a, T>(&mut self, choice: &'a [T]) -> &'a T {
        &choice[self.below(choice.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Makes frames without end.
pub struct Frames {
    random: Random,
    corpus: Vec<Vec<u8>>,
}

impl Frames {
    /// From these frames and a seed.
    pub fn new(corpus: Vec<Vec<u8>>, seed: u64) -> Self {
        assert!(!corpus.is_empty(), "there is nothing to begin with");
        Self { random: Random(seed), corpus }
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = self.random.below(200);
        let mut frame = self.random.bytes(length);
        let types: [[u8; 2]; 4] = [[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0]];
        if let Some(place) = frame.get_mut(12..14) {
            place.copy_from_slice(self.random.one_of(&types).as_slice());
        }
        frame
    }

    fn bend(&mut self, frame: &mut Vec<u8>) {
        let end = frame.len();
        // Headers are at the front: most changes go there.
        let at =
            if self.random.below(4) == 0 { self.random.below(end) } else { self.random.below(end.min(64)) };
        match self.random.below(10) {
            0 | 1 => self.change(frame, at, |random, byte| byte ^ 1 << random.below(8)),
            2 => self.change(frame, at, |random, _| *random.one_of(&TELLING)),
            3 => self.length(frame),
            4 => frame.truncate(at),
            5 => {
                let more = self.random.below(64);
                let tail = self.random.bytes(more);
                frame.extend(tail);
            }
            6 => {
                let count = self.random.below(24).min(end - at);
                frame.drain(at..at + count);
            }
            7 => {
                let count = self.random.below(24);
                let graft = self.random.bytes(count);
                frame.splice(at..at, graft);
            }
            8 => {
                let other = self.random.one_of(&self.corpus);
                let from = at.min(other.len());
                frame.truncate(at);
                frame.extend(&other[from..]);
            }
            _ => self.destination(frame),
        }
    }

    fn change(&mut self, frame: &mut [u8], at: usize, to: fn(&mut Random, u8) -> u8) {
        if let Some(byte) = frame.get_mut(at) {
            *byte = to(&mut self.random, *byte);
        }
    }

    /// A length field that is right, nearly right or far off.
    fn length(&mut self, frame: &mut [u8]) {
        let held = frame.len().saturating_sub(14);
        let values = [held, held + 1, held.saturating_sub(1), held.saturating_sub(40), 0, 19, 20, 40, 65_535];
        let value = *self.random.one_of(&values) as u16;
        let at = *self.random.one_of(&[16, 18, 36, 58]);
        if let Some(place) = frame.get_mut(at..at + 2) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    }

    /// A VIP where the destination stands.
    fn destination(&mut self, frame: &mut [u8]) {
        let vip = *self.random.one_of(&[WEB, FAR4, FAR6, SPREAD, FLOWS, ANY_BOTH, NOBODY]);
        if self.random.below(2) == 0 {
            if let Some(place) = frame.get_mut(30..34) {
                place.copy_from_slice(&vip.v4.octets());
            }
        } else if let Some(place) = frame.get_mut(38..54) {
            place.copy_from_slice(&vip.v6.octets());
        }
    }
}

impl Iterator for Frames {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut frame =
            if self.random.below(12) == 0 { self.noise() } else { self.random.one_of(&self.corpus).clone() };
        for _ in 0..self.random.below(5) {
            self.bend(&mut frame);
        }
        frame.truncate(LONGEST);
        Some(frame)
    }
}
