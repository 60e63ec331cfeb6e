//! A look at what is in force, before anything is loaded.

use aya::maps::{Array, Map, MapData};
use lb_common::abi::{ABI_VERSION, Control, OLDEST_ABI_VERSION, maps};

use super::Pins;

/// What was installed last, if anything was.
fn in_force(pins: &Pins) -> Option<Control> {
    let path = pins.map(maps::CONTROL);
    if !path.exists() {
        return None;
    }
    let data = MapData::from_pin(path).ok()?;
    let control: Array<MapData, Control> = Array::try_from(Map::Array(data)).ok()?;
    control.get(&0, 0).ok().filter(|control| control.generation != 0)
}

/// First eight bytes of the digest of the desired state that was installed last; `None` when nothing is in force that
/// this version could read.
pub fn desired_in_force(pins: &Pins) -> Option<u64> {
    in_force(pins)
        .filter(|control| (OLDEST_ABI_VERSION..=ABI_VERSION).contains(&control.abi_version))
        .map(|control| control.desired_digest)
}

/// ABI version of the daemon that installed last.
pub(super) fn written_by(pins: &Pins) -> Option<u32> {
    in_force(pins).map(|control| control.abi_version)
}
