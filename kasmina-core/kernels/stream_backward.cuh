// The streaming backward pass, one kernel for each way to load: dL/dx from dL/dy, with the statistics of dL/dy and the column
// sums from which parameter gradients are made, in one pass over memory. x is read only by tiles that need it.
#pragma once

#include "stream_backward_worker.cuh"
#include "stream_pace.cuh"
#include "stream_tma.cuh"

namespace kasmina::stream {

// Blocks of rows that the cp.async kernels keep in shared memory: of two matrices, three are as much as fits.
constexpr uint32_t kAsyncPairs = 3;

// What a block does with its tile; the same for all of its threads.
struct TileTask {
    uint32_t tile;
    uint32_t group;
    TileSpan span;
    bool reads_x;
    bool reads_g;      // and writes the gradient of x
    bool changed;      // some column's gradient is computed, not copied
    uint32_t rows_of_stage;
    uint32_t row_blocks;  // 0 where there is nothing to do

    __device__ __forceinline__ explicit TileTask(const BackwardParams& p)
    {
        const Geometry& g = p.geometry;
        tile = blockIdx.x % g.tiles;
        group = blockIdx.x / g.tiles;
        span = tile_span(g, tile);
        const uint32_t flags = p.tile_flags[tile];
        reads_g = p.grad_y != nullptr;
        reads_x = (flags & (reads_g ? kAnyX : kReconstruction)) != 0;
        changed = reads_g && (flags & kCompute) != 0;
        rows_of_stage = g.lane_rows * g.row_lanes;
        row_blocks = reads_g || reads_x ? ceil_div(g.rows, rows_of_stage) : 0;
    }
};

// Makes the compiler work multiples of the pitches out anew in every round, for the registers that they would take.
__device__ __forceinline__ void keep_out_of_registers(uint64_t& a, uint64_t& b, uint64_t& c)
{
    asm volatile("" : "+l"(a), "+l"(b), "+l"(c));
}

#if KASMINA_TMA_AVAILABLE

// Stages in shared memory go round, each with rows of x, where the tile needs them, and of dL/dy: the loading warp fills one,
// the workers read it and write dL/dx over dL/dy, the storing warp sends that off. A tile that is copied is stored as soon as it
// has come; the workers count it meanwhile. kMap: bulk-tensor copies through maps, which clip at the matrices' edges; else 1-D
// bulk copies, row by row.
template <class T, Telemetry kTelemetry, bool kMap>
__device__ __forceinline__ void backward_bulk(const tma::TensorMap* x_map, const tma::TensorMap* grad_y_map,
                                              const tma::TensorMap* grad_x_map, const BackwardParams& p)
{
    constexpr uint32_t kWarps = kWorkers / 32;

    // The threads' totals, then the stages. The statistics take the place of both at the end.
    extern __shared__ __align__(1024) uint8_t slots[];
    uint8_t* shared = slots + Slots<T>::kBytes;
    const Geometry& g = p.geometry;
    const TileTask task(p);
    const TileSpan span = task.span;
    const uint32_t boxes = ceil_div(ceil_div(span.columns * uint32_t(sizeof(T)), kPacketBytes), g.box_packets);
    const uint32_t half = ceil_div(g.tile_packets, g.box_packets) * g.box_pitch;
    // A tile that reads one matrix has twice the stages of half the size.
    const bool both = task.reads_x && task.reads_g;
    const uint32_t stages = both ? g.stages : 2 * g.stages;
    const uint32_t stage_bytes = both ? 2 * half : half;
    const uint32_t g_offset = both ? half : 0;
    const uint32_t row_bytes = span.columns * sizeof(T);

    auto* full = reinterpret_cast<tma::Barrier*>(shared + stages * stage_bytes);
    auto* ready = full + stages;
    auto* empty = ready + stages;
    if (threadIdx.x == 0) {
        for (uint32_t s = 0; s < stages; ++s) {
            tma::init(full[s], 1);
            tma::init(ready[s], kWarps);
            tma::init(empty[s], kWarps + (task.reads_g ? 1 : 0));
        }
        tma::fence_barrier_init();
    }
    __syncthreads();

    const uint32_t warp = threadIdx.x / 32;
    if (warp == kWarps) {
        if (threadIdx.x % 32 == 0) {
            // One matrix, like a forward pass, wants fewer bytes under way than two.
            LoadQueue loads(full, stages, both ? g.loads_ahead : g.loads_ahead + 1, p.pace);
            uint32_t stage = 0, parity = 1;  // the first round finds every stage empty
            for (uint32_t block = task.group; block < task.row_blocks; block += g.groups) {
                tma::wait(empty[stage], parity);
                loads.next();
                uint8_t* to = shared + stage * stage_bytes;
                const uint32_t row = block * task.rows_of_stage;
                const uint32_t matrices = both ? 2 : 1;
                if constexpr (kMap) {
                    tma::arrive_expect(full[stage], matrices * boxes * task.rows_of_stage * g.box_packets * kPacketBytes);
                    for (uint32_t b = 0; b < boxes; ++b) {
                        const int column = int(span.first + b * g.box_packets * (kPacketBytes / sizeof(T)));
                        if (task.reads_x) {
                            tma::load_tensor(to + b * g.box_pitch, x_map, {column, int(row)}, full[stage]);
                        }
                        if (task.reads_g) {
                            tma::load_tensor(to + g_offset + b * g.box_pitch, grad_y_map, {column, int(row)}, full[stage]);
                        }
                    }
                } else {
                    const uint32_t rows = min(task.rows_of_stage, g.rows - row);
                    tma::arrive_expect(full[stage], matrices * rows * row_bytes);
                    const auto* x = static_cast<const uint8_t*>(p.x) + row * p.x_pitch + span.first * sizeof(T);
                    const auto* grad = static_cast<const uint8_t*>(p.grad_y) + row * p.grad_y_pitch + span.first * sizeof(T);
                    for (uint32_t r = 0; r < rows; ++r) {
                        uint8_t* at = to + r * g.tile_packets * kPacketBytes;
                        if (task.reads_x) {
                            tma::load_bulk(at, x + r * p.x_pitch, row_bytes, full[stage]);
                        }
                        if (task.reads_g) {
                            tma::load_bulk(at + g_offset, grad + r * p.grad_y_pitch, row_bytes, full[stage]);
                        }
                    }
                }
                if (++stage == stages) stage = 0, parity ^= 1;
            }
            loads.end();
        }
    } else if (warp == kWarps + 1) {
        if (threadIdx.x % 32 == 0 && task.reads_g) {
            // Nobody reads it soon: it should not push out of the cache what the next kernel reads.
            const tma::CachePolicy policy = tma::evict_first();
            uint32_t stage = 0, parity = 0;
            for (uint32_t block = task.group; block < task.row_blocks; block += g.groups) {
                tma::wait(task.changed ? ready[stage] : full[stage], parity);
                const uint8_t* from = shared + stage * stage_bytes + g_offset;
                const uint32_t row = block * task.rows_of_stage;
                if constexpr (kMap) {
                    for (uint32_t b = 0; b < boxes; ++b) {
                        const int column = int(span.first + b * g.box_packets * (kPacketBytes / sizeof(T)));
                        tma::store_tensor(grad_x_map, {column, int(row)}, from + b * g.box_pitch, policy);
                    }
                } else {
                    const uint32_t rows = min(task.rows_of_stage, g.rows - row);
                    auto* to = static_cast<uint8_t*>(p.grad_x) + row * p.grad_x_pitch + span.first * sizeof(T);
                    for (uint32_t r = 0; r < rows; ++r) {
                        tma::store_bulk(to + r * p.grad_x_pitch, from + r * g.tile_packets * kPacketBytes, row_bytes, policy);
                    }
                }
                tma::commit_group();
                // At once, not after the next store as in the forward pass: there are only two or three stages of two matrices, and
                // each is wanted back as soon as the store has read it.
                tma::wait_group_read<0>();
                tma::arrive(empty[stage]);
                if (++stage == stages) stage = 0, parity ^= 1;
            }
        }
    }

    const uint32_t packet = threadIdx.x % g.tile_packets, lane = threadIdx.x / g.tile_packets;
    const uint32_t in_tile = packet * Packet<T>::kLanes;
    const bool active = threadIdx.x < g.tile_packets * g.row_lanes;
    GradientCounter<T, kTelemetry> counter;
    auto rest = counter.empty_rest();
    if (warp < kWarps) {
        BackwardWorker<T, kTelemetry> worker(p, slots);
        const bool inside = active && in_tile < span.columns;
        worker.begin(p, span.first + in_tile, inside ? min(Packet<T>::kLanes, span.columns - in_tile) : 0, task.reads_x);
        const uint32_t offset = packet / g.box_packets * g.box_pitch + packet % g.box_packets * kPacketBytes;
        const uint32_t pitch = g.box_packets * kPacketBytes;
        const uint32_t step = g.row_lanes * pitch / kPacketBytes;
        uint32_t stage = 0, parity = 0;
        for (uint32_t block = task.group; block < task.row_blocks; block += g.groups) {
            tma::wait(full[stage], parity);
            // Rows lane, lane + row_lanes, …: neighbouring threads read neighbouring packets.
            const uint32_t left = g.rows - block * task.rows_of_stage;
            const uint32_t rows = left >= task.rows_of_stage ? g.lane_rows
                : left > lane                                ? ceil_div(left - lane, g.row_lanes)
                                                             : 0;
            uint8_t* at = shared + stage * stage_bytes + offset + lane * pitch;
            const auto* xs = reinterpret_cast<const Packet<T>*>(at);
            auto* gs = reinterpret_cast<Packet<T>*>(at + g_offset);
            if (inside) {
                const auto get_g = [=](uint32_t r) { return gs[r * step]; };
                if (task.reads_g) {
                    counter.count(rows, get_g, rest);
                }
                const bool computes = worker.computes();
                worker.run(
                    rows, [=](uint32_t r) { return xs[r * step]; }, get_g,
                    [=](uint32_t r, const Packet<T>& out) {
                        if (computes) {
                            gs[r * step] = out;
                        }
                    });
            }
            if (task.changed) {
                tma::fence_async_shared();
            }
            __syncwarp();
            if (threadIdx.x % 32 == 0) {
                if (task.changed) {
                    tma::arrive(ready[stage]);
                }
                tma::arrive(empty[stage]);
            }
            if (++stage == stages) stage = 0, parity ^= 1;
        }
        worker.end();
        worker.finish(p, task.tile, task.group);
    }
    // The totals are out, and the stores have read the stages.
    __syncthreads();
    if (warp < kWarps) {
        counter.flush(p, task.tile, task.group, active, reinterpret_cast<GradientStats*>(slots), rest);
    }
}

#endif  // KASMINA_TMA_AVAILABLE

// A thread's own places in shared memory for rows of x and of dL/dy: [2][lane_rows][kWorkers], neighbouring threads in
// neighbouring banks.
template <class T>
struct Places {
    Packet<T>* first;
    uint32_t lane_rows;

