//! What queues reductions on a stream, and the scratch memory that it keeps from one to the next.

use std::any::Any;
use std::sync::Arc;

use kasmina_sys::{
    ByValue, DeviceBuffer, DeviceCopy, DeviceSlice, Kernel, KernelArguments, LaunchConfig, Stream,
};

use super::cut::PACKET;
use super::engine::Engine;
use super::error::CudaError;
use super::launch::Launch;
use super::quantity::Meeting;

/// Queues reductions on one stream. Its scratch memory grows with the largest reduction and is reused by the next, which the
/// stream's order makes safe; use one reducer for each stream.
///
/// What the `…_into` forms queue can be captured into a CUDA graph and replayed to the same bits, where the memory of the data and of
/// the results is at home on the captured stream. Nothing is allocated then: queue the same reduction once before the capture, so that
/// scratch memory has grown, or it is [`CudaError::GrowsWhileCaptured`]. Replays use the reducer's scratch memory, so it must outlive the
/// graph, and its other reductions and the graph's launches belong on the one stream.
#[derive(Debug)]
pub struct Reducer {
    pub(super) engine: Arc<Engine>,
    pub(super) stream: Stream,
    /// What the caller said; else what was measured, or the default.
    pub(super) launch: Option<Launch>,
    partials: Option<DeviceBuffer<u64>>,
    /// Zero between reductions: who uses them puts them back.
    arrivals: Option<DeviceBuffer<u32>>,
    queue: Option<DeviceBuffer<[u64; 2]>>,
    /// Zero between reductions, too.
    cells: Option<DeviceBuffer<u64>>,
    /// What was outgrown: a captured graph may still use it. Together it is smaller than what took its place.
    outgrown: Vec<Box<dyn Any + Send>>,
}

/// Where packets are counted from, and the first element after that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) address: u64,
    pub(super) lead: u64,
}

impl Reducer {
    /// A reducer on `stream`, one's own or borrowed from another crate.
    pub fn new(engine: &Arc<Engine>, stream: &Stream) -> Self {
        Self {
            engine: Arc::clone(engine),
            stream: stream.clone(),
            launch: None,
            partials: None,
            arrivals: None,
            queue: None,
            cells: None,
            outgrown: Vec::new(),
        }
    }

    /// The stream that everything is queued on.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Launches flat reductions in this way from now on, whatever was measured.
    ///
    /// # Errors
    /// [`CudaError::Launch`].
    pub fn set_launch(&mut self, launch: Launch) -> Result<(), CudaError> {
        launch.check()?;
        self.launch = Some(launch);
        Ok(())
    }

    /// Addresses of `bytes` of partial results and of `arrivals` counts, which are all zero.
    pub(super) fn scratch(&mut self, bytes: u64, arrivals: u64) -> Result<(u64, u64), CudaError> {
        let words = bytes.div_ceil(8) as usize;
        let Self { stream, partials, outgrown, .. } = self;
        let partials =
            grown(stream, partials, outgrown, words, |len| DeviceBuffer::unwritten(stream, len))?;
        Ok((partials, self.arrivals(arrivals)?))
    }

    fn arrivals(&mut self, count: u64) -> Result<u64, CudaError> {
        let Self { stream, arrivals, outgrown, .. } = self;
        grown(stream, arrivals, outgrown, count as usize, |len| DeviceBuffer::zeroed(stream, len))
    }

    /// Addresses of where `results` results of `parts` parts in all come together, and of their counts of arrivals.
    pub(super) fn meeting(
        &mut self,
        meeting: Meeting,
        parts: u64,
        results: u64,
    ) -> Result<(u64, u64), CudaError> {
        match meeting {
            Meeting::Tree { record_bytes } => self.scratch(parts * record_bytes, results),
            Meeting::Cells { words } => Ok((self.cells(words * results)?, self.arrivals(results)?)),
        }
    }

    /// Address of so many words, all zero.
    pub(super) fn cells(&mut self, words: u64) -> Result<u64, CudaError> {
        let Self { stream, cells, outgrown, .. } = self;
        grown(stream, cells, outgrown, words as usize, |len| DeviceBuffer::zeroed(stream, len))
    }

