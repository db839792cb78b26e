//! cp.async: copies of a thread from global to shared memory, in order, done when somebody waits for them or by chance before.

use super::FaultKind;
use super::grid::{Grid, Id};

/// A step of a thread's copies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Copy {
    /// Bytes from global memory to a shared address.
    Bytes { to: u32, from: u64, bytes: u32, filled: u32 },
    /// The end of a group.
    Group,
    /// An arrival on an mbarrier when everything before is done.
    Arrive { barrier: u32, time: u32 },
}

impl Grid<'_> {
    /// Starts a copy of `bytes` bytes, of which `filled` come from memory and the rest are zero.
    pub(super) fn copy(&mut self, id: Id, to: u32, from: u64, bytes: u32, filled: u32) {
        if !matches!(bytes, 4 | 8 | 16) {
            return self.fail(
                Some(id),
                FaultKind::IllegalInstruction(format!("cp.async of {bytes} bytes")),
            );
        }
        let size = u64::from(bytes);
        for address in [u64::from(to), from] {
            if address % size != 0 {
                let kind =
                    FaultKind::MisalignedAddress { access: "cp.async", address, alignment: size };
                return self.fail(Some(id), kind);
            }
        }
        if filled > 0 && !self.is_allocated(from, u64::from(filled)) {
            return self.illegal(id, "a read by cp.async", from, u64::from(filled));
        }
        let Some(place) = self.blocks.of(id).shared.at(to, bytes as usize) else {
            return self.illegal(id, "a write by cp.async to shared memory", u64::from(to), size);
        };
        let source = (filled > 0).then_some((from, u64::from(filled)));
        self.watch(id, |races| races.copy(id, place as u64, source, size));
        self.queue(id, Copy::Bytes { to, from, bytes, filled });
    }

    /// Ends a group of copies.
    pub(super) fn copy_commit(&mut self, id: Id) {
        self.tell(|races| races.copy_group(id));
        self.queue(id, Copy::Group);
    }

    /// An arrival on an mbarrier follows the copies so far; `counted`: the phase wants one arrival more for it.
    pub(super) fn copy_arrive(&mut self, id: Id, barrier: u32, counted: bool) {
        if counted && let Some(barrier) = self.mbarrier(id, barrier) {
            barrier.want();
        }
        let time = self.races.as_mut().map_or(0, |races| races.copies_so_far(id));
        self.queue(id, Copy::Arrive { barrier, time });
    }

    fn queue(&mut self, id: Id, step: Copy) {
        let copies = &mut self.blocks.thread(id).copies;
        copies.push_back(step);
        if copies.len() == 1 {
            self.copying.push(id);
        }
    }

    /// A thread waits for its copies: for all groups but the newest, or for all copies.
    pub(super) fn copy_wait(&mut self, id: Id, pending: usize, all: bool) {
        self.complete_copies(id, pending, all);
        self.tell(|races| races.copies_waited(id, pending, all));
    }

    /// Does the thread's copies until at most `pending` of its groups are left; with `all`, those of no group yet, too.
    pub(super) fn complete_copies(&mut self, id: Id, pending: usize, all: bool) {
        loop {
            let copies = &self.blocks.thread(id).copies;
            let groups = copies.iter().filter(|copy| matches!(copy, Copy::Group)).count();
            let done = if all { copies.is_empty() } else { groups <= pending };
            if done {
                return;
            }
            self.complete_copy(id);
        }
    }

    /// Does the first of a thread's copies. False where it has none.
    pub(super) fn complete_copy(&mut self, id: Id) -> bool {
        let Some(block) = self.blocks.get_mut(id.block) else { return false };
        let Some(copy) = block.threads[id.thread as usize].copies.pop_front() else { return false };
        match copy {
            Copy::Group => {}
            Copy::Bytes { to, from, bytes, filled } => {
                if let Some(to) = block.shared.at(to, bytes as usize) {
                    // SAFETY: the source was in a live allocation when the copy began, which the kernel's user keeps until it has
                    // ended; the destination lies in the block's shared memory.
                    unsafe {
                        to.write_bytes(0, bytes as usize);
                        std::ptr::copy(from as *const u8, to, filled as usize);
                    }
                }
            }
            Copy::Arrive { barrier, time } => self.mbarrier_copied(id, barrier, time),
        }
        true
    }

    pub(super) fn illegal(&mut self, id: Id, access: &'static str, address: u64, bytes: u64) {
        let place = String::new();
        self.fail(Some(id), FaultKind::IllegalAddress { access, address, bytes, place });
    }
}
