//! tmp
mod ebpf_toolchain;
fn main() {}
