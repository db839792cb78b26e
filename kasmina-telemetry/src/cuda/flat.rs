//! Flat reductions: one result out of all elements.

use kasmina_sys::{DeviceBuffer, DeviceCopy, DeviceSlice, DeviceSliceMut, LaunchConfig};

use super::cut::{PACKET, PieceCut};
use super::element::{AsBounds, AsExtrema, AsStatistics, AsSummary, GpuElement, Interval};
use super::error::CudaError;
use super::params::{PieceParams, Settings};
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
    /// for n elements in any order. Integers are summed exactly.
    ///
    /// # Errors
    /// [`CudaError::Misaligned`], [`TelemetryError::WrongLength`], or the driver refused.
    pub fn sum_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        out: DeviceSliceMut<'_, T::SumRecord>,
    ) -> Result<(), CudaError> {
        let ahead = self.launch.ahead;
        self.flat(x, out, "sum", ahead, Settings::new(&ReductionOptions::default()))
    }

    /// Queues least and greatest value and where they first occur. `out` has one record.
    ///
    /// # Errors
    /// As for [`Reducer::sum_into`].
    pub fn extrema_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        out: DeviceSliceMut<'_, T::Extrema>,
    ) -> Result<(), CudaError> {
        let ahead = self.launch.ahead;
        self.flat(x, out, "extrema", ahead, Settings::new(&ReductionOptions::default()))
    }

    /// Queues least and greatest value. `out` has one record.
    ///
    /// # Errors
    /// As for [`Reducer::sum_into`].
    pub fn bounds_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        out: DeviceSliceMut<'_, T::Bounds>,
    ) -> Result<(), CudaError> {
        let ahead = self.launch.ahead;
        self.flat(x, out, "bounds", ahead, Settings::new(&ReductionOptions::default()))
    }

    /// Queues sum, sum of squares, extremes and their places, in one read. `out` has one record.
    ///
    /// # Errors
    /// As for [`Reducer::sum_into`].
    pub fn summary_into<T: GpuElement>(
        &mut self,
        x: DeviceSlice<'_, T>,
        out: DeviceSliceMut<'_, T::Summary>,
    ) -> Result<(), CudaError> {
        self.flat(x, out, "summary", 4, Settings::new(&ReductionOptions::default()))
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
        out: DeviceSliceMut<'_, CountRecord>,
    ) -> Result<(), CudaError> {
        let mut settings = Settings::new(&ReductionOptions::default());
        match threshold.interval(comparison) {
            Interval::Float(least, most) => (settings.least, settings.most) = (least, most),
            Interval::Whole(least, most) => {
                (settings.least_whole, settings.most_whole) = (least, most);
            }
        }
        settings.outside = (comparison == Comparison::NotEqual).into();
        self.flat(x, out, "count", 4, settings)
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
        hierarchical(options)?;
        self.flat(x, out, "statistics", 4, Settings::new(options))
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
        hierarchical(options)?;
        Ok(self.one(|this, out| this.sum_into(x, out))?.and_then(|sum| sum.total(options.nan)))
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
        hierarchical(options)?;
        let record = self.one(|this, out| this.summary_into(x, out))?;
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
        hierarchical(options)?;
        let record = self.one(|this, out| this.extrema_into(x, out))?;
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
        hierarchical(options)?;
        let record = self.one(|this, out| this.bounds_into(x, out))?;
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
    ) -> Result<u64, CudaError> {
        let record = self.one(|this, out| this.count_into(x, comparison, threshold, out))?;
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
        let mut out = DeviceBuffer::<R>::unwritten(&self.stream, 1)?;
        queue(self, out.as_mut_slice())?;
        Ok(out.to_vec()?.first().copied())
    }

    fn flat<T: GpuElement, R: DeviceCopy>(
        &mut self,
        x: DeviceSlice<'_, T>,
        out: DeviceSliceMut<'_, R>,
        what: &str,
        ahead: u32,
        settings: Settings,
    ) -> Result<(), CudaError> {
        length("out", out.len(), 1)?;
        let start = start_of("x", &x)?;
        let elements = x.len() as u64;
        let packets = (start.lead + elements).div_ceil(PACKET / size_of::<T>() as u64);
        let cut = PieceCut::flat(packets);
        let name = format!("kasmina_flat_{what}_{}_{ahead}", T::NAME);
        self.pieces(
            T::FLAT,
            &name,
            self.launch.threads,
            self.launch.blocks,
            &cut,
            PieceJob {
                homes: [x.home(), out.home()],
                record_bytes: size_of::<R>() as u64,
                params: PieceParams {
                    x: start.address,
                    lead: start.lead,
                    elements,
                    segment: elements,
                    segments: 1,
                    large: cut.large,
                    pieces: cut.pieces,
                    partials: 0,
                    arrivals: 0,
                    out: out.address(),
                    settings,
                    large_strip: cut.large_strip as u32,
                    small_strip: cut.small_strip as u32,
                },
            },
        )
    }

    /// Queues a kernel that works in pieces; its scratch memory is filled in here.
    pub(super) fn pieces(
        &mut self,
        image: &str,
        name: &str,
        threads: u32,
        most_blocks: u32,
        cut: &PieceCut,
        job: PieceJob<'_>,
    ) -> Result<(), CudaError> {
        let PieceJob { homes, record_bytes, mut params } = job;
        let items = params.segments * cut.pieces;
        if cut.pieces > 1 {
            (params.partials, params.arrivals) =
                self.scratch(items * record_bytes, params.segments)?;
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
    pub(super) record_bytes: u64,
    pub(super) params: PieceParams,
}

/// Refuses the strategies that only the CPU has.
pub(super) fn hierarchical(options: &ReductionOptions) -> Result<(), CudaError> {
    let needed = ReductionStrategy::Hierarchical;
    if options.strategy == needed {
        return Ok(());
    }
    Err(CudaError::Strategy { found: options.strategy, needed })
}

pub(super) fn length(what: &'static str, actual: usize, expected: usize) -> Result<(), CudaError> {
    if actual == expected {
        return Ok(());
    }
    Err(TelemetryError::WrongLength { what, actual, expected }.into())
}
