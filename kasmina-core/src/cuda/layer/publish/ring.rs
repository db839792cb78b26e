//! A few slots that are lent out, used elsewhere, and come back by themselves.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

/// Slots, each free or lent.
pub(super) struct Ring<S>(Arc<Shared<S>>);

struct Shared<S> {
    slots: Vec<Mutex<S>>,
    /// Places of those that are not lent.
    free: Mutex<Vec<usize>>,
}

/// A slot that nobody else has until this is dropped, on whatever thread. It outlives its ring.
pub(super) struct Lent<S> {
    ring: Arc<Shared<S>>,
    place: usize,
}

impl<S> Ring<S> {
    /// All free.
    pub(super) fn new(slots: impl IntoIterator<Item = S>) -> Self {
        let slots: Vec<_> = slots.into_iter().map(Mutex::new).collect();
        let free = Mutex::new((0..slots.len()).collect());
        Self(Arc::new(Shared { slots, free }))
    }

    /// A free slot, if there is one. Does not wait.
    pub(super) fn take(&self) -> Option<Lent<S>> {
        let place = self.0.free.lock().pop()?;
        Some(Lent { ring: Arc::clone(&self.0), place })
    }
}

impl<S> Lent<S> {
    /// The slot. Its lock is nobody else's while it is lent.
    pub(super) fn slot(&self) -> MutexGuard<'_, S> {
        self.ring.slots[self.place].lock()
    }
}

impl<S> Drop for Lent<S> {
    fn drop(&mut self) {
        self.ring.free.lock().push(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_one_holders_and_comes_back() {
        let ring = Ring::new([10, 20]);
        let (a, b) = (ring.take().expect("free"), ring.take().expect("free"));
        assert!(ring.take().is_none());
        assert_ne!(*a.slot(), *b.slot());
        *a.slot() = 11;
        drop(a);
        let a = ring.take().expect("it came back");
        assert_eq!(*a.slot(), 11);
    }

    #[test]
    fn a_slot_outlives_its_ring_and_a_panic_gives_it_back() {
        let ring = Ring::new([vec![1u8; 3]]);
        let lent = ring.take().expect("free");
        let holder = std::thread::Builder::new().name("kasmina-telemetry".into());
        let holder = holder.spawn(move || {
            let _lent = lent;
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(holder.expect("a thread").join().is_err());
        let lent = ring.take().expect("it came back");
        drop(ring);
        assert_eq!(lent.slot().len(), 3);
    }
}
