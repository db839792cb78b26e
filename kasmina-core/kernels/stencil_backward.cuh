// Filters backward: dL/dx of the jobs on path, and the lagged sums and gradients of all that train, in one launch and one pass.
//
// The consumers take a tile in two steps. First the filter again, up to the right halo, and from it the gradient of the filter's
// output: g where the output passed its clamp, or T(x) − x. Then, after a barrier among them, the transpose of that and its
// products with x. What lies between the steps is f32 in shared memory, in two buffers, so that one barrier a tile is enough.
#pragma once

#include "stencil_pipeline.cuh"

namespace kasmina::stencil {

// Rows of a tile that a thread takes.
constexpr uint32_t kBackwardRows = 2;
// Tiles whose lagged products a thread adds up in f32: at most 64 products.
constexpr uint32_t kFoldTiles = 4;

// Packets in a staged row of x: both halos; of g: the right one, and one more, since g may lie otherwise within 16 bytes.
__device__ __forceinline__ uint32_t x_width(const StencilParams& p) { return p.tile_packets + 2 * p.halo; }
__device__ __forceinline__ uint32_t g_width(const StencilParams& p) { return p.tile_packets + p.halo + 1; }
// Packets for which the gradient of the filter's output is needed.
__device__ __forceinline__ uint32_t middle_width(const StencilParams& p) { return p.tile_packets + p.halo; }
__device__ __forceinline__ uint32_t backward_tile_rows(const StencilParams& p) { return p.row_lanes * kBackwardRows; }
__device__ __forceinline__ uint32_t x_stage_bytes(const StencilParams& p)
{
    return backward_tile_rows(p) * x_width(p) * kPacketBytes;
}
__device__ __forceinline__ uint32_t backward_stage_bytes(const StencilParams& p)
{
    return backward_tile_rows(p) * (x_width(p) + g_width(p)) * kPacketBytes;
}

// What a job's backward pass does: bits, in one register.
class Duty {
public:
    __device__ __forceinline__ static Duty of(const SeedJob& job, bool guarded)
    {
        const bool reconstructs = job.role == Role::Reconstruction, sums = job.gradients != nullptr;
        const bool filters = guarded || reconstructs;
        Duty duty;
        duty.bits_ = (reconstructs ? 1 : 0) | (job.role == Role::Path ? 2 : 0) | (sums ? 4 : 0) | (filters ? 8 : 0)
            | (filters || sums ? 16 : 0);
        return duty;
    }

