//! Reports from the training thread to whoever reads them: a bounded queue and a consumer thread.
//!
//! [`Transport::publish`] never waits for the consumer. Where the consumer lags, a layer's reports merge (counts add, moments
//! merge by Chan's formula), so memory stays bounded and nothing is dropped; where it refuses a report or panics, the report is
//! kept and merged with the layer's next. When a transport is closed, every published window has been in exactly one of: a
//! delivered report, what [`Transport::close`] gives back, or the count of lost batches, whose copy from the device failed.
//! Dropping a transport without closing it drops what its consumer does not take.
//!
//! Layers are told apart by their names and numbers of seeds: two layers of one name and size would become one.

mod consumer;
mod queue;
mod spare;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::TelemetryReport;
use queue::Queue;

pub use spare::Spare;

/// Whatever a consumer failed with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A batch that is on its way to the host, as an asynchronous copy from a device into page-locked memory.
///
/// How many are on their way at once is up to whoever makes them: a ring of two landing buffers, say, whose owner goes on
/// accumulating on the device while both are taken, and gets one back when `land` has read it.
pub trait Landing: Send + 'static {
    /// The layer it is of.
    fn layer(&self) -> &str;

    /// Waits until it is here. Runs on the consumer's thread. `spare` has memory of earlier reports, if any is left.
    ///
    /// # Errors
    /// The copy failed; the batch counts as lost.
    fn land(self: Box<Self>, spare: &mut Spare) -> Result<TelemetryReport, BoxError>;
}

/// Whether a consumer is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumerState {
    /// It takes reports.
    #[default]
    Running,
    /// It panicked with this message, and was dropped. Reports are kept; [`Transport::restart`] gives them to another one.
    Panicked(String),
    /// It was dropped by [`Transport::close`].
    Closed,
}

/// What a transport has done so far. Windows are what [`TelemetryReport::windows`] counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportStatus {
    /// Reports and landings published.
    pub published: u64,
    /// Times that two reports became one.
    pub merged: u64,
    /// Reports that the consumer has taken.
    pub delivered: u64,
    /// Times that it refused one or panicked over it.
    pub refused: u64,
    /// Landings that failed: the only way for a measurement to get lost.
    pub lost: u64,
    /// Batches that wait for the consumer, or are with it.
    pub waiting: usize,
    /// Reports that it refused and that will be part of the layer's next one.
    pub held: usize,
    /// The latest refusal or loss.
    pub last_error: Option<String>,
    /// Whether a consumer is there.
    pub consumer: ConsumerState,
}

/// What became of a published report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It waits for the consumer.
    Queued,
    /// The consumer lags: it is part of the layer's newest waiting report.
    Merged,
}

/// Why a transport did not do what it was asked for. Nothing is lost by any of these: the transport still has it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The operating system gave no thread.
    #[error("the consumer's thread did not start: {0}")]
    Spawn(#[from] std::io::Error),
    /// The time given was too short.
    #[error(
        "{waiting} batches still wait for the consumer after {waited:?}; give it longer, or see what it is stuck on"
    )]
    Timeout {
        /// Batches that wait or are with the consumer.
        waiting: usize,
        /// The time given.
        waited: Duration,
    },
    /// The consumer is gone.
    #[error("the consumer panicked: {message}; `restart` gives what waits to another one")]
    ConsumerPanicked {
        /// The panic's message.
        message: String,
    },
    /// The consumer did not take some reports, when asked again either.
    #[error("the consumer refused {reports} reports: {message}")]
    Refused {
        /// How many reports are held.
        reports: usize,
        /// Its latest error.
        message: String,
    },
    /// There is no consumer since [`Transport::close`].
    #[error("the transport was closed; `restart` gives it another consumer")]
    Closed,
    /// [`Transport::restart`] while the consumer, or a close that timed out, still runs.
    #[error("the consumer still runs; `close` waits for its end")]
    StillRunning,
}

