//! What the kernel side and the user side of `lb` share.
//!
//! - [`abi`]: the layout of every map. Changing it means raising [`abi::ABI_VERSION`].
//! - [`wire`]: header layouts and checksums.
//! - [`aes`]: AES-128, for connection IDs that hide their server.
//! - [`hash`]: the keyed hash that picks slots.
//! - [`datapath`]: parse → decide → apply, generic over a packet ([`datapath::Packet`]) and the tables
//!   ([`datapath::Tables`]), so that the code that runs in XDP is the code that runs under tests on the host.
//!
//! This crate depends on nothing of ours, allocates nothing and contains no unsafe code outside `abi/pod.rs`.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

pub mod abi;
pub mod aes;
pub mod datapath;
pub mod hash;
pub mod wire;
