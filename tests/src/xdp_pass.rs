//! An XDP program that passes everything, for the peers of devices on which the balancer works.
//!
//! A frame that XDP sends on a veth sits in the ring of the peer until something else wakes it, unless the peer has
//! an XDP program as well; real NICs know no such thing. Two instructions need no object file, so they are loaded
//! with bpf(2) directly.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use anyhow::{Context, Result};

use crate::netdev;

/// Commands and constants of linux/bpf.h and linux/if_link.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
/// The program copes with frames in several parts, so the peer's MTU may exceed a page.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// `r0 = XDP_PASS; exit`, as `struct bpf_insn`: opcode, registers, 16-bit offset, 32-bit immediate (little-endian).
const INSTRUCTIONS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
const LICENCE: &CStr = c"Dual MIT/GPL";

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
#[derive(Default)]
struct ProgramAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The head of `union bpf_attr` for BPF_LINK_CREATE.
#[repr(C)]
struct LinkAttr {
    prog_fd: RawFd,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The loaded program. Attachments outlive it.
#[derive(Debug)]
pub struct PassProgram(OwnedFd);

/// The program on one device, as long as this lives.
#[derive(Debug)]
pub struct Attached {
    _link: OwnedFd,
}

impl PassProgram {
    /// Loads the program.
    ///
    /// # Errors
    /// Without CAP_BPF and CAP_NET_ADMIN, or on kernels before 5.18.
    pub fn load() -> Result<Self> {
        let mut prog_name = [0; 16];
        prog_name[..12].copy_from_slice(b"lb_test_pass");
        let attr = ProgramAttr {
            prog_type: BPF_PROG_TYPE_XDP,
            insn_cnt: INSTRUCTIONS.len() as u32,
            insns: INSTRUCTIONS.as_ptr().addr() as u64,
            license: LICENCE.as_ptr().addr() as u64,
            prog_flags: BPF_F_XDP_HAS_FRAGS,
            prog_name,
            expected_attach_type: BPF_XDP,
            ..ProgramAttr::default()
        };
        // SAFETY: the attribute is laid out as BPF_PROG_LOAD demands, and its pointers are to constants.
        unsafe { bpf(BPF_PROG_LOAD, &attr) }
            .map(Self)
            .context("loading the XDP program for veth peers (needs CAP_BPF and Linux 5.18)")
    }

    /// Attaches the program natively to a device in the namespace of the calling thread.
    ///
    /// # Errors
    /// When there is no such device, it has a program already, or its driver knows no XDP.
    pub fn attach(&self, device: &str) -> Result<Attached> {
        let attr = LinkAttr {
            prog_fd: self.0.as_raw_fd(),
            target_ifindex: netdev::index(device)?,
            attach_type: BPF_XDP,
            flags: XDP_FLAGS_DRV_MODE,
        };
        // SAFETY: the attribute is laid out as BPF_LINK_CREATE demands for XDP, and holds no pointer.
        let link = unsafe { bpf(BPF_LINK_CREATE, &attr) }
            .with_context(|| format!("attaching the pass program to device {device}"))?;
        Ok(Attached { _link: link })
    }
}

/// bpf(2) for commands that return a descriptor.
///
/// # Safety
/// `attr` must be what `command` expects, and its pointers valid for what the kernel does with them.
unsafe fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for the content; the size is that of the object behind the pointer.
    let rc = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<T>()) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(rc).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
