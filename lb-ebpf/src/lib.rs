//! Parts of the XDP programs; each program is a binary under `bin/`.
#![no_std]
