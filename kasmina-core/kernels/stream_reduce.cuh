// Statistics on their way out of a block: threads to pieces in shared memory, and those to accumulators in global memory that the
// block finds again in the next launch of the same cut. They are collected by seeds when somebody asks. (Merging them by the last
// block of each launch took 2 µs of 152 with 128 seeds, and 38 of 189 with 8192.)
//
// Every merge has a fixed place in a tree whose shape depends on the geometry alone, so results are the same bits in every run.
#pragma once

#include "stream_geometry.cuh"

namespace kasmina::stream {

// Of the kWorkers threads that count, without the warps that load and store.
__device__ __forceinline__ void workers_barrier() { asm volatile("bar.sync 1, %0;" ::"n"(kWorkers) : "memory"); }

// The smallest power of two that is at least n, up to a warp.
__device__ __forceinline__ uint32_t lanes_for(uint32_t n)
{
    return n >= 32 ? 32 : n <= 1 ? 1 : 1u << (32 - __clz(n - 1));
}

// The sum over `lanes` neighbouring lanes, the same bits in each.
template <class Number>
__device__ __forceinline__ Number sum_lanes(Number value, uint32_t lanes)
{
    for (uint32_t by = lanes / 2; by > 0; by /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, by);
    }
    return value;
}

// Merges moments over lanes about their common mean: one division, where merging in pairs has one a step.
__device__ __forceinline__ Moments merge_lanes(const Moments& own, uint32_t lanes)
{
    Moments all;
    all.n = sum_lanes(static_cast<unsigned long long>(own.n), lanes);
    const double sum = sum_lanes(static_cast<double>(own.n) * own.mean, lanes);
    all.mean = all.n == 0 ? 0.0 : sum / static_cast<double>(all.n);
    const double away = own.mean - all.mean;
    all.m2 = sum_lanes(own.m2 + static_cast<double>(own.n) * (away * away), lanes);
    return all;
}

__device__ __forceinline__ ChunkStats merge_lanes(const ChunkStats& own, uint32_t lanes)
{
    ChunkStats all;
    all.set_moments(merge_lanes(own.moments(), lanes));
    all.dead = sum_lanes(static_cast<unsigned long long>(own.dead), lanes);
    all.nonfinite = sum_lanes(static_cast<unsigned long long>(own.nonfinite), lanes);
    all.min = own.min;
    all.max = own.max;
    for (uint32_t by = lanes / 2; by > 0; by /= 2) {
        all.min = fminf(all.min, __shfl_xor_sync(0xffffffffu, all.min, by));
        all.max = fmaxf(all.max, __shfl_xor_sync(0xffffffffu, all.max, by));
    }
    return all;
}

__device__ __forceinline__ GradientStats merge_lanes(const GradientStats& own, uint32_t lanes)
{
    GradientStats all;
    all.set_moments(merge_lanes(own.moments(), lanes));
    all.nonfinite = sum_lanes(static_cast<unsigned long long>(own.nonfinite), lanes);
    all.sum_squares = sum_lanes(own.sum_squares, lanes);
    all.max_abs = own.max_abs;
    for (uint32_t by = lanes / 2; by > 0; by /= 2) {
        all.max_abs = fmaxf(all.max_abs, __shfl_xor_sync(0xffffffffu, all.max_abs, by));
    }
    return all;
}

// Adds a tile's thread statistics to the block's accumulators, piece by piece: the parts of chunks that lie in the tile. `units`
// are [row_lanes][per_row] statistics in shared memory, each of `unit_columns` neighbouring columns. Called by the first
// kWorkers threads. No other block has them, so nothing is waited for. Out of line: inlined it took some 25 registers of every
// kernel.
template <class Stats>
__device__ __noinline__ void accumulate_pieces(const Geometry& g, uint32_t tile, const Stats* units, uint32_t unit_columns,
                                                  const uint8_t* watched, Stats* accumulators)
{
    const TileSpan span = tile_span(g, tile);
    const uint32_t per_row = g.tile_columns / unit_columns;
    const uint32_t first_seed = span.first / g.chunk;
    const uint32_t pieces = (span.first + span.columns - 1) / g.chunk - first_seed + 1;
    const uint32_t lanes = lanes_for(min(g.chunk, span.columns) / unit_columns * g.row_lanes);
    const uint32_t at_once = kWorkers / lanes;
    for (uint32_t base = 0; base < pieces; base += at_once) {
        const uint32_t piece = base + threadIdx.x / lanes;
        const bool writes = piece < pieces && threadIdx.x % lanes == 0
            && (watched == nullptr || watched[first_seed + piece] != 0);
        Stats total = Stats::empty();
        if (writes) {
            total = accumulators[piece];
        }
        uint32_t begin = 0, width = 0;
        if (piece < pieces) {
            const uint32_t seed = first_seed + piece;
            const uint32_t from = max(seed * g.chunk, span.first);
            const uint32_t to = min((seed + 1) * g.chunk, span.first + span.columns);
            begin = (from - span.first) / unit_columns;
            width = (to - from + unit_columns - 1) / unit_columns;
        }
        Stats own = Stats::empty();
        for (uint32_t i = threadIdx.x % lanes; i < width * g.row_lanes; i += lanes) {
            own.merge(units[i / width * per_row + begin + i % width]);
        }
        const Stats sum = merge_lanes(own, lanes);
        if (writes) {
            total.merge(sum);
            accumulators[piece] = total;
        }
    }
}

// Moves all blocks' accumulators to the seeds' totals, in the order of tiles and groups. A grid of any size.
template <class Stats>
__device__ __forceinline__ void collect_pieces(const Geometry& g, Stats* accumulators, Stats* totals)
{
    const uint32_t tiles_of_seed = min(ceil_div(g.chunk, g.tile_columns) + 1, g.tiles);
    const uint32_t lanes = lanes_for(tiles_of_seed * g.groups);
    const uint32_t at_once = blockDim.x / lanes;
    for (uint32_t base = blockIdx.x * at_once; base < g.seeds; base += gridDim.x * at_once) {
        const uint32_t seed = base + threadIdx.x / lanes;
        const bool real = seed < g.seeds;
        const uint64_t first = static_cast<uint64_t>(real ? seed : 0) * g.chunk;
        const uint32_t from = static_cast<uint32_t>(first / g.tile_columns);
        const uint32_t to = static_cast<uint32_t>((min(first + g.chunk, static_cast<uint64_t>(g.columns)) - 1) / g.tile_columns);
        const uint32_t count = real ? (to - from + 1) * g.groups : 0;
        Stats own = Stats::empty();
        for (uint32_t i = threadIdx.x % lanes; i < count; i += lanes) {
            const uint32_t tile = from + i / g.groups;
            const uint32_t piece = seed - tile * g.tile_columns / g.chunk;
            Stats* part = accumulators + (static_cast<uint64_t>(tile) * g.groups + i % g.groups) * g.pieces + piece;
            own.merge(*part);
            *part = Stats::empty();
        }
        const Stats sum = merge_lanes(own, lanes);
        if (real && threadIdx.x % lanes == 0) {
            totals[seed].merge(sum);
        }
    }
}

}  // namespace kasmina::stream
