//! What layers and a resident grid know of each other: who uses a layer's memory, and what a worker of the grid has.

use std::fmt::Debug;

use parking_lot::Mutex;

/// The grid's kernel.
pub(super) const GRID: &str = "kasmina_resident";
/// Threads of a block that work on an item, `kBlockThreads`; the others merge statistics.
pub(super) const BLOCK_THREADS: u32 = 192;
/// Dynamic shared memory of a block for records on their way to the mergers, `kRecordBytes`.
pub(super) const RECORD_BYTES: u32 = 36 << 10;

/// A step that runs elsewhere and uses a layer's device memory until it is over.
pub(super) trait Resident: Debug + Send + Sync {
    /// Whether it is. Does not wait.
    fn is_over(&self) -> bool;

    /// Waits until it is.
    fn outlast(&self);
}

/// Steps that use a layer's device memory, for whoever wants to change it.
#[derive(Debug, Default)]
pub(super) struct Residents {
    steps: Mutex<Vec<Box<dyn Resident>>>,
}

impl Residents {
    pub(super) fn note(&self, step: impl Resident + 'static) {
        let mut steps = self.steps.lock();
        steps.retain(|step| !step.is_over());
        steps.push(Box::new(step));
    }

    /// Waits until no step uses the layer any more.
    pub(super) fn settle(&self) {
        let steps = std::mem::take(&mut *self.steps.lock());
        for step in steps {
            step.outlast();
        }
    }
}

impl Drop for Residents {
    fn drop(&mut self) {
        self.settle();
    }
}
