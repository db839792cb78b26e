//! Times on the device's own clock.

use kasmina_core::cuda::CudaError;
use kasmina_sys::{Event, Stream};

use super::summary::Timing;
use super::throttle::Watch;

/// Launches before anything is timed: modules get loaded, memory gets allocated, clocks rise.
const WARM_UP: usize = 5;
/// Launches that tell whether one is short, and let the host run ahead of the device again.
const PROBE: usize = 20;
/// Below this one launch is not timed by itself: the clock steps by half a microsecond, and its marks cost some.
const SHORT_MS: f64 = 0.020;
/// How many short ones are timed together.
const BATCH: usize = 20;

/// A pair of marks for each repetition. All repetitions are queued before any is waited for: what the host does for a launch is
/// hidden behind the launch before it then, as in training, and is seen only where the device has to wait for it.
#[derive(Debug)]
pub struct Clock {
    stream: Stream,
    marks: Vec<(Event, Event)>,
    watch: Watch,
}

impl Clock {
    /// A clock on a stream for so many repetitions, with what watches the device's clocks.
    ///
    /// # Errors
    /// The driver refused.
    pub fn new(stream: &Stream, repetitions: usize, watch: Watch) -> Result<Self, CudaError> {
        let context = stream.context();
        let pair = |_| Ok((Event::timed(context)?, Event::timed(context)?));
        let marks = (0..repetitions.max(1)).map(pair).collect::<Result<_, CudaError>>()?;
        Ok(Self { stream: stream.clone(), marks, watch })
    }

    /// What watches the device's clocks.
    #[must_use]
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Times of every case.
    #[must_use]
    pub fn repetitions(&self) -> usize {
        self.marks.len()
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Times `body`, which queues one launch on the stream and is told how many were queued before. Waits.
    ///
    /// # Errors
    /// Those of `body`, and whatever failed on the device.
    pub fn time(
        &self,
        body: impl FnMut(usize) -> Result<(), CudaError>,
    ) -> Result<Timing, CudaError> {
        self.time_by(body)
    }

    /// The same for any error.
    ///
    /// # Errors
    /// As [`Clock::time`].
    pub fn time_by<E: From<kasmina_sys::Error>>(
        &self,
        mut body: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Timing, E> {
        let Some((start, end)) = self.marks.first() else {
            return Ok(Timing { milliseconds: Vec::new(), launches: 1 });
        };
        let mut turn = 0;
        let mut next = |launches: usize| {
            for _ in 0..launches {
                body(turn)?;
                turn += 1;
            }
            Ok::<(), E>(())
        };
        next(WARM_UP)?;
        start.record(&self.stream)?;
        next(PROBE)?;
        end.record(&self.stream)?;
        end.synchronize()?;
        let launches = batch(f64::from(end.milliseconds_since(start)?) / PROBE as f64);
        // Not waited for: the first repetition too is queued while the device is busy.
        next(WARM_UP)?;
        for (start, end) in &self.marks {
            start.record(&self.stream)?;
            next(launches)?;
            end.record(&self.stream)?;
        }
        // The device is busy, and nothing is launched that this could hold up.
        self.watch.look();
        self.stream.synchronize()?;
        let milliseconds = self
            .marks
            .iter()
            .map(|(start, end)| Ok(f64::from(end.milliseconds_since(start)?) / launches as f64))
            .collect::<Result<_, E>>()?;
        Ok(Timing { milliseconds, launches })
    }
}

/// How many launches are timed together, where one takes so long.
pub(super) fn batch(milliseconds: f64) -> usize {
    if milliseconds < SHORT_MS { BATCH } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_launches_are_timed_together() {
        assert_eq!(batch(0.0199), BATCH);
        assert_eq!(batch(0.02), 1);
        assert_eq!(batch(3.0), 1);
    }
}
