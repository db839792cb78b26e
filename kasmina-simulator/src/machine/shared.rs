//! A block's shared memory: a window that shared addresses are offsets into.

use std::ptr;

/// Bytes at the window's beginning that are nobody's, as on a device of compute capability 9.0.
pub(super) const RESERVED: usize = 1024;
/// What fills memory that nobody has written: NaN in every float, and no valid address.
const POISON: u8 = 0xff;
const PAGE: usize = 4096;

/// The memory of one block. Behind it lies a page that cannot be touched.
#[derive(Debug)]
pub(super) struct Shared {
    begin: *mut u8,
    mapped: usize,
    dynamic: usize,
    bytes: usize,
}

impl Shared {
    /// Memory for `area` bytes of declared variables and `dynamic` bytes beside them; nothing where the system gives none.
    pub(super) fn new(area: usize, dynamic: usize) -> Option<Self> {
        let dynamic_at = (RESERVED + area).next_multiple_of(1024);
        let bytes = dynamic_at + dynamic;
        let mapped = bytes.next_multiple_of(PAGE) + PAGE;
        // SAFETY: a new mapping at an address of the system's choice touches nobody's memory.
        let begin = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if begin == libc::MAP_FAILED {
            return None;
        }
        let shared = Self { begin: begin.cast(), mapped, dynamic: dynamic_at, bytes };
        // SAFETY: the last page of the mapping, which nobody uses.
        let guarded =
            unsafe { libc::mprotect(begin.byte_add(mapped - PAGE), PAGE, libc::PROT_NONE) };
        (guarded == 0).then_some(shared)
    }

    pub(super) fn begin(&self) -> *mut u8 {
        self.begin
    }

    /// Where it begins, and how many bytes it has.
    pub(super) fn range(&self) -> (u64, u64) {
        (self.begin as u64, self.bytes as u64)
    }

    pub(super) fn dynamic(&self) -> *mut u8 {
        // SAFETY: the dynamic part begins within the mapping.
        unsafe { self.begin.add(self.dynamic) }
    }

    pub(super) fn poison(&mut self) {
        // SAFETY: the window is this block's, and none of its threads runs.
        unsafe { self.begin.write_bytes(POISON, self.bytes) };
    }

    /// The memory at a shared address; nothing where these bytes are not all of this block.
    pub(super) fn at(&self, address: u32, bytes: usize) -> Option<*mut u8> {
        let end = (address as usize).checked_add(bytes)?;
        // SAFETY: the range lies within the mapping.
        (address as usize >= RESERVED && end <= self.bytes)
            .then(|| unsafe { self.begin.add(address as usize) })
    }

    /// The shared address of a place in this window.
    pub(super) fn address_of(&self, pointer: *const u8) -> Option<u32> {
        let offset = (pointer as usize).checked_sub(self.begin as usize)?;
        (offset <= self.bytes).then_some(offset as u32)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is this struct's alone.
        unsafe { libc::munmap(self.begin.cast(), self.mapped) };
    }
}
