//! Handles: numbers that stand for things, each given out once in the life of the process.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kasmina_sys::CUresult;
use parking_lot::RwLock;

/// A number that no handle has had. None is an address, so a handle that is followed as one is noticed.
pub(crate) fn fresh() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0x1000);
    NEXT.fetch_add(16, Ordering::Relaxed)
}

/// Live things of one kind by their handles.
pub(crate) struct Table<T>(RwLock<HashMap<usize, Arc<T>>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T> Table<T> {
    /// Takes something in; the handle is a pointer of whatever type the header gives it.
    pub(crate) fn add(&self, handle: usize, value: Arc<T>) {
        self.0.write().insert(handle, value);
    }

    /// The thing of this handle, or `INVALID_HANDLE`.
    pub(crate) fn get<H>(&self, handle: *mut H) -> Result<Arc<T>, CUresult> {
        self.0.read().get(&handle.addr()).cloned().ok_or(CUresult::INVALID_HANDLE)
    }

    /// Takes it out: the handle is good for nothing from then on.
    pub(crate) fn remove<H>(&self, handle: *mut H) -> Result<Arc<T>, CUresult> {
        self.0.write().remove(&handle.addr()).ok_or(CUresult::INVALID_HANDLE)
    }

    /// Everything that lives.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.0.read().values().cloned().collect()
    }

    /// Takes everything out.
    pub(crate) fn clear(&self) {
        // Dropped after the lock is given back.
        let all = std::mem::take(&mut *self.0.write());
        drop(all);
    }
}

/// A handle as the pointer that the header makes of it.
pub(crate) fn pointer<H>(handle: usize) -> *mut H {
    std::ptr::without_provenance_mut(handle)
}
