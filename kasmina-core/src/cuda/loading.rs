//! How the matrices of a streaming pass are loaded: the rung of the ladder, the tensor maps of its tiles, and what is counted.

use kasmina_tma::{DataType, Geometry as MapGeometry, L2Promotion, LoadPath, LoadShape, Selection};

use super::columns::Columns;
use super::engine::Engine;
use super::error::CudaError;
use super::geometry::{Geometry, PACKET_BYTES};
use super::job::View;
use super::variants::{Counting, element_bytes};
use crate::DType;

/// The way to load and store all of `views`, which have the same rows and columns, and at least one column.
pub(super) fn select(
    engine: &Engine,
    dtype: DType,
    views: &[View],
    forced: Option<LoadPath>,
) -> Result<Selection, CudaError> {
    let shape = load_shape(dtype, views);
    let per_packet = (PACKET_BYTES / element_bytes(dtype)) as usize;
    let columns = shape.columns as usize;
    let whole = columns.is_multiple_of(per_packet);
    // Bulk stores write whole packets: on an H200 a bulk-tensor store of 5 f16 columns wrote zeros to the three behind them,
    // outside the tensor. So rows that end within a packet are stored by threads, and then loaded by them, too.
    if let Some(path @ (LoadPath::TensorMap | LoadPath::Bulk)) = forced
        && !whole
    {
        return Err(CudaError::RaggedRows { path, columns, per_packet });
    }
    let path = engine.select(&shape, forced)?;
    if path.path < LoadPath::CpAsync && !whole {
        return engine.select(&shape, Some(LoadPath::CpAsync));
    }
    Ok(path)
}

/// The matrices as the load ladder sees them: the least alignment, and a row stride that is aligned where all are. No rows
/// count as one.
fn load_shape(dtype: DType, views: &[View]) -> LoadShape {
    let element = u64::from(element_bytes(dtype));
    let bits = views.iter().fold(0, |bits, view| bits | view.address);
    let unaligned = |view: &&View| !view.pitch.is_multiple_of(PACKET_BYTES.into());
    let strictest = views.iter().find(unaligned).or(views.first());
    LoadShape {
        rows: strictest.map_or(1, |view| view.rows.max(1).into()),
        columns: strictest.map_or(0, |view| view.columns.into()),
        row_stride: strictest.map_or(0, |view| view.pitch / element),
        data_type: data_type(dtype),
        alignment: 1u64 << bits.trailing_zeros().min(8),
    }
}

/// The geometry of a map of the matrix's tiles: boxes of whole rows of a stage.
pub(super) fn tile_map(
    dtype: DType,
    view: View,
    geometry: &Geometry,
) -> Result<MapGeometry, CudaError> {
    let elements = PACKET_BYTES / element_bytes(dtype);
    // The stride of a single row is never used, but it is checked.
    let stride = view.pitch.next_multiple_of(PACKET_BYTES.into());
    Ok(MapGeometry::tiled(data_type(dtype))
        .sizes(&[view.columns.into(), view.rows.into()])
        .strides(&[stride])
        .box_sides(&[geometry.box_packets * elements, geometry.stage_rows()])
        .l2_promotion(L2Promotion::Bytes256)
        .build()?)
}

/// What a pass over `columns` counts: by packets where none has columns of two chunks.
pub(super) fn counting(columns: &Columns, dtype: DType, measured: bool) -> Counting {
    let lanes = (PACKET_BYTES / element_bytes(dtype)) as usize;
    let whole = |columns: usize| columns.is_multiple_of(lanes);
    match measured {
        false => Counting::Off,
        true if whole(columns.layout.chunk()) && whole(columns.layout.hidden()) => Counting::Packet,
        true => Counting::Column,
    }
}

fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F32 => DataType::F32,
        DType::F16 => DataType::F16,
        DType::Bf16 => DataType::Bf16,
    }
}
