//! Stacks of threads. Each lies at a multiple of its size, so that a thread finds what it is from its stack pointer alone.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::ptr;

use corosensei::stack::{Stack, StackPointer};

use super::abi::{STACK_BYTES, ThreadView, stack_word};

/// Stacks that one system call makes.
const TOGETHER: usize = 64;
/// The most that a thread of the system keeps for its next grid: two multiprocessors full.
const KEPT: usize = 4096;
const PAGE: usize = 4096;

thread_local! {
    static FREE: RefCell<Vec<ThreadStack>> = const { RefCell::new(Vec::new()) };
}

/// Some stacks in one mapping; it goes when the last of them does.
#[derive(Debug)]
struct Mapping {
    begin: usize,
    bytes: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this struct's alone, and no stack of it is left.
        unsafe { libc::munmap(self.begin as *mut libc::c_void, self.bytes) };
    }
}

/// A stack with a guard page below.
#[derive(Debug)]
pub(super) struct ThreadStack {
    begin: usize,
    _mapping: std::rc::Rc<Mapping>,
}

impl ThreadStack {
    /// One that is free, or a new one; nothing where the system gives no more memory.
    pub(super) fn take() -> Option<Self> {
        FREE.with_borrow_mut(|free| {
            if free.is_empty() {
                map(free)?;
            }
            free.pop()
        })
    }

    /// Keeps the stack for another thread.
    pub(super) fn give_back(self) {
        FREE.with_borrow_mut(|free| {
            if free.len() < KEPT {
                free.push(self);
            }
        });
    }

    /// Writes down whose stack it is.
    pub(super) fn belongs_to(&mut self, thread: *const ThreadView) {
        let place = stack_word(self.begin) as *mut *const ThreadView;
        // SAFETY: the word lies behind `base`, where no frames are, and nobody runs on the stack yet.
        unsafe { place.write(thread) };
    }

    /// The middle, where a function may run when what the stack had is given up.
    pub(super) fn middle(&self) -> usize {
        self.begin + STACK_BYTES / 2
    }
}

// SAFETY: the lowest page is inaccessible, and the rest is far more than the least size.
unsafe impl Stack for ThreadStack {
    fn base(&self) -> StackPointer {
        NonZeroUsize::new(stack_word(self.begin)).expect("no mapping begins at zero")
    }

    fn limit(&self) -> StackPointer {
        NonZeroUsize::new(self.begin).expect("no mapping begins at zero")
    }
}

fn map(free: &mut Vec<ThreadStack>) -> Option<()> {
    let bytes = (TOGETHER + 1) * STACK_BYTES;
    // SAFETY: a new mapping at an address of the system's choice touches nobody's memory.
    let begin = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK,
            -1,
            0,
        )
    };
    if begin == libc::MAP_FAILED {
        return None;
    }
    let mapping = std::rc::Rc::new(Mapping { begin: begin as usize, bytes });
    let first = mapping.begin.next_multiple_of(STACK_BYTES);
    for i in 0..TOGETHER {
        let begin = first + i * STACK_BYTES;
        // SAFETY: the page lies within the mapping and nobody uses it.
        if unsafe { libc::mprotect(begin as *mut libc::c_void, PAGE, libc::PROT_NONE) } != 0 {
            return None;
        }
        free.push(ThreadStack { begin, _mapping: std::rc::Rc::clone(&mapping) });
    }
    Some(())
}
