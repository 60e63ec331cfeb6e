//! What is pinned, read from outside.

use std::{fs, path::Path};

use aya::maps::{Array, Map, MapData};
use lb_common::abi::{ABI_VERSION, Control, maps};

/// The number of the generation in force, as the kernel has it.
pub(super) fn generation(pins: &Path) -> u32 {
    let path = pins.join(format!("v{ABI_VERSION}")).join(maps::CONTROL);
    let data = MapData::from_pin(path).unwrap();
    let control = Array::<_, Control>::try_from(Map::Array(data)).unwrap();
    control.get(&0, 0).unwrap().generation
}

/// Makes the maps look as the daemon of this version has left them, which had no `FLOWS_OLD`.
pub(super) fn age(pins: &Path, version: u32) {
    let directory = pins.join(format!("v{ABI_VERSION}"));
    fs::remove_file(directory.join(maps::FLOWS_OLD)).unwrap();
    let data = MapData::from_pin(directory.join(maps::CONTROL)).unwrap();
    let mut control = Array::<_, Control>::try_from(Map::Array(data)).unwrap();
    let in_force = control.get(&0, 0).unwrap();
    control.set(0, Control { abi_version: version, ..in_force }, 0).unwrap();
    fs::rename(directory, pins.join(format!("v{version}"))).unwrap();
}

/// Pins a map of no use under `path`.
pub(super) fn pin_something(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let map = Array::<MapData, u32>::create(1, 0).unwrap();
    map.pin(path).unwrap();
}
