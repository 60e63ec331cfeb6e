//! What is pinned, read from outside.

use std::path::Path;

use aya::maps::{Array, Map, MapData};
use lb_common::abi::{ABI_VERSION, Control, maps};

/// The number of the generation in force, as the kernel has it.
pub(super) fn generation(pins: &Path) -> u32 {
    let path = pins.join(format!("v{ABI_VERSION}")).join(maps::CONTROL);
    let data = MapData::from_pin(path).unwrap();
    let control = Array::<_, Control>::try_from(Map::Array(data)).unwrap();
    control.get(&0, 0).unwrap().generation
}

/// Pins a map of no use under `path`.
pub(super) fn pin_something(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let map = Array::<MapData, u32>::create(1, 0).unwrap();
    map.pin(path).unwrap();
}
