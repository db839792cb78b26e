//! The two kernels that read the whole input apart from the streaming pass: strict bounds and histograms.

use bytemuck::{Pod, Zeroable};
use kasmina_sys::{ByValue, DeviceBuffer, Kernel, KernelArguments, LaunchConfig};

use super::columns::Columns;
use super::error::CudaError;
use super::geometry::{PACKET_BYTES, ROWS, WORKERS};
use super::job::View;
use super::params::RawBounds;
use super::tape::Piece;
use crate::{DType, SeedLayout};

/// The fatbin of these kernels.
const WHOLE_INPUT: &str = "whole_input";

/// Device memory of the strict bounds' reduction, kept from call to call.
#[derive(Debug, Default)]
pub(super) struct StrictScratch {
    /// A `Moments` for each block, and the count of those that are done.
    kept: Option<(DeviceBuffer<[u64; 3]>, DeviceBuffer<u32>)>,
}

/// Blocks of the strict kernels that a multiprocessor runs at once.
const STRICT_BLOCKS: u32 = 3;

/// `StrictParams` of `kernels/whole_input.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(super) struct StrictParams {
    x: u64,
    pitch: u64,
    fixed: RawBounds,
    bounds: u64,
    partials: u64,
    arrivals: u64,
    units: u64,
    rows: u32,
    columns: u32,
    last_columns: u32,
    tiles: u32,
    tile_packets: u32,
    row_lanes: u32,
    sigmas: f32,
    padding: u32,
}

const _: () = assert!(
    size_of::<StrictParams>() == 96
        && std::mem::offset_of!(StrictParams, units) == 56
        && std::mem::offset_of!(StrictParams, sigmas) == 88,
    "as in kernels/whole_input.cuh"
);

pub(super) type Strict = (ByValue<StrictParams>,);

/// How the matrix of a reduction over all of it is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
struct StrictCut {
    pitch: u64,
    rows: u32,
    columns: u32,
    last_columns: u32,
    tiles: u32,
    tile_packets: u32,
    row_lanes: u32,
    units: u64,
}

impl StrictCut {
    fn new(x: &View, element: u32) -> Self {
        let lanes = PACKET_BYTES / element;
        let (mut rows, mut columns, mut last_columns) = (x.rows, x.columns, x.columns);
        let mut pitch = x.pitch;
        // Without gaps between rows it is one row, which is cut anew.
        let elements = u64::from(rows) * u64::from(columns);
        let width = lanes * WORKERS;
        let gapless = rows <= 1 || pitch == u64::from(columns) * u64::from(element);
        if let (true, Ok(flat)) = (gapless, u32::try_from(elements.div_ceil(width.into()))) {
            (rows, columns, pitch) = (flat, width, u64::from(width * element));
            // At most a row's width.
            last_columns = match (elements % u64::from(width)) as u32 {
                0 => width,
                some => some,
            };
        }
        let packets = columns.div_ceil(lanes);
        let tiles = packets.div_ceil(WORKERS).max(1);
        let tile_packets = packets.div_ceil(tiles).max(1);
        let row_lanes = WORKERS / tile_packets;
        let blocks = rows.div_ceil(ROWS * row_lanes);
        let units = if columns == 0 { 0 } else { u64::from(tiles) * u64::from(blocks) };
        Self { pitch, rows, columns, last_columns, tiles, tile_packets, row_lanes, units }
    }
}

/// Writes strict mode's bounds for `x` to `columns.bounds`: mean ± sigmas·σ of all its finite elements, within `fixed`. Queued.
pub(super) fn strict_bounds(
    columns: &Columns,
    scratch: &mut StrictScratch,
    dtype: DType,
    x: View,
    fixed: RawBounds,
    sigmas: f32,
) -> Result<(), CudaError> {
    let engine = &columns.engine;
    let cut = StrictCut::new(&x, element_bytes(dtype));
    let packet = u64::from(PACKET_BYTES);
    let aligned = x.address.is_multiple_of(packet) && cut.pitch.is_multiple_of(packet);
    let name = format!("kasmina_strict_{dtype}{}", if aligned { "" } else { "_scalar" });
    let kernel = engine.kernel::<Strict>(WHOLE_INPUT, &name)?;
    let most = engine.multiprocessors().max(1) * STRICT_BLOCKS;
    if scratch.kept.is_none() {
        let partials = DeviceBuffer::unwritten(&columns.stream, most as usize)?;
        scratch.kept = Some((partials, DeviceBuffer::zeroed(&columns.stream, 1)?));
        columns.changed();
    }
    // Just made where it was not there.
    let Some((partials, arrivals)) = &scratch.kept else { return Ok(()) };
    let StrictCut { pitch, rows, columns: width, last_columns, .. } = cut;
    let params = StrictParams {
        x: x.address,
        pitch,
        fixed,
        bounds: columns.bounds.address(),
        partials: partials.address(),
        arrivals: arrivals.address(),
        units: cut.units,
        rows,
        columns: width,
        last_columns,
        tiles: cut.tiles,
        tile_packets: cut.tile_packets,
        row_lanes: cut.row_lanes,
        sigmas,
        padding: 0,
    };
    let blocks = cut.units.clamp(1, most.into()) as u32;
    let config = LaunchConfig::new(blocks, WORKERS);
    launch(&kernel, columns, Piece::StrictBounds, &config, (ByValue(params),))
}

