// The streaming forward pass, one kernel for each way to load: y = layer(x) with the statistics of x, in one pass over memory.
#pragma once

#include "kasmina_tma.cuh"
#include "stream_access.cuh"
#include "stream_worker.cuh"

namespace kasmina::stream {

// Rows of a stage: each row lane brings kRows.
__device__ __forceinline__ uint32_t stage_rows(const Geometry& g) { return kRows * g.row_lanes; }

// Whether a tile has to be stored: always, unless it is stored where it already lies.
__device__ __forceinline__ bool is_stored(const ForwardParams& p, uint32_t tile_flags)
{
    return p.in_place == 0 || (tile_flags & kCompute) != 0;
}

// Makes the compiler work multiples of the pitches out anew in every round. Kept for all rounds they take some 40 registers.
__device__ __forceinline__ void keep_out_of_registers(uint64_t& x_step, uint64_t& y_step)
{
    asm volatile("" : "+l"(x_step), "+l"(y_step));
}

#if KASMINA_TMA_AVAILABLE

// Stages in shared memory go round: the loading warp fills one, the workers read it and, where a column has a program, change
// it in place, the storing warp sends it off. A tile that nothing changes is stored as soon as it has come; the workers count
// it meanwhile. kMap: bulk-tensor copies through maps, which clip at the matrix's edges; else 1-D bulk copies, row by row.
template <class T, Telemetry kTelemetry, Mode kMode, bool kMap>
__device__ __forceinline__ void forward_bulk(const tma::TensorMap* x_map, const tma::TensorMap* y_map, const ForwardParams& p)
{
    using Worker = ForwardWorker<T, kTelemetry, kMode>;
    constexpr uint32_t kWarps = kWorkers / 32;
    constexpr bool kWorks = kMode != Mode::Copy || kTelemetry != Telemetry::Off;
    // Groups of stores that may still read their stage when the next is started; there are more stages than that.
    constexpr int kStoresInFlight = 1;

    extern __shared__ __align__(1024) uint8_t shared[];
    const Geometry& g = p.geometry;
    const uint32_t tile = blockIdx.x % g.tiles, group = blockIdx.x / g.tiles;
    const TileSpan span = tile_span(g, tile);
    const uint32_t boxes = ceil_div(ceil_div(span.columns * uint32_t(sizeof(T)), kPacketBytes), g.box_packets);
    const uint32_t rows_of_stage = stage_rows(g);
    const uint32_t row_blocks = ceil_div(g.rows, rows_of_stage);
    const uint32_t stage_bytes = ceil_div(g.tile_packets, g.box_packets) * g.box_pitch;
    const uint32_t row_bytes = span.columns * sizeof(T);
    const bool stored = is_stored(p, p.tile_flags[tile]);
    const bool changed = kMode != Mode::Copy && (p.tile_flags[tile] & kCompute) != 0;

    auto* full = reinterpret_cast<tma::Barrier*>(shared + g.stages * stage_bytes);
    auto* ready = full + g.stages;
    auto* empty = ready + g.stages;
    if (threadIdx.x == 0) {
        for (uint32_t s = 0; s < g.stages; ++s) {
            tma::init(full[s], 1);
            tma::init(ready[s], kWarps);
            tma::init(empty[s], (kWorks ? kWarps : 0) + 1);
        }
        tma::fence_barrier_init();
    }
    __syncthreads();

    const uint32_t warp = threadIdx.x / 32;
    if (warp == kWarps) {
        if (threadIdx.x % 32 == 0) {
            uint32_t stage = 0, parity = 1;  // the first round finds every stage empty
            for (uint32_t block = group; block < row_blocks; block += g.groups) {
                tma::wait(empty[stage], parity);
                uint8_t* to = shared + stage * stage_bytes;
                const uint32_t row = block * rows_of_stage;
                if constexpr (kMap) {
                    tma::arrive_expect(full[stage], boxes * rows_of_stage * g.box_packets * kPacketBytes);
                    for (uint32_t b = 0; b < boxes; ++b) {
                        const int column = int(span.first + b * g.box_packets * (kPacketBytes / sizeof(T)));
                        tma::load_tensor(to + b * g.box_pitch, x_map, {column, int(row)}, full[stage]);
                    }
                } else {
                    const uint32_t rows = min(rows_of_stage, g.rows - row);
                    tma::arrive_expect(full[stage], rows * row_bytes);
                    const auto* from = static_cast<const uint8_t*>(p.x) + row * p.x_pitch + span.first * sizeof(T);
                    for (uint32_t r = 0; r < rows; ++r) {
                        tma::load_bulk(to + r * g.tile_packets * kPacketBytes, from + r * p.x_pitch, row_bytes, full[stage]);
                    }
                }
                if (++stage == g.stages) stage = 0, parity ^= 1;
            }
        }
    } else if (warp == kWarps + 1) {
        if (threadIdx.x % 32 == 0) {
            // Nobody reads y soon: it should not push out of the cache what the next kernel reads.
            const tma::CachePolicy policy = tma::evict_first();
            uint32_t stage = 0, parity = 0, freed = 0, issued = 0;
            for (uint32_t block = group; block < row_blocks; block += g.groups) {
                tma::wait(changed ? ready[stage] : full[stage], parity);
                const uint8_t* from = shared + stage * stage_bytes;
                const uint32_t row = block * rows_of_stage;
                if (stored) {
                    if constexpr (kMap) {
                        for (uint32_t b = 0; b < boxes; ++b) {
                            const int column = int(span.first + b * g.box_packets * (kPacketBytes / sizeof(T)));
                            tma::store_tensor(y_map, {column, int(row)}, from + b * g.box_pitch, policy);
                        }
                    } else {
                        const uint32_t rows = min(rows_of_stage, g.rows - row);
                        auto* to = static_cast<uint8_t*>(p.y) + row * p.y_pitch + span.first * sizeof(T);
                        for (uint32_t r = 0; r < rows; ++r) {
                            tma::store_bulk(to + r * p.y_pitch, from + r * g.tile_packets * kPacketBytes, row_bytes, policy);
                        }
                    }
                }
                tma::commit_group();
                ++issued;
                if (issued - freed > kStoresInFlight) {
                    tma::wait_group_read<kStoresInFlight>();
                    tma::arrive(empty[freed++ % g.stages]);
                }
                if (++stage == g.stages) stage = 0, parity ^= 1;
            }
            // Also the last stages: their memory is used for the statistics next.
            tma::wait_group_read<0>();
        }
    }

    Worker worker(p);
    const uint32_t packet = threadIdx.x % g.tile_packets, lane = threadIdx.x / g.tile_packets;
    const uint32_t in_tile = packet * Worker::kLanes;
    const bool active = threadIdx.x < g.tile_packets * g.row_lanes;
    if (kWorks && warp < kWarps) {
        const bool inside = active && in_tile < span.columns;
        worker.begin(p, span.first + in_tile, inside ? min(Worker::kLanes, span.columns - in_tile) : 0);
        const uint32_t offset = packet / g.box_packets * g.box_pitch + packet % g.box_packets * kPacketBytes;
        const uint32_t pitch = g.box_packets * kPacketBytes;
        uint32_t stage = 0, parity = 0;
        for (uint32_t block = group; block < row_blocks; block += g.groups) {
            tma::wait(full[stage], parity);
            // Rows lane, lane + row_lanes, …: neighbouring threads read neighbouring packets.
            const uint32_t left = g.rows - block * rows_of_stage;
            const uint32_t rows = left >= rows_of_stage ? kRows : left > lane ? ceil_div(left - lane, g.row_lanes) : 0;
            auto* at = reinterpret_cast<Packet<T>*>(shared + stage * stage_bytes + offset + lane * pitch);
            const uint32_t step = g.row_lanes * pitch / kPacketBytes;
            if (inside) {
                const auto get = [=](uint32_t r) { return at[r * step]; };
                worker.count(rows, get, get);
                if (worker.computes()) {
#pragma unroll 2
                    for (uint32_t r = 0; r < rows; ++r) {
                        at[r * step] = worker.transform(at[r * step]);
                    }
                }
            }
            if (changed) {
                tma::fence_async_shared();
            }
            __syncwarp();
            if (threadIdx.x % 32 == 0) {
                if (changed) {
                    tma::arrive(ready[stage]);
                }
                tma::arrive(empty[stage]);
            }
            if (++stage == g.stages) stage = 0, parity ^= 1;
        }
    }
    __syncthreads();
    worker.finish(p, tile, group, active, reinterpret_cast<ChunkStats*>(shared));
}

#endif  // KASMINA_TMA_AVAILABLE

// Plain loads, a block of rows at once; three blocks on a multiprocessor keep the memory busy in turn.
// kAligned: packets of 16 bytes; else element by element, whatever the alignment.
template <class T, Telemetry kTelemetry, Mode kMode, bool kAligned>
__device__ __forceinline__ void forward_direct(const ForwardParams& p)
{
    using Worker = ForwardWorker<T, kTelemetry, kMode>;
    extern __shared__ __align__(1024) uint8_t shared[];
    const Geometry& g = p.geometry;
    const uint32_t tile = blockIdx.x % g.tiles, group = blockIdx.x / g.tiles;
    const TileSpan span = tile_span(g, tile);
    const bool stored = is_stored(p, p.tile_flags[tile]);

    Worker worker(p);
    const uint32_t packet = threadIdx.x % g.tile_packets, lane = threadIdx.x / g.tile_packets;
    const uint32_t in_tile = packet * Worker::kLanes;
    const bool active = threadIdx.x < g.tile_packets * g.row_lanes;
    if (active && in_tile < span.columns) {
        const uint32_t columns = min(Worker::kLanes, span.columns - in_tile);
        worker.begin(p, span.first + in_tile, columns);
        const Access<T, kAligned> access(columns);
        const uint64_t start = uint64_t(group) * stage_rows(g) + lane;
        const auto* from = static_cast<const uint8_t*>(p.x) + (span.first + in_tile) * sizeof(T) + start * p.x_pitch;
        auto* to = static_cast<uint8_t*>(p.y) + (span.first + in_tile) * sizeof(T) + start * p.y_pitch;
        // [kRows][kWorkers]: this thread's own place, from which the packets are read as often as need be.
        auto* place = reinterpret_cast<Packet<T>*>(shared) + threadIdx.x;
        const uint64_t step = uint64_t(g.groups) * stage_rows(g);
        uint64_t x_step = g.row_lanes * p.x_pitch, y_step = g.row_lanes * p.y_pitch;
        for (uint64_t first = start; first < g.rows; first += step) {
            keep_out_of_registers(x_step, y_step);
            const uint64_t left = (g.rows - first + g.row_lanes - 1) / g.row_lanes;
            const uint32_t rows = left < kRows ? uint32_t(left) : kRows;
            {
                Packet<T> now[kRows];
                const uint8_t* at = from;
#pragma unroll
                for (uint32_t r = 0; r < kRows; ++r) {
                    if (r < rows) {
                        now[r] = access.load(at);
                    }
                    at += x_step;
                }
#pragma unroll
                for (uint32_t r = 0; r < kRows; ++r) {
                    place[r * kWorkers] = now[r];
                }
            }
            const auto get = [=](uint32_t r) { return place[r * kWorkers]; };
            worker.count(rows, get, get);
            if (stored) {
                uint8_t* out = to;
#pragma unroll 2
                for (uint32_t r = 0; r < rows; ++r) {
                    const Packet<T> now = get(r);
                    access.store(out, worker.computes() ? worker.transform(now) : now);
                    out += y_step;
                }
            }
            from += step * p.x_pitch;
            to += step * p.y_pitch;
        }
    }
    __syncthreads();
    worker.finish(p, tile, group, active, reinterpret_cast<ChunkStats*>(shared));
}

// 16-byte asynchronous copies into shared memory, each thread for itself: it waits for its own copies only, so there is no
// barrier. Four blocks of rows are under way while one is worked on.
template <class T, Telemetry kTelemetry, Mode kMode>
__device__ __forceinline__ void forward_async(const ForwardParams& p)
{
    using Worker = ForwardWorker<T, kTelemetry, kMode>;
    extern __shared__ __align__(1024) uint8_t shared[];
    const Geometry& g = p.geometry;
    const uint32_t tile = blockIdx.x % g.tiles, group = blockIdx.x / g.tiles;
    const TileSpan span = tile_span(g, tile);
    const bool stored = is_stored(p, p.tile_flags[tile]);

    Worker worker(p);
    const uint32_t packet = threadIdx.x % g.tile_packets, lane = threadIdx.x / g.tile_packets;
    const uint32_t in_tile = packet * Worker::kLanes;
    const bool active = threadIdx.x < g.tile_packets * g.row_lanes;
    if (active && in_tile < span.columns) {
        const uint32_t columns = min(Worker::kLanes, span.columns - in_tile);
        worker.begin(p, span.first + in_tile, columns);
        const Access<T, true> access(columns);
        // [kAsyncStages][kRows][kWorkers]: neighbouring threads, neighbouring banks.
        auto* ring = reinterpret_cast<Packet<T>*>(shared) + threadIdx.x;
        const uint64_t start = uint64_t(group) * stage_rows(g) + lane;
        const uint64_t step = uint64_t(g.groups) * stage_rows(g);
        uint64_t x_step = g.row_lanes * p.x_pitch, y_step = g.row_lanes * p.y_pitch;
        const auto* from = static_cast<const uint8_t*>(p.x) + (span.first + in_tile) * sizeof(T) + start * p.x_pitch;
        auto* to = static_cast<uint8_t*>(p.y) + (span.first + in_tile) * sizeof(T) + start * p.y_pitch;
        // The row whose copies are started next, and its place in the ring.
        uint64_t ahead = start;
        uint32_t ahead_stage = 0;
        const auto fetch = [&] {
            const uint8_t* at = from;
            Packet<T>* place = ring + ahead_stage * kRows * kWorkers;
            uint64_t row = ahead;
#pragma unroll
            for (uint32_t r = 0; r < kRows; ++r) {
                if (row < g.rows) {
                    access.copy(place + r * kWorkers, at);
                }
                row += g.row_lanes;
                at += x_step;
            }
            // Empty groups keep the count of groups that the wait below goes by.
            asm volatile("cp.async.commit_group;" ::: "memory");
            ahead += step;
            from += step * p.x_pitch;
            ahead_stage = (ahead_stage + 1) % kAsyncStages;
        };
#pragma unroll 1
        for (uint32_t s = 0; s + 1 < kAsyncStages; ++s) {
            fetch();
        }
        uint32_t stage = 0;
        for (uint64_t first = start; first < g.rows; first += step) {
            keep_out_of_registers(x_step, y_step);
            fetch();
            asm volatile("cp.async.wait_group %0;" ::"n"(kAsyncStages - 1) : "memory");
            const uint64_t left = (g.rows - first + g.row_lanes - 1) / g.row_lanes;
            const uint32_t rows = left < kRows ? uint32_t(left) : kRows;
            const Packet<T>* at = ring + stage * kRows * kWorkers;
            const auto get = [=](uint32_t r) { return at[r * kWorkers]; };
            worker.count(rows, get, get);
            if (stored) {
                uint8_t* out = to;
#pragma unroll 2
                for (uint32_t r = 0; r < rows; ++r) {
                    const Packet<T> now = get(r);
                    access.store(out, worker.computes() ? worker.transform(now) : now);
                    out += y_step;
                }
            }
            to += step * p.y_pitch;
            stage = (stage + 1) % kAsyncStages;
        }
        asm volatile("cp.async.wait_group 0;" ::: "memory");
    }
    __syncthreads();
    worker.finish(p, tile, group, active, reinterpret_cast<ChunkStats*>(shared));
}

}  // namespace kasmina::stream
