// The streaming forward pass, one kernel for each way to load: y = layer(x) with the statistics of x, in one pass over memory.
#pragma once

#include "stream_access.cuh"
#include "stream_pace.cuh"
#include "stream_tma.cuh"
#include "stream_worker.cuh"

namespace kasmina::stream {

// Whether some column of a tile has a program. A tile is stored then, or where it does not lie there already.
template <Mode kMode>
__device__ __forceinline__ bool is_changed(const ForwardParams& p, uint32_t tile)
{
    return kMode != Mode::Copy && (p.tile_flags[tile] & kCompute) != 0;
}

// Makes the compiler work multiples of the pitches out anew in every round. Kept for all rounds they take some 40 registers.
__device__ __forceinline__ void keep_out_of_registers(uint64_t& x_step, uint64_t& y_step)
{
    asm volatile("" : "+l"(x_step), "+l"(y_step));
}

// The columns and rows of a thread that computes.
template <class Worker>
struct Place {
    uint32_t packet;   // of the tile's row
    uint32_t lane;     // its row lane
    uint32_t first;    // its first column
    uint32_t columns;  // of them, how many are in the matrix
    bool active;       // it has a packet, be it outside the matrix

    __device__ __forceinline__ Place(const Geometry& g, const TileSpan& span)
        : packet(threadIdx.x % g.tile_packets),
          lane(threadIdx.x / g.tile_packets),
          first(span.first + packet * Worker::kLanes),
          active(threadIdx.x < g.tile_packets * g.row_lanes)
    {
        const uint32_t in_tile = packet * Worker::kLanes;
        columns = active && in_tile < span.columns ? min(Worker::kLanes, span.columns - in_tile) : 0;
    }