/// What [`Transport::close`] leaves.
#[derive(Debug)]
pub struct Closed {
    /// What no consumer has taken, of a layer the oldest first.
    pub undelivered: Vec<TelemetryReport>,
    /// The last status.
    pub status: TransportStatus,
}

struct Shared {
    queue: Mutex<Queue>,
    /// The queue has something, or the transport is to stop.
    work: Condvar,
    /// The consumer is done with a batch, or gone.
    idle: Condvar,
}

/// Carries reports to a consumer thread.
///
/// ```
/// use std::sync::mpsc;
/// use std::time::Duration;
///
/// use kasmina_telemetry::{ChunkStats, TelemetryReport, transport::Transport};
///
/// let (sender, receiver) = mpsc::channel();
/// let mut transport = Transport::new(2, move |report: &std::sync::Arc<TelemetryReport>| {
///     Ok(sender.send(report.clone())?) // write_json_lines(report, &mut file), server.publish(report), …
/// })?;
/// // In the training loop, once an epoch; never waits for the consumer:
/// transport.publish(TelemetryReport { layer: "encoder.0".into(), epoch: 1, ..TelemetryReport::default() });
/// assert_eq!(receiver.recv()?.epoch, 1);
///
/// let closed = transport.close(Duration::from_secs(5))?;
/// assert_eq!((closed.status.delivered, closed.undelivered.len()), (1, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Transport {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Transport {
    /// How long a dropped transport waits for its consumer to take what waits. A consumer that is stuck longer is left to itself:
    /// its thread ends when it comes back.
    pub const DROP_PATIENCE: Duration = Duration::from_secs(2);

    /// Starts a thread that gives `consumer` every report, a layer's in the order of publication. From `capacity` waiting reports
    /// of a layer on, further ones merge; 2 is double buffering, 0 is taken as 1.
    ///
    /// A consumer's error or panic keeps the report: see [`TransportStatus`].
    ///
    /// # Errors
    /// [`TransportError::Spawn`].
    pub fn new<C>(capacity: usize, consumer: C) -> Result<Self, TransportError>
    where
        C: FnMut(&Arc<TelemetryReport>) -> Result<(), BoxError> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(capacity.max(1))),
            work: Condvar::new(),
            idle: Condvar::new(),
        });
        let thread = Some(consumer::spawn(&shared, consumer)?);
        Ok(Self { shared, thread })
    }

    /// Hands over a report. Waits neither for the consumer nor for its work, but merges where it lags.
    pub fn publish(&self, report: TelemetryReport) -> Published {
        let queued = self.shared.queue.lock().push(report);
        self.shared.work.notify_one();
        if queued { Published::Queued } else { Published::Merged }
    }

    /// Hands over a batch that is on its way. Waits for nothing.
    pub fn publish_landing(&self, landing: Box<dyn Landing>) {
        let layer = landing.layer().to_owned();
        self.shared.queue.lock().push_landing(layer, landing);
        self.shared.work.notify_one();
    }

    /// What has been done, and what waits.
    pub fn status(&self) -> TransportStatus {
        self.shared.queue.lock().status()
    }

    /// Waits until the consumer is done with everything published before; what it refused, it is asked to take again, once.
    ///
    /// # Errors
    /// [`TransportError::Timeout`], [`TransportError::ConsumerPanicked`], [`TransportError::Closed`],
    /// [`TransportError::Refused`].
    pub fn flush(&self, timeout: Duration) -> Result<(), TransportError> {
        let deadline = Deadline::after(timeout);
        let mut queue = self.shared.queue.lock();
        let target = queue.pushed;
        for round in 0..2 {
            while queue.finished < target || queue.again > 0 {
                gone(&queue)?;
                deadline.wait(&self.shared.idle, &mut queue)?;
            }
            if queue.held() == 0 {
                return Ok(());
            }
            gone(&queue)?;
            if round == 0 {
                queue.retry_held();
                self.shared.work.notify_one();
            }
        }
        let message = queue.status.last_error.clone().unwrap_or_default();
        Err(TransportError::Refused { reports: queue.held(), message })
    }

    /// Puts another consumer in the place of one that panicked or was closed. It gets everything that waits, what the other one
    /// did not take first.
    ///
    /// # Errors
    /// [`TransportError::StillRunning`], [`TransportError::Spawn`].
    pub fn restart<C>(&mut self, consumer: C) -> Result<(), TransportError>
    where
        C: FnMut(&Arc<TelemetryReport>) -> Result<(), BoxError> + Send + 'static,
    {
        {
            let mut queue = self.shared.queue.lock();
            // Also that which waits for copies behind a panic, for a close that timed out.
            if !queue.ended {
                return Err(TransportError::StillRunning);
            }
            queue.retry_held();
        }
        self.join();
        self.thread = Some(consumer::spawn(&self.shared, consumer)?);
        Ok(())
    }

    /// Ends the transport: the consumer gets everything that waits and is dropped. What it does not take comes back, and so does
    /// what waits behind a panic.
    ///
    /// # Errors
    /// [`TransportError::Timeout`]: the consumer, or a copy, is stuck. The transport is as it was, but that the consumer is
    /// dropped once it comes back and has been given what waits; closing again waits again.
    pub fn close(&mut self, timeout: Duration) -> Result<Closed, TransportError> {
        let deadline = Deadline::after(timeout);
        self.stop(&deadline)?;
        if self.status().waiting > 0 {
            // Behind a panic, or published since an earlier close: copies on their way need a thread that waits for them.
            self.thread = Some(consumer::spawn_without(&self.shared)?);
            self.stop(&deadline)?;
        }
        let mut queue = self.shared.queue.lock();
        let undelivered = queue.take_all_held();
        Ok(Closed { undelivered, status: queue.status() })
    }

    fn stop(&mut self, deadline: &Deadline) -> Result<(), TransportError> {
        let mut queue = self.shared.queue.lock();
        queue.stopping = true;
        self.shared.work.notify_one();
        while !queue.ended {
            deadline.wait(&self.shared.idle, &mut queue)?;
        }
        drop(queue);
        self.join();
        Ok(())
    }

    /// Waits for a thread that has come to its end.
    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Its panics were caught: there is nothing left in it to fail.
            let _ = thread.join();
        }
    }
}

