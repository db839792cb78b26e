//! Cuts in use by a layer's streaming passes, with what belongs to each on the device: tile flags, and the accumulators in which
//! blocks count from launch to launch. Everything here is queued; nothing waits.

use kasmina_sys::{ByValue, DeviceBuffer, DeviceCopy, KernelCall, LaunchConfig};
use kasmina_telemetry::ChunkStats;

use super::columns::Columns;
use super::engine::Engine;
use super::error::CudaError;
use super::geometry::Geometry;
use super::params::RawGradientStats;

/// The fatbin of the kernels here.
const IMAGE: &str = "cuts";
const THREADS: u32 = 256;
/// Cuts that are kept: training and evaluation batches, and a last one that is smaller, alternate.
const KEPT: usize = 4;
/// Blocks of a kernel that walks records.
const MOST_BLOCKS: u32 = 1024;

/// What the kernels take.
pub(super) type Collect = (u64, u64, ByValue<Geometry>);
pub(super) type TileFlags = (u64, u64, ByValue<Geometry>);
pub(super) type Empty = (u64, u64);

/// A record that blocks accumulate.
pub(super) trait Record: DeviceCopy {
    /// The kernel that moves accumulators to the seeds' totals.
    const COLLECT: &'static str;
    /// The kernel that empties records.
    const EMPTY: &'static str;
}

impl Record for ChunkStats {
    const COLLECT: &'static str = "kasmina_collect_chunks";
    const EMPTY: &'static str = "kasmina_empty_chunks";
}

impl Record for RawGradientStats {
    const COLLECT: &'static str = "kasmina_collect_gradients";
    const EMPTY: &'static str = "kasmina_empty_gradients";
}

/// One cut and its device memory.
#[derive(Debug)]
pub(super) struct Cut<R: Record> {
    geometry: Geometry,
    /// Of the columns' flags that the tiles' were made from.
    generation: Option<u64>,
    tile_flags: DeviceBuffer<u8>,
    /// Made with the first pass that counts.
    accumulators: Option<DeviceBuffer<R>>,
    /// Whether they may hold something.
    counted: bool,
    pace: DeviceBuffer<u32>,
}

impl<R: Record> Cut<R> {
    pub(super) fn tile_flags(&self) -> u64 {
        self.tile_flags.address()
    }

    /// Address of the accumulators; 0 where the pass does not count.
    pub(super) fn accumulators(&self) -> u64 {
        self.accumulators.as_ref().map_or(0, DeviceBuffer::address)
    }

    /// Address of the two words by which blocks keep pace.
    pub(super) fn pace(&self) -> u64 {
        self.pace.address()
    }
}

/// The cuts of one pass, the latest first.
#[derive(Debug)]
pub(super) struct Cuts<R: Record> {
    kept: Vec<Cut<R>>,
}

impl<R: Record> Default for Cuts<R> {
    fn default() -> Self {
        Self { kept: Vec::new() }
    }
}

impl<R: Record> Cuts<R> {
    /// The cut for `geometry`, ready for a pass that `counts` or does not. `totals` are one record a seed, to which a cut that has
    /// to go leaves what it holds.
    pub(super) fn prepare(
        &mut self,
        columns: &Columns,
        geometry: Geometry,
        counts: bool,
        totals: &DeviceBuffer<R>,
    ) -> Result<&Cut<R>, CudaError> {
        let found = self.kept.iter().position(|cut| cut.geometry == geometry);
        let mut cut = match found {
            Some(at) => self.kept.remove(at),
            None => {
                columns.changed();
                if self.kept.len() >= KEPT {
                    columns.residents.settle();
                    self.collect(columns, totals)?;
                    self.kept.truncate(KEPT - 1);
                }
                Cut {
                    geometry,
                    generation: None,
                    tile_flags: DeviceBuffer::unwritten(&columns.stream, geometry.tiles as usize)?,
                    accumulators: None,
                    counted: false,
                    pace: DeviceBuffer::zeroed(&columns.stream, 2)?,
                }
            }
        };
        let ready = cut.make_ready(columns, counts);
        // Also after an error: it may hold counts.
        self.kept.insert(0, cut);
        ready?;
        Ok(&self.kept[0])
    }

