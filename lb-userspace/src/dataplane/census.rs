//! Counts remembered flows by the member that they are on.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
};

use lb_common::datapath::track::entry;

use super::Installer;

impl Installer {
    /// Remembered flows on members with one of these indices, of whatever service, and on all others.
    pub fn count_flows(&self, members: &HashSet<u16>) -> (u64, u64) {
        let (mut on, mut others) = (0, 0);
        let memory = self.memory();
        for word in
            [&memory.flows, &memory.old_flows].into_iter().flat_map(|table| table.as_slice()).flatten()
        {
            // SAFETY: an aligned word of shared memory that the datapath changes by whole-word stores and
            // compare-and-swap only, and that is read here.
            let value =
                unsafe { AtomicU64::from_ptr(std::ptr::from_ref(word).cast_mut()) }.load(Ordering::Relaxed);
            match value {
                0 => {}
                value if members.contains(&entry::member(value)) => on += 1,
                _ => others += 1,
            }
        }
        (on, others)
    }
}
