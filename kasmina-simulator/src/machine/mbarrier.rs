//! mbarriers: objects in shared memory on which threads arrive, bytes come, and threads wait for the end of a phase.

use super::grid::Id;

/// The most arrivals of a phase, and the most bytes.
pub(super) const MOST: u32 = (1 << 20) - 1;

/// An mbarrier. What lies in shared memory in its place is a mark that says so.
#[derive(Debug)]
pub(super) struct Mbarrier {
    expected: u32,
    pending: u32,
    /// Bytes that are expected less those that have come.
    bytes: i64,
    /// Phases that are over.
    phase: u64,
    waiting: Vec<Id>,
}

impl Mbarrier {
    pub(super) fn new(arrivals: u32) -> Self {
        Self { expected: arrivals, pending: arrivals, bytes: 0, phase: 0, waiting: Vec::new() }
    }

    /// Whether the phase of this parity is over.
    pub(super) fn is_over(&self, parity: u32) -> bool {
        self.phase & 1 != u64::from(parity & 1)
    }

    /// One arrival, and `bytes` more to come. Answers those who waited where the phase is over.
    pub(super) fn arrive(&mut self, bytes: u32) -> Result<Option<Vec<Id>>, String> {
        if self.pending == 0 {
            return Err(format!(
                "more than {} arrivals on an mbarrier in one phase",
                self.expected
            ));
        }
        self.bytes += i64::from(bytes);
        self.pending -= 1;
        self.check()
    }

    /// One arrival more is wanted in this phase, and it comes later.
    pub(super) fn want(&mut self) {
        self.pending += 1;
    }

    /// `bytes` more to come in this phase.
    pub(super) fn expect(&mut self, bytes: u32) -> Result<Option<Vec<Id>>, String> {
        self.bytes += i64::from(bytes);
        self.check()
    }

    /// `bytes` have come.
    pub(super) fn came(&mut self, bytes: u32) -> Result<Option<Vec<Id>>, String> {
        self.bytes -= i64::from(bytes);
        self.check()
    }

    /// Someone waits for the end of the phase.
    pub(super) fn wait(&mut self, thread: Id) {
        self.waiting.push(thread);
    }

    /// Someone has waited long enough.
    pub(super) fn give_up(&mut self, thread: Id) {
        self.waiting.retain(|&other| other != thread);
    }

    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn check(&mut self) -> Result<Option<Vec<Id>>, String> {
        if self.bytes.unsigned_abs() > u64::from(MOST) {
            return Err(format!(
                "an mbarrier that expects {} bytes in one phase, beyond {MOST}",
                self.bytes
            ));
        }
        if self.pending > 0 || self.bytes != 0 {
            return Ok(None);
        }
        self.phase += 1;
        self.pending = self.expected;
        Ok(Some(std::mem::take(&mut self.waiting)))
    }
}

impl std::fmt::Display for Mbarrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of {} arrivals and {} bytes missing in phase {}",
            self.pending, self.expected, self.bytes, self.phase
        )
    }
}