    /// Address and cut of the accumulators that may hold something.
    pub(super) fn counted(&self) -> impl Iterator<Item = (u64, Geometry)> + '_ {
        let counted = self.kept.iter().filter(|cut| cut.counted);
        counted.map(|cut| (cut.accumulators(), cut.geometry))
    }

    /// Notes that passes have counted that were not queued one by one.
    pub(super) fn note_counts(&mut self) {
        for cut in &mut self.kept {
            cut.counted |= cut.accumulators.is_some();
        }
    }

    /// Adds what all cuts hold to the seeds' totals, and empties them.
    pub(super) fn collect(
        &mut self,
        columns: &Columns,
        totals: &DeviceBuffer<R>,
    ) -> Result<(), CudaError> {
        for cut in self.kept.iter_mut().filter(|cut| cut.counted) {
            let kernel = columns.engine.kernel::<Collect>(IMAGE, R::COLLECT)?;
            let blocks = cut.geometry.seeds.div_ceil(THREADS / 32).min(MOST_BLOCKS);
            let config = LaunchConfig::new(blocks, THREADS);
            let arguments = (cut.accumulators(), totals.address(), ByValue(cut.geometry));
            // SAFETY: the arguments are the kernel's; the accumulators are the cut's and the totals one record a seed, both freed on
            // this stream.
            unsafe { kernel.launch(&columns.stream, &config, arguments) }?;
            cut.counted = false;
        }
        Ok(())
    }
}

impl<R: Record> Cut<R> {
    fn make_ready(&mut self, columns: &Columns, counts: bool) -> Result<(), CudaError> {
        if counts {
            if self.accumulators.is_none() {
                let records = DeviceBuffer::unwritten(&columns.stream, self.geometry.records())?;
                empty(columns, &records)?;
                self.accumulators = Some(records);
                columns.changed();
            }
            self.counted = true;
        }
        if self.generation != Some(columns.generation) {
            let kernel = columns.engine.kernel::<TileFlags>(IMAGE, "kasmina_tile_flags")?;
            let config = LaunchConfig::new(self.geometry.tiles.div_ceil(THREADS / 32), THREADS);
            let arguments =
                (columns.flags.address(), self.tile_flags.address(), ByValue(self.geometry));
            // SAFETY: the arguments are the kernel's; both arrays are as long as the geometry says and freed on this stream.
            unsafe { kernel.launch(&columns.stream, &config, arguments) }?;
            self.generation = Some(columns.generation);
        }
        Ok(())
    }
}

/// A launch that does nothing: no records become empty ones. It stands where a graph has room for what does not run yet.
pub(super) fn nothing(engine: &Engine) -> Result<KernelCall, CudaError> {
    let kernel = engine.kernel::<Empty>(IMAGE, <ChunkStats as Record>::EMPTY)?;
    Ok(kernel.call(&LaunchConfig::new(1, THREADS), (0, 0))?)
}

/// Makes every record an empty one. Queued.
pub(super) fn empty<R: Record>(
    columns: &Columns,
    records: &DeviceBuffer<R>,
) -> Result<(), CudaError> {
    if records.is_empty() {
        return Ok(());
    }
    let count = records.len() as u64;
    let kernel = columns.engine.kernel::<Empty>(IMAGE, R::EMPTY)?;
    let blocks = count.div_ceil(u64::from(THREADS)).min(u64::from(MOST_BLOCKS)) as u32;
    let config = LaunchConfig::new(blocks, THREADS);
    // SAFETY: the arguments are the kernel's; the records are that many and freed on this stream.
    Ok(unsafe { kernel.launch(&columns.stream, &config, (records.address(), count)) }?)
}
