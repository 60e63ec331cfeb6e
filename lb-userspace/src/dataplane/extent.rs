//! First-fit allocation of ranges in an arena whose content lives in the kernel.

use std::collections::BTreeMap;

/// A range of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Extent {
    /// First element.
    pub(super) start: u32,
    /// Number of elements; an empty extent is nowhere.
    pub(super) length: u32,
}

/// Which ranges of an arena are free.
#[derive(Debug)]
pub(super) struct Arena {
    /// Start → length, neither adjacent nor overlapping.
    free: BTreeMap<u32, u32>,
    capacity: u32,
    granule: u32,
}

impl Arena {
    /// An arena of `capacity` elements; every extent starts at and is rounded up to a multiple of `granule`.
    pub(super) fn new(capacity: u32, granule: u32) -> Self {
        let usable = capacity - capacity % granule;
        Self { free: BTreeMap::from([(0, usable)]), capacity: usable, granule }
    }

    /// Elements in all.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Elements that are not free.
    pub(super) fn used(&self) -> u32 {
        self.capacity - self.free.values().sum::<u32>()
    }

    fn rounded(&self, length: u32) -> Option<u32> {
        length.checked_next_multiple_of(self.granule)
    }

    /// Takes `length` elements, or `None` when no free range is long enough.
    pub(super) fn allocate(&mut self, length: u32) -> Option<Extent> {
        if length == 0 {
            return Some(Extent::default());
        }
        let rounded = self.rounded(length)?;
        let (&start, &room) = self.free.iter().find(|(_, room)| **room >= rounded)?;
        self.free.remove(&start);
        if room > rounded {
            self.free.insert(start + rounded, room - rounded);
        }
        Some(Extent { start, length })
    }

    /// Takes exactly this range, as found in adopted maps. `false` when any of it is taken or outside.
    pub(super) fn reserve(&mut self, extent: Extent) -> bool {
        if extent.length == 0 {
            return true;
        }
        let Some(rounded) = self.rounded(extent.length) else { return false };
        let Some((&start, &room)) = self.free.range(..=extent.start).next_back() else { return false };
        let Some(end) = extent.start.checked_add(rounded) else { return false };
        if end > start + room || !extent.start.is_multiple_of(self.granule) {
            return false;
        }
        self.free.remove(&start);
        if extent.start > start {
            self.free.insert(start, extent.start - start);
        }
        if start + room > end {
            self.free.insert(end, start + room - end);
        }
        true
    }

    /// Gives an extent back.
    pub(super) fn release(&mut self, extent: Extent) {
        if extent.length == 0 {
            return;
        }
        let Some(mut length) = self.rounded(extent.length) else { return };
        let mut start = extent.start;
        if let Some((&before, &room)) = self.free.range(..start).next_back()
            && before + room == start
        {
            self.free.remove(&before);
            start = before;
            length += room;
        }
        if let Some(room) = self.free.remove(&(start + length)) {
            length += room;
        }
        self.free.insert(start, length);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Arena, Extent};

    #[test]
    fn reuses_and_joins() {
        let mut arena = Arena::new(103, 4);
        assert_eq!(arena.capacity(), 100);
        let a = arena.allocate(5).expect("room");
        let b = arena.allocate(4).expect("room");
        assert_eq!((a.start, b.start, arena.used()), (0, 8, 12));
        assert_eq!(arena.allocate(1000), None);
        arena.release(a);
        arena.release(b);
        assert_eq!(arena.used(), 0);
        assert_eq!(arena.allocate(100), Some(Extent { start: 0, length: 100 }));
    }

    #[test]
    fn reserve_refuses_what_is_taken_or_crooked() {
        let mut arena = Arena::new(64, 4);
        assert!(arena.reserve(Extent { start: 8, length: 6 }));
        assert!(!arena.reserve(Extent { start: 12, length: 4 }));
        assert!(!arena.reserve(Extent { start: 60, length: 8 }));
        assert!(!arena.reserve(Extent { start: 2, length: 2 }));
        assert_eq!(arena.allocate(12), Some(Extent { start: 16, length: 12 }));
    }

    proptest! {
        #[test]
        fn extents_never_overlap_and_nothing_is_lost(steps in prop::collection::vec((any::<bool>(), 1u32..40), 1..200)) {
            let mut arena = Arena::new(1000, 4);
            let mut held: Vec<Extent> = Vec::new();
            for (take, n) in steps {
                if take {
                    if let Some(e) = arena.allocate(n) {
                        for other in &held {
                            prop_assert!(e.start >= other.start + other.length || other.start >= e.start + e.length);
                        }
                        held.push(e);
                    }
                } else if !held.is_empty() {
                    arena.release(held.swap_remove(n as usize % held.len()));
                }
                let expected: u32 = held.iter().map(|e| e.length.next_multiple_of(4)).sum();
                prop_assert_eq!(arena.used(), expected);
            }
        }
    }
}