    // Rows of a row block that are this thread's: lane, lane + row_lanes, …, so that neighbouring threads read neighbouring packets.
    __device__ __forceinline__ uint32_t rows(const Geometry& g, uint32_t block) const
    {
        const uint32_t left = g.rows - block * stage_rows(g);
        return left >= stage_rows(g) ? g.lane_rows : left > lane ? ceil_div(left - lane, g.row_lanes) : 0;
    }
};

// A worker whose programs come from global memory.
template <class Worker, Mode kMode>
__device__ __forceinline__ Worker make_worker(const ForwardParams& p, const Place<Worker>& place)
{
    using Plan = typename Worker::Plan;
    if constexpr (kMode == Mode::Copy) {
        return Worker(p.dead_epsilon, Bounds{}, Plan::nothing());
    } else {
        // All loads before anything waits for one.
        const Plan plan = Plan::load(p.flags, p.programs, place.first, place.columns, p.geometry.columns);
        return Worker(p.dead_epsilon, load_bounds(p.bounds), plan);
    }
}

#if KASMINA_TMA_AVAILABLE

// The same with programs that came through shared memory, where `scratch` has room for those of a tile.
template <class Worker, Mode kMode>
__device__ __forceinline__ Worker make_worker(const ForwardParams& p, const Place<Worker>& place, const TileSpan& span, void* scratch,
                                              uint32_t room)
{
    using Plan = typename Worker::Plan;
    if (kMode == Mode::Copy || p.geometry.tile_columns * Plan::kBytesOfColumn > room) {
        return make_worker<Worker, kMode>(p, place);
    }
    const Bounds bounds = load_bounds(p.bounds);
    return Worker(p.dead_epsilon, bounds, Plan::load_together(p.flags, p.programs, span, place.first - span.first, place.columns, scratch));
}

// Stages in shared memory go round: the loading warp fills one, the workers read it and, where a column has a program,
// change it in place, the storing warp sends it off. A tile that nothing changes is stored as soon as it has come; the workers
// count it meanwhile. kMap: bulk-tensor copies through maps, which clip at the matrix's edges; else 1-D bulk copies, row by row.
//
// Shared memory: the stages; barriers full, ready and empty of each; the workers' scratch.
template <class T, Telemetry kTelemetry, Mode kMode, bool kMap>
__device__ __forceinline__ void forward_bulk(const tma::TensorMap* x_map, const tma::TensorMap* y_map, const ForwardParams& p)
{
    using Worker = ForwardWorker<T, kTelemetry, kMode, kMode == Mode::Copy ? kCopiedRows : kRows>;
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
    const uint32_t stage_bytes = g.stage_bytes;
    const uint32_t row_bytes = span.columns * sizeof(T);
    const uint32_t warp = threadIdx.x / 32;

    auto* full = reinterpret_cast<tma::Barrier*>(shared + g.stages * stage_bytes);
    auto* ready = full + g.stages;
    auto* empty = ready + g.stages;
    if (warp == kWarps) {
        // By one thread: by all of the warp, with a fence in each, it took 0.7 µs more.
        if (threadIdx.x % 32 == 0) {
            for (uint32_t s = 0; s < g.stages; ++s) {
                tma::init(full[s], 1);
                tma::init(ready[s], kWarps);
                tma::init(empty[s], (kWorks ? kWarps : 0) + 1);
            }
            tma::fence_barrier_init();
        }
        barriers_made<kForwardBulkThreads>();
        if (threadIdx.x % 32 == 0) {
            LoadQueue loads(full, g.stages, g.loads_ahead, p.pace);
            StageCursor at{0, 1};  // the first round finds every stage empty
            for (uint32_t block = group; block < row_blocks(g); block += g.groups) {
                tma::wait(empty[at.stage], at.parity);
                loads.next();
                tma::Barrier& arrival = full[at.stage];
                uint8_t* to = shared + at.stage * stage_bytes;
                const uint32_t row = block * rows_of_stage;
                if constexpr (kMap) {
                    tma::arrive_expect(arrival, boxes * rows_of_stage * g.box_packets * kPacketBytes);
                    for (uint32_t b = 0; b < boxes; ++b) {
                        const int column = int(span.first + b * g.box_packets * (kPacketBytes / sizeof(T)));
                        tma::load_tensor(to + b * g.box_pitch, x_map, {column, int(row)}, arrival);
                    }
                } else {
                    const uint32_t rows = min(rows_of_stage, g.rows - row);
                    tma::arrive_expect(arrival, rows * row_bytes);
                    const auto* from = static_cast<const uint8_t*>(p.x) + row * p.x_pitch + span.first * sizeof(T);
                    for (uint32_t r = 0; r < rows; ++r) {
                        tma::load_bulk(to + r * g.tile_packets * kPacketBytes, from + r * p.x_pitch, row_bytes, arrival);
                    }
                }
                at.advance(g.stages);
            }
            loads.end();
        }
    } else if (warp == kWarps + 1) {
        if constexpr (kTelemetry != Telemetry::Off) {
            expect_pieces(g, span, p.watched, p.accumulators + (uint64_t(tile) * g.groups + group) * g.pieces);
        }
        wait_for_barriers<kForwardBulkThreads>();
        if (threadIdx.x % 32 == 0) {
            const bool changed = is_changed<kMode>(p, tile), stored = changed || p.in_place == 0;
            // Nobody reads y soon: it should not push out of the cache what the next kernel reads.
            const tma::CachePolicy policy = tma::evict_first();
            StageCursor at{0, 0};
            uint32_t freed = 0, issued = 0;
            for (uint32_t block = group; block < row_blocks(g); block += g.groups) {
                tma::wait(changed ? ready[at.stage] : full[at.stage], at.parity);
                const uint8_t* from = shared + at.stage * stage_bytes;
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
                at.advance(g.stages);
            }
            tma::wait_group_read<0>();
        }
    } else if (kWorks) {
        // What is asked of the memory before the stages fill it comes in a quarter of the time.
        const bool changed = is_changed<kMode>(p, tile);
        const Place<Worker> place(g, span);
        // At a multiple of 16 bytes.
        auto* scratch = reinterpret_cast<ChunkStats*>(full + (3 * g.stages + 1) / 2 * 2);
        constexpr uint32_t kRoom = kTelemetry == Telemetry::Off ? 0 : kWorkers * Worker::kUnits * sizeof(ChunkStats);
        Worker worker = make_worker<Worker, kMode>(p, place, span, scratch, kRoom);
        worker.settle();
        typename Worker::Rest rest = Worker::empty_rest();
        wait_for_barriers<kForwardBulkThreads>();
        const uint32_t offset = place.packet / g.box_packets * g.box_pitch + place.packet % g.box_packets * kPacketBytes;
        const uint32_t pitch = g.box_packets * kPacketBytes;
        StageCursor at{0, 0};
        for (uint32_t block = group; block < row_blocks(g); block += g.groups) {
            tma::wait(full[at.stage], at.parity);
            if (place.columns != 0) {
                const uint32_t rows = place.rows(g, block);
                auto* own = reinterpret_cast<Packet<T>*>(shared + at.stage * stage_bytes + offset + place.lane * pitch);
                const uint32_t step = g.row_lanes * pitch / kPacketBytes;
                const auto get = [=](uint32_t r) { return own[r * step]; };
                const auto put = [=](uint32_t r, const Packet<T>& packet) { own[r * step] = packet; };
                // Read once, all at once, where there are registers for it: not beside the programs of twice the columns, nor the
                // statistics of each.
                constexpr bool kAtOnce = sizeof(T) == 4 && kTelemetry != Telemetry::Column;
                if (kAtOnce && rows == kRows && worker.computes()) {
                    Packet<T> now[kRows];
#pragma unroll
                    for (uint32_t r = 0; r < kRows; ++r) {
                        now[r] = get(r);
                    }
                    const auto here = [&](uint32_t r) { return now[r]; };
                    worker.count(kRows, here, get, rest);
                    worker.template transform<true>(kRows, here, put);
                } else {
                    worker.count(rows, get, get, rest);
                    if (worker.computes()) {
                        worker.template transform<false>(rows, get, put);
                    }
                }
            }
            if (changed) {
                tma::fence_async_shared();
            }
            __syncwarp();
            if (threadIdx.x % 32 == 0) {
                if (changed) {
                    tma::arrive(ready[at.stage]);
                }
                tma::arrive(empty[at.stage]);
            }
            at.advance(g.stages);
        }
        worker.flush(p, tile, group, place.active, scratch, rest);
        worker.report_saturated(p.saturated);
    }
}

#endif  // KASMINA_TMA_AVAILABLE

// Plain loads, a block of rows at once; where two blocks fit on a multiprocessor they keep the memory busy in turn.
// kAligned: packets of 16 bytes; else element by element, whatever the alignment. `number` is the block's.
template <class T, Telemetry kTelemetry, Mode kMode, bool kAligned>
__device__ __forceinline__ void forward_direct(const ForwardParams& p, uint32_t number)
{
    using Worker = ForwardWorker<T, kTelemetry, kMode, kRows>;
    extern __shared__ __align__(1024) uint8_t shared[];
    const Geometry& g = p.geometry;
    const uint32_t tile = number % g.tiles, group = number / g.tiles;
    const TileSpan span = tile_span(g, tile);
    const bool stored = p.in_place == 0 || is_changed<kMode>(p, tile);
    const Place<Worker> place(g, span);
    Worker worker = make_worker<Worker, kMode>(p, place);
    worker.settle();
    typename Worker::Rest rest = Worker::empty_rest();
    const Access<T, kAligned> access(place.columns);
    // [kRows][kWorkers]: this thread's own place, from which the packets are read as often as need be.
    auto* own = reinterpret_cast<Packet<T>*>(shared) + threadIdx.x;
    uint64_t x_step = g.row_lanes * p.x_pitch, y_step = g.row_lanes * p.y_pitch;
    if (place.columns != 0) {
        const uint64_t start = uint64_t(group) * stage_rows(g) + place.lane;
        const uint64_t step = uint64_t(g.groups) * stage_rows(g);
        const auto* from = static_cast<const uint8_t*>(p.x) + place.first * sizeof(T) + start * p.x_pitch;
        auto* to = static_cast<uint8_t*>(p.y) + place.first * sizeof(T) + start * p.y_pitch;
        for (uint32_t block = group; block < row_blocks(g); block += g.groups) {
            keep_out_of_registers(x_step, y_step);
            const uint32_t rows = place.rows(g, block);
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
                    own[r * kWorkers] = now[r];
                }
            }
            const auto get = [=](uint32_t r) { return own[r * kWorkers]; };
            worker.count(rows, get, get, rest);
            if (stored) {
                const auto put = [&](uint32_t r, const Packet<T>& packet) { access.store(to + r * y_step, packet); };
                if (worker.computes()) {
                    worker.template transform<false>(rows, get, put);
                } else {
                    for (uint32_t r = 0; r < rows; ++r) {
                        put(r, get(r));
                    }
                }
            }
            from += step * p.x_pitch;
            to += step * p.y_pitch;
        }
    }
    __syncthreads();
    worker.flush(p, tile, group, place.active, reinterpret_cast<ChunkStats*>(shared), rest);
    worker.report_saturated(p.saturated);
}

