//! Many segments at once: equal ones, and ones between offsets.

use kasmina_sys::{DeviceBuffer, DeviceCopy, DeviceSlice, DeviceSliceMut, LaunchConfig};

use super::cut::{Group, PACKET, PieceCut, STRIPS};
use super::element::GpuFloat;
use super::error::CudaError;
use super::flat::{PieceJob, hierarchical, length};
use super::params::{PieceParams, SegmentParams, Settings};
use super::reducer::{Reducer, start_of};
use crate::columns::Extrema;
use crate::error::nonzero;
use crate::{ChunkStats, ReductionOptions, TelemetryError};

/// Bits of what stands for the sum of nothing in device memory: a quiet NaN with a payload that no arithmetic makes.
pub const NO_SUM_BITS: u64 = 0x7ff8_6b61_736d_696e;

/// Whether a sum in device memory is that of nothing.
pub fn is_no_sum(sum: f64) -> bool {
    sum.to_bits() == NO_SUM_BITS
}

/// Threads of a block of the kernels for many segments.
const THREADS: u64 = 256;
/// Packets from which on a segment is better read by a whole block, where there are few of them.
const LONG: u64 = 64;
/// Segments that make enough work for a warp each.
const MANY: u64 = 4096;
/// Packets of the longest equal segment that is left to one warp.
const LONGEST: u64 = 4096;
/// Packets of a piece on the queue, at least; `kQueuedStrip` of `kernels/reduce_groups.cuh`.
const QUEUED: u64 = 512 * STRIPS;
/// Blocks that work on the queue, whose length the host does not know.
const QUEUE_BLOCKS: u64 = 4096;

/// What is reduced, as kernels are named, and the bytes of a partial result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantity {
    Sum,
    Extrema,
    Statistics,
}

impl Quantity {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Extrema => "extrema",
            Self::Statistics => "statistics",
        }
    }

    pub(super) fn record_bytes(self) -> u64 {
        match self {
            Self::Sum | Self::Extrema => 16,
            Self::Statistics => 48,
        }
    }
}

/// How segments lie in the data.
#[derive(Clone, Copy)]
enum Cuts<'a> {
    Equal(usize),
    Offsets(DeviceSlice<'a, u64>),
}

impl Reducer {
    /// Queues the statistics of each `segment` consecutive values of `x`; the last segment may be short. `out` has
    /// ceil(values / segment) records.
    ///
    /// # Errors
    /// [`TelemetryError::Zero`] for empty segments, [`TelemetryError::WrongLength`], [`CudaError::Misaligned`], or the driver
    /// refused.
    pub fn equal_into<T: GpuFloat>(
        &mut self,
        x: DeviceSlice<'_, T>,
        segment: usize,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, ChunkStats>,
    ) -> Result<(), CudaError> {
        self.segments(x, Cuts::Equal(segment), Quantity::Statistics, options, out)
    }

    /// Queues Σ of each `segment` consecutive values, in f64 and as exact as [`Reducer::sum_into`]. Of nothing but ignored NaNs it
    /// is [`NO_SUM_BITS`].
    ///
    /// # Errors
    /// As for [`Reducer::equal_into`].
    pub fn equal_sums_into<T: GpuFloat>(
        &mut self,
        x: DeviceSlice<'_, T>,
        segment: usize,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, f64>,
    ) -> Result<(), CudaError> {
        self.segments(x, Cuts::Equal(segment), Quantity::Sum, options, out)
    }

    /// Queues least and greatest of each `segment` consecutive values; a zero is +0. Of nothing but ignored NaNs they are +Inf and
    /// −Inf.
    ///
    /// # Errors
    /// As for [`Reducer::equal_into`].
    pub fn equal_extrema_into<T: GpuFloat>(
        &mut self,
        x: DeviceSlice<'_, T>,
        segment: usize,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, Extrema>,
    ) -> Result<(), CudaError> {
        self.segments(x, Cuts::Equal(segment), Quantity::Extrema, options, out)
    }

