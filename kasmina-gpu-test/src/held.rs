//! Work that is queued behind a device that is held up: proof that it does not wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use kasmina_sys::Stream;

use crate::{Failed, ensure};

/// For so long `work` may take before it counts as waiting.
const PATIENCE: Duration = Duration::from_secs(20);

/// What `work` returns, which must queue on `stream` and return while a callback holds the stream up. Should it wait, a watch lets
/// the callback go after 20 seconds, so that the test fails and does not hang.
///
/// Kernels that are loaded and memory that is allocated at first use may wait: run `work` before, then this.
///
/// # Errors
/// `work`'s own; it waited; the stream was idle after it, so that it proved nothing.
pub fn without_waiting<T>(
    stream: &Stream,
    work: impl FnOnce() -> Result<T, Failed>,
) -> Result<T, Failed> {
    let (release, gate) = mpsc::channel::<()>();
    let (returned, watched) = mpsc::channel::<()>();
    let waited = Arc::new(AtomicBool::new(false));
    stream.call_host(move || {
        let _ = gate.recv();
    })?;
    let watch = thread::spawn({
        let waited = Arc::clone(&waited);
        move || {
            if watched.recv_timeout(PATIENCE).is_err() {
                waited.store(true, Ordering::SeqCst);
            }
            drop(release);
        }
    });
    let outcome = work();
    let idle = stream.is_idle();
    // Nobody listens any more where the work has waited.
    let _ = returned.send(());
    ensure(watch.join().is_ok(), || "the watch panicked".to_owned())?;
    let outcome = outcome?;
    ensure(!waited.load(Ordering::SeqCst), || "it waited for the device".to_owned())?;
    ensure(!idle?, || "the device was not held up".to_owned())?;
    Ok(outcome)
}
