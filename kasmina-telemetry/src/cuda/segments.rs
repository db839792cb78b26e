//! Many segments at once: equal ones, and ones between offsets.

use kasmina_sys::{DeviceBuffer, DeviceCopy, DeviceSlice, DeviceSliceMut, LaunchConfig, Stream};

use super::cut::{Group, PACKET, PieceCut, STRIPS};
use super::element::GpuElement;
use super::error::CudaError;
use super::flat::{MOST_OF_A_BLOCK, PieceJob, length, one_worker};
use super::params::{PieceParams, SegmentParams, Settings};
use super::quantity::{Meeting, Quantity};
use super::records::{SegmentBounds, SegmentSum};
use super::reducer::{Reducer, start_of};
use crate::error::nonzero;
use crate::{ReductionOptions, ReductionStrategy, TelemetryError};

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
/// Elements between offsets of which one group can take all: it counts them in 32 bits, and what precedes them in their packet.
const MOST_OF_A_GROUP: u64 = (1 << 32) - 16;
/// Blocks that work on the queue, whose length the host does not know.
const QUEUE_BLOCKS: u64 = 4096;

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
    pub fn equal_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        segment: usize,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, T::SegmentStatistics>,
    ) -> Result<(), CudaError> {
        self.segments(x, Cuts::Equal(segment), Quantity::Statistics, options, out)
    }

    /// Queues Σ of each `segment` consecutive values, in f64 and as exact as [`Reducer::sum_into`]. Of nothing but ignored NaNs it
    /// is [`NO_SUM_BITS`].
    ///
    /// # Errors
    /// As for [`Reducer::equal_into`].
    pub fn equal_sums_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        segment: usize,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, T::SegmentSum>,
    ) -> Result<(), CudaError> {
        self.segments(x, Cuts::Equal(segment), Quantity::Sum, options, out)
    }

    /// Queues least and greatest of each `segment` consecutive values; a zero is +0. Of nothing but ignored NaNs they are +Inf and
    /// −Inf.
    ///
    /// # Errors
    /// As for [`Reducer::equal_into`].
    pub fn equal_extrema_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        segment: usize,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, T::SegmentExtrema>,
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
    pub fn offsets_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        offsets: DeviceSlice<'_, u64>,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, T::SegmentStatistics>,
    ) -> Result<(), CudaError> {
        self.segments(x, Cuts::Offsets(offsets), Quantity::Statistics, options, out)
    }

    /// Queues Σ of the segments between offsets; see [`Reducer::offsets_into`] and [`Reducer::equal_sums_into`].
    ///
    /// # Errors
    /// As for [`Reducer::offsets_into`].
    pub fn offset_sums_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        offsets: DeviceSlice<'_, u64>,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, T::SegmentSum>,
    ) -> Result<(), CudaError> {
        self.segments(x, Cuts::Offsets(offsets), Quantity::Sum, options, out)
    }

    /// Queues least and greatest of the segments between offsets; see [`Reducer::offsets_into`] and [`Reducer::equal_extrema_into`].
    ///
    /// # Errors
    /// As for [`Reducer::offsets_into`].
    pub fn offset_extrema_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        offsets: DeviceSlice<'_, u64>,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, T::SegmentExtrema>,
    ) -> Result<(), CudaError> {
        self.segments(x, Cuts::Offsets(offsets), Quantity::Extrema, options, out)
    }

    /// [`Reducer::equal_into`], and waits.
    ///
    /// # Errors
    /// As there, or something queued before failed.
    pub fn equal<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        segment: usize,
        options: &ReductionOptions,
    ) -> Result<Vec<T::SegmentStatistics>, CudaError> {
        let segments = x.len().div_ceil(nonzero("segment", segment)?);
        self.many(segments, |this, out| this.equal_into(x, segment, options, out))
    }

    /// [`Reducer::equal_sums_into`], and waits; `None` for nothing but ignored NaNs.
    ///
    /// # Errors
    /// As there, or something queued before failed.
    pub fn equal_sums<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        segment: usize,
        options: &ReductionOptions,
    ) -> Result<Vec<Option<T::Sum>>, CudaError> {
        let segments = x.len().div_ceil(nonzero("segment", segment)?);
        let sums =
            self.many(segments, |this, out| this.equal_sums_into(x, segment, options, out))?;
        Ok(sums.iter().map(SegmentSum::segment_total).collect())
    }

    /// [`Reducer::equal_extrema_into`], and waits; `None` for nothing but ignored NaNs.
    ///
    /// # Errors
    /// As there, or something queued before failed.
    pub fn equal_extrema<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        segment: usize,
        options: &ReductionOptions,
    ) -> Result<Vec<Option<T::SegmentExtrema>>, CudaError> {
        let segments = x.len().div_ceil(nonzero("segment", segment)?);
        let all =
            self.many(segments, |this, out| this.equal_extrema_into(x, segment, options, out))?;
        Ok(all.into_iter().map(|extrema| extrema.found(options.nan)).collect())
    }

    /// [`Reducer::offsets_into`], and waits.
    ///
    /// # Errors
    /// As there, [`TelemetryError::BadOffset`], or something queued before failed.
    pub fn offsets<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        offsets: DeviceSlice<'_, u64>,
        options: &ReductionOptions,
    ) -> Result<Vec<T::SegmentStatistics>, CudaError> {
        let segments = offsets.len().saturating_sub(1);
        let all = self.many(segments, |this, out| this.offsets_into(x, offsets, options, out))?;
        self.check_offsets(x.len(), offsets)?;
        Ok(all)
    }

    /// [`Reducer::offset_sums_into`], and waits; `None` for empty segments and nothing but ignored NaNs.
    ///
    /// # Errors
    /// As for [`Reducer::offsets`].
    pub fn offset_sums<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        offsets: DeviceSlice<'_, u64>,
        options: &ReductionOptions,
    ) -> Result<Vec<Option<T::Sum>>, CudaError> {
        let segments = offsets.len().saturating_sub(1);
        let sums =
            self.many(segments, |this, out| this.offset_sums_into(x, offsets, options, out))?;
        self.check_offsets(x.len(), offsets)?;
        Ok(sums.iter().map(SegmentSum::segment_total).collect())
    }

    /// [`Reducer::offset_extrema_into`], and waits; `None` for empty segments and nothing but ignored NaNs.
    ///
    /// # Errors
    /// As for [`Reducer::offsets`].
    pub fn offset_extrema<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        offsets: DeviceSlice<'_, u64>,
        options: &ReductionOptions,
    ) -> Result<Vec<Option<T::SegmentExtrema>>, CudaError> {
        let segments = offsets.len().saturating_sub(1);
        let all =
            self.many(segments, |this, out| this.offset_extrema_into(x, offsets, options, out))?;
        self.check_offsets(x.len(), offsets)?;
        Ok(all.into_iter().map(|extrema| extrema.found(options.nan)).collect())
    }

    /// Queues what writes `count` records, and waits for them.
    pub(super) fn many<R: DeviceCopy>(
        &mut self,
        count: usize,
        queue: impl FnOnce(&mut Self, DeviceSliceMut<'_, R>) -> Result<(), CudaError>,
    ) -> Result<Vec<R>, CudaError> {
        self.may_wait()?;
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

    fn segments<T: GpuElement, R: DeviceCopy>(
        &mut self,
        x: DeviceSlice<'_, T>,
        cuts: Cuts<'_>,
        quantity: Quantity,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, R>,
    ) -> Result<(), CudaError> {
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
        let work = Work { quantity, strategy: options.strategy, image, lanes };
        match cuts {
            Cuts::Equal(_) => self.equal_segments::<T>(&work, params, [x.home(), out.home()]),
            Cuts::Offsets(offsets) => {
                let homes = [x.home(), offsets.home(), out.home()];
                let start = start_of("offsets", &offsets)?;
                params.offsets = start.address + start.lead * size_of::<u64>() as u64;
                self.offset_segments::<T>(&work, params, homes)
            }
        }
    }

    fn equal_segments<T: GpuElement>(
        &mut self,
        work: &Work,
        mut params: SegmentParams,
        homes: [&Stream; 2],
    ) -> Result<(), CudaError> {
        let Work { quantity, strategy, ref image, lanes } = *work;
        let what = quantity.name();
        let plain = params.lead == 0 && params.segment.is_multiple_of(lanes);
        let longest = params.segment.min(params.elements);
        let packets = longest.div_ceil(lanes) + u64::from(!plain);
        if packets > LONGEST || (packets > LONG && params.segments < MANY) {
            let mut cut = PieceCut::of_many(packets, params.segments);
            let mut name = format!("kasmina_pieces_{what}_{}", T::NAME);
            let mut meeting =
                Meeting::Tree { record_bytes: quantity.record_bytes(size_of::<T::Value>()) };
            match strategy {
                ReductionStrategy::Hierarchical => {}
                ReductionStrategy::Direct => {
                    one_worker("segment", longest, MOST_OF_A_BLOCK)?;
                    cut = PieceCut::whole(packets);
                }
                // One piece alone meets nobody.
                ReductionStrategy::Atomic if cut.pieces > 1 => {
                    name = format!("kasmina_atomic_pieces_{what}_{}", T::NAME);
                    meeting = Meeting::Cells { words: quantity.cell_words(T::FLOAT) };
                }
                ReductionStrategy::Atomic => {}
            }
            let job = PieceJob { homes, meeting, params: PieceParams::of(&params, &cut) };
            return self.pieces(image, &name, THREADS as u32, 0x7fff_ffff, job);
        }
        // No segment is put on a queue.
        params.limit = u64::MAX;
        let (kind, group) = if plain {
            ("plain", Group::of_plain(packets, T::ALL_GROUPS))
        } else {
            ("ragged", Group::of_ragged(packets, T::ALL_GROUPS))
        };
        let name = format!("kasmina_{kind}_{what}_{}_{}", T::NAME, group.name());
        let config = group_config(&group, params.segments);
        self.between(&homes, |this| {
            // SAFETY: data and results are borrowed, their homes joined on both sides, and the struct is the kernel's.
            unsafe { this.launch_kernel(image, &name, &config, params) }
        })
    }

    fn offset_segments<T: GpuElement>(
        &mut self,
        work: &Work,
        mut params: SegmentParams,
        homes: [&Stream; 3],
    ) -> Result<(), CudaError> {
        let Work { quantity, strategy, ref image, lanes } = *work;
        let what = quantity.name();
        let packets = params.elements.div_ceil(params.segments).div_ceil(lanes);
        let group = Group::of_ragged(packets, T::ALL_GROUPS);
        let mut most = 0;
        if strategy == ReductionStrategy::Direct {
            one_worker("x.len()", params.elements, MOST_OF_A_GROUP)?;
            params.limit = u64::MAX;
        } else {
            params.limit = group.limit(lanes);
            // A segment on the queue is longer than the limit, and has at most two pieces more than its packets fill.
            most = params.elements / (lanes * QUEUED) + 2 * (params.elements / params.limit);
        }
        params.segment = most;
        params.head = self.queue(most)?;
        params.queue = params.head + PACKET;
        let (queued, meeting) = match strategy {
            ReductionStrategy::Atomic => {
                ("folded", Meeting::Cells { words: quantity.cell_words(T::FLOAT) })
            }
            _ => {
                let record_bytes = quantity.record_bytes(size_of::<T::Value>());
                ("queued", Meeting::Tree { record_bytes })
            }
        };
        (params.partials, params.arrivals) = self.meeting(meeting, most, most.max(1))?;
        let name = format!("kasmina_ragged_{what}_{}_{}", T::NAME, group.name());
        let config = group_config(&group, params.segments);
        self.between(&homes, |this| {
            // SAFETY: data and results are borrowed, their homes joined on both sides, and the struct is the kernel's; the queue holds as
            // many pieces as there can be, and offsets are checked before they are followed.
            unsafe { this.launch_kernel(image, &name, &config, params) }?;
            if most == 0 {
                return Ok(());
            }
            let name = format!("kasmina_{queued}_{what}_{}", T::NAME);
            let config = LaunchConfig::new(most.min(QUEUE_BLOCKS) as u32, THREADS as u32);
            // SAFETY: as above; this stream's order puts it behind the kernel that fills the queue.
            unsafe { this.launch_kernel(image, &name, &config, params) }
        })
    }
}

/// What is done with segments, and by which kernels.
struct Work {
    quantity: Quantity,
    strategy: ReductionStrategy,
    image: String,
    /// Elements of a packet.
    lanes: u64,
}

impl PieceParams {
    /// The same data and segments, cut.
    fn of(params: &SegmentParams, cut: &PieceCut) -> Self {
        Self {
            x: params.x,
            lead: params.lead,
            elements: params.elements,
            segment: params.segment,
            segments: params.segments,
            out: params.out,
            settings: params.settings,
            ..cut.params()
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