    /// Queues the statistics of the segments `x[offsets[i]..offsets[i + 1]]`, as in a compressed sparse row matrix. `out` has one
    /// record fewer than there are offsets.
    ///
    /// Segments of very different lengths are fine: those long for the average are cut into pieces for whole blocks. Offsets that
    /// decrease or leave `x` are never followed, and their segments come out empty; [`Reducer::offsets`] reports them.
    ///
    /// # Errors
    /// [`TelemetryError::WrongLength`], [`CudaError::Misaligned`], or the driver refused.
    pub fn offsets_into<T: GpuFloat>(
        &mut self,
        x: DeviceSlice<'_, T>,
        offsets: DeviceSlice<'_, u64>,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, ChunkStats>,
    ) -> Result<(), CudaError> {
        self.segments(x, Cuts::Offsets(offsets), Quantity::Statistics, options, out)
    }

    /// Queues Σ of the segments between offsets; see [`Reducer::offsets_into`] and [`Reducer::equal_sums_into`].
    ///
    /// # Errors
    /// As for [`Reducer::offsets_into`].
    pub fn offset_sums_into<T: GpuFloat>(
        &mut self,
        x: DeviceSlice<'_, T>,
        offsets: DeviceSlice<'_, u64>,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, f64>,
    ) -> Result<(), CudaError> {
        self.segments(x, Cuts::Offsets(offsets), Quantity::Sum, options, out)
    }

    /// Queues least and greatest of the segments between offsets; see [`Reducer::offsets_into`] and [`Reducer::equal_extrema_into`].
    ///
    /// # Errors
    /// As for [`Reducer::offsets_into`].
    pub fn offset_extrema_into<T: GpuFloat>(
        &mut self,
        x: DeviceSlice<'_, T>,
        offsets: DeviceSlice<'_, u64>,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, Extrema>,
    ) -> Result<(), CudaError> {
        self.segments(x, Cuts::Offsets(offsets), Quantity::Extrema, options, out)
    }

    /// [`Reducer::equal_into`], and waits.
    ///
    /// # Errors
    /// As there, or something queued before failed.
    pub fn equal<T: GpuFloat>(
        &mut self,
        x: DeviceSlice<'_, T>,
        segment: usize,
        options: &ReductionOptions,
    ) -> Result<Vec<ChunkStats>, CudaError> {
        let segments = x.len().div_ceil(nonzero("segment", segment)?);
        self.many(segments, |this, out| this.equal_into(x, segment, options, out))
    }

    /// [`Reducer::equal_sums_into`], and waits; `None` for nothing but ignored NaNs.
    ///
    /// # Errors
    /// As there, or something queued before failed.
    pub fn equal_sums<T: GpuFloat>(
        &mut self,
        x: DeviceSlice<'_, T>,
        segment: usize,
        options: &ReductionOptions,
    ) -> Result<Vec<Option<f64>>, CudaError> {
        let segments = x.len().div_ceil(nonzero("segment", segment)?);
        let sums =
            self.many(segments, |this, out| this.equal_sums_into(x, segment, options, out))?;
        Ok(some_sums(sums))
    }

    /// [`Reducer::equal_extrema_into`], and waits; `None` for nothing but ignored NaNs.
    ///
    /// # Errors
    /// As there, or something queued before failed.
    pub fn equal_extrema<T: GpuFloat>(
        &mut self,
        x: DeviceSlice<'_, T>,
        segment: usize,
        options: &ReductionOptions,
    ) -> Result<Vec<Option<Extrema>>, CudaError> {
        let segments = x.len().div_ceil(nonzero("segment", segment)?);
        let all =
            self.many(segments, |this, out| this.equal_extrema_into(x, segment, options, out))?;
        Ok(some_extrema(all))
    }

    /// [`Reducer::offsets_into`], and waits.
    ///
    /// # Errors
    /// As there, [`TelemetryError::BadOffset`], or something queued before failed.
    pub fn offsets<T: GpuFloat>(
        &mut self,
        x: DeviceSlice<'_, T>,
        offsets: DeviceSlice<'_, u64>,
        options: &ReductionOptions,
    ) -> Result<Vec<ChunkStats>, CudaError> {
        let segments = offsets.len().saturating_sub(1);
        let all = self.many(segments, |this, out| this.offsets_into(x, offsets, options, out))?;
        self.check_offsets(x.len(), offsets)?;
        Ok(all)
    }

