//! How things that were made from a buffer's address, tensor maps for one, learn that the buffer is gone.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One allocation of this process, told apart from all others for good, though addresses are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId(NonZeroU64);

impl AllocationId {
    fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // Wraps after 2^64 allocations: at one a nanosecond, after five hundred years.
        let id = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        Self(NonZeroU64::new(id).unwrap_or(NonZeroU64::MIN))
    }

    /// The number, for keys and logs.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for AllocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "allocation {}", self.0)
    }
}

/// Shared by a buffer and everyone who watches it.
pub(super) struct Life {
    id: AllocationId,
    ended: AtomicBool,
}

impl Life {
    pub(super) fn begin() -> Arc<Self> {
        Arc::new(Self { id: AllocationId::next(), ended: AtomicBool::new(false) })
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// Tells whether a buffer still lives, without keeping it alive.
#[derive(Clone)]
pub struct AllocationWatch(pub(super) Arc<Life>);

impl AllocationWatch {
    /// Which allocation.
    pub fn id(&self) -> AllocationId {
        self.0.id
    }

    /// Whether the buffer was neither dropped nor closed yet. Once it says no it never says yes again, and it says no before
    /// the memory can belong to another buffer. A yes holds for as long as the buffer is borrowed.
    pub fn is_alive(&self) -> bool {
        !self.0.ended.load(Ordering::Acquire)
    }
}

impl fmt::Debug for AllocationWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllocationWatch")
            .field("id", &self.id().get())
            .field("alive", &self.is_alive())
            .finish()
    }
}
