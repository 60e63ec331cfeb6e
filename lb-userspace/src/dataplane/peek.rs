//! A look at what is in force, before anything is loaded.

use aya::maps::{Array, Map, MapData};
use lb_common::abi::{ABI_VERSION, Control, maps};

use super::Pins;

/// First eight bytes of the digest of the desired state that was installed last; `None` when nothing is in force that
/// this version could read.
pub fn desired_in_force(pins: &Pins) -> Option<u64> {
    let path = pins.map(maps::CONTROL);
    if !path.exists() {
        return None;
    }
    let data = MapData::from_pin(path).ok()?;
    let control: Array<MapData, Control> = Array::try_from(Map::Array(data)).ok()?;
    let control = control.get(&0, 0).ok()?;
    (control.abi_version == ABI_VERSION && control.generation != 0).then_some(control.desired_digest)
}