    /// [`Reducer::offset_sums_into`], and waits; `None` for empty segments and nothing but ignored NaNs.
    ///
    /// # Errors
    /// As for [`Reducer::offsets`].
    pub fn offset_sums<T: GpuFloat>(
        &mut self,
        x: DeviceSlice<'_, T>,
        offsets: DeviceSlice<'_, u64>,
        options: &ReductionOptions,
    ) -> Result<Vec<Option<f64>>, CudaError> {
        let segments = offsets.len().saturating_sub(1);
        let sums =
            self.many(segments, |this, out| this.offset_sums_into(x, offsets, options, out))?;
        self.check_offsets(x.len(), offsets)?;
        Ok(some_sums(sums))
    }

    /// [`Reducer::offset_extrema_into`], and waits; `None` for empty segments and nothing but ignored NaNs.
    ///
    /// # Errors
    /// As for [`Reducer::offsets`].
    pub fn offset_extrema<T: GpuFloat>(
        &mut self,
        x: DeviceSlice<'_, T>,
        offsets: DeviceSlice<'_, u64>,
        options: &ReductionOptions,
    ) -> Result<Vec<Option<Extrema>>, CudaError> {
        let segments = offsets.len().saturating_sub(1);
        let all =
            self.many(segments, |this, out| this.offset_extrema_into(x, offsets, options, out))?;
        self.check_offsets(x.len(), offsets)?;
        Ok(some_extrema(all))
    }

