//! What a pinned map must be before it is adopted: aya would use any map that it finds at the path, unseen.

use std::collections::BTreeMap;

use aya::maps::MapInfo;

use super::{DataplaneError, Pins, peek};

/// Map types of include/uapi/linux/bpf.h.
pub(super) const HASH: u32 = 1;
pub(super) const ARRAY: u32 = 2;
pub(super) const PER_CPU_ARRAY: u32 = 6;
pub(super) const LPM_TRIE: u32 = 11;
/// The flag that decides what can be done with a map (`BPF_F_MMAPABLE`); others only say how it is kept.
pub(super) const MMAPABLE: u32 = 1 << 10;

/// A map as this version wants it.
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: usize,
    /// [`MMAPABLE`] or nothing.
    pub(super) flags: u32,
    /// The version that has it first, and how many elements it has that is made beside maps from before.
    pub(super) since: (u32, u32),
}

impl Spec {
    /// A memory-mapped array.
    pub(super) const fn mapped(name: &'static str, value_size: usize) -> Self {
        Self { name, map_type: ARRAY, key_size: 4, value_size, flags: MMAPABLE, since: (1, 0) }
    }

    /// An array that is changed by system calls.
    pub(super) const fn array(name: &'static str, value_size: usize) -> Self {
        Self { name, map_type: ARRAY, key_size: 4, value_size, flags: 0, since: (1, 0) }
    }

    /// An array with a value for each CPU.
    pub(super) const fn per_cpu(name: &'static str, value_size: usize) -> Self {
        Self { name, map_type: PER_CPU_ARRAY, key_size: 4, value_size, flags: 0, since: (1, 0) }
    }

    /// A map with keys.
    pub(super) const fn keyed(name: &'static str, map_type: u32, key_size: usize, value_size: usize) -> Self {
        Self { name, map_type, key_size: key_size as u32, value_size, flags: 0, since: (1, 0) }
    }

    /// Versions of the ABI below this one do not have it; beside their maps it is made with so many elements.
    pub(super) const fn since(self, version: u32, elements: u32) -> Self {
        Self { since: (version, elements), ..self }
    }

    /// Whether maps of this version may be without it.
    fn is_new_to(&self, version: Option<u32>) -> bool {
        version.is_some_and(|version| version < self.since.0)
    }

    /// Elements of the pinned map, if it is what is wanted.
    ///
    /// # Errors
    /// [`DataplaneError::ForeignMap`] if it is not.
    pub(super) fn elements(&self, pins: &Pins) -> Result<u32, DataplaneError> {
        let path = pins.map(self.name);
        let info = MapInfo::from_pin(&path)
            .map_err(|e| DataplaneError::Map { name: self.name, error: e.to_string() })?;
        let found = (info.map_type().map(|t| t as u32).ok(), info.key_size(), info.value_size() as usize);
        let flags = info.map_flags() & MMAPABLE;
        if found == (Some(self.map_type), self.key_size, self.value_size) && flags == self.flags {
            return Ok(info.max_entries());
        }
        let words = |kind: &dyn std::fmt::Debug, key, value, flags| {
            let mapped = if flags == 0 { "" } else { ", memory-mappable" };
            format!("type {kind:?}, key {key} bytes, value {value} bytes{mapped}")
        };
        Err(DataplaneError::ForeignMap {
            path,
            found: words(&found.0, found.1, found.2, flags),
            expected: words(&Some(self.map_type), self.key_size, self.value_size, self.flags),
            detach: pins.detach_command(),
        })
    }
}

/// Makes the pin directory and compares the maps that are in it with `specs`: their numbers of elements by name, or
/// `None` when they have to be made. Those of an older version that lacks some get these when they are loaded.
///
/// # Errors
/// [`DataplaneError`] for maps of another version, and when a part of the maps of an attached program is gone.
pub(super) fn adopt(
    pins: &Pins,
    specs: &[Spec],
) -> Result<Option<BTreeMap<&'static str, u32>>, DataplaneError> {
    pins.prepare()?;
    let version = peek::written_by(pins);
    let is_there = |spec: &&Spec| pins.map(spec.name).exists();
    let there = specs.iter().filter(is_there).count();
    if there > 0 && specs.iter().all(|spec| is_there(&spec) || spec.is_new_to(version)) {
        let elements =
            |spec: &Spec| Ok((spec.name, if is_there(&spec) { spec.elements(pins)? } else { spec.since.1 }));
        return specs.iter().map(elements).collect::<Result<_, _>>().map(Some);
    }
    if there > 0 {
        // A start that was interrupted while it made the maps: nothing is attached yet, or it would have all.
        if !pins.linked_interfaces().is_empty() {
            return Err(DataplaneError::Incomplete {
                name: pins.name().into(),
                found: there,
                expected: specs.len(),
                detach: pins.detach_command(),
            });
        }
        pins.remove()?;
        pins.prepare()?;
    }
    Ok(None)
}
