//! RCU grace periods: after one, no program that started before it is still running.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    thread::JoinHandle,
};

use log::warn;

/// Waits for grace periods in the background, so that a change is in force before the wait is over.
#[derive(Debug)]
pub struct Grace {
    kernel: bool,
    running: Option<JoinHandle<()>>,
}

impl Grace {
    /// For maps: programs of this kernel look at the memory.
    pub fn kernel() -> Self {
        Self { kernel: true, running: None }
    }

    /// For plain memory: nobody looks at it while it is written.
    pub fn none() -> Self {
        Self { kernel: false, running: None }
    }

    /// Begins a grace period: everything published before this call has been seen when [`Grace::wait`] returns.
    pub fn begin(&mut self) {
        self.wait();
        if self.kernel {
            self.running = Some(std::thread::spawn(|| {
                if let Err(error) = synchronize() {
                    warn!("waiting for a grace period failed ({error}); waiting 100 ms instead");
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
            }));
        }
    }

    /// Returns when the last grace period is over.
    pub fn wait(&mut self) {
        if let Some(running) = self.running.take() {
            // The thread cannot panic; if it did, the period it waited for is over all the same.
            let _ = running.join();
        }
    }
}

/// `MEMBARRIER_CMD_GLOBAL` waits for an RCU grace period (kernel/sched/membarrier.c); it is refused on machines with
/// nohz_full CPUs, where replacing an element of a map of maps waits for one as well (kernel/bpf/syscall.c,
/// `maybe_wait_bpf_programs`).
fn synchronize() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: a system call without pointers.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } == 0 {
        return Ok(());
    }
    let inner = create_map(BPF_MAP_TYPE_ARRAY, None)?;
    let outer = create_map(BPF_MAP_TYPE_ARRAY_OF_MAPS, Some(&inner))?;
    let (key, value) = (0u32, inner.as_raw_fd() as u32);
    let update = UpdateElement {
        map: outer.as_raw_fd() as u32,
        _pad: 0,
        key: std::ptr::from_ref(&key) as u64,
        value: std::ptr::from_ref(&value) as u64,
        flags: 0,
    };
    // SAFETY: `update` matches the kernel's layout for this command, and its pointers outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_ELEM, &raw const update, size_of::<UpdateElement>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// The head of `union bpf_attr` for `BPF_MAP_CREATE` (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct CreateMap {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner: u32,
}

/// The head of `union bpf_attr` for the element commands.
#[repr(C)]
struct UpdateElement {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn create_map(map_type: u32, inner: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    let create = CreateMap {
        map_type,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        flags: 0,
        inner: inner.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    // SAFETY: `create` matches the kernel's layout for this command and outlives the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, &raw const create, size_of::<CreateMap>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
