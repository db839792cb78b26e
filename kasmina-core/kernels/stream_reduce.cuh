// Statistics on their way out of a block: threads to pieces in shared memory, and those to accumulators in global memory that the
// block finds again in the next launch of the same cut. They are collected by seeds when somebody asks. (Merging them by the last
// block of each launch took 2 µs of 152 with 128 seeds, and 38 of 189 with 8192.)
//
// Every merge has a fixed place in a tree whose shape depends on the geometry alone, so results are the same bits in every run.
#pragma once

#include "block_barrier.cuh"
#include "stream_geometry.cuh"

namespace kasmina::stream {

// Numbers of named barriers. 0 is that of all threads of a block, 2 that of stream_tma.cuh.
constexpr uint32_t kWorkersBarrier = 1;
constexpr uint32_t kCountersBarrier = 3;
constexpr uint32_t kAllBarrier = 4;

// By whole warps, whose threads may have come apart before: the instruction wants them together.
template <uint32_t kBarrier, uint32_t kThreads>
__device__ __forceinline__ void named_barrier()
{
    __syncwarp();
    asm volatile("bar.sync %0, %1;" ::"n"(kBarrier), "n"(kThreads) : "memory");
}

// The logarithms of the nearest powers of two of n ≥ 1.
__device__ __forceinline__ constexpr uint32_t log2_down(uint32_t n)
{
    uint32_t log2 = 0;
    for (; n > 1; n /= 2) ++log2;
    return log2;
}

__device__ __forceinline__ uint32_t log2_up(uint32_t n) { return 32 - __clz(n - 1); }

// The sum over `lanes` neighbouring lanes, the same bits in each.
template <class Number>
__device__ __forceinline__ Number sum_lanes(Number value, uint32_t lanes)
{
    for (uint32_t by = lanes / 2; by > 0; by /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, by);
    }
    return value;
}

// Everything but the moments, with the lane that is `by` away.
__device__ __forceinline__ void merge_others_of_lane(ChunkStats& stats, uint32_t by)
{
    stats.dead += __shfl_xor_sync(0xffffffffu, static_cast<unsigned long long>(stats.dead), by);
    stats.nonfinite += __shfl_xor_sync(0xffffffffu, static_cast<unsigned long long>(stats.nonfinite), by);
    stats.min = fminf(stats.min, __shfl_xor_sync(0xffffffffu, stats.min, by));
    stats.max = fmaxf(stats.max, __shfl_xor_sync(0xffffffffu, stats.max, by));
}

__device__ __forceinline__ void merge_others_of_lane(GradientStats& stats, uint32_t by)
{
    stats.nonfinite += __shfl_xor_sync(0xffffffffu, static_cast<unsigned long long>(stats.nonfinite), by);
    stats.sum_squares += __shfl_xor_sync(0xffffffffu, stats.sum_squares, by);
    stats.max_abs = fmaxf(stats.max_abs, __shfl_xor_sync(0xffffffffu, stats.max_abs, by));
}

// Merges `count` records, `at(i)` the i-th, by 2^log2_lanes neighbouring lanes, this one being `lane` of them, about their common
// mean: one division for all of them, where merging one after the other has one each. The same bits in each lane. Called by whole
// warps.
template <class Stats, class At>
__device__ __forceinline__ Stats merge_records(uint32_t lane, uint32_t count, uint32_t log2_lanes, At at)
{
    const uint32_t lanes = 1u << log2_lanes;
    Stats all = Stats::empty();
    unsigned long long n = 0;
    double sum = 0.0, m2 = 0.0;
    for (uint32_t i = lane; i < count; i += lanes) {
        const Stats& one = at(i);
        all.merge_others(one);
        n += one.n;
        sum += static_cast<double>(one.n) * one.mean;
    }
    // In one loop, so that they wait together.
    for (uint32_t by = lanes / 2; by > 0; by /= 2) {
        n += __shfl_xor_sync(0xffffffffu, n, by);
        sum += __shfl_xor_sync(0xffffffffu, sum, by);
        merge_others_of_lane(all, by);
    }
    const double mean = n == 0 ? 0.0 : sum / static_cast<double>(n);
    for (uint32_t i = lane; i < count; i += lanes) {
        const Stats& one = at(i);
        const double away = one.mean - mean;
        m2 += one.m2 + static_cast<double>(one.n) * (away * away);
    }
    all.set_moments({n, mean, sum_lanes(m2, lanes)});
    return all;
}

