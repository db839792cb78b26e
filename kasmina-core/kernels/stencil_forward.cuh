// Filters forward: y = clamp(taps * guarded x) of every job in the list, one launch for all.
#pragma once

#include "stencil_pipeline.cuh"

namespace kasmina::stencil {

// Rows of a tile that a thread takes.
constexpr uint32_t kForwardRows = 4;

// Packets in a staged row.
__device__ __forceinline__ uint32_t forward_width(const StencilParams& p) { return p.tile_packets + p.halo; }

template <class T>
__device__ __forceinline__ void produce_forward(const StencilParams& p, uint8_t* stages, Pipeline& pipeline)
{
    const uint32_t producer = threadIdx.x - kConsumers, width = forward_width(p);
    const uint32_t stage_bytes = p.row_lanes * kForwardRows * width * kPacketBytes;
    Turn turn{0, 1};  // the first round finds every stage empty
    for_each_tile<T, kForwardRows, true>(
        p, [](const SeedJob&) {},
        [&](const Tile<T>& tile) {
            wait(pipeline.empty + turn.stage, turn.parity);
            copy_rows(tile, stages + turn.stage * stage_bytes, width,
                      place(static_cast<const uint8_t*>(p.x), p.x_pitch, tile), p.x_pitch,
                      tile.staged_from(p.halo), tile.first_packet + p.tile_packets, producer);
            pipeline.filled(turn);
            turn.next(p);
        },
        [](const SeedJob&, uint32_t, uint32_t) {});
}

template <class T, uint32_t kTaps, bool kGuarded>
__device__ __forceinline__ void consume_forward(const StencilParams& p, const Guards<kGuarded>& guards, const uint8_t* stages,
                                                Pipeline& pipeline)
{
    constexpr uint32_t kLanes = Packet<T>::kLanes;
    const uint32_t width = forward_width(p);
    const uint32_t stage_bytes = p.row_lanes * kForwardRows * width * kPacketBytes;
    const uint32_t in_tile = threadIdx.x % p.tile_packets, lane = threadIdx.x / p.tile_packets;
    float taps[kTaps];
    uint32_t count = 0, saturated = 0;
    Turn turn;
    for_each_tile<T, kForwardRows, true>(
        p,
        [&](const SeedJob& job) {
            count = job.width;
            read_taps(job, taps);
        },
        [&](const Tile<T>& tile) {
            const auto* stage = reinterpret_cast<const Packet<T>*>(stages + turn.stage * stage_bytes);
            auto* out = place(static_cast<uint8_t*>(p.out), p.out_pitch, tile);
            const uint32_t packet = tile.first_packet + in_tile, from = tile.staged_from(p.halo);
            wait(pipeline.full + turn.stage, turn.parity);
#pragma unroll 1
            for (uint32_t r = 0; r < kForwardRows; ++r) {
                const uint32_t row = lane + r * p.row_lanes;
                const int32_t first = tile.column(row, packet);
                const bool works = lane < p.row_lanes && row < tile.rows && first < int32_t(tile.columns)
                    && first + int32_t(kLanes) > 0;
                // The whole warp goes one way: a few lanes at the edge would make it go both.
                const bool edge = __any_sync(0xffffffffu, works && begins_early(first, count));
                if (works) {
                    float window[kReach<kLanes, kTaps> + kLanes], y[kLanes];
                    window_before<T, kTaps>(guards, stage + row * width, from, packet, count, window);
                    if (edge) {
                        filter<true>(taps, count, window, first, y);
                    } else {
                        filter<false>(taps, count, window, first, y);
                    }
#pragma unroll
                    for (uint32_t e = 0; e < kLanes; ++e) y[e] = guards.clamp(y[e]);
                    store_run<T>(out + row * p.out_pitch + first * int64_t(sizeof(T)), first, tile.columns, y, saturated);
                }
            }
            pipeline.release(turn);
            turn.next(p);
        },
        [](const SeedJob&, uint32_t, uint32_t) {});
    count_saturated<T>(p, saturated);
}

template <class T, uint32_t kTaps>
__device__ __forceinline__ void forward(const StencilParams& p)
{
    extern __shared__ __align__(128) uint8_t shared[];
    __shared__ Pipeline pipeline;
    pipeline.begin();
    if (threadIdx.x >= kConsumers) {
        produce_forward<T>(p, shared, pipeline);
        // Copies may not outlive their thread.
        asm volatile("cp.async.wait_all;" ::: "memory");
        return;
    }
    const Bounds bounds = *p.bounds;
    if (bounds.guarded != 0) {
        consume_forward<T, kTaps>(p, Guards<true>(bounds), shared, pipeline);
    } else {
        consume_forward<T, kTaps>(p, Guards<false>(bounds), shared, pipeline);
    }
}

}  // namespace kasmina::stencil
