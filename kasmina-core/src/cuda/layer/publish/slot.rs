//! A slot on a device: room for a window there, and page-locked memory that it is copied to on a stream of its own, so that the
//! training stream goes on.

use kasmina_sys::{Context, DeviceBuffer, Error, PinnedBuffer, PinnedKind, Stream};
use kasmina_telemetry::transport::{BoxError, Spare};
use kasmina_telemetry::{Histogram, TelemetryReport};

use super::ledger::{Arrives, Courier, Load};
use crate::cuda::error::CudaError;
use crate::cuda::hand_over::{Place, Window, read_window, window_words};
use crate::cuda::streams::Streams;

/// A window's room on the device, and whether its own stream may still use it.
pub(super) struct Room {
    window: Window,
    /// Something on the window's home is not waited for: its allocation, or a copy of it.
    busy: bool,
}

impl Room {
    pub(super) fn new(home: &Stream, seeds: usize) -> Result<Self, CudaError> {
        Ok(Self { window: Window::new(home, seeds)?, busy: true })
    }

    pub(super) fn make_histograms(&mut self, seeds: usize) -> Result<(), CudaError> {
        self.busy |= self.window.histograms.is_none();
        self.window.make_histograms(seeds)
    }

    /// Makes `stream` wait for what the home does with it, if it may be doing something.
    fn free_for(&mut self, stream: &Stream) -> Result<(), Error> {
        if self.busy {
            stream.join(self.window.words.home())?;
            self.busy = false;
        }
        Ok(())
    }

    /// Waits for the windows that lie here, and puts them into a report's columns.
    pub(super) fn read(
        &self,
        report: &mut TelemetryReport,
        seeds: usize,
        histograms: bool,
    ) -> Result<(), CudaError> {
        let words = self.window.words.to_vec()?;
        let histograms = self.window.histograms.as_ref().filter(|_| histograms);
        report.histograms = histograms.map(DeviceBuffer::to_vec).transpose()?;
        (report.chunk, report.gradient, report.saturated) = read_window(&words, seeds);
        Ok(())
    }
}

pub(super) struct Slot {
    room: Room,
    words: PinnedBuffer<u64>,
    /// Made where a window has some for the first time, and kept.
    histograms: Option<PinnedBuffer<Histogram>>,
    seeds: usize,
}

impl Slot {
    pub(super) fn new(home: &Stream, seeds: usize) -> Result<Self, CudaError> {
        let room = Room::new(home, seeds)?;
        let words = pinned(home.context(), window_words(seeds))?;
        Ok(Self { room, words, histograms: None, seeds })
    }

    pub(super) fn make_histograms(&mut self) -> Result<(), CudaError> {
        self.room.make_histograms(self.seeds)?;
        if self.histograms.is_none() {
            self.histograms = Some(pinned(self.words.context(), self.seeds)?);
        }
        Ok(())
    }
}

/// The consumer waits for what it reads, and that may be a while: it sleeps.
fn pinned<T: kasmina_sys::DeviceCopy>(
    context: &Context,
    len: usize,
) -> Result<PinnedBuffer<T>, CudaError> {
    Ok(PinnedBuffer::zeroed(context, len, PinnedKind::Cached)?.with_sleeping_waits()?)
}

impl Arrives for Slot {
    fn read(
        &mut self,
        report: &mut TelemetryReport,
        histograms: bool,
        spare: &mut Spare,
    ) -> Result<(), BoxError> {
        let words = self.words.as_slice()?;
        let histograms = self.histograms.as_ref().filter(|_| histograms);
        let histograms = histograms.map(PinnedBuffer::as_slice).transpose()?;
        (report.chunk, report.gradient, report.saturated) = read_window(words, self.seeds);
        report.histograms = histograms.map(|histograms| spare.histograms(histograms));
        // Both copies are done.
        self.room.busy = false;
        Ok(())
    }
}

/// A layer's accumulators and where their windows go.
pub(super) struct Porter<'a> {
    pub(super) streams: &'a mut Streams,
    /// Where the passes count histograms, if they do.
    pub(super) histograms: Option<&'a DeviceBuffer<Histogram>>,
    /// The stream of the copies, home of all windows.
    pub(super) aside: &'a Stream,
    /// Where windows wait.
    pub(super) waiting: &'a mut Room,
}

impl Courier for Porter<'_> {
    type Slot = Slot;
    type Error = CudaError;

    fn load(
        &mut self,
        waiting: Load,
        all: Load,
        mut to: Option<&mut Slot>,
    ) -> Result<(), CudaError> {
        let stream = self.streams.columns.stream.clone();
        let seeds = self.streams.columns.layout.seeds();
        if all.histograms {
            match &mut to {
                Some(slot) => slot.make_histograms()?,
                None => self.waiting.make_histograms(seeds)?,
            }
        }
        self.waiting.free_for(&stream)?;
        let earlier = match waiting.windows {
            0 => Place::default(),
            _ => self.waiting.window.place(waiting.histograms),
        };
        let to = match to {
            Some(slot) => {
                slot.room.free_for(&stream)?;
                slot.room.window.place(all.histograms)
            }
            None => self.waiting.window.place(all.histograms),
        };
        // SAFETY: both places are of this layer's seeds and have histograms where there are any; they are freed on the stream of
        // the copies, which waits for this below.
        unsafe { self.streams.hand_over(self.histograms, earlier, to) }?;
        if self.aside.join(&stream).is_err() {
            // Without a join the host waits in its place.
            stream.synchronize()?;
        }
        Ok(())
    }

    fn send(&mut self, slot: &mut Slot, all: Load) -> Result<(), CudaError> {
        slot.room.busy = true;
        let Slot { room: Room { window, .. }, words, histograms, .. } = slot;
        window.words.copy_to_pinned(words, self.aside)?;
        if let (true, Some(from), Some(to)) = (all.histograms, &window.histograms, histograms) {
            from.copy_to_pinned(to, self.aside)?;
        }
        Ok(())
    }

    fn keep(&mut self, slot: &mut Slot) {
        std::mem::swap(&mut slot.room, self.waiting);
    }
}
