// Statistics on their way out of a block: threads to pieces in shared memory, pieces to seeds by the last block of a cluster.
//
// Every merge has a fixed place in a tree whose shape depends on the geometry alone, so results are the same bits in every run.
#pragma once

#include "stream_geometry.cuh"

namespace kasmina::stream {

// The smallest power of two that is at least n, up to a warp.
__device__ __forceinline__ uint32_t lanes_for(uint32_t n)
{
    return n >= 32 ? 32 : n <= 1 ? 1 : 1u << (32 - __clz(n - 1));
}

__device__ __forceinline__ ChunkStats shuffle_down(const ChunkStats& value, uint32_t by, uint32_t width)
{
    static_assert(sizeof(ChunkStats) % 4 == 0, "whole words");
    ChunkStats out;
    const auto* from = reinterpret_cast<const uint32_t*>(&value);
    auto* to = reinterpret_cast<uint32_t*>(&out);
#pragma unroll
    for (uint32_t i = 0; i < sizeof(ChunkStats) / 4; ++i) {
        to[i] = __shfl_down_sync(0xffffffffu, from[i], by, width);
    }
    return out;
}

// Merges item(0), …, item(count - 1) over `lanes` neighbouring lanes; the first of them has the result. All lanes of the warp.
template <class Item>
__device__ __forceinline__ ChunkStats merge_items(uint32_t count, uint32_t lanes, Item item)
{
    const uint32_t lane = threadIdx.x % lanes;
    ChunkStats sum = ChunkStats::empty();
    for (uint32_t i = lane; i < count; i += lanes) {
        sum.merge(item(i));
    }
    for (uint32_t by = lanes / 2; by > 0; by /= 2) {
        sum.merge(shuffle_down(sum, by, lanes));
    }
    return sum;
}

// Reads what another block wrote, past the first-level cache.
__device__ __forceinline__ ChunkStats load_from_l2(const ChunkStats* from)
{
    static_assert(sizeof(ChunkStats) % 8 == 0, "whole pairs of words");
    ChunkStats out;
    auto* to = reinterpret_cast<unsigned long long*>(&out);
#pragma unroll
    for (uint32_t i = 0; i < sizeof(ChunkStats) / 8; ++i) {
        to[i] = __ldcg(reinterpret_cast<const unsigned long long*>(from) + i);
    }
    return out;
}

// Merges a tile's thread statistics by pieces: the parts of chunks that lie in the tile. `units` are [row_lanes][per_row]
// statistics in shared memory, each of `unit_columns` neighbouring columns. Called by the first kWorkers threads.
__device__ __forceinline__ void reduce_pieces(const Geometry& g, uint32_t tile, const ChunkStats* units, uint32_t unit_columns,
                                              ChunkStats* out)
{
    const TileSpan span = tile_span(g, tile);
    const uint32_t per_row = g.tile_columns / unit_columns;
    const uint32_t first_seed = span.first / g.chunk;
    const uint32_t pieces = (span.first + span.columns - 1) / g.chunk - first_seed + 1;
    const uint32_t lanes = lanes_for(min(g.chunk, span.columns) / unit_columns * g.row_lanes);
    const uint32_t at_once = kWorkers / lanes;
    for (uint32_t base = 0; base < pieces; base += at_once) {
        const uint32_t piece = base + threadIdx.x / lanes;
        uint32_t begin = 0, width = 0;
        if (piece < pieces) {
            const uint32_t seed = first_seed + piece;
            const uint32_t from = max(seed * g.chunk, span.first);
            const uint32_t to = min((seed + 1) * g.chunk, span.first + span.columns);
            begin = (from - span.first) / unit_columns;
            width = (to - from + unit_columns - 1) / unit_columns;
        }
        const ChunkStats sum = merge_items(width * g.row_lanes, lanes, [&](uint32_t i) {
            return units[i / width * per_row + begin + i % width];
        });
        if (piece < pieces && threadIdx.x % lanes == 0) {
            out[piece] = sum;
        }
    }
}

// After all blocks of a cluster of tiles have stored their pieces, the last one adds them to the seeds' totals. Called by all
// threads of the block; the first kWorkers do the work.
__device__ __forceinline__ void merge_cluster(const Geometry& g, uint32_t tile, const ChunkStats* partials, ChunkStats* totals,
                                              const uint8_t* watched, uint32_t* arrivals)
{
    __shared__ bool last;
    const uint32_t cluster = tile / g.tiles_per_cluster;
    const uint32_t first_tile = cluster * g.tiles_per_cluster;
    const uint32_t tiles = min(g.tiles_per_cluster, g.tiles - first_tile);
    // Each thread's stores, then the barrier, then one release for all of them.
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd(arrivals + cluster, 1u) + 1 == tiles * g.groups;
        if (last) {
            arrivals[cluster] = 0;
            __threadfence();
        }
    }
    __syncthreads();
    if (!last || threadIdx.x >= kWorkers) {
        return;
    }
    const uint32_t first_seed = cluster * g.seeds_per_cluster;
    const uint32_t seeds = min(g.seeds_per_cluster, g.seeds - first_seed);
    const uint32_t tiles_of_seed = ceil_div(g.chunk, g.tile_columns) + 1;
    const uint32_t lanes = lanes_for(min(tiles_of_seed, tiles) * g.groups);
    const uint32_t at_once = kWorkers / lanes;
    for (uint32_t base = 0; base < seeds; base += at_once) {
        const uint32_t local = base + threadIdx.x / lanes;
        const bool real = local < seeds;
        const uint32_t seed = first_seed + (real ? local : 0);
        const uint32_t from = seed * g.chunk / g.tile_columns;
        const uint32_t to = (min((seed + 1) * g.chunk, g.columns) - 1) / g.tile_columns;
        const uint32_t count = real ? (to - from + 1) * g.groups : 0;
        const ChunkStats sum = merge_items(count, lanes, [&](uint32_t i) {
            const uint32_t in_tile = from + i / g.groups;
            const uint32_t piece = seed - in_tile * g.tile_columns / g.chunk;
            return load_from_l2(partials + (static_cast<uint64_t>(in_tile) * g.groups + i % g.groups) * g.pieces + piece);
        });
        if (real && threadIdx.x % lanes == 0 && (watched == nullptr || watched[seed] != 0)) {
            totals[seed].merge(sum);
        }
    }
}

}  // namespace kasmina::stream