// Adds a tile's thread statistics to the block's accumulators, piece by piece: the parts of chunks that lie in the tile. `units`
// are [row_lanes][per_row] statistics in shared memory, each of kUnitColumns neighbouring columns. Called by kMergers threads,
// `thread` this one's number; the tree is that of kThreads. No other block has the accumulators, so nothing is waited for. Out of line: inlined it took some 25
// registers of every kernel. At the end of a block everything waits for it, so it has few divisions, and takes what it needs by
// value: a reference to a kernel's parameters is read through the memory, out of line.
template <uint32_t kThreads, uint32_t kUnitColumns, class Stats, uint32_t kMergers = kThreads>
__device__ __noinline__ void accumulate_pieces(uint32_t chunk, uint32_t tile_columns, TileSpan span, uint32_t thread,
                                               uint32_t row_lanes, const Stats* units, const uint8_t* watched, Stats* accumulators)
{
    // A lane has some records, whose reads wait for one another less than shuffles do.
    constexpr uint32_t kRecordsOfLane = 4;
    const uint32_t per_row = tile_columns / kUnitColumns;
    const uint32_t first_seed = span.first / chunk;
    const uint32_t pieces = (span.first + span.columns - 1) / chunk - first_seed + 1;
    // The logarithm of the lanes that a piece has, so many that all pieces are merged at once, where there are threads enough.
    const uint32_t width_of_most = min(chunk, span.columns) / kUnitColumns;
    const uint32_t wanted = log2_up(ceil_div(width_of_most * row_lanes + 1, kRecordsOfLane));
    const uint32_t room = log2_down(kThreads) - min(log2_down(kThreads), log2_up(pieces));
    const uint32_t log2_lanes = min(min(wanted, room), 5u);
    for (uint32_t base = 0; base < pieces; base += kMergers >> log2_lanes) {
        const uint32_t piece = base + (thread >> log2_lanes);
        const bool real = piece < pieces;
        const uint32_t from = max((first_seed + piece) * chunk, span.first);
        const uint32_t to = min((first_seed + piece + 1) * chunk, span.first + span.columns);
        const uint32_t begin = (from - span.first) / kUnitColumns;
        const uint32_t width = real ? (to - from + kUnitColumns - 1) / kUnitColumns : 1;
        const uint32_t own = width * row_lanes;
        // ⌊i / width⌋ for the small numbers here: (i + ½) / width is further from an integer than this is wrong.
        const float inverse = __frcp_rn(static_cast<float>(width));
        const Stats sum = merge_records<Stats>(thread & ((1u << log2_lanes) - 1), real ? own + 1 : 0, log2_lanes, [=](uint32_t i) -> const Stats& {
            const uint32_t row = static_cast<uint32_t>((static_cast<float>(i) + 0.5f) * inverse);
            return i < own ? units[row * per_row + begin + i - row * width] : accumulators[piece];
        });
        if (real && (thread & ((1u << log2_lanes) - 1)) == 0 && (watched == nullptr || watched[first_seed + piece] != 0)) {
            accumulators[piece] = sum;
        }
    }
}

// Brings what `accumulate_pieces` will read from global memory into the first-level cache, where nothing else goes: at the end, with
// all other blocks' stages under way, it would be waited for for 2 µs. Called by a warp.
template <class Stats>
__device__ __forceinline__ void expect_pieces(const Geometry& g, const TileSpan& span, const uint8_t* watched, const Stats* accumulators)
{
    const auto fetch = [](const void* first, uint32_t bytes) {
        constexpr uint32_t kSector = 32;
        const auto* at = static_cast<const uint8_t*>(first);
        for (uint32_t i = threadIdx.x % 32 * kSector; i < bytes; i += 32 * kSector) {
            uint32_t unused;
            asm volatile("ld.global.u8 %0, [%1];" : "=r"(unused) : "l"(__cvta_generic_to_global(at + i)));
        }
    };
    fetch(accumulators, g.pieces * sizeof(Stats));
    if (watched != nullptr) {
        const uint32_t first = span.first / g.chunk;
        fetch(watched + first, (span.first + span.columns - 1) / g.chunk - first + 1);
    }
}

// Moves all blocks' accumulators to the seeds' totals, in the order of tiles and groups. By any number of blocks, of `threads` threads each,
// this one being `block` of them.
template <class Stats>
__device__ __forceinline__ void collect_pieces(const Geometry& g, Stats* accumulators, Stats* totals, uint32_t block, uint32_t blocks,
                                               uint32_t threads)
{
    const uint32_t tiles_of_seed = min(ceil_div(g.chunk, g.tile_columns) + 1, g.tiles);
    const uint32_t log2_lanes = min(log2_up(tiles_of_seed * g.groups), 5u), lanes = 1u << log2_lanes;
    const uint32_t at_once = threads / lanes;
    for (uint32_t base = block * at_once; base < g.seeds; base += blocks * at_once) {
        const uint32_t seed = base + threadIdx.x / lanes;
        const bool real = seed < g.seeds;
        const uint64_t first = static_cast<uint64_t>(real ? seed : 0) * g.chunk;
        const uint32_t from = static_cast<uint32_t>(first / g.tile_columns);
        const uint32_t to = static_cast<uint32_t>((min(first + g.chunk, static_cast<uint64_t>(g.columns)) - 1) / g.tile_columns);
        const uint32_t count = real ? (to - from + 1) * g.groups : 0;
        const auto part = [=](uint32_t i) -> Stats* {
            const uint32_t tile = from + i / g.groups;
            const uint32_t piece = seed - tile * g.tile_columns / g.chunk;
            return accumulators + (static_cast<uint64_t>(tile) * g.groups + i % g.groups) * g.pieces + piece;
        };
        const Stats sum = merge_records<Stats>(threadIdx.x % lanes, real ? count + 1 : 0, log2_lanes, [=](uint32_t i) -> const Stats& {
            return i < count ? *part(i) : totals[seed];
        });
        for (uint32_t i = threadIdx.x % lanes; i < count; i += lanes) {
            *part(i) = Stats::empty();
        }
        // Every lane may have read it.
        __syncwarp();
        if (real && threadIdx.x % lanes == 0) {
            totals[seed] = sum;
        }
    }
}

}  // namespace kasmina::stream
