//! Takes a pinned link off its interface at once.
//!
//! Removing the pin does that too, but some time later: the kernel lets go of the link after an RCU grace period. A start
//! right behind would still find the program there and take it for somebody else's.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// Commands of bpf(2) (include/uapi/linux/bpf.h).
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_DETACH: libc::c_int = 34;

/// The head of `union bpf_attr` for `BPF_OBJ_GET`.
#[repr(C)]
struct ObjectGet {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Detaches the link that is pinned at `path`, then removes the pin.
///
/// # Errors
/// When the pin cannot be removed. A link that is dead already, or that cannot be opened, has nothing to detach.
pub(super) fn unlink(path: &Path) -> io::Result<()> {
    if let Err(error) = open(path).and_then(|link| detach(&link)) {
        log::debug!("{}: {error}", path.display());
    }
    std::fs::remove_file(path)
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let get = ObjectGet { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: `get` matches the kernel's layout for this command, and it and the path outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const get, size_of::<ObjectGet>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn detach(link: &OwnedFd) -> io::Result<()> {
    let fd = link.as_raw_fd() as u32;
    // SAFETY: for this command the kernel reads one descriptor from `fd`, which outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, &raw const fd, size_of::<u32>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