// 16-byte asynchronous copies into shared memory, each thread for itself: it waits for its own copies only, so there is no
// barrier. Of kAsyncStages blocks of rows, one is worked on while the others are under way. `number` is the block's.
template <class T, Telemetry kTelemetry, Mode kMode>
__device__ __forceinline__ void forward_async(const ForwardParams& p, uint32_t number)
{
    using Worker = ForwardWorker<T, kTelemetry, kMode, kRows>;
    extern __shared__ __align__(1024) uint8_t shared[];
    const Geometry& g = p.geometry;
    const uint32_t tile = number % g.tiles, group = number / g.tiles;
    const TileSpan span = tile_span(g, tile);
    const Place<Worker> place(g, span);
    const Access<T, true> access(place.columns);
    // [kAsyncStages][kRows][kWorkers]: neighbouring threads, neighbouring banks.
    auto* ring = reinterpret_cast<Packet<T>*>(shared) + threadIdx.x;
    uint64_t x_step = g.row_lanes * p.x_pitch, y_step = g.row_lanes * p.y_pitch;
    const uint64_t start = uint64_t(group) * stage_rows(g) + place.lane;
    const uint64_t step = uint64_t(g.groups) * stage_rows(g);
    const auto* from = static_cast<const uint8_t*>(p.x) + place.first * sizeof(T) + start * p.x_pitch;
    auto* to = static_cast<uint8_t*>(p.y) + place.first * sizeof(T) + start * p.y_pitch;
    // The row block whose copies are started next, and its place in the ring.
    uint32_t ahead = group, ahead_stage = 0;
    const auto fetch = [&] {
        if (place.columns != 0 && ahead < row_blocks(g)) {
            const uint32_t rows = place.rows(g, ahead);
            const uint8_t* at = from;
            Packet<T>* place_of = ring + ahead_stage * kRows * kWorkers;
#pragma unroll
            for (uint32_t r = 0; r < kRows; ++r) {
                if (r < rows) {
                    access.copy(place_of + r * kWorkers, at);
                }
                at += x_step;
            }
        }
        // Empty groups keep the count of groups that the wait below goes by.
        asm volatile("cp.async.commit_group;" ::: "memory");
        ahead += g.groups;
        from += step * p.x_pitch;
        ahead_stage = (ahead_stage + 1) % kAsyncStages;
    };
    // Before everything else that is asked of the memory: what the worker is made of comes meanwhile.
#pragma unroll 1
    for (uint32_t s = 0; s + 1 < kAsyncStages; ++s) {
        fetch();
    }
    if constexpr (kTelemetry != Telemetry::Off) {
        if (threadIdx.x / 32 == kBlockThreads / 32 - 1) {
            expect_pieces(g, span, p.watched, p.accumulators + (uint64_t(tile) * g.groups + group) * g.pieces);
        }
    }
    Worker worker = make_worker<Worker, kMode>(p, place);
    worker.settle();
    typename Worker::Rest rest = Worker::empty_rest();
    const bool stored = p.in_place == 0 || is_changed<kMode>(p, tile);
    if (place.columns != 0) {
        uint32_t stage = 0;
        for (uint32_t block = group; block < row_blocks(g); block += g.groups) {
            keep_out_of_registers(x_step, y_step);
            fetch();
            asm volatile("cp.async.wait_group %0;" ::"n"(kAsyncStages - 1) : "memory");
            const uint32_t rows = place.rows(g, block);
            const Packet<T>* at = ring + stage * kRows * kWorkers;
            const auto get = [=](uint32_t r) { return at[r * kWorkers]; };
            worker.count(rows, get, get, rest);
            if (stored) {
                const auto put = [&](uint32_t r, const Packet<T>& packet) { access.store(to + r * y_step, packet); };
                if (worker.computes()) {
                    worker.template transform<false>(rows, get, put);
                } else {
                    for (uint32_t r = 0; r < rows; ++r) {
                        put(r, get(r));
                    }
                }
            }
            to += step * p.y_pitch;
            stage = (stage + 1) % kAsyncStages;
        }
        asm volatile("cp.async.wait_group 0;" ::: "memory");
    }
    block_barrier();
    worker.flush(p, tile, group, place.active, reinterpret_cast<ChunkStats*>(shared), rest);
    worker.report_saturated(p.saturated);
}

}  // namespace kasmina::stream
