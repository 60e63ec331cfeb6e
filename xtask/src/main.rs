//! `cargo xtask`: set-up, build, run, lab, test and bench.

fn main() {}
