//! What threads and copies do with mbarriers.

use super::FaultKind;
use super::grid::{Grid, Id, Step};
use super::mbarrier::{MOST, Mbarrier};
use super::races::Manner;
use super::thread::Waiting;
use super::watch::{CHANGED, WRITTEN};

/// Lies in shared memory where an mbarrier is, so that one is known that something else was written over.
const MARK: u64 = 0x6d62_6172_7269_6572;

impl Grid<'_> {
    pub(super) fn mbarrier_init(&mut self, id: Id, at: u32, arrivals: u32) {
        if arrivals == 0 || arrivals > MOST {
            let why = format!("an mbarrier for {arrivals} arrivals, of 1 to {MOST}");
            return self.fail(Some(id), FaultKind::Undefined(why));
        }
        if !at.is_multiple_of(8) {
            let kind = FaultKind::MisalignedAddress {
                access: "mbarrier.init",
                address: u64::from(at),
                alignment: 8,
            };
            return self.fail(Some(id), kind);
        }
        let block = self.blocks.of(id);
        let Some(word) = block.shared.at(at, 8) else {
            return self.illegal(id, "mbarrier.init in shared memory", u64::from(at), 8);
        };
        if block.mbarriers.get(&at).is_some_and(Mbarrier::is_waited_for) {
            let why =
                format!("mbarrier.init of the barrier at shared {at:#x} while threads wait at it");
            return self.fail(Some(id), FaultKind::Undefined(why));
        }
        block.mbarriers.insert(at, Mbarrier::new(arrivals));
        // SAFETY: eight aligned bytes of the block's shared memory.
        unsafe { word.cast::<u64>().write(MARK ^ u64::from(at)) };
        self.note(id, word as u64, 8, WRITTEN);
    }

    pub(super) fn mbarrier_invalidate(&mut self, id: Id, at: u32) {
        if self.mbarrier(id, at).is_some() {
            self.blocks.of(id).mbarriers.remove(&at);
            self.note_word(id, at, WRITTEN);
        }
    }

    /// The mbarrier at a shared address of a thread's block. Where there is none, that is the fault.
    pub(super) fn mbarrier(&mut self, id: Id, at: u32) -> Option<&mut Mbarrier> {
        let block = self.blocks.get(id.block)?;
        let word = block.shared.at(at, 8).filter(|_| at.is_multiple_of(8));
        // SAFETY: eight aligned bytes of the block's shared memory.
        let marked =
            word.is_some_and(|word| unsafe { word.cast::<u64>().read() } == MARK ^ u64::from(at));
        let known = block.mbarriers.contains_key(&at);
        if known && marked {
            return self.blocks.get_mut(id.block)?.mbarriers.get_mut(&at);
        }
        let why = if known {
            format!("the mbarrier at shared {at:#x} was overwritten by ordinary data")
        } else {
            format!("no mbarrier was made at shared {at:#x}")
        };
        self.fail(Some(id), FaultKind::Undefined(why));
        None
    }

    pub(super) fn mbarrier_arrive(&mut self, id: Id, at: u32, bytes: u32) {
        self.note_word(id, at, CHANGED);
        self.tell(|races| races.mbarrier_arrive(id, at));
        self.arrived(id, at, bytes);
    }

    /// The arrival that copies of a thread make when they are done.
    pub(super) fn mbarrier_copied(&mut self, id: Id, at: u32, time: u32) {
        self.tell(|races| races.copies_arrive(id, at, time));
        self.arrived(id, at, 0);
    }

    fn arrived(&mut self, id: Id, at: u32, bytes: u32) {
        let ended = self.mbarrier(id, at).map(|barrier| barrier.arrive(bytes));
        self.phase_may_end(id, at, ended);
    }

    fn note_word(&mut self, id: Id, at: u32, manner: Manner) {
        if let Some(word) = self.blocks.of(id).shared.at(at, 8) {
            self.note(id, word as u64, 8, manner);
        }
    }

    pub(super) fn mbarrier_expect(&mut self, id: Id, at: u32, bytes: u32) {
        self.note_word(id, at, CHANGED);
        let ended = self.mbarrier(id, at).map(|barrier| barrier.expect(bytes));
        self.phase_may_end(id, at, ended);
    }

    /// Bytes of a copy that `id` started have come for the mbarrier of a block.
    pub(super) fn mbarrier_came(&mut self, id: Id, at: u32, bytes: u32) {
        let ended = self.mbarrier(id, at).map(|barrier| barrier.came(bytes));
        self.phase_may_end(id, at, ended);
    }

    fn phase_may_end(&mut self, id: Id, at: u32, ended: Option<Result<Option<Vec<Id>>, String>>) {
        match ended {
            Some(Ok(Some(waiting))) => {
                self.tell(|races| races.mbarrier_over(id, at));
                for thread in waiting {
                    self.wake(thread, 1);
                }
            }
            Some(Err(why)) => {
                self.fail(Some(id), FaultKind::Undefined(format!("{why} (at shared {at:#x})")));
            }
            Some(Ok(None)) | None => {}
        }
    }

    /// Whether the phase of a parity is over. If it is not, the thread waits for that, at the longest until nothing else goes on: both
    /// test_wait and try_wait may say no at any time.
    pub(super) fn mbarrier_test(&mut self, id: Id, at: u32, parity: u32) -> Step {
        self.note_word(id, at, CHANGED);
        let Some(barrier) = self.mbarrier(id, at) else { return Step::Go(0) };
        if barrier.is_over(parity) {
            return Step::Go(1);
        }
        barrier.wait(id);
        Step::Park(Waiting::Mbarrier { barrier: at, parity })
    }
}
