//! Reads the counters that the datapath moves.

use std::borrow::Borrow;

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, PerCpuValues},
};
use lb_common::{
    abi::{Counter, Reason, maps},
    datapath::track::FlowEvent,
};

use super::DataplaneError;

fn per_cpu<'e, T: aya::Pod>(
    ebpf: &'e Ebpf,
    name: &'static str,
) -> Result<PerCpuArray<&'e MapData, T>, DataplaneError> {
    let map = ebpf.map(name).ok_or(DataplaneError::Object { what: name })?;
    PerCpuArray::try_from(map).map_err(|e| DataplaneError::Map { name, error: e.to_string() })
}

/// Sums over all CPUs of these elements of `COUNTERS`, in the same order.
///
/// # Errors
/// [`DataplaneError::Map`].
pub fn forwarded(ebpf: &Ebpf, indices: &[u32]) -> Result<Vec<Counter>, DataplaneError> {
    let counters = per_cpu::<Counter>(ebpf, maps::COUNTERS)?;
    let sum = |index: &u32| {
        let values = counters
            .get(index, 0)
            .map_err(|e| DataplaneError::Map { name: maps::COUNTERS, error: e.to_string() })?;
        Ok(values.iter().fold(Counter::default(), |sum, c| Counter {
            packets: sum.packets.wrapping_add(c.packets),
            bytes: sum.bytes.wrapping_add(c.bytes),
        }))
    };
    indices.iter().map(sum).collect()
}

/// Sums over all CPUs by reason, in the order of [`Reason::ALL`].
///
/// # Errors
/// [`DataplaneError::Map`].
pub fn reasons(ebpf: &Ebpf) -> Result<Vec<(Reason, u64)>, DataplaneError> {
    sums(&per_cpu::<u64>(ebpf, maps::REASONS)?)
}

/// The same of a `REASONS` that came from anywhere.
pub(super) fn sums<T: Borrow<MapData>>(
    counters: &PerCpuArray<T, u64>,
) -> Result<Vec<(Reason, u64)>, DataplaneError> {
    let sum = |reason: &Reason| {
        let values = counters
            .get(&(*reason as u32), 0)
            .map_err(|e| DataplaneError::Map { name: maps::REASONS, error: e.to_string() })?;
        Ok((*reason, values.iter().fold(0u64, |sum, n| sum.wrapping_add(*n))))
    };
    Reason::ALL.iter().map(sum).collect()
}

/// What happened in the flow table, summed over all CPUs, in the order of [`FlowEvent::ALL`].
///
/// # Errors
/// [`DataplaneError::Map`].
pub fn flow_events(ebpf: &Ebpf) -> Result<[u64; FlowEvent::ALL.len()], DataplaneError> {
    let counters = per_cpu::<u64>(ebpf, maps::FLOW_EVENTS)?;
    let mut sums = [0; FlowEvent::ALL.len()];
    for (sum, event) in sums.iter_mut().zip(FlowEvent::ALL) {
        let values = counters
            .get(&(event as u32), 0)
            .map_err(|e| DataplaneError::Map { name: maps::FLOW_EVENTS, error: e.to_string() })?;
        *sum = values.iter().fold(0u64, |sum, n| sum.wrapping_add(*n));
    }
    Ok(sums)
}

/// Copies these elements of `COUNTERS` of one set of maps to another.
///
/// # Errors
/// [`DataplaneError::Map`].
pub(super) fn copy(from: &Ebpf, to: &mut Ebpf, indices: &[u32]) -> Result<(), DataplaneError> {
    let error = |e: aya::maps::MapError| DataplaneError::Map { name: maps::COUNTERS, error: e.to_string() };
    let from = per_cpu::<Counter>(from, maps::COUNTERS)?;
    let map = to.map_mut(maps::COUNTERS).ok_or(DataplaneError::Object { what: maps::COUNTERS })?;
    let mut to: PerCpuArray<&mut MapData, Counter> = PerCpuArray::try_from(map).map_err(error)?;
    for index in indices {
        to.set(*index, from.get(index, 0).map_err(error)?, 0).map_err(error)?;
    }
    Ok(())
}

/// Sets elements of `COUNTERS` to zero on every CPU.
///
/// # Errors
/// [`DataplaneError::Map`].
pub fn reset(ebpf: &mut Ebpf, indices: &[u32]) -> Result<(), DataplaneError> {
    let error = |e: aya::maps::MapError| DataplaneError::Map { name: maps::COUNTERS, error: e.to_string() };
    let map = ebpf.map_mut(maps::COUNTERS).ok_or(DataplaneError::Object { what: maps::COUNTERS })?;
    let mut counters: PerCpuArray<&mut MapData, Counter> = PerCpuArray::try_from(map).map_err(error)?;
    let cpus = aya::util::nr_cpus()
        .map_err(|(_, e)| DataplaneError::Map { name: maps::COUNTERS, error: e.to_string() })?;
    for index in indices {
        let zero = PerCpuValues::try_from(vec![Counter::default(); cpus])
            .map_err(|e| DataplaneError::Map { name: maps::COUNTERS, error: e.to_string() })?;
        counters.set(*index, zero, 0).map_err(error)?;
    }
    Ok(())
}