/// `HistogramParams` of `kernels/whole_input.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(super) struct HistogramParams {
    x: u64,
    pitch: u64,
    histograms: u64,
    watched: u64,
    rows: u32,
    columns: u32,
    chunk: u32,
    groups: u32,
    seeds_per_tile: u32,
    tiles_per_seed: u32,
    tile_columns: u32,
    padding: u32,
}

const _: () = assert!(
    size_of::<HistogramParams>() == 64 && std::mem::offset_of!(HistogramParams, tile_columns) == 56,
    "as in kernels/whole_input.cuh"
);

pub(super) type HistogramOf = (ByValue<HistogramParams>,);

/// Bytes of a `PartialHistogram`.
const PARTIAL_HISTOGRAM_BYTES: u32 = 400;
/// The most seeds whose histograms a block has in shared memory, and the columns that it aims for.
const SEEDS_PER_TILE: u32 = 64;
const HISTOGRAM_COLUMNS: u32 = 512;
/// Blocks for each multiprocessor, where there are rows enough.
const HISTOGRAM_BLOCKS: u32 = 8;
/// Rows that a thread should have at least, so that clearing and adding up a block's histograms does not dominate.
const HISTOGRAM_ROWS: u32 = 32;

/// How the columns are cut for counting: tiles of several whole seeds, or several tiles a seed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct HistogramCut {
    groups: u32,
    seeds_per_tile: u32,
    tiles_per_seed: u32,
    tile_columns: u32,
    blocks: u32,
}

impl HistogramCut {
    /// For `rows` > 0 of at most 2^31 columns.
    fn new(layout: SeedLayout, rows: u32, multiprocessors: u32) -> Self {
        let (chunk, seeds) = (layout.chunk() as u32, layout.seeds() as u32);
        let seeds_per_tile = (HISTOGRAM_COLUMNS / chunk).clamp(1, SEEDS_PER_TILE);
        let tiles_per_seed = chunk.div_ceil(HISTOGRAM_COLUMNS);
        let tile_columns = chunk.saturating_mul(seeds_per_tile).min(HISTOGRAM_COLUMNS);
        // Fewer than 2^26: a tile has no less than 64 columns but for the last of a seed.
        let tiles = seeds.div_ceil(seeds_per_tile) * tiles_per_seed;
        let row_lanes = (WORKERS / tile_columns).max(1);
        let most_groups = rows.div_ceil(row_lanes * HISTOGRAM_ROWS);
        let wanted = multiprocessors * HISTOGRAM_BLOCKS / tiles;
        let groups = wanted.clamp(1, most_groups);
        Self { groups, seeds_per_tile, tiles_per_seed, tile_columns, blocks: tiles * groups }
    }
}

/// Counts the watched seeds of `x` into the histograms at the device address `histograms`, one
/// [`Histogram`](kasmina_telemetry::Histogram) a seed. Queued.
pub(super) fn count_histograms(
    columns: &Columns,
    dtype: DType,
    x: View,
    histograms: u64,
) -> Result<(), CudaError> {
    let layout = columns.layout;
    let (found, hidden) = (x.columns as usize, layout.hidden());
    if found != hidden {
        let rows = x.rows as usize;
        let (found, needed) = ((rows, found), (rows, hidden));
        return Err(CudaError::Shape { what: "x", found, needed });
    }
    if x.rows == 0 {
        return Ok(());
    }
    let cut = HistogramCut::new(layout, x.rows, columns.engine.multiprocessors());
    let HistogramCut { groups, seeds_per_tile, tiles_per_seed, tile_columns, blocks } = cut;
    let params = HistogramParams {
        x: x.address,
        pitch: x.pitch,
        histograms,
        watched: columns.watched_address(),
        rows: x.rows,
        columns: x.columns,
        chunk: layout.chunk() as u32,
        groups,
        seeds_per_tile,
        tiles_per_seed,
        tile_columns,
        padding: 0,
    };
    let name = format!("kasmina_histogram_{dtype}");
    let kernel = columns.engine.kernel::<HistogramOf>(WHOLE_INPUT, &name)?;
    let config =
        LaunchConfig::new(blocks, WORKERS).shared_bytes(seeds_per_tile * PARTIAL_HISTOGRAM_BYTES);
    launch(&kernel, columns, Piece::Histograms, &config, (ByValue(params),))
}

