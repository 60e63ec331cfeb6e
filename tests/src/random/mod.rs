//! Random frames through the pipeline on the host and the loaded programs, and what must hold for every one of them.
//!
//! [`Frames`] makes them: sentences of a [`grammar`] that knows the addresses and ports of the world, frames of the
//! packet cases, and noise, most of them [bent](bend). [`Pair`] runs them in both machines and judges the outcomes.
//! What is wrong is [shrunk](shrink) and printed as a [`row`] for the table of cases.
//!
//! To add a way to forward or a protocol, add a line to [`sentences::SENTENCES`].
//!
//! Frames come in chunks of [`CHUNK`]; a chunk is made from the seed, the world and its number alone. So the same seed
//! makes the same frames on every machine, however many run at once.

pub mod bend;
pub mod frames;
pub mod grammar;
pub mod judge;
pub mod row;
pub mod scene;
pub mod sentences;
pub mod shrink;
pub mod source;

pub use frames::Frames;
pub use judge::{Fault, Kind, Pair};
pub use scene::Scene;

use crate::cases::worlds::World;

/// Frames of a chunk.
pub const CHUNK: usize = 2048;
/// Seed unless the environment names another.
const SEED: u64 = 0x5eed_0f1b;
/// Frames of a run unless the environment says otherwise.
const PACKETS: usize = 1_000_000;

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

/// How many frames `LB_TEST_PACKETS` asks for.
pub fn packets() -> usize {
    match std::env::var("LB_TEST_PACKETS") {
        Err(_) => PACKETS,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("LB_TEST_PACKETS={text}: a number")),
    }
}

/// The frames of one chunk: each of at least 14 bytes, because BPF_PROG_TEST_RUN takes no shorter ones.
pub fn chunk<'s>(
    world: World,
    scene: &'s Scene,
    corpus: &'s [Vec<u8>],
    seed: u64,
    number: usize,
) -> impl Iterator<Item = Vec<u8>> + 's {
    let own = source::Random::new(seed ^ (world as u64) << 56 ^ (number as u64) << 20).next();
    Frames::new(scene, corpus, own).filter(|frame| frame.len() >= 14).take(CHUNK)
}
