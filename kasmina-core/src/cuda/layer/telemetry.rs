//! What is measured, on the device: who is watched, the accumulators, and their way to the host and back.

use std::ops::Range;

use kasmina_sys::{DeviceBuffer, PinnedBuffer, PinnedKind};
use kasmina_telemetry::{ChunkStats, Histogram};

use crate::SeedLayout;
use crate::cuda::columns::Columns;
use crate::cuda::error::CudaError;
use crate::cuda::hand_over::empty_histograms;
use crate::cuda::params::RawGradientStats;
use crate::cuda::streams::Streams;
use crate::layer::TelemetryState;

/// Device memory of a layer's telemetry beside the accumulators that `Streams` has, and where they land.
#[derive(Debug)]
pub(super) struct Telemetry {
    /// In debug mode, one a seed.
    pub(super) histograms: Option<DeviceBuffer<Histogram>>,
    /// Kept from an earlier time in debug mode.
    spare_histograms: Option<DeviceBuffer<Histogram>>,
    /// What the device was last told of who is watched; empty until it was.
    host_watched: Vec<u8>,
    /// Kept while all seeds are watched.
    spare: Option<DeviceBuffer<u8>>,
    landing: Landing,
}

#[derive(Debug)]
struct Landing {
    chunk: PinnedBuffer<ChunkStats>,
    gradient: PinnedBuffer<RawGradientStats>,
    saturated: PinnedBuffer<u64>,
}

impl Telemetry {
    /// Takes the accumulators of `state` to the device. Waits.
    pub(super) fn new(
        streams: &mut Streams,
        layout: SeedLayout,
        state: &TelemetryState,
    ) -> Result<Self, CudaError> {
        let seeds = layout.seeds();
        let stream = streams.columns.stream.clone();
        let context = stream.context();
        let mut telemetry = Self {
            histograms: None,
            spare_histograms: None,
            host_watched: Vec::new(),
            spare: None,
            landing: Landing {
                chunk: PinnedBuffer::zeroed(context, seeds, PinnedKind::Cached)?,
                gradient: PinnedBuffer::zeroed(context, seeds, PinnedKind::Cached)?,
                saturated: PinnedBuffer::zeroed(context, 1, PinnedKind::Cached)?,
            },
        };
        telemetry.put(streams, state)?;
        Ok(telemetry)
    }

    /// Overwrites the device's accumulators by those of `state`. Waits.
    pub(super) fn put(
        &mut self,
        streams: &mut Streams,
        state: &TelemetryState,
    ) -> Result<(), CudaError> {
        let gradient: Vec<_> = state.gradient.iter().map(|g| RawGradientStats::from(*g)).collect();
        // What the passes hold back goes with the totals that are overwritten.
        streams.collect()?;
        streams.totals.copy_from_host(&state.chunk)?;
        streams.gradient_totals.copy_from_host(&gradient)?;
        streams.columns.saturated.copy_from_host(&[state.saturated])?;
        self.follow(&streams.columns, state)?;
        if let (Some(all), Some(to)) = (&state.histograms, &mut self.histograms) {
            to.copy_from_host(all)?;
        }
        Ok(())
    }

    /// Brings the accumulators to `state`. Waits.
    pub(super) fn pull(
        &mut self,
        streams: &mut Streams,
        state: &mut TelemetryState,
    ) -> Result<(), CudaError> {
        streams.collect()?;
        let stream = &streams.columns.stream;
        let Landing { chunk, gradient, saturated } = &mut self.landing;
        streams.totals.copy_to_pinned(chunk, stream)?;
        streams.gradient_totals.copy_to_pinned(gradient, stream)?;
        streams.columns.saturated.copy_to_pinned(saturated, stream)?;
        let histograms = self.histograms.as_ref().map(DeviceBuffer::to_vec).transpose()?;
        let (chunk, gradient, saturated) =
            (chunk.as_slice()?, gradient.as_slice()?, saturated.as_slice()?);
        // Everything is here: from now on nothing fails.
        state.chunk.copy_from_slice(chunk);
        for (to, from) in state.gradient.iter_mut().zip(gradient) {
            *to = (*from).into();
        }
        state.saturated = saturated.first().copied().unwrap_or(0);
        if let (Some(to), Some(from)) = (&mut state.histograms, histograms) {
            *to = from;
        }
        Ok(())
    }

    /// Empties the device's accumulators. Queued.
    pub(super) fn empty(&mut self, streams: &mut Streams) -> Result<(), CudaError> {
        let stream = streams.columns.stream.clone();
        streams.clear_stats()?;
        streams.columns.saturated.fill_zero(&stream)?;
        match &self.histograms {
            Some(histograms) => empty_histograms(&streams.columns, histograms),
            None => Ok(()),
        }
    }

    /// Histograms as the mode wants them: empty ones where there were none, or none. Queued.
    pub(super) fn follow(
        &mut self,
        columns: &Columns,
        state: &TelemetryState,
    ) -> Result<(), CudaError> {
        match (&state.histograms, &self.histograms) {
            (Some(all), None) => {
                let histograms = match self.spare_histograms.take() {
                    Some(kept) => kept,
                    None => DeviceBuffer::unwritten(&columns.stream, all.len())?,
                };
                empty_histograms(columns, &histograms)?;
                self.histograms = Some(histograms);
            }
            (None, Some(_)) => self.spare_histograms = self.histograms.take(),
            _ => {}
        }
        Ok(())
    }

    /// Tells the passes which seeds they measure; queued, and only where that has changed.
    pub(super) fn watch(
        &mut self,
        columns: &mut Columns,
        seeds: &[Range<usize>],
    ) -> Result<(), CudaError> {
        let count = columns.layout.seeds();
        if seeds.first() == Some(&(0..count)) {
            self.spare = columns.watched.take().or_else(|| self.spare.take());
            return Ok(());
        }
        let bytes = watched_bytes(count, seeds);
        if self.host_watched != bytes {
            columns.residents.settle();
        }
        let kept = columns.watched.take().or_else(|| self.spare.take());
        let mut buffer = match kept {
            Some(buffer) => buffer,
            None => {
                self.host_watched.clear();
                DeviceBuffer::unwritten(&columns.stream, count)?
            }
        };
        if self.host_watched != bytes {
            // Until the upload is queued nothing is known of the device's.
            self.host_watched.clear();
            columns.uploads.write(&columns.stream, &mut buffer.as_mut_slice(), &bytes)?;
            self.host_watched = bytes;
        }
        columns.watched = Some(buffer);
        Ok(())
    }
}

fn watched_bytes(seeds: usize, watched: &[Range<usize>]) -> Vec<u8> {
    let mut bytes = vec![0; seeds];
    watched.iter().for_each(|range| bytes[range.clone()].fill(1));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_bytes() {
        assert_eq!(watched_bytes(6, &[1..3, 5..6]), [0, 1, 1, 0, 0, 1]);
        assert_eq!(watched_bytes(2, &[]), [0, 0]);
    }
}