    /// Refuses to wait for a stream that is being captured, which would spoil the capture.
    pub(super) fn may_wait(&self) -> Result<(), CudaError> {
        if self.stream.is_capturing()? {
            return Err(CudaError::WaitsWhileCaptured);
        }
        Ok(())
    }

    /// Address of a queue of `entries`, the head first. The head is zero.
    pub(super) fn queue(&mut self, entries: u64) -> Result<u64, CudaError> {
        let Self { stream, queue, outgrown, .. } = self;
        let address = grown(stream, queue, outgrown, entries as usize + 1, |len| {
            DeviceBuffer::unwritten(stream, len)
        })?;
        // SAFETY: the buffer has at least the head, and everything that uses it is on this stream.
        unsafe { self.stream.fill_raw(address, 0, size_of::<[u64; 2]>()) }?;
        Ok(address)
    }

    /// The first pair of words of the queue: entries, and what was wrong with the offsets. Waits.
    pub(super) fn queue_head(&self) -> Result<[u64; 2], CudaError> {
        match &self.queue {
            Some(queue) => Ok(queue.slice(..1)?.to_vec()?.first().copied().unwrap_or_default()),
            None => Ok([0; 2]),
        }
    }

    /// Runs `work`, which queues kernels that use memory of `homes`, after everything queued there so far and before whatever
    /// comes later.
    pub(super) fn between(
        &mut self,
        homes: &[&Stream],
        work: impl FnOnce(&mut Self) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        for home in homes {
            self.stream.join(home)?;
        }
        let done = work(self);
        for home in homes {
            if let Err(error) = home.join(&self.stream) {
                // Without a join the host waits in the homes' place.
                self.stream.synchronize()?;
                return Err(error.into());
            }
        }
        done
    }

    /// Queues a kernel with one struct of parameters.
    ///
    /// # Safety
    /// As for [`Kernel::launch`].
    pub(super) unsafe fn launch_kernel<P>(
        &self,
        image: &str,
        name: &str,
        config: &LaunchConfig,
        params: P,
    ) -> Result<(), CudaError>
    where
        P: bytemuck::Pod,
        (ByValue<P>,): KernelArguments,
    {
        let kernel: Kernel<(ByValue<P>,)> = self.engine.kernel(image, name)?;
        // SAFETY: the caller vouches for it.
        unsafe { kernel.launch(&self.stream, config, (ByValue(params),)) }?;
        Ok(())
    }
}

/// The address of a buffer with room for `len` elements, a new one where the old one is too small.
fn grown<T: DeviceCopy>(
    stream: &Stream,
    kept: &mut Option<DeviceBuffer<T>>,
    outgrown: &mut Vec<Box<dyn Any + Send>>,
    len: usize,
    make: impl FnOnce(usize) -> Result<DeviceBuffer<T>, kasmina_sys::Error>,
) -> Result<u64, CudaError> {
    if let Some(buffer) = kept.as_ref().filter(|buffer| buffer.len() >= len) {
        return Ok(buffer.address());
    }
    // Memory of a capture is the graph's: gone before the next reduction, and filled in replays alone.
    if stream.is_capturing()? {
        let (needed, have) =
            (len * size_of::<T>(), kept.as_ref().map_or(0, |kept| kept.len() * size_of::<T>()));
        return Err(CudaError::GrowsWhileCaptured { needed, have });
    }
    let buffer = make(len.next_power_of_two().max(64))?;
    let address = buffer.address();
    if let Some(old) = kept.replace(buffer) {
        outgrown.push(Box::new(old));
    }
    Ok(address)
}

/// The 16-byte boundary at or before the data.
pub(super) fn start_of<T: DeviceCopy>(
    what: &'static str,
    x: &DeviceSlice<'_, T>,
) -> Result<Start, CudaError> {
    let element = size_of::<T>();
    let address = x.address();
    if !address.is_multiple_of(element as u64) {
        return Err(CudaError::Misaligned { what, address, element });
    }
    let past = address % PACKET;
    Ok(Start { address: address - past, lead: past / element as u64 })
}
