//! Frames without end.

use std::collections::VecDeque;

use super::{bend::bend, grammar::ethernet, scene::Scene, sentences::SENTENCES, source::Random};

/// Longest frame: BPF_PROG_TEST_RUN takes a page less headroom and tailroom.
const LONGEST: usize = 3000;

/// Makes frames.
pub struct Frames<'s> {
    random: Random,
    scene: &'s Scene,
    corpus: &'s [Vec<u8>],
    /// What is left of a sentence of several.
    waiting: VecDeque<Vec<u8>>,
}

impl<'s> Frames<'s> {
    /// In this scene, with these frames for a part of them.
    pub fn new(scene: &'s Scene, corpus: &'s [Vec<u8>], seed: u64) -> Self {
        assert!(!corpus.is_empty(), "there is nothing to begin with");
        Self { random: Random::new(seed), scene, corpus, waiting: VecDeque::new() }
    }

    fn sentence(&mut self) -> Vec<u8> {
        if self.waiting.is_empty() {
            let sentence = self.random.weighted(SENTENCES);
            for packet in sentence(&mut self.random, self.scene) {
                let frame = ethernet(&mut self.random, &packet);
                self.waiting.push_back(frame);
            }
        }
        self.waiting.pop_front().unwrap_or_default()
    }

    fn of_the_cases(&mut self) -> Vec<u8> {
        self.corpus[self.random.below(self.corpus.len())].clone()
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = self.random.below(200);
        let mut frame = self.random.bytes(length);
        if let Some(place) = frame.get_mut(12..14) {
            place.copy_from_slice(&self.random.one_of(&[[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0]]));
        }
        frame
    }
}

impl Iterator for Frames<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut frame = match self.random.below(20) {
            0 => self.noise(),
            1..7 => self.of_the_cases(),
            _ => self.sentence(),
        };
        // Half of them stay as they are, or as good as they were.
        let bends = self.random.one_of(&[0, 0, 0, 0, 1, 1, 2, 4]);
        for _ in 0..bends {
            let other = self.random.below(self.corpus.len());
            bend(&mut self.random, self.scene, &self.corpus[other], &mut frame);
        }
        frame.truncate(LONGEST);
        Some(frame)
    }
}