    __device__ __forceinline__ bool reconstructs() const { return bits_ & 1; }
    // dL/dx.
    __device__ __forceinline__ bool writes() const { return bits_ & 2; }
    // Lagged products.
    __device__ __forceinline__ bool sums() const { return bits_ & 4; }
    // Needs the filter's output.
    __device__ __forceinline__ bool filters() const { return bits_ & 8; }
    __device__ __forceinline__ bool reads_x() const { return bits_ & 16; }

private:
    uint32_t bits_;
};

template <class T>
__device__ __forceinline__ void produce_backward(const StencilParams& p, uint8_t* stages, Pipeline& pipeline)
{
    const uint32_t producer = threadIdx.x - kConsumers;
    const bool guarded = p.bounds->guarded != 0;
    Duty duty = Duty::of(SeedJob{}, guarded);
    Turn turn{0, 1};  // the first round finds every stage empty
    for_each_tile<T, kBackwardRows, false>(
        p, [&](const SeedJob& job) { duty = Duty::of(job, guarded); },
        [&](const Tile<T>& tile) {
            wait(pipeline.empty + turn.stage, turn.parity);
            uint8_t* stage = stages + turn.stage * backward_stage_bytes(p);
            const uint32_t end = tile.first_packet + middle_width(p);
            if (duty.reads_x()) {
                copy_rows(tile, stage, x_width(p), place(static_cast<const uint8_t*>(p.x), p.x_pitch, tile), p.x_pitch,
                          tile.staged_from(p.halo), end, producer);
            }
            if (!duty.reconstructs()) {
                copy_rows(tile, stage + x_stage_bytes(p), g_width(p), place(static_cast<const uint8_t*>(p.g), p.g_pitch, tile),
                          p.g_pitch, tile.first_packet, end, producer);
            }
            pipeline.filled(turn);
            turn.next(p);
        },
        [](const SeedJob&, uint32_t, uint32_t) {});
}

// The taps and sums of one item, in shared memory.
template <uint32_t kTaps>
struct ItemSums {
    double warps[kConsumerWarps][kTaps + 1];
    double totals[kTaps + 1];  // the lags, and Σ (T(x) − x)²
    float gradients[kTaps + 1];
    float taps[kTaps];
    bool last;
};

// From a block's sums to the job's gradients: threads to warps, warps to the block, blocks to the job by the last of them, each
// in a fixed order. All consumers.
template <uint32_t kTaps>
__device__ __forceinline__ void finish_item(const StencilParams& p, const SeedJob& job, uint32_t slot, uint32_t part,
                                            const double* totals, ItemSums<kTaps>& sums)
{
    constexpr uint32_t kTotals = kTaps + 1;
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll 1
    for (uint32_t j = 0; j < kTotals; ++j) {
        double sum = totals[j * kConsumers];
#pragma unroll
        for (uint32_t by = 16; by > 0; by /= 2) sum += __shfl_down_sync(0xffffffffu, sum, by);
        if (lane == 0) sums.warps[warp][j] = sum;
    }
    const auto merge_warps = [&] {
        double total = 0.0;
        for (uint32_t w = 0; w < kConsumerWarps; ++w) total += sums.warps[w][threadIdx.x];
        return total;
    };
    sync_consumers();
    if (p.parts > 1) {
        double* partials = p.partials + uint64_t(slot) * p.parts * kTotals;
        if (threadIdx.x < kTotals) partials[part * kTotals + threadIdx.x] = merge_warps();
        // Each thread's stores, then the barrier, then one release for all of them.
        sync_consumers();
        if (threadIdx.x == 0) {
            __threadfence();
            sums.last = atomicAdd(p.arrivals + slot, 1u) + 1 == p.parts;
            if (sums.last) {
                p.arrivals[slot] = 0;
                __threadfence();
            }
        }
        sync_consumers();
        if (!sums.last) return;
        if (lane < kTotals) {
            double sum = 0.0;
#pragma unroll 4
            for (uint32_t i = warp; i < p.parts; i += kConsumerWarps) sum += __ldcg(partials + i * kTotals + lane);
            sums.warps[warp][lane] = sum;
        }
        sync_consumers();
    }
    if (warp == 0) {
        if (lane < kTotals) sums.totals[lane] = merge_warps();
        __syncwarp();
        const bool reconstructs = job.role == Role::Reconstruction;
        const bool adds = job.gradients != nullptr && p.rows > 0;
        if (lane == 0) {
            if (adds) {
                // The residuals were summed as they are.
                const double factor = reconstructs ? reconstruction_factor(p.rows, job.columns) : 1.0;
                const double alpha = finalize_filter(
                    Serial{}, job.parameters, job.width, job.alpha, [&](uint32_t j) { return sums.totals[j]; }, factor,
                    sums.gradients);
                if (job.role == Role::Path) job.result->alpha += static_cast<float>(alpha);
            }
            if (reconstructs) job.result->reconstruction = reconstruction_loss(sums.totals[kTaps], p.rows, job.columns);
        }
        __syncwarp();
        if (adds && lane <= job.width) job.gradients[lane] += sums.gradients[lane];
    }
    // The next item's sums go to the same places.
    sync_consumers();
}

template <class T, uint32_t kTaps, bool kGuarded>
class BackwardConsumer {
    static constexpr uint32_t kLanes = Packet<T>::kLanes;
    static constexpr uint32_t kWindow = kLanes + kReach<kLanes, kTaps>;

public:
    __device__ __forceinline__ BackwardConsumer(const StencilParams& p, const Guards<kGuarded>& guards, float (&taps)[kTaps],
                                                double* totals)
        : p_(p), guards_(guards), taps_(taps), totals_(totals)
    {
    }

