//! Windows of telemetry out of the accumulators into buffers of their own, from which they are copied to the host:
//! `kernels/hand_over.cu`. Everything here is queued; nothing waits.

use bytemuck::{Pod, Zeroable};
use kasmina_sys::{ByValue, DeviceBuffer, LaunchConfig, Stream};
use kasmina_telemetry::{ChunkStats, GradientStats, Histogram};

use super::columns::Columns;
use super::error::CudaError;
use super::params::RawGradientStats;
use super::streams::Streams;

/// The fatbin of the kernels here.
const IMAGE: &str = "hand_over";
const THREADS: u32 = 256;
const MOST_BLOCKS: u32 = 1024;

/// What the kernels take.
pub(super) type HandOver = (ByValue<RawHandOver>,);
pub(super) type EmptyHistograms = (u64, u64);

/// `HandOver` of the kernel; addresses are the device's, 0 for what is not there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct RawHandOver {
    chunk: u64,
    gradient: u64,
    saturated: u64,
    histograms: u64,
    earlier: u64,
    earlier_histograms: u64,
    to: u64,
    to_histograms: u64,
    seeds: u64,
}

const _: () = assert!(size_of::<RawHandOver>() == 72, "as in kernels/hand_over.cu");

const WORD: usize = size_of::<u64>();
const CHUNK_WORDS: usize = size_of::<ChunkStats>() / WORD;
const GRADIENT_WORDS: usize = size_of::<RawGradientStats>() / WORD;

/// Words of a window of so many seeds: activations, gradients, saturated elements.
pub(super) fn window_words(seeds: usize) -> usize {
    seeds * (CHUNK_WORDS + GRADIENT_WORDS) + 1
}

/// What a window's words say; less than they should be are seeds without measurements.
pub(super) fn read_window(
    words: &[u64],
    seeds: usize,
) -> (Vec<ChunkStats>, Vec<GradientStats>, u64) {
    let (chunk, rest) = words.split_at((seeds * CHUNK_WORDS).min(words.len()));
    let (gradient, rest) = rest.split_at((seeds * GRADIENT_WORDS).min(rest.len()));
    let gradient: &[RawGradientStats] = bytemuck::cast_slice(gradient);
    let chunk: &[ChunkStats] = bytemuck::cast_slice(chunk);
    let gradient = gradient.iter().map(|stats| GradientStats::from(*stats)).collect();
    (chunk.to_vec(), gradient, rest.first().copied().unwrap_or(0))
}

/// Room on the device for one window.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) words: DeviceBuffer<u64>,
    /// Made where a window has some for the first time, and kept.
    pub(super) histograms: Option<DeviceBuffer<Histogram>>,
}

impl Window {
    /// Of `home`, which is not the stream of the passes: whoever writes to it there joins both.
    pub(super) fn new(home: &Stream, seeds: usize) -> Result<Self, CudaError> {
        // Zeros, as padding is copied too.
        let words = DeviceBuffer::zeroed(home, window_words(seeds))?;
        Ok(Self { words, histograms: None })
    }

    /// Has room for `seeds` histograms from now on.
    pub(super) fn make_histograms(&mut self, seeds: usize) -> Result<(), CudaError> {
        if self.histograms.is_none() {
            self.histograms = Some(DeviceBuffer::unwritten(self.words.home(), seeds)?);
        }
        Ok(())
    }

    /// Where it is, for a window with histograms or without.
    pub(super) fn place(&self, histograms: bool) -> Place {
        let address = |buffer: &DeviceBuffer<Histogram>| buffer.address();
        let histograms = self.histograms.as_ref().filter(|_| histograms).map_or(0, address);
        Place { words: self.words.address(), histograms }
    }
}

/// Addresses of a window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    words: u64,
    histograms: u64,
}

impl Streams {
    /// Moves everything counted, `histograms` too where they are counted, to `to`, behind the window that is at `earlier`
    /// (or nowhere, or at `to` itself). On an error the accumulators and both windows are as they were.
    ///
    /// # Safety
    /// The places are of windows for this layer's seeds, with room for histograms where `histograms` or `earlier` have any, and
    /// live until what is queued here is done.
    pub(super) unsafe fn hand_over(
        &mut self,
        histograms: Option<&DeviceBuffer<Histogram>>,
        earlier: Place,
        to: Place,
    ) -> Result<(), CudaError> {
        let seeds = self.columns.layout.seeds() as u64;
        let kernel = self.columns.engine.kernel::<HandOver>(IMAGE, "kasmina_hand_over")?;
        self.collect()?;
        let window = RawHandOver {
            chunk: self.totals.address(),
            gradient: self.gradient_totals.address(),
            saturated: self.columns.saturated.address(),
            histograms: histograms.map_or(0, DeviceBuffer::address),
            earlier: earlier.words,
            earlier_histograms: earlier.histograms,
            to: to.words,
            to_histograms: to.histograms,
            seeds,
        };
        // A warp a seed where there are histograms.
        let a_block = if to.histograms == 0 { THREADS } else { THREADS / 32 };
        let config = LaunchConfig::new(blocks(seeds, a_block), THREADS);
        // SAFETY: the arguments are the kernel's; the accumulators are one record a seed and freed on this stream, and the windows
        // are by the caller's word.
        Ok(unsafe { kernel.launch(&self.columns.stream, &config, (ByValue(window),)) }?)
    }
}

/// Makes every histogram an empty one.
pub(super) fn empty_histograms(
    columns: &Columns,
    histograms: &DeviceBuffer<Histogram>,
) -> Result<(), CudaError> {
    let count = histograms.len() as u64;
    let kernel = columns.engine.kernel::<EmptyHistograms>(IMAGE, "kasmina_empty_histograms")?;
    let config = LaunchConfig::new(blocks(count, THREADS / 32), THREADS);
    // SAFETY: the arguments are the kernel's; the histograms are that many and freed on this stream.
    Ok(unsafe { kernel.launch(&columns.stream, &config, (histograms.address(), count)) }?)
}

fn blocks(records: u64, a_block: u32) -> u32 {
    records.div_ceil(u64::from(a_block)).clamp(1, u64::from(MOST_BLOCKS)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        let chunk = [1.0, -2.0].map(|x| {
            let mut stats = ChunkStats::EMPTY;
            stats.push(x, 0.0);
            stats
        });
        let gradient = [0.5, 3.0].map(|g| {
            let mut stats = GradientStats::EMPTY;
            stats.push(g);
            stats
        });
        let mut words: Vec<u64> = bytemuck::cast_slice(&chunk).to_vec();
        let raw = gradient.map(RawGradientStats::from);
        words.extend_from_slice(bytemuck::cast_slice(&raw));
        words.push(7);
        assert_eq!(words.len(), window_words(2));
        assert_eq!(read_window(&words, 2), (chunk.to_vec(), gradient.to_vec(), 7));
    }

    #[test]
    fn a_grid_has_a_block_and_an_end() {
        assert_eq!(blocks(0, 256), 1);
        assert_eq!(blocks(257, 256), 2);
        assert_eq!(blocks(u64::MAX, 8), MOST_BLOCKS);
    }
}
