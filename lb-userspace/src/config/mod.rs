//! `lb.toml`: read, validated, edited with its comments kept.

mod types;

pub use types::*;