    __device__ __forceinline__ void begin(const SeedJob& job)
    {
        duty_ = Duty::of(job, kGuarded);
        count_ = job.width;
        // The slowest consumer may still be in its second step of the tile before.
        sync_consumers();
        if (threadIdx.x < kTaps) taps_[threadIdx.x] = threadIdx.x < count_ ? job.taps[threadIdx.x] : 0.0f;
        sync_consumers();
        tiles_ = 0;
#pragma unroll
        for (uint32_t j = 0; j < kTaps; ++j) lags_[j] = 0.0f, totals_[j * kConsumers] = 0.0;
        totals_[kTaps * kConsumers] = 0.0;
    }

    // First step: the gradient of the filter's output, to `middle`.
    __device__ __forceinline__ void mask(const Tile<T>& tile, const uint8_t* stage, float* middle)
    {
        const uint32_t width = middle_width(p_), from = tile.staged_from(p_.halo);
        const auto* x = reinterpret_cast<const Packet<T>*>(stage);
        const auto* g = reinterpret_cast<const Packet<T>*>(stage + x_stage_bytes(p_));
        const auto g_base = static_cast<uint32_t>(
            reinterpret_cast<uintptr_t>(place(static_cast<const uint8_t*>(p_.g), p_.g_pitch, tile)));
        Places at(threadIdx.x, kConsumers, width);
#pragma unroll 1
        for (uint32_t base = 0; base < tile.rows * width; base += kConsumers) {
            const uint32_t row = at.row, packet = tile.first_packet + at.packet;
            const int32_t first = tile.column(row, packet);
            const bool works = row < tile.rows && first < int32_t(tile.columns) && first + int32_t(kLanes) > 0;
            const bool edge = __any_sync(0xffffffffu, works && begins_early(first, count_));
            if (works) {
                float out[kLanes];
                if (!duty_.reconstructs()) {
                    // Where the row begins in its first packet, and this run with it.
                    const int32_t low = max(tile.column(row, tile.first_packet), 0);
                    const uint32_t skipped = (g_base + row * uint32_t(p_.g_pitch) + low * uint32_t(sizeof(T))) % kPacketBytes;
                    read_run(g + row * g_width(p_), int32_t(skipped / sizeof(T)) + first - low, first, tile.columns, out);
                }
                if (duty_.filters()) {
                    float window[kWindow], t[kLanes];
                    window_before<T, kTaps>(guards_, x + row * x_width(p_), from, packet, count_, window);
                    if (edge) {
                        filter<true>(taps_, count_, window, first, t);
                    } else {
                        filter<false>(taps_, count_, window, first, t);
                    }
                    if (duty_.reconstructs()) {
                        double square = 0.0;
#pragma unroll
                        for (uint32_t e = 0; e < kLanes; ++e) {
                            const double residual = residual_of(t[e], window[kWindow - kLanes + e]);
                            out[e] = static_cast<float>(residual);
                            // What is right of the tile is another tile's.
                            if (at.packet < p_.tile_packets && first + int32_t(e) >= 0
                                && first + int32_t(e) < int32_t(tile.columns)) {
                                square = fma(residual, residual, square);
                            }
                        }
                        totals_[kTaps * kConsumers] += square;
                    } else {
#pragma unroll
                        for (uint32_t e = 0; e < kLanes; ++e) out[e] = guards_.mask(t[e], out[e]);
                    }
                }
                auto* to = reinterpret_cast<float4*>(middle + (row * width + at.packet) * kLanes);
#pragma unroll
                for (uint32_t i = 0; i < kLanes / 4; ++i) {
                    to[i] = make_float4(out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3]);
                }
            }
            at.next();
        }
    }

