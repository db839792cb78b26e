// How a matrix is cut for the streaming kernels, and what a forward launch is told. The Rust side has the same structs.
//
// Columns are cut into tiles of whole 16-byte packets. `groups` blocks share a tile; block g takes the row blocks g, g + groups,
// g + 2·groups, …, so that at any time the blocks together read neighbouring rows: one region of memory, as a copy does. (On an
// H200, in a first sketch, a contiguous range of rows for each block reached 0.89 of a device copy where this reached 0.95.) In a block a thread keeps its packet
// of columns for good, so statistics and sums stay in registers and leave the block once.
#pragma once

#include <cstdint>

#include "kasmina_moments.cuh"
#include "kasmina_program.cuh"

namespace kasmina::stream {

constexpr uint32_t kPacketBytes = 16;
// Threads of a block that compute. The bulk kernels have a warp that loads and one that stores beside them, backward four that count.
constexpr uint32_t kWorkers = 256;
// Rows that a thread takes at a time: their statistics are one block of the moments.
constexpr uint32_t kRows = 8;
// The same where nothing is computed, through the copy engine: twice the threads at stages of the same size.
constexpr uint32_t kCopiedRows = 4;

enum class Telemetry {
    Off,
    Packet,  // all columns of a packet belong to one chunk
    Column,  // any chunk: statistics for each column, and more registers
};

// What is done with a column: bits.
enum ColumnFlag : uint8_t {
    kCompute = 1,  // it has a program that is not the identity
    kSumG = 2,     // a backward pass wants Σg
    kNeedsX = 4,   // a backward pass reads x
    kStraightThrough = 8,  // copied, but its program is a training branch: sums of the task gradient
    kReconstruction = 16,  // copied, but its program is a training branch: sums of T(x) − x
    kSumGx = 32,           // a backward pass wants Σg·x and Σg·x over x·p > 0
};

struct Geometry {
    uint32_t rows;
    uint32_t columns;
    uint32_t chunk;              // columns of a seed; the last may have fewer
    uint32_t seeds;
    uint32_t tile_columns;       // columns of a tile, whole packets; the last may have fewer
    uint32_t tiles;
    uint32_t groups;             // blocks that share a tile
    uint32_t tile_packets;       // packets in a row of a whole tile, at most kWorkers
    uint32_t row_lanes;          // threads that share a packet of columns, each with rows of its own
    uint32_t box_packets;        // packets in a row of one bulk-tensor box; tile_packets where the tile is one box
    uint32_t box_pitch;          // bytes from box to box in a stage
    uint32_t stages;
    uint32_t pieces;             // the most chunks that a tile has a part of
    uint32_t loads_ahead;        // stages whose loads are under way, give or take some; see stream_pace.cuh
    uint32_t lane_rows;          // rows of a stage that one row lane brings, at most kRows
    uint32_t stage_bytes;        // bytes of one matrix's part of a stage
};
static_assert(sizeof(Geometry) == 64, "as in Rust");

struct ForwardParams {
    const void* x;
    void* y;
    uint64_t x_pitch;                // bytes from row to row
    uint64_t y_pitch;
    const ColumnProgram* programs;   // [columns]
    const uint8_t* flags;            // [columns]
    const uint8_t* tile_flags;       // [tiles], all flags of the tile's columns
    const Bounds* bounds;            // in device memory: strict mode computes them there
    ChunkStats* accumulators;        // [tiles][groups][pieces], each block's own, kept from launch to launch
    uint32_t* pace;                  // [2], how far all blocks have come; 0 between launches
    const uint8_t* watched;          // [seeds], which seeds are counted; null for all
    unsigned long long* saturated;   // outputs that did not fit their type
    Geometry geometry;
    float dead_epsilon;
    uint32_t in_place;               // y is x: tiles that nothing changes are not stored
};
static_assert(sizeof(ForwardParams) == 96 + sizeof(Geometry) + 8, "as in Rust");

// Goes round the stages. `parity` is that of the barrier which the next wait is on.
struct StageCursor {
    uint32_t stage;
    uint32_t parity;

    __device__ __forceinline__ void advance(uint32_t stages)
    {
        if (++stage == stages) stage = 0, parity ^= 1;
    }
};

// The columns of a tile.
struct TileSpan {
    uint32_t first;
    uint32_t columns;
};

__device__ __forceinline__ TileSpan tile_span(const Geometry& g, uint32_t tile)
{
    const uint32_t first = tile * g.tile_columns;
    return {first, min(g.tile_columns, g.columns - first)};
}

__device__ __forceinline__ uint32_t ceil_div(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

// Rows of a stage.
__device__ __forceinline__ uint32_t stage_rows(const Geometry& g) { return g.lane_rows * g.row_lanes; }

__device__ __forceinline__ uint32_t row_blocks(const Geometry& g) { return ceil_div(g.rows, stage_rows(g)); }

}  // namespace kasmina::stream