    /// Queues what writes `count` records, and waits for them.
    pub(super) fn many<R: DeviceCopy>(
        &mut self,
        count: usize,
        queue: impl FnOnce(&mut Self, DeviceSliceMut<'_, R>) -> Result<(), CudaError>,
    ) -> Result<Vec<R>, CudaError> {
        let mut out = DeviceBuffer::<R>::unwritten(&self.stream, count)?;
        queue(self, out.as_mut_slice())?;
        Ok(out.to_vec()?)
    }

    /// Turns what the kernels found wrong with the offsets into an error.
    fn check_offsets(
        &self,
        elements: usize,
        offsets: DeviceSlice<'_, u64>,
    ) -> Result<(), CudaError> {
        if offsets.len() == 1 {
            // No segment, and no kernel that looked.
            let value = offsets.to_vec()?.first().copied().unwrap_or_default() as usize;
            return bad_unless(value <= elements, 0, value, 0, elements);
        }
        let [_, bad] = self.queue_head()?;
        if bad == 0 {
            return Ok(());
        }
        let index = !bad as usize;
        let values = offsets.slice(index.saturating_sub(1)..=index)?.to_vec()?;
        let value = values.last().copied().unwrap_or_default() as usize;
        let low = if index == 0 { 0 } else { values[0] as usize };
        bad_unless(false, index, value, low, elements)
    }

    fn segments<T: GpuFloat, R: DeviceCopy>(
        &mut self,
        x: DeviceSlice<'_, T>,
        cuts: Cuts<'_>,
        quantity: Quantity,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, R>,
    ) -> Result<(), CudaError> {
        hierarchical(options)?;
        let elements = x.len();
        let (segment, segments) = match cuts {
            Cuts::Equal(segment) => (segment, elements.div_ceil(nonzero("segment", segment)?)),
            Cuts::Offsets(offsets) => {
                let actual = offsets.len();
                let segments = actual.checked_sub(1).ok_or(TelemetryError::WrongLength {
                    what: "offsets",
                    actual,
                    expected: 1,
                })?;
                (0, segments)
            }
        };
        length("out", out.len(), segments)?;
        let start = start_of("x", &x)?;
        if segments == 0 {
            return Ok(());
        }
        let lanes = PACKET / size_of::<T>() as u64;
        let mut params = SegmentParams {
            x: start.address,
            lead: start.lead,
            elements: elements as u64,
            segment: segment as u64,
            segments: segments as u64,
            offsets: 0,
            out: out.address(),
            head: 0,
            queue: 0,
            partials: 0,
            arrivals: 0,
            limit: 0,
            settings: Settings { compact: 1, ..Settings::new(options) },
        };
        let image = format!("segments_{}", T::NAME);
        let names = (quantity.name(), T::NAME);
        match cuts {
            Cuts::Equal(_) => {
                let plain = start.lead == 0 && params.segment.is_multiple_of(lanes);
                let longest = params.segment.min(params.elements);
                let packets = longest.div_ceil(lanes) + u64::from(!plain);
                if packets > LONGEST || (packets > LONG && params.segments < MANY) {
                    let job = PieceJob {
                        homes: [x.home(), out.home()],
                        record_bytes: quantity.record_bytes(),
                        params: PieceParams::zeroed_for(&params),
                    };
                    let name = format!("kasmina_pieces_{}_{}", names.0, names.1);
                    let cut = PieceCut::of_many(packets, params.segments);
                    return self.equal_pieces(&image, &name, &cut, job);
                }
                // No segment is put on a queue.
                params.limit = u64::MAX;
                let (kind, group) = if plain {
                    ("plain", Group::of_plain(packets))
                } else {
                    ("ragged", Group::of_ragged(packets))
                };
                let name = format!("kasmina_{kind}_{}_{}_{}", names.0, names.1, group.name());
                let config = group_config(&group, params.segments);
                self.between(&[x.home(), out.home()], |this| {
                    // SAFETY: data and results are borrowed, their homes joined on both sides, and the struct is the kernel's.
                    unsafe { this.launch_kernel(&image, &name, &config, params) }
                })
            }
            Cuts::Offsets(offsets) => {
                let start = start_of("offsets", &offsets)?;
                params.offsets = start.address + start.lead * size_of::<u64>() as u64;
                let group =
                    Group::of_ragged(params.elements.div_ceil(params.segments).div_ceil(lanes));
                params.limit = group.limit(lanes);
                // A segment on the queue is longer than the limit, and has at most two pieces more than its packets fill.
                let most =
                    params.elements / (lanes * QUEUED) + 2 * (params.elements / params.limit);
                params.segment = most;
                params.head = self.queue(most)?;
                params.queue = params.head + PACKET;
                (params.partials, params.arrivals) =
                    self.scratch(most * quantity.record_bytes(), most.max(1))?;
                let name = format!("kasmina_ragged_{}_{}_{}", names.0, names.1, group.name());
                let config = group_config(&group, params.segments);
                self.between(&[x.home(), offsets.home(), out.home()], |this| {
                    // SAFETY: as above; the queue holds as many pieces as there can be, and offsets are checked before they are
                    // followed.
                    unsafe { this.launch_kernel(&image, &name, &config, params) }?;
                    if most == 0 {
                        return Ok(());
                    }
                    let name = format!("kasmina_queued_{}_{}", names.0, names.1);
                    let config = LaunchConfig::new(most.min(QUEUE_BLOCKS) as u32, THREADS as u32);
                    // SAFETY: as above; this stream's order puts it behind the kernel that fills the queue.
                    unsafe { this.launch_kernel(&image, &name, &config, params) }
                })
            }
        }
    }

    fn equal_pieces(
        &mut self,
        image: &str,
        name: &str,
        cut: &PieceCut,
        mut job: PieceJob<'_>,
    ) -> Result<(), CudaError> {
        job.params.large = cut.large;
        job.params.pieces = cut.pieces;
        job.params.large_strip = cut.large_strip as u32;
        job.params.small_strip = cut.small_strip as u32;
        self.pieces(image, name, THREADS as u32, 0x7fff_ffff, cut, job)
    }
}

impl PieceParams {
    /// The same data and segments, not cut yet.
    fn zeroed_for(params: &SegmentParams) -> Self {
        Self {
            x: params.x,
            lead: params.lead,
            elements: params.elements,
            segment: params.segment,
            segments: params.segments,
            out: params.out,
            settings: params.settings,
            ..bytemuck::Zeroable::zeroed()
        }
    }
}

fn group_config(group: &Group, segments: u64) -> LaunchConfig {
    // Warps take several rounds where there are more segments than a grid has blocks for.
    LaunchConfig::new(group.blocks(segments, THREADS).min(0x7fff_ffff) as u32, THREADS as u32)
}

fn bad_unless(
    good: bool,
    index: usize,
    value: usize,
    low: usize,
    high: usize,
) -> Result<(), CudaError> {
    if good { Ok(()) } else { Err(TelemetryError::BadOffset { index, value, low, high }.into()) }
}

pub(super) fn some_sums(sums: Vec<f64>) -> Vec<Option<f64>> {
    sums.into_iter().map(|sum| (!is_no_sum(sum)).then_some(sum)).collect()
}

pub(super) fn some_extrema(all: Vec<Extrema>) -> Vec<Option<Extrema>> {
    // Without numbers the least is +Inf and the greatest −Inf; a NaN is in no order, and is a result.
    all.into_iter().map(|x| (x.min <= x.max || x.min.is_nan()).then_some(x)).collect()
}