    // Second step: dL/dx and the lagged products of a tile. `in_tile` and `lane` are this thread's packet and first row.
    __device__ __forceinline__ void correlate_tile(const Tile<T>& tile, const uint8_t* stage, const float* middle,
                                                   uint32_t in_tile, uint32_t lane)
    {
        const uint32_t width = middle_width(p_), packet = tile.first_packet + in_tile, from = tile.staged_from(p_.halo);
#pragma unroll 1
        for (uint32_t r = 0; r < kBackwardRows; ++r) {
            const uint32_t row = lane + r * p_.row_lanes;
            const int32_t first = tile.column(row, packet);
            const bool works = lane < p_.row_lanes && row < tile.rows && first < int32_t(tile.columns)
                && first + int32_t(kLanes) > 0;
            const bool edge = __any_sync(0xffffffffu, works && leaves_chunk(first, kLanes, count_, tile.columns));
            if (works) {
                float window[kWindow];
                const auto* x = reinterpret_cast<const Packet<T>*>(stage) + row * x_width(p_) + packet - from;
                window_after(middle + row * width * kLanes, width, in_tile, window);
                if (edge) {
                    step<true>(tile, row, first, x, window);
                } else {
                    step<false>(tile, row, first, x, window);
                }
            }
        }
        if (++tiles_ % kFoldTiles == 0) fold();
    }

    __device__ __forceinline__ void end(const SeedJob& job, uint32_t slot, uint32_t part, ItemSums<kTaps>& sums)
    {
        if (!duty_.sums() && !duty_.reconstructs()) return;
        fold();
        finish_item(p_, job, slot, part, totals_, sums);
    }

    __device__ __forceinline__ uint32_t saturated() const { return saturated_; }

private:
    // A run of g that begins `offset` elements into its staged row; columns outside the chunk may hold anything.
    __device__ __forceinline__ static void read_run(const Packet<T>* row, int32_t offset, int32_t first, uint32_t columns,
                                                    float (&out)[kLanes])
    {
        if (offset >= 0 && offset % int32_t(kLanes) == 0) {
            row[offset / int32_t(kLanes)].get(out);
            return;
        }
        const auto* elements = reinterpret_cast<const T*>(row);
#pragma unroll
        for (uint32_t e = 0; e < kLanes; ++e) {
            const int32_t column = first + int32_t(e);
            out[e] = column >= 0 && column < int32_t(columns) ? widen(elements[offset + int32_t(e)]) : 0.0f;
        }
    }

    // The columns from a packet's first to as far as the taps reach.
    __device__ __forceinline__ void window_after(const float* row, uint32_t width, uint32_t in_tile, float (&window)[kWindow]) const
    {
#pragma unroll
        for (uint32_t i = 0; i < kWindow; i += kLanes) {
            const uint32_t packet = in_tile + i / kLanes;
            const bool there = packet < width && (i == 0 || i - kLanes + 1 < count_);
            const auto* from = reinterpret_cast<const float4*>(row + packet * kLanes);
#pragma unroll
            for (uint32_t k = 0; k < kLanes; k += 4) {
                const float4 four = there ? from[k / 4] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                window[i + k] = four.x;
                window[i + k + 1] = four.y;
                window[i + k + 2] = four.z;
                window[i + k + 3] = four.w;
            }
        }
    }