/// A moment up to which to wait; none for a time that is beyond the clock's.
struct Deadline {
    given: Duration,
    at: Option<Instant>,
}

impl Deadline {
    fn after(given: Duration) -> Self {
        Self { given, at: Instant::now().checked_add(given) }
    }

    /// Waits for a notification.
    fn wait(&self, on: &Condvar, queue: &mut MutexGuard<'_, Queue>) -> Result<(), TransportError> {
        let Some(at) = self.at else {
            on.wait(queue);
            return Ok(());
        };
        // Late, but not without a look after it: what it waits for may have come in the meantime.
        if Instant::now() >= at {
            let waiting = queue.status().waiting;
            return Err(TransportError::Timeout { waiting, waited: self.given });
        }
        on.wait_until(queue, at);
        Ok(())
    }
}

/// An error if there is no consumer.
fn gone(queue: &Queue) -> Result<(), TransportError> {
    match &queue.status.consumer {
        ConsumerState::Running => Ok(()),
        ConsumerState::Closed => Err(TransportError::Closed),
        ConsumerState::Panicked(message) => {
            Err(TransportError::ConsumerPanicked { message: message.clone() })
        }
    }
}

impl Drop for Transport {
    /// Lets the consumer take what waits, for [`Transport::DROP_PATIENCE`]; [`Transport::close`] says what became of it.
    fn drop(&mut self) {
        let _ = self.stop(&Deadline::after(Self::DROP_PATIENCE));
    }
}
