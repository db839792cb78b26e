//! Device memory of a layer's backward passes that is kept from call to call.

use kasmina_sys::{DeviceBuffer, DeviceSlice, Stream};
use kasmina_tma::{BoundTensorMap, TensorMap};

use super::columns::Columns;
use super::cuts::{Cut, Cuts};
use super::error::CudaError;
use super::geometry::Geometry;
use super::job::View;
use super::loading;
use super::params::{ColumnTotals, RawGradientStats};
use super::variants::element_bytes;
use crate::DType;

/// Device memory of backward passes that is kept from call to call.
#[derive(Debug, Default)]
pub(super) struct BackwardState {
    cuts: Cuts<RawGradientStats>,
    /// Of every group of blocks: [groups][columns].
    sums: Option<DeviceBuffer<ColumnTotals>>,
    /// Groups of the latest cut.
    groups: u32,
    /// Of x, dL/dy and dL/dx, with what they were made from: a map is a function of that alone.
    maps: [Option<(MapKey, TensorMap)>; 3],
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct MapKey {
    dtype: DType,
    view: View,
    geometry: Geometry,
}

impl BackwardState {
    /// The cut for `geometry`, ready for a pass that `counts` or does not, and the address of its groups' column sums. `totals` as
    /// for [`Cuts::prepare`].
    pub(super) fn prepare(
        &mut self,
        columns: &Columns,
        geometry: Geometry,
        counts: bool,
        totals: &DeviceBuffer<RawGradientStats>,
    ) -> Result<(&Cut<RawGradientStats>, u64), CudaError> {
        let sums = self.sums(columns, geometry.groups as usize * geometry.columns as usize)?;
        self.groups = geometry.groups;
        Ok((self.cuts.prepare(columns, geometry, counts, totals)?, sums))
    }

    /// The address of at least `len` column sums, kept or made anew; what was in them may be lost.
    pub(super) fn sums(&mut self, columns: &Columns, len: usize) -> Result<u64, CudaError> {
        if let Some(kept) = self.sums.as_ref().filter(|sums| sums.len() >= len) {
            return Ok(kept.address());
        }
        columns.residents.settle();
        let new = DeviceBuffer::unwritten(&columns.stream, len)?;
        columns.changed();
        Ok(self.sums.insert(new).address())
    }

    /// Groups of the latest cut.
    pub(super) fn groups(&self) -> u32 {
        self.groups
    }

    /// The column sums of the latest pass, [groups][columns] and maybe more.
    pub(super) fn sums_mut(&mut self) -> Option<&mut DeviceBuffer<ColumnTotals>> {
        self.sums.as_mut()
    }

    /// Notes that the passes of a graph have counted.
    pub(super) fn note_counts(&mut self) {
        self.cuts.note_counts();
    }

    /// Moves what the passes have counted to the seeds' totals. Queued.
    pub(super) fn collect(
        &mut self,
        columns: &Columns,
        totals: &DeviceBuffer<RawGradientStats>,
    ) -> Result<(), CudaError> {
        self.cuts.collect(columns, totals)
    }

    /// As [`Cuts::counted`].
    pub(super) fn counted(&self) -> impl Iterator<Item = (u64, Geometry)> + '_ {
        self.cuts.counted()
    }

    /// The map of the tiles of matrix `i`.
    pub(super) fn map(
        &mut self,
        i: usize,
        stream: &Stream,
        dtype: DType,
        view: View,
        geometry: Geometry,
    ) -> Result<TensorMap, CudaError> {
        let key = MapKey { dtype, view, geometry };
        if let Some((_, map)) = self.maps[i].filter(|(of, _)| *of == key) {
            return Ok(map);
        }
        let bytes = span_bytes(dtype, view);
        // SAFETY: only the address and the length are looked at here; the caller vouches for the matrix.
        let memory = unsafe { DeviceSlice::<u8>::from_raw(stream, view.address, bytes) }?;
        let bound = BoundTensorMap::encode(memory, &loading::tile_map(dtype, view, &geometry)?)?;
        // SAFETY: kernels get the map together with the matrix, which the caller keeps until they are done.
        let map = unsafe { bound.unbound() };
        self.maps[i] = Some((key, map));
        Ok(map)
    }
}

/// Bytes from the first element of a matrix of at least one row to its last.
fn span_bytes(dtype: DType, view: View) -> usize {
    let row = u64::from(view.columns) * u64::from(element_bytes(dtype));
    ((u64::from(view.rows) - 1) * view.pitch + row) as usize
}
