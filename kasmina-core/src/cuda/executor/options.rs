//! How an executor is set up.

use std::time::Duration;

use super::records::BOARD;

/// How a [`PersistentExecutor`](super::PersistentExecutor) is set up.
///
/// ```
/// use std::time::Duration;
/// use kasmina_core::cuda::ExecutorOptions;
///
/// let options = ExecutorOptions::new().leave_multiprocessors(12).idle(Duration::from_millis(50));
/// assert_eq!(options.left_multiprocessors(), 12);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct ExecutorOptions {
    pub(super) left: u32,
    pub(super) idle: Duration,
    pub(super) watchdog: Duration,
    pub(super) capacity: usize,
    pub(super) window: usize,
    pub(super) forced_launches: Option<String>,
}

impl ExecutorOptions {
    /// All multiprocessors; idle after 5 ms; a watchdog of 2 s; a queue of 1024 steps, of which 16 are on the device.
    pub fn new() -> Self {
        Self {
            left: 0,
            idle: Duration::from_millis(5),
            watchdog: Duration::from_secs(2),
            capacity: 1024,
            window: 16,
            forced_launches: None,
        }
    }

    /// Multiprocessors that the grid leaves to other kernels, which it would otherwise share shared memory and registers with.
    pub fn leave_multiprocessors(mut self, left: u32) -> Self {
        self.left = left;
        self
    }

    /// How long the grid stays when there is nothing to do. It starts again by itself; while it stays, calls that wait for the
    /// whole device wait for this time, too. At least 1 µs.
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle.max(Duration::from_micros(1));
        self
    }

    /// How long anything on the device may wait for something else before the grid ends itself. At least 1 ms.
    pub fn watchdog(mut self, watchdog: Duration) -> Self {
        self.watchdog = watchdog.max(Duration::from_millis(1));
        self
    }

    /// Steps that wait on the host at most, at least 1; then `submit` waits and `try_submit` refuses.
    pub fn capacity(mut self, capacity: usize) -> Self {
        self.capacity = capacity.max(1);
        self
    }

    /// Steps that are with the device at once, 1 to 64. Among these the order is settled: a step of higher priority overtakes those
    /// that still wait on the host.
    pub fn window(mut self, window: usize) -> Self {
        self.window = window.clamp(1, BOARD);
        self
    }

    /// Runs every step by launches, with this as the reason that reports give: to compare, and for tests.
    pub fn by_launches(mut self, reason: impl Into<String>) -> Self {
        self.forced_launches = Some(reason.into());
        self
    }

    /// See [`ExecutorOptions::leave_multiprocessors`].
    pub fn left_multiprocessors(&self) -> u32 {
        self.left
    }
}

impl Default for ExecutorOptions {
    fn default() -> Self {
        Self::new()
    }
}