    template <bool kEdge>
    __device__ __forceinline__ void step(const Tile<T>& tile, uint32_t row, int32_t first, const Packet<T>* x,
                                         const float (&window)[kWindow])
    {
        const int32_t left = int32_t(tile.columns) - first;
        if (duty_.writes()) {
            float grad[kLanes];
            correlate<kEdge, kLanes, kTaps>(taps_, count_, window, left, grad);
            if constexpr (kGuarded) {
                float raw[kLanes];
                x->get(raw);
#pragma unroll
                for (uint32_t e = 0; e < kLanes; ++e) grad[e] = guards_.mask(raw[e], grad[e]);
            }
            auto* to = place(static_cast<uint8_t*>(p_.out), p_.out_pitch, tile) + row * p_.out_pitch;
            store_run<T>(to + first * int64_t(sizeof(T)), first, tile.columns, grad, saturated_);
        }
        if (duty_.sums()) {
            float v[kLanes];
            x->get(v);
#pragma unroll
            for (uint32_t e = 0; e < kLanes; ++e) v[e] = guards_.sanitize(v[e]);
            add_lags<kEdge>(lags_, count_, v, window, first, left);
        }
    }

    __device__ __forceinline__ void fold()
    {
        if (!duty_.sums()) return;
#pragma unroll
        for (uint32_t j = 0; j < kTaps; ++j) {
            totals_[j * kConsumers] += static_cast<double>(lags_[j]);
            lags_[j] = 0.0f;
        }
    }

    const StencilParams& p_;
    Guards<kGuarded> guards_;
    Duty duty_;
    uint32_t count_, tiles_, saturated_ = 0;
    float lags_[kTaps];
    // In shared memory, for registers would not suffice: the job's taps, which every thread reads at once, and this thread's
    // lagged sums and Σ (T(x) − x)², [kTaps + 1][kConsumers] of all.
    float (&taps_)[kTaps];
    double* totals_;
};

template <class T, uint32_t kTaps, bool kGuarded>
__device__ __forceinline__ void consume_backward(const StencilParams& p, const Guards<kGuarded>& guards, uint8_t* shared,
                                                 Pipeline& pipeline, ItemSums<kTaps>& sums)
{
    const uint32_t stage_bytes = backward_stage_bytes(p);
    const uint32_t middle = backward_tile_rows(p) * middle_width(p) * Packet<T>::kLanes;
    auto* middles = reinterpret_cast<float*>(shared + p.stages * stage_bytes);
    auto* totals = reinterpret_cast<double*>(middles + 2 * middle) + threadIdx.x;
    const uint32_t in_tile = threadIdx.x % p.tile_packets, lane = threadIdx.x / p.tile_packets;
    BackwardConsumer<T, kTaps, kGuarded> consumer(p, guards, sums.taps, totals);
    uint32_t buffer = 0;
    Turn turn;
    for_each_tile<T, kBackwardRows, false>(
        p, [&](const SeedJob& job) { consumer.begin(job); },
        [&](const Tile<T>& tile) {
            const uint8_t* stage = shared + turn.stage * stage_bytes;
            wait(pipeline.full + turn.stage, turn.parity);
            consumer.mask(tile, stage, middles + buffer * middle);
            sync_consumers();
            consumer.correlate_tile(tile, stage, middles + buffer * middle, in_tile, lane);
            pipeline.release(turn);
            turn.next(p);
            buffer ^= 1;
        },
        [&](const SeedJob& job, uint32_t slot, uint32_t part) { consumer.end(job, slot, part, sums); });
    count_saturated<T>(p, consumer.saturated());
}

template <class T, uint32_t kTaps>
__device__ __forceinline__ void backward(const StencilParams& p)
{
    extern __shared__ __align__(128) uint8_t shared[];
    __shared__ Pipeline pipeline;
    __shared__ ItemSums<kTaps> sums;
    pipeline.begin();
    if (threadIdx.x >= kConsumers) {
        produce_backward<T>(p, shared, pipeline);
        // Copies may not outlive their thread.
        asm volatile("cp.async.wait_all;" ::: "memory");
        return;
    }
    const Bounds bounds = *p.bounds;
    if (bounds.guarded != 0) {
        consume_backward<T, kTaps>(p, Guards<true>(bounds), shared, pipeline, sums);
    } else {
        consume_backward<T, kTaps>(p, Guards<false>(bounds), shared, pipeline, sums);
    }
}

}  // namespace kasmina::stencil
