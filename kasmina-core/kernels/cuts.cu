// What surrounds the streaming passes: tile flags before them, and accumulators emptied and collected.

#include "stream_reduce.cuh"

using namespace kasmina;
using namespace kasmina::stream;

extern "C" __global__ void __launch_bounds__(256) kasmina_collect_chunks(ChunkStats* accumulators, ChunkStats* totals,
                                                                         const __grid_constant__ Geometry geometry)
{
    collect_pieces(geometry, accumulators, totals, blockIdx.x, gridDim.x, blockDim.x);
}

extern "C" __global__ void __launch_bounds__(256) kasmina_collect_gradients(GradientStats* accumulators, GradientStats* totals,
                                                                            const __grid_constant__ Geometry geometry)
{
    collect_pieces(geometry, accumulators, totals, blockIdx.x, gridDim.x, blockDim.x);
}

extern "C" __global__ void __launch_bounds__(256) kasmina_empty_chunks(ChunkStats* records, uint64_t count)
{
    for (uint64_t i = blockIdx.x * uint64_t(blockDim.x) + threadIdx.x; i < count; i += uint64_t(gridDim.x) * blockDim.x) {
        records[i] = ChunkStats::empty();
    }
}

extern "C" __global__ void __launch_bounds__(256) kasmina_empty_gradients(GradientStats* records, uint64_t count)
{
    for (uint64_t i = blockIdx.x * uint64_t(blockDim.x) + threadIdx.x; i < count; i += uint64_t(gridDim.x) * blockDim.x) {
        // Its padding too: the host reads whole records.
        static_assert(sizeof(GradientStats) == 48, "three times 16 bytes, all zero when empty");
        auto* words = reinterpret_cast<uint4*>(records + i);
        words[0] = words[1] = words[2] = make_uint4(0, 0, 0, 0);
    }
}

// The flags of each tile: those of all its columns together. One warp a tile.
extern "C" __global__ void __launch_bounds__(256) kasmina_tile_flags(const uint8_t* flags, uint8_t* tile_flags,
                                                                     const __grid_constant__ Geometry geometry)
{
    const uint32_t tile = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (tile >= geometry.tiles) {
        return;
    }
    const TileSpan span = tile_span(geometry, tile);
    uint32_t all = 0;
    for (uint32_t c = threadIdx.x % 32; c < span.columns; c += 32) {
        all |= flags[span.first + c];
    }
    all = __reduce_or_sync(0xffffffffu, all);
    if (threadIdx.x % 32 == 0) {
        tile_flags[tile] = static_cast<uint8_t>(all);
    }
}
