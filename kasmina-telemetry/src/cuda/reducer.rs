//! What queues reductions on a stream, and the scratch memory that it keeps from one to the next.

use std::sync::Arc;

use kasmina_sys::{
    ByValue, DeviceBuffer, DeviceCopy, DeviceSlice, Kernel, KernelArguments, LaunchConfig, Stream,
};

use super::cut::PACKET;
use super::engine::Engine;
use super::error::CudaError;

/// How flat reductions are launched. Results are the same bits for every choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Threads of a block: 32, 64, 128 or 256.
    pub threads: u32,
    /// 16-byte loads that a thread has under way: 4 or 8. Sums and extremes alone have a choice; other reductions take 4.
    pub ahead: u32,
    /// The most blocks, at least 1; fewer than pieces of the data make blocks take several each.
    pub blocks: u32,
}

impl Default for Launch {
    fn default() -> Self {
        Self { threads: 256, ahead: 4, blocks: 0x7fff_ffff }
    }
}

impl Launch {
    pub(super) fn check(&self) -> Result<(), CudaError> {
        let wrong = |what, value, limit| Err(CudaError::Launch { what, value, limit });
        if ![32, 64, 128, 256].contains(&self.threads) {
            return wrong("threads", self.threads, "32, 64, 128 or 256");
        }
        if ![4, 8].contains(&self.ahead) {
            return wrong("ahead", self.ahead, "4 or 8");
        }
        if !(1..=0x7fff_ffff).contains(&self.blocks) {
            return wrong("blocks", self.blocks, "1 to 2^31 - 1");
        }
        Ok(())
    }
}

/// Queues reductions on one stream. Its scratch memory grows with the largest reduction and is reused by the next, which the
/// stream's order makes safe; use one reducer for each stream.
#[derive(Debug)]
pub struct Reducer {
    pub(super) engine: Arc<Engine>,
    pub(super) stream: Stream,
    pub(super) launch: Launch,
    partials: Option<DeviceBuffer<u64>>,
    /// Zero between reductions: who uses them puts them back.
    arrivals: Option<DeviceBuffer<u32>>,
    queue: Option<DeviceBuffer<[u64; 2]>>,
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
            launch: Launch::default(),
            partials: None,
            arrivals: None,
            queue: None,
        }
    }

    /// The stream that everything is queued on.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Launches flat reductions in another way from now on.
    ///
    /// # Errors
    /// [`CudaError::Launch`].
    pub fn set_launch(&mut self, launch: Launch) -> Result<(), CudaError> {
        launch.check()?;
        self.launch = launch;
        Ok(())
    }

    /// Addresses of `partials` bytes and of `arrivals` counts, all zero.
    pub(super) fn scratch(&mut self, bytes: u64, arrivals: u64) -> Result<(u64, u64), CudaError> {
        let words = bytes.div_ceil(8) as usize;
        let partials =
            grown(&mut self.partials, words, |len| DeviceBuffer::unwritten(&self.stream, len))?;
        let arrivals = grown(&mut self.arrivals, arrivals as usize, |len| {
            DeviceBuffer::zeroed(&self.stream, len)
        })?;
        Ok((partials, arrivals))
    }

    /// Address of a queue of `entries`, the head first. The head is zero.
    pub(super) fn queue(&mut self, entries: u64) -> Result<u64, CudaError> {
        let address = grown(&mut self.queue, entries as usize + 1, |len| {
            DeviceBuffer::unwritten(&self.stream, len)
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

/// The address of a buffer with room for `len` elements, a new one where the old one is too small. The old one is freed in the
/// stream's order, behind what uses it.
fn grown<T: DeviceCopy>(
    kept: &mut Option<DeviceBuffer<T>>,
    len: usize,
    make: impl FnOnce(usize) -> Result<DeviceBuffer<T>, kasmina_sys::Error>,
) -> Result<u64, CudaError> {
    if let Some(buffer) = kept.as_ref().filter(|buffer| buffer.len() >= len) {
        return Ok(buffer.address());
    }
    *kept = None;
    let buffer = make(len.next_power_of_two().max(64))?;
    let address = buffer.address();
    *kept = Some(buffer);
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