/// Queues a kernel that reads a whole input. The views, and what the results go to, are of the caller's stream.
fn launch<A: KernelArguments>(
    kernel: &Kernel<A>,
    columns: &Columns,
    piece: Piece,
    config: &LaunchConfig,
    arguments: A,
) -> Result<(), CudaError> {
    // SAFETY: the parameters are the kernel's own; the memory behind their addresses lives until the kernel is done, as its frees
    // are queued on streams that the caller has joined with this one.
    unsafe { columns.launch(piece, kernel, config, arguments) }
}

fn element_bytes(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 4,
        DType::F16 | DType::Bf16 => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks a cut as the kernel does and counts how often each element is taken.
    fn taken(x: &View, element: u32) -> Vec<u32> {
        let cut = StrictCut::new(x, element);
        let lanes = PACKET_BYTES / element;
        let (rows, columns) = (u64::from(x.rows), u64::from(x.columns));
        let mut counts = vec![0u32; (rows * columns) as usize];
        for unit in 0..cut.units {
            for thread in 0..WORKERS {
                let (packet, lane) = (thread % cut.tile_packets, thread / cut.tile_packets);
                if lane >= cut.row_lanes {
                    continue;
                }
                let tile = unit % u64::from(cut.tiles);
                let first = unit / u64::from(cut.tiles) * u64::from(ROWS * cut.row_lanes);
                let column =
                    (tile * u64::from(cut.tile_packets) + u64::from(packet)) * u64::from(lanes);
                for r in 0..ROWS {
                    let row = first + u64::from(lane) + u64::from(r * cut.row_lanes);
                    let last = row + 1 == u64::from(cut.rows);
                    let end = u64::from(if last { cut.last_columns } else { cut.columns });
                    if row >= u64::from(cut.rows) {
                        continue;
                    }
                    for at in column..(column + u64::from(lanes)).min(end) {
                        let byte = row * cut.pitch + at * u64::from(element);
                        let (in_row, of_row) =
                            (byte / x.pitch, byte % x.pitch / u64::from(element));
                        assert!(in_row < rows && of_row < columns, "{x:?}: {in_row}, {of_row}");
                        counts[(in_row * columns + of_row) as usize] += 1;
                    }
                }
            }
        }
        counts
    }

    #[test]
    fn every_element_counts_for_the_bounds_once() {
        for element in [2, 4] {
            for columns in [1, 3, 8, 100, 1023, 1024, 2048, 2500, 5000] {
                for rows in [0, 1, 2, 7, 33, 130] {
                    for padding in [0, 1, 8] {
                        let pitch = u64::from((columns + padding) * element);
                        let counts = taken(&View { address: 0, pitch, rows, columns }, element);
                        assert!(counts.iter().all(|&n| n == 1), "{columns} {rows} {padding}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_column_is_counted_once_in_its_seeds_histogram() {
        for hidden in [1usize, 5, 64, 500, 513, 3000, 70_000] {
            for chunk in [1, 2, 3, 64, 100, 511, 512, 513, 2000, hidden] {
                let layout = SeedLayout::new(hidden, chunk.min(hidden)).unwrap();
                let (chunk, columns) = (layout.chunk() as u32, hidden as u32);
                let cut = HistogramCut::new(layout, 1000, 132);
                let mut counts = vec![0u32; hidden];
                for tile in 0..cut.blocks / cut.groups {
                    let first_seed = match cut.tiles_per_seed {
                        1 => tile * cut.seeds_per_tile,
                        several => tile / several,
                    };
                    let end = columns.min((first_seed + cut.seeds_per_tile) * chunk);
                    let first = first_seed * chunk + tile % cut.tiles_per_seed * cut.tile_columns;
                    for column in first..end.min(first + cut.tile_columns) {
                        assert!(column / chunk - first_seed < cut.seeds_per_tile);
                        counts[column as usize] += 1;
                    }
                }
                assert!(counts.iter().all(|&n| n == 1), "{hidden} {chunk}");
                assert!(cut.seeds_per_tile * PARTIAL_HISTOGRAM_BYTES <= 48 << 10);
            }
        }
    }
}
