//! Memory that the datapath reads: a mapped BPF array, or plain memory for the pipeline on the host.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use aya::Pod;

/// An array of `T` that a datapath reads while user space writes.
///
/// There is one writer. It writes only elements that no running program can reach, and publishes them with
/// [`Region::publish`]; that discipline is the installer's.
pub struct Region<T: Pod> {
    start: NonNull<T>,
    length: usize,
    mapped: bool,
    _owns: PhantomData<T>,
}

// SAFETY: the region owns its memory; access follows the borrow rules of `&self` and `&mut self`.
unsafe impl<T: Pod> Send for Region<T> {}
// SAFETY: as above; shared access only reads.
unsafe impl<T: Pod> Sync for Region<T> {}

impl<T: Pod> Region<T> {
    /// Plain memory, zeroed like a fresh map.
    pub fn heap(length: usize) -> Self {
        // SAFETY: `Pod` types are valid when all bytes are zero.
        let elements: Box<[T]> = (0..length).map(|_| unsafe { std::mem::zeroed() }).collect();
        let start = NonNull::from(Box::leak(elements)).cast();
        Self { start, length, mapped: false, _owns: PhantomData }
    }

    /// Maps an array map that has `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// Those of mmap(2): EPERM when the map lacks the flag or is frozen.
    pub fn map(fd: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        // The kernel pads elements to eight bytes; all of our types already are a multiple of that.
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let bytes = (length * size_of::<T>()).next_multiple_of(page_size());
        // SAFETY: a new mapping of the kernel's choice; the result is checked.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(at) {
            Some(start) if at != libc::MAP_FAILED => {
                Ok(Self { start: start.cast(), length, mapped: true, _owns: PhantomData })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// A copy of an element, or `None` beyond the end.
    pub fn get(&self, index: usize) -> Option<T> {
        // SAFETY: in range, and any bytes are a valid `T`.
        (index < self.length).then(|| unsafe { self.start.as_ptr().add(index).read_volatile() })
    }

    /// The elements.
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: the range is ours, initialised, and written only through `&mut self`; the kernel writes no element
        // but those of `LIMITS`, which nobody reads through here.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    /// The elements, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed mutably; running programs only read, and never elements that are
        // being written (see the type).
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }

    /// Stores a 32-bit word at byte `offset` of element `index` so that everything written before is visible to a
    /// program that sees it.
    ///
    /// # Panics
    /// When the place does not exist: a bug of ours.
    pub fn publish(&mut self, index: usize, offset: usize, value: u32) {
        assert!(index < self.length && offset + 4 <= size_of::<T>() && offset.is_multiple_of(4));
        // SAFETY: in range and aligned (checked), and `T` is plain bytes.
        let word =
            unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(index).cast::<u8>().add(offset).cast()) };
        word.store(value, Ordering::SeqCst);
    }
}

impl Region<u64> {
    /// The cells as 16-bit slots, slot 0 in the lowest bits of a cell.
    pub fn as_mut_slots(&mut self) -> &mut [u16] {
        const { assert!(cfg!(target_endian = "little"), "slots are laid out for little-endian machines") };
        // SAFETY: four `u16` fill one `u64`; see `as_mut_slice` for the rest.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.length * 4) }
    }

    /// The cells as 32-bit words, the first of a cell in its low half.
    pub fn as_mut_words(&mut self) -> &mut [u32] {
        // SAFETY: two `u32` fill one `u64`; see `as_mut_slice` for the rest. The datapath writes stamps into words that
        // are in force; user space reads those one by one and writes them only to merge two stamps.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.length * 2) }
    }

    /// One of the 32-bit words.
    pub fn word(&self, index: usize) -> Option<u32> {
        // SAFETY: in range; the datapath may write at the same time, hence volatile.
        (index < self.length * 2)
            .then(|| unsafe { self.start.as_ptr().cast::<u32>().add(index).read_volatile() })
    }

    /// The cells as 16-bit slots, for reading.
    pub fn as_slots(&self) -> &[u16] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length * 4) }
    }
}

impl<T: Pod> Drop for Region<T> {
    fn drop(&mut self) {
        if self.mapped {
            let bytes = (self.length * size_of::<T>()).next_multiple_of(page_size());
            // SAFETY: the mapping was made by `map` with this length, and no reference outlives `self`.
            unsafe { libc::munmap(self.start.as_ptr().cast(), bytes) };
        } else {
            let slice = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.length);
            // SAFETY: the box was leaked by `heap` with this length.
            drop(unsafe { Box::from_raw(slice) });
        }
    }
}

/// Bytes of a page.
pub(crate) fn page_size() -> usize {
    // SAFETY: no pointers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::Region;

    #[test]
    fn heap_is_zeroed_and_bounded() {
        let mut region = Region::<u64>::heap(3);
        assert_eq!((region.len(), region.get(2), region.get(3)), (3, Some(0), None));
        region.as_mut_slots()[5] = 0xabcd;
        assert_eq!(region.get(1), Some(0xabcd_0000));
        region.publish(2, 4, 7);
        assert_eq!(region.get(2), Some(7 << 32));
    }
}