    __device__ __forceinline__ Packet<T>& x(uint32_t r) const { return first[r * kWorkers]; }
    __device__ __forceinline__ Packet<T>& g(uint32_t r) const { return first[(lane_rows + r) * kWorkers]; }
};

// Takes the rows that lie in a thread's places backward, and stores.
template <class T, class Counter, class Worker, class Access>
__device__ __forceinline__ void work_on(const TileTask& task, uint32_t rows, Places<T> places, Counter& counter, typename Counter::Rest& rest, Worker& worker,
                                        const Access& access, uint8_t* to, uint64_t step)
{
    const bool reads_g = task.reads_g;
    const auto get_g = [=](uint32_t r) { return reads_g ? places.g(r) : Packet<T>{}; };
    const auto get_x = [=](uint32_t r) { return places.x(r); };
    if (task.reads_g) {
        counter.count(rows, get_g, rest);
    }
    if (!worker.computes()) {
        worker.run(rows, get_x, get_g, [](uint32_t, const Packet<T>&) {});
        if (task.reads_g) {
#pragma unroll 2
            for (uint32_t r = 0; r < rows; ++r) {
                access.store(to + r * step, get_g(r));
            }
        }
    } else {
        worker.run(rows, get_x, get_g, [=](uint32_t r, const Packet<T>& out) { access.store(to + r * step, out); });
    }
}

// Plain loads, a block of rows at once. kAligned: packets of 16 bytes; else element by element, whatever the alignment.
template <class T, Telemetry kTelemetry, bool kAligned>
__device__ __forceinline__ void backward_direct(const BackwardParams& p)
{
    // The threads' totals, then the stages.
    extern __shared__ __align__(1024) uint8_t slots[];
    uint8_t* shared = slots + Slots<T>::kBytes;
    const Geometry& g = p.geometry;
    const TileTask task(p);

    GradientCounter<T, kTelemetry> counter;
    auto rest = counter.empty_rest();
    BackwardWorker<T, kTelemetry> worker(p, slots);
    const uint32_t packet = threadIdx.x % g.tile_packets, lane = threadIdx.x / g.tile_packets;
    const uint32_t in_tile = packet * worker.kLanes;
    const bool active = threadIdx.x < g.tile_packets * g.row_lanes;
    if (active && in_tile < task.span.columns) {
        const uint32_t columns = min(worker.kLanes, task.span.columns - in_tile);
        worker.begin(p, task.span.first + in_tile, columns, task.reads_x);
        const Access<T, kAligned> access(columns);
        const uint64_t begin = (task.span.first + in_tile) * sizeof(T);
        const Places<T> places{reinterpret_cast<Packet<T>*>(shared) + threadIdx.x, g.lane_rows};
        uint64_t x_step = g.row_lanes * p.x_pitch, g_step = g.row_lanes * p.grad_y_pitch, out_step = g.row_lanes * p.grad_x_pitch;
        for (uint32_t block = task.group; block < task.row_blocks; block += g.groups) {
            keep_out_of_registers(x_step, g_step, out_step);
            const uint64_t first = uint64_t(block) * task.rows_of_stage + lane;
            const uint64_t left = first < g.rows ? (g.rows - first + g.row_lanes - 1) / g.row_lanes : 0;
            const uint32_t rows = left < g.lane_rows ? uint32_t(left) : g.lane_rows;
            // One matrix after the other through the same registers: the loads of both are under way together all the same,
            // where the compiler has registers for them.
            const auto fetch = [&](const void* matrix, uint64_t pitch, uint64_t step, Packet<T>* place) {
                const uint8_t* at = static_cast<const uint8_t*>(matrix) + begin + first * pitch;
                Packet<T> now[kBackwardRows];
#pragma unroll
                for (uint32_t r = 0; r < kBackwardRows; ++r) {
                    if (r < rows) {
                        now[r] = access.load(at);
                    }
                    at += step;
                }
#pragma unroll
                for (uint32_t r = 0; r < kBackwardRows; ++r) {
                    if (r < g.lane_rows) {
                        place[r * kWorkers] = now[r];
                    }
                }
            };
            if (task.reads_x) {
                fetch(p.x, p.x_pitch, x_step, &places.x(0));
            }
            if (task.reads_g) {
                fetch(p.grad_y, p.grad_y_pitch, g_step, &places.g(0));
            }
            auto* to = static_cast<uint8_t*>(p.grad_x) + begin + first * p.grad_x_pitch;
            work_on(task, rows, places, counter, rest, worker, access, to, out_step);
        }
        worker.end();
    }
    __syncthreads();
    worker.finish(p, task.tile, task.group);
    counter.flush(p, task.tile, task.group, active, reinterpret_cast<GradientStats*>(slots), rest);
}

// 16-byte asynchronous copies into shared memory, each thread for itself: it waits for its own copies only, so there is no
// barrier. Of kAsyncPairs blocks of rows, one is worked on while the others are under way.
template <class T, Telemetry kTelemetry>
__device__ __forceinline__ void backward_async(const BackwardParams& p)
{
    // The threads' totals, then the stages.
    extern __shared__ __align__(1024) uint8_t slots[];
    uint8_t* shared = slots + Slots<T>::kBytes;
    const Geometry& g = p.geometry;
    const TileTask task(p);

    GradientCounter<T, kTelemetry> counter;
    auto rest = counter.empty_rest();
    BackwardWorker<T, kTelemetry> worker(p, slots);
    const uint32_t packet = threadIdx.x % g.tile_packets, lane = threadIdx.x / g.tile_packets;
    const uint32_t in_tile = packet * worker.kLanes;
    const bool active = threadIdx.x < g.tile_packets * g.row_lanes;
    if (active && in_tile < task.span.columns) {
        const uint32_t columns = min(worker.kLanes, task.span.columns - in_tile);
        worker.begin(p, task.span.first + in_tile, columns, task.reads_x);
        const Access<T, true> access(columns);
        const uint64_t begin = (task.span.first + in_tile) * sizeof(T);
        // [kAsyncPairs][2][lane_rows][kWorkers].
        auto* ring = reinterpret_cast<Packet<T>*>(shared) + threadIdx.x;
        const uint32_t pair = 2 * g.lane_rows * kWorkers;
        uint64_t x_step = g.row_lanes * p.x_pitch, g_step = g.row_lanes * p.grad_y_pitch, out_step = g.row_lanes * p.grad_x_pitch;
        // The block whose copies are started next, and its place in the ring.
        uint64_t ahead = task.group;
        uint32_t ahead_stage = 0;
        const auto fetch = [&] {
            if (ahead < task.row_blocks) {
                const uint64_t first = ahead * task.rows_of_stage + lane;
                const auto* x = static_cast<const uint8_t*>(p.x) + begin + first * p.x_pitch;
                const auto* grad = static_cast<const uint8_t*>(p.grad_y) + begin + first * p.grad_y_pitch;
                const Places<T> places{ring + ahead_stage * pair, g.lane_rows};
                uint64_t row = first;
#pragma unroll 2
                for (uint32_t r = 0; r < g.lane_rows && row < g.rows; ++r) {
                    if (task.reads_x) {
                        access.copy(&places.x(r), x);
                    }
                    if (task.reads_g) {
                        access.copy(&places.g(r), grad);
                    }
                    row += g.row_lanes;
                    x += x_step;
                    grad += g_step;
                }
            }
            // Empty groups keep the count of groups that the wait below goes by.
            asm volatile("cp.async.commit_group;" ::: "memory");
            ahead += g.groups;
            ahead_stage = (ahead_stage + 1) % kAsyncPairs;
        };
#pragma unroll 1
        for (uint32_t s = 0; s + 1 < kAsyncPairs; ++s) {
            fetch();
        }
        uint32_t stage = 0;
        for (uint32_t block = task.group; block < task.row_blocks; block += g.groups) {
            keep_out_of_registers(x_step, g_step, out_step);
            fetch();
            asm volatile("cp.async.wait_group %0;" ::"n"(kAsyncPairs - 1) : "memory");
            const uint64_t first = uint64_t(block) * task.rows_of_stage + lane;
            const uint64_t left = first < g.rows ? (g.rows - first + g.row_lanes - 1) / g.row_lanes : 0;
            const uint32_t rows = left < g.lane_rows ? uint32_t(left) : g.lane_rows;
            auto* to = static_cast<uint8_t*>(p.grad_x) + begin + first * p.grad_x_pitch;
            work_on(task, rows, Places<T>{ring + stage * pair, g.lane_rows}, counter, rest, worker, access, to, out_step);
            stage = (stage + 1) % kAsyncPairs;
        }
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        worker.end();
    }
    __syncthreads();
    worker.finish(p, task.tile, task.group);
    counter.flush(p, task.tile, task.group, active, reinterpret_cast<GradientStats*>(slots), rest);
}

}  // namespace kasmina::stream
