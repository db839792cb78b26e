// What a backward launch is told, and what a block makes of it for its tile.
#pragma once

#include "stream_reduce.cuh"

namespace kasmina::stream {

struct BackwardParams {
    const void* x;
    const void* grad_y;              // null: only reconstruction sums are wanted
    void* grad_x;
    uint64_t x_pitch;                // bytes from row to row
    uint64_t grad_y_pitch;
    uint64_t grad_x_pitch;
    const ColumnProgram* programs;   // [columns]
    const uint8_t* flags;            // [columns]
    const uint8_t* tile_flags;       // [tiles], all flags of the tile's columns
    const Bounds* bounds;            // in device memory: strict mode computes them there
    ColumnTotals* sums;              // [groups][columns]; of tiles whose columns are summed
    GradientStats* accumulators;     // [tiles][groups][pieces], each block's own, kept from launch to launch
    uint32_t* pace;                  // [2], how far all blocks have come; 0 between launches
    const uint8_t* watched;          // [seeds], which seeds are counted; null for all
    unsigned long long* saturated;   // gradients that did not fit their type
    Geometry geometry;
};
static_assert(sizeof(BackwardParams) == 120 + sizeof(Geometry), "as in Rust");

// Flags of columns for which sums are gathered, and of those for which x is read.
constexpr uint32_t kAnySumG = kSumG | kStraightThrough | kReconstruction;
constexpr uint32_t kAnySumGx = kSumGx | kStraightThrough | kReconstruction;
constexpr uint32_t kAnySums = kAnySumG | kAnySumGx;
constexpr uint32_t kAnyX = kNeedsX | kStraightThrough | kReconstruction;

// Rows that a thread takes at a time, at most.
constexpr uint32_t kBackwardRows = 4;
// Threads of the bulk kernels that count, beside kWorkers that do not.
constexpr uint32_t kCounters = 128;

// Threads of a block of the bulk kernels: workers, counters, and a warp that loads and one that stores.
template <Telemetry kTelemetry>
constexpr uint32_t kBackwardBulkThreads = kWorkers + (kTelemetry == Telemetry::Off ? 0 : kCounters) + 64;
// Rows that are summed in f32 before they are folded into f64.
constexpr uint32_t kFoldRows = 32;

// What a block does with its tile; the same for all of its threads.
struct TileTask {
    uint32_t tile;
    uint32_t group;
    TileSpan span;
    bool reads_x;
    bool reads_g;      // and writes the gradient of x
    bool changed;      // some column's gradient is computed, not copied
    bool has_sums;     // some column's sums are wanted
    uint32_t rows_of_stage;
    uint32_t row_blocks;  // 0 where there is nothing to do

    // Of the block of this number.
    __device__ __forceinline__ TileTask(const BackwardParams& p, uint32_t block)
    {
        const Geometry& g = p.geometry;
        tile = block % g.tiles;
        group = block / g.tiles;
        span = tile_span(g, tile);
        const uint32_t flags = p.tile_flags[tile];
        reads_g = p.grad_y != nullptr;
        reads_x = (flags & (reads_g ? kAnyX : kReconstruction)) != 0;
        changed = reads_g && (flags & kCompute) != 0;
        has_sums = (flags & (reads_g ? kAnySums : kReconstruction)) != 0;
        rows_of_stage = g.lane_rows * g.row_lanes;
        row_blocks = reads_g || reads_x ? ceil_div(g.rows, rows_of_stage) : 0;
    }
};

// A block's own accumulators, one for each chunk that its tile has a part of.
__device__ __forceinline__ GradientStats* accumulators_of(const BackwardParams& p, const TileTask& task)
{
    return p.accumulators + (uint64_t(task.tile) * p.geometry.groups + task.group) * p.geometry.pieces;
}

}  // namespace kasmina::stream
