//! A block's sixteen barriers.

use super::abi::Combine;

/// How many a block has.
pub(super) const BARRIERS: usize = 16;

/// One barrier, between two completions.
#[derive(Debug, Default)]
pub(super) struct Barrier {
    /// Threads that it takes; 0 for all of the block, and `None` while nobody has come.
    wanted: Option<u32>,
    arrived: u32,
    all: bool,
    any: bool,
    count: u32,
    waiting: Vec<u32>,
}

/// Those whom a completed barrier lets go, and what it has found.
#[derive(Debug)]
pub(super) struct Completed {
    pub(super) waiting: Vec<u32>,
    all: bool,
    any: bool,
    count: u32,
}

impl Completed {
    pub(super) fn result(&self, how: Combine) -> u32 {
        match how {
            Combine::And => u32::from(self.all),
            Combine::Or => u32::from(self.any),
            Combine::Count => self.count,
        }
    }
}

impl Barrier {
    /// A thread comes, and waits or not.
    pub(super) fn arrive(
        &mut self,
        thread: u32,
        wanted: u32,
        waits: bool,
        own: bool,
    ) -> Result<(), String> {
        match self.wanted {
            None => {
                self.wanted = Some(wanted);
                self.all = true;
            }
            Some(before) if before != wanted => {
                return Err(format!(
                    "a barrier for {wanted} threads at which others wait for {before} (0: all of the block)"
                ));
            }
            Some(_) => {}
        }
        self.arrived += 1;
        self.all &= own;
        self.any |= own;
        self.count += u32::from(own);
        if waits {
            self.waiting.push(thread);
        }
        Ok(())
    }

    /// Whether everybody has come, where `present` threads of the block have not exited; then the barrier begins anew.
    pub(super) fn complete(&mut self, present: u32) -> Option<Completed> {
        let wanted = match self.wanted? {
            0 => present,
            some => some,
        };
        if self.arrived < wanted || self.arrived == 0 {
            return None;
        }
        let done = std::mem::take(self);
        Some(Completed { waiting: done.waiting, all: done.all, any: done.any, count: done.count })
    }
}
