//! Flat reductions: one result out of all elements.

use kasmina_sys::{DeviceBuffer, DeviceCopy, DeviceSlice, DeviceSliceMut, LaunchConfig};

use super::cut::{PACKET, PieceCut};
use super::element::{AsBounds, AsExtrema, AsStatistics, AsSummary, GpuElement, Interval};
use super::error::CudaError;
use super::params::{PieceParams, Settings};
use super::quantity::{Flat, Meeting};
use super::records::{self, CountRecord, SumRecord};
use super::reducer::{Reducer, start_of};
use crate::reduce::Summary;
use crate::{
    Comparison, ElementStats, NanPolicy, ReductionOptions, ReductionStrategy, TelemetryError,
};

impl Reducer {
    /// Queues Σ x. `out` has one record.
    ///
    /// Floats are summed in f64, where f16, bf16 and f32 are exact, in a tree: the error is at most (n / 2^20 + 100) · 2^-53 · Σ|x|
    /// for n elements in any order, and with [`ReductionStrategy::Direct`] (n / 2^9 + 100) · 2^-53 · Σ|x|. Integers are summed exactly.
    /// Of the options the strategy counts; NaNs are counted apart, for whoever reads the record.
    ///
    /// # Errors
    /// [`CudaError::Misaligned`], [`TelemetryError::WrongLength`], or the driver refused.
    pub fn sum_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, T::SumRecord>,
    ) -> Result<(), CudaError> {
        self.flat(x, out, Flat::Sum, options, Settings::new(options))
    }

    /// Queues least and greatest value and where they first occur. `out` has one record.
    ///
    /// # Errors
    /// As for [`Reducer::sum_into`].
    pub fn extrema_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, T::Extrema>,
    ) -> Result<(), CudaError> {
        self.flat(x, out, Flat::Extrema, options, Settings::new(options))
    }

    /// Queues least and greatest value. `out` has one record.
    ///
    /// # Errors
    /// As for [`Reducer::sum_into`].
    pub fn bounds_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, T::Bounds>,
    ) -> Result<(), CudaError> {
        self.flat(x, out, Flat::Bounds, options, Settings::new(options))
    }

    /// Queues sum, sum of squares, extremes and their places, in one read. `out` has one record.
    ///
    /// # Errors
    /// As for [`Reducer::sum_into`].
    pub fn summary_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, T::Summary>,
    ) -> Result<(), CudaError> {
        self.flat(x, out, Flat::Summary, options, Settings::new(options))
    }

    /// Queues the number of elements that stand to `threshold` as `comparison` says. `out` has one record.
    ///
    /// # Errors
    /// As for [`Reducer::sum_into`].
    pub fn count_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        comparison: Comparison,
        threshold: T,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, CountRecord>,
    ) -> Result<(), CudaError> {
        let mut settings = Settings::new(options);
        match threshold.interval(comparison) {
            Interval::Float(least, most) => (settings.least, settings.most) = (least, most),
            Interval::Whole(least, most) => {
                (settings.least_whole, settings.most_whole) = (least, most);
            }
        }
        settings.outside = (comparison == Comparison::NotEqual).into();
        self.flat(x, out, Flat::Count, options, settings)
    }

    /// Queues the statistics of all finite elements. `out` has one record.
    ///
    /// # Errors
    /// As for [`Reducer::sum_into`].
    pub fn statistics_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, T::Statistics>,
    ) -> Result<(), CudaError> {
        self.flat(x, out, Flat::Statistics, options, Settings::new(options))
    }

    /// Σ x, or `None` for no values (or, with NaNs ignored, nothing but NaNs). Waits.
    ///
    /// # Errors
    /// As for [`Reducer::sum_into`], or something queued before failed.
    pub fn sum<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        options: &ReductionOptions,
    ) -> Result<Option<T::Sum>, CudaError> {
        Ok(self
            .one(|this, out| this.sum_into(x, options, out))?
            .and_then(|sum| sum.total(options.nan)))
    }

    /// All of [`Summary`], or `None` as for [`Reducer::sum`]. Waits.
    ///
    /// # Errors
    /// As for [`Reducer::sum`].
    pub fn summary<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        options: &ReductionOptions,
    ) -> Result<Option<Summary<T>>, CudaError> {
        let record = self.one(|this, out| this.summary_into(x, options, out))?;
        Ok(record.and_then(|record| records::summary(record.summary(), options.nan)))
    }

    /// Σ x², in f64; `None` as for [`Reducer::sum`]. Waits.
    ///
    /// # Errors
    /// As for [`Reducer::sum`].
    pub fn sum_squares<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        options: &ReductionOptions,
    ) -> Result<Option<f64>, CudaError> {
        Ok(self.summary(x, options)?.map(|summary| summary.sum_squares))
    }

    /// Least value and its index, then greatest value and its index; `None` as for [`Reducer::sum`]. Where a NaN propagates,
    /// both are the first NaN. Waits.
    ///
    /// # Errors
    /// As for [`Reducer::sum`].
    #[allow(clippy::type_complexity)]
    pub fn extrema<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        options: &ReductionOptions,
    ) -> Result<Option<((T, usize), (T, usize))>, CudaError> {
        let record = self.one(|this, out| this.extrema_into(x, options, out))?;
        let Some(record) = record.as_ref().map(AsExtrema::extrema) else { return Ok(None) };
        if let (Some(at), Some((nan, _))) = (record.nan_at(options.nan), T::nan()) {
            return Ok(Some(((nan, at), (nan, at))));
        }
        let places = record.places();
        Ok(places
            .map(|(low, high)| ((T::from_value(low.0), low.1), (T::from_value(high.0), high.1))))
    }

    /// Least and greatest value, of two zeros either; `None` as for [`Reducer::sum`]. Waits.
    ///
    /// # Errors
    /// As for [`Reducer::sum`].
    pub fn bounds<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        options: &ReductionOptions,
    ) -> Result<Option<(T, T)>, CudaError> {
        let record = self.one(|this, out| this.bounds_into(x, options, out))?;
        let Some(record) = record.as_ref().map(AsBounds::bounds) else { return Ok(None) };
        if let (true, NanPolicy::Propagate, Some((nan, _))) =
            (record.nans > 0, options.nan, T::nan())
        {
            return Ok(Some((nan, nan)));
        }
        let values = (T::from_value(record.min), T::from_value(record.max));
        Ok((record.numbers > 0).then_some(values))
    }

    /// Least value; see [`Reducer::bounds`]. Waits.
    ///
    /// # Errors
    /// As for [`Reducer::sum`].
    pub fn min<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        options: &ReductionOptions,
    ) -> Result<Option<T>, CudaError> {
        Ok(self.bounds(x, options)?.map(|(low, _)| low))
    }

    /// Greatest value; see [`Reducer::bounds`]. Waits.
    ///
    /// # Errors
    /// As for [`Reducer::sum`].
    pub fn max<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        options: &ReductionOptions,
    ) -> Result<Option<T>, CudaError> {
        Ok(self.bounds(x, options)?.map(|(_, high)| high))
    }

    /// Index of the first least value; see [`Reducer::extrema`]. Waits.
    ///
    /// # Errors
    /// As for [`Reducer::sum`].
    pub fn arg_min<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        options: &ReductionOptions,
    ) -> Result<Option<usize>, CudaError> {
        Ok(self.extrema(x, options)?.map(|(low, _)| low.1))
    }

    /// Index of the first greatest value; see [`Reducer::extrema`]. Waits.
    ///
    /// # Errors
    /// As for [`Reducer::sum`].
    pub fn arg_max<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        options: &ReductionOptions,
    ) -> Result<Option<usize>, CudaError> {
        Ok(self.extrema(x, options)?.map(|(_, high)| high.1))
    }

    /// How many elements stand to `threshold` as `comparison` says. Waits.
    ///
    /// # Errors
    /// As for [`Reducer::sum`].
    pub fn count<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        comparison: Comparison,
        threshold: T,
        options: &ReductionOptions,
    ) -> Result<u64, CudaError> {
        let record =
            self.one(|this, out| this.count_into(x, comparison, threshold, options, out))?;
        Ok(record.map_or(0, |count| count.matches))
    }

    /// Statistics of all finite elements, or `None` for no elements. Waits.
    ///
    /// # Errors
    /// As for [`Reducer::sum`].
    pub fn statistics<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        options: &ReductionOptions,
    ) -> Result<Option<ElementStats<T::Value>>, CudaError> {
        let record = self.one(|this, out| this.statistics_into(x, options, out))?;
        Ok(record.map(|record| *record.statistics()).filter(|_| !x.is_empty()))
    }

    /// Queues what writes one record, and waits for it.
    fn one<R: DeviceCopy>(
        &mut self,
        queue: impl FnOnce(&mut Self, DeviceSliceMut<'_, R>) -> Result<(), CudaError>,
    ) -> Result<Option<R>, CudaError> {
        self.may_wait()?;
        let mut out = DeviceBuffer::<R>::unwritten(&self.stream, 1)?;
        queue(self, out.as_mut_slice())?;
        Ok(out.to_vec()?.first().copied())
    }

    pub(super) fn flat<T: GpuElement, R: DeviceCopy>(
        &mut self,
        x: DeviceSlice<'_, T>,
        out: DeviceSliceMut<'_, R>,
        what: Flat,
        options: &ReductionOptions,
        settings: Settings,
    ) -> Result<(), CudaError> {
        length("out", out.len(), 1)?;
        let start = start_of("x", &x)?;
        let elements = x.len() as u64;
        let packets = (start.lead + elements).div_ceil(PACKET / size_of::<T>() as u64);
        let mut cut = PieceCut::flat(packets);
        let mut meeting = Meeting::Tree { record_bytes: size_of::<R>() as u64 };
        let mut launch = self.launch.unwrap_or_default();
        match options.strategy {
            ReductionStrategy::Hierarchical => launch = self.launch_of::<T>(what, elements, start),
            ReductionStrategy::Direct => {
                one_worker("x.len()", elements, MOST_OF_A_BLOCK)?;
                cut = PieceCut::whole(packets);
            }
            // One piece alone meets nobody.
            ReductionStrategy::Atomic if cut.pieces > 1 => {
                meeting = Meeting::Cells { words: what.cell_words(T::FLOAT) };
            }
            ReductionStrategy::Atomic => {}
        }
        if !what.has_eight() {
            launch.ahead = 4;
        }
        let name = match meeting {
            Meeting::Tree { .. } => {
                format!("kasmina_flat_{}_{}_{}", what.name(), T::NAME, launch.ahead)
            }
            Meeting::Cells { .. } => format!("kasmina_atomic_flat_{}_{}", what.name(), T::NAME),
        };
        let job = PieceJob {
            homes: [x.home(), out.home()],
            meeting,
            params: PieceParams {
                x: start.address,
                lead: start.lead,
                elements,
                segment: elements,
                segments: 1,
                out: out.address(),
                settings,
                ..cut.params()
            },
        };
        self.pieces(T::FLAT, &name, launch.threads, launch.blocks, job)
    }

    /// Queues a kernel that works in pieces; its scratch memory is filled in here.
    pub(super) fn pieces(
        &mut self,
        image: &str,
        name: &str,
        threads: u32,
        most_blocks: u32,
        job: PieceJob<'_>,
    ) -> Result<(), CudaError> {
        let PieceJob { homes, meeting, mut params } = job;
        let items = params.segments * params.pieces;
        if params.pieces > 1 {
            (params.partials, params.arrivals) = self.meeting(meeting, items, params.segments)?;
        }
        // At most 2^31 - 1.
        let config = LaunchConfig::new(items.min(most_blocks.into()) as u32, threads);
        self.between(&homes, |this| {
            // SAFETY: the data and the results are borrowed, and their homes are joined on both sides; scratch memory is as large as
            // the cut says and used on this stream alone; the struct is the kernel's.
            unsafe { this.launch_kernel(image, name, &config, params) }
        })
    }
}

/// What a kernel in pieces works on.
pub(super) struct PieceJob<'a> {
    pub(super) homes: [&'a kasmina_sys::Stream; 2],
    pub(super) meeting: Meeting,
    pub(super) params: PieceParams,
}

/// Elements that one block takes of a result at most: a warp counts what it sees of them in 32 bits.
pub(super) const MOST_OF_A_BLOCK: u64 = 1 << 34;

/// Refuses what is too much for the one worker of [`ReductionStrategy::Direct`].
pub(super) fn one_worker(what: &'static str, elements: u64, most: u64) -> Result<(), CudaError> {
    if elements <= most {
        return Ok(());
    }
    let limit = if most == MOST_OF_A_BLOCK {
        "at most 2^34, or another strategy than Direct,"
    } else {
        "less than 2^32 - 16, or another strategy than Direct,"
    };
    Err(TelemetryError::OutOfRange { what, value: elements as f64, limit }.into())
}

pub(super) fn length(what: &'static str, actual: usize, expected: usize) -> Result<(), CudaError> {
    if actual == expected {
        return Ok(());
    }
    Err(TelemetryError::WrongLength { what, actual, expected }.into())
}
