//! Programs of the benchmark; not part of `lb`. `docs/performance.md` says how they are used.
//!
//! `wrap` puts a frame back as it was and jumps to the program under test, so that every repeat of
//! BPF_PROG_TEST_RUN sees the same kind of packet. The others are what the balancer is compared with: floors that do
//! a part of the work and nothing else, and `plain`, a balancer as one writes it first. `generate` and `sink` are the
//! two ends of the benchmark through veth.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "entry points get their context by value from the macro")]

mod floors;
mod plain;
mod rewrite;
mod source;
mod wire;

use lb_ebpf::program;

program!();
