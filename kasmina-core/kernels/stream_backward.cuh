// The streaming backward pass, one kernel for each way to load: dL/dx from dL/dy, with the statistics of dL/dy and the column
// sums from which parameter gradients are made, in one pass over memory. x is read only by tiles that need it.
#pragma once

#include "stream_backward_worker.cuh"
#include "stream_pace.cuh"
#include "stream_tma.cuh"

namespace kasmina::stream {

// Blocks of rows that the cp.async kernels keep in shared memory: of two matrices, three are as much as fits.
constexpr uint32_t kAsyncPairs = 3;

// Makes the compiler work multiples of the pitches out anew in every round, for the registers that they would take.
__device__ __forceinline__ void keep_out_of_registers(uint64_t& a, uint64_t& b, uint64_t& c)
{
    asm volatile("" : "+l"(a), "+l"(b), "+l"(c));
}

#if KASMINA_TMA_AVAILABLE

// A block of the bulk kernels. Stages in shared memory go round, each with rows of x, where the tile needs them, and of dL/dy: the
// loading warp fills one; the counting warps read dL/dy; the workers make dL/dx of both, in the place of x; the storing warp sends
// that off. A tile that is copied is stored as soon as it has come. kMap: bulk-tensor copies through maps, which clip at the
// matrices' edges; else 1-D bulk copies, row by row.
//
// Counting is apart from the work so that three warps share a scheduler and none of them has the state of both: a thread that did
// both left half of the issue slots unused.
template <class T, Telemetry kTelemetry, bool kMap>
class BackwardBlock {
public:
    static constexpr uint32_t kWarps = kWorkers / 32;
    static constexpr uint32_t kCountingWarps = kTelemetry == Telemetry::Off ? 0 : kCounters / 32;
    static constexpr uint32_t kThreads = kBackwardBulkThreads<kTelemetry>;
    using Counter = GradientCounter<T, kTelemetry, true>;

    // Shared memory: the workers' totals; the stages; their barriers; the records of counted packets.
    __device__ __forceinline__ BackwardBlock(const tma::TensorMap* x_map, const tma::TensorMap* grad_y_map,
                                             const tma::TensorMap* grad_x_map, const BackwardParams& p, uint8_t* shared)
        : x_map_(x_map), grad_y_map_(grad_y_map), grad_x_map_(grad_x_map), p_(p), g_(p.geometry), task_(p, blockIdx.x), shared_(shared)
    {
    }

    __device__ __forceinline__ void run()
    {
        const uint32_t warp = threadIdx.x / 32;
        if (warp < kWarps) {
            work();
        } else if (warp < kWarps + kCountingWarps) {
            count();
        } else if (warp == kWarps + kCountingWarps) {
            load();
        } else {
            store();
        }
    }

private:
    // What follows from the parameters is worked out anew where it is needed, for the registers that it would take.

    // Whether a stage has two matrices' places. A tile of which it has one has twice the stages of half the size.
    __device__ __forceinline__ bool both() const { return task_.reads_g && (task_.reads_x || task_.changed); }
    __device__ __forceinline__ uint32_t stages() const { return both() ? g_.stages : 2 * g_.stages; }
    __device__ __forceinline__ uint32_t g_offset() const { return both() ? g_.stage_bytes : 0; }

    __device__ __forceinline__ uint8_t* at(uint32_t stage) const
    {
        return shared_ + Slots<T>::kBytes + stage * (both() ? 2 * g_.stage_bytes : g_.stage_bytes);
    }

    // Barriers of stages: of loads, of work done, and of all who are done with it.
    __device__ __forceinline__ tma::Barrier& barrier(uint32_t number) const
    {
        return reinterpret_cast<tma::Barrier*>(shared_ + Slots<T>::kBytes + 2 * g_.stages * g_.stage_bytes)[number];
    }
    __device__ __forceinline__ tma::Barrier& full(uint32_t stage) const { return barrier(stage); }
    __device__ __forceinline__ tma::Barrier& ready(uint32_t stage) const { return barrier(2 * g_.stages + stage); }
    __device__ __forceinline__ tma::Barrier& empty(uint32_t stage) const { return barrier(4 * g_.stages + stage); }

    __device__ __forceinline__ GradientStats* scratch() const
    {
        return reinterpret_cast<GradientStats*>(Counter::kUnits == 1 ? reinterpret_cast<uint8_t*>(&barrier(6 * g_.stages)) : shared_);
    }

    __device__ __forceinline__ bool works() const { return task_.changed || task_.has_sums; }

    __device__ __forceinline__ bool counts() const { return kCountingWarps != 0 && task_.reads_g; }

    __device__ __forceinline__ void load() const
    {
        // A tile with nothing to do has none, and no stage is filled.
        const uint32_t users = max(1u, (works() ? kWarps : 0) + (counts() ? kCountingWarps : 0) + (task_.reads_g ? 1 : 0));
        if (threadIdx.x % 32 == 0) {
            for (uint32_t s = 0; s < stages(); ++s) {
                tma::init(full(s), 1);
                tma::init(ready(s), kWarps);
                tma::init(empty(s), users);
            }
            tma::fence_barrier_init();
        }
        barriers_made<kThreads>();
        if (threadIdx.x % 32 != 0) {
            return;
        }
        const uint32_t matrices = task_.reads_x && task_.reads_g ? 2 : 1, boxes = this->boxes(), row_bytes = task_.span.columns * sizeof(T);
        // One matrix, like a forward pass, wants fewer bytes under way than two.
        LoadQueue loads(&full(0), stages(), min(stages(), matrices == 2 ? g_.loads_ahead : g_.loads_ahead + 1), p_.pace);
        StageCursor at{0, 1};  // the first round finds every stage empty
        for (uint32_t block = task_.group; block < task_.row_blocks; block += g_.groups) {
            tma::wait(empty(at.stage), at.parity);
            loads.next();
            tma::Barrier& arrival = full(at.stage);
            uint8_t* to = this->at(at.stage);
            const uint32_t row = block * task_.rows_of_stage;
            if constexpr (kMap) {
                tma::arrive_expect(arrival, matrices * boxes * task_.rows_of_stage * g_.box_packets * kPacketBytes);
                for (uint32_t b = 0; b < boxes; ++b) {
                    if (task_.reads_x) {
                        tma::load_tensor(to + b * g_.box_pitch, x_map_, {column(b), int(row)}, arrival);
                    }
                    if (task_.reads_g) {
                        tma::load_tensor(to + g_offset() + b * g_.box_pitch, grad_y_map_, {column(b), int(row)}, arrival);
                    }
                }
            } else {
                const uint32_t rows = min(task_.rows_of_stage, g_.rows - row);
                tma::arrive_expect(arrival, matrices * rows * row_bytes);
                const auto* x = static_cast<const uint8_t*>(p_.x) + row * p_.x_pitch + task_.span.first * sizeof(T);
                const auto* grad = static_cast<const uint8_t*>(p_.grad_y) + row * p_.grad_y_pitch + task_.span.first * sizeof(T);
                for (uint32_t r = 0; r < rows; ++r) {
                    uint8_t* to_row = to + r * g_.tile_packets * kPacketBytes;
                    if (task_.reads_x) {
                        tma::load_bulk(to_row, x + r * p_.x_pitch, row_bytes, arrival);
                    }
                    if (task_.reads_g) {
                        tma::load_bulk(to_row + g_offset(), grad + r * p_.grad_y_pitch, row_bytes, arrival);
                    }
                }
            }
            at.advance(stages());
        }
        loads.end();
    }

    __device__ __forceinline__ void store() const
    {
        if constexpr (kCountingWarps != 0) {
            expect_pieces(g_, task_.span, p_.watched, accumulators_of(p_, task_));
        }
        wait_for_barriers<kThreads>();
        if (threadIdx.x % 32 != 0 || !task_.reads_g) {
            return;
        }
        const uint32_t boxes = this->boxes(), row_bytes = task_.span.columns * sizeof(T);
        // Nobody reads it soon: it should not push out of the cache what the next kernel reads.
        const tma::CachePolicy policy = tma::evict_first();
        StageCursor at{0, 0};
        for (uint32_t block = task_.group; block < task_.row_blocks; block += g_.groups) {
            tma::wait(task_.changed ? ready(at.stage) : full(at.stage), at.parity);
            const uint8_t* from = this->at(at.stage) + (task_.changed ? 0 : g_offset());
            const uint32_t row = block * task_.rows_of_stage;
            if constexpr (kMap) {
                for (uint32_t b = 0; b < boxes; ++b) {
                    tma::store_tensor(grad_x_map_, {column(b), int(row)}, from + b * g_.box_pitch, policy);
                }
            } else {
                const uint32_t rows = min(task_.rows_of_stage, g_.rows - row);
                auto* to = static_cast<uint8_t*>(p_.grad_x) + row * p_.grad_x_pitch + task_.span.first * sizeof(T);
                for (uint32_t r = 0; r < rows; ++r) {
                    tma::store_bulk(to + r * p_.grad_x_pitch, from + r * g_.tile_packets * kPacketBytes, row_bytes, policy);
                }
            }
            tma::commit_group();
            // At once, not after the next store as in the forward pass: there are only some stages of two matrices, and each is
            // wanted back as soon as the store has read it.
            tma::wait_group_read<0>();
            tma::arrive(empty(at.stage));
            at.advance(stages());
        }
    }

    __device__ __forceinline__ void work() const
    {
        // What is asked of the memory before the stages fill it comes in a quarter of the time.
        const Place place(g_, task_.span, threadIdx.x, g_.row_lanes);
        const Bounds bounds = load_bounds(p_.bounds);
        const auto plan = PacketPlan<Packet<T>::kLanes>::load_together(p_.flags, p_.programs, task_.span, place.in_tile, place.columns, shared_);
        BackwardWorker<T, Telemetry::Off> worker(bounds, shared_, plan, place.columns, task_);
        const ColumnProgram* programs = p_.programs + task_.span.first + place.in_tile;
        wait_for_barriers<kThreads>();
        if (works()) {
            const uint32_t step = g_.row_lanes * place.pitch / kPacketBytes;
            StageCursor at{0, 0};
            for (uint32_t block = task_.group; block < task_.row_blocks; block += g_.groups) {
                tma::wait(full(at.stage), at.parity);
                if (place.columns != 0) {
                    const uint32_t left = g_.rows - block * task_.rows_of_stage;
                    const uint32_t rows = left >= task_.rows_of_stage ? g_.lane_rows : place.rows(left, g_.row_lanes);
                    uint8_t* own = this->at(at.stage) + place.offset;
                    auto* xs = reinterpret_cast<Packet<T>*>(own);
                    const auto* gs = reinterpret_cast<const Packet<T>*>(own + g_offset());
                    const bool changed = task_.changed;
                    worker.run(
                        p_, programs, rows, [=](uint32_t r) { return xs[r * step]; }, [=](uint32_t r) { return gs[r * step]; },
                        [=](uint32_t r, const Packet<T>& out) {
                            if (changed) {
                                xs[r * step] = out;
                            }
                        });
                }
                if (task_.changed) {
                    tma::fence_async_shared();
                }
                release(at.stage, task_.changed);
                at.advance(stages());
            }
            worker.end();
            worker.finish(p_, task_);
        }
        if constexpr (Counter::kUnits != 1) {
            // The totals are out.
            named_barrier<kAllBarrier, kWorkers + kCounters>();
        }
    }

    __device__ __forceinline__ void count() const
    {
        const uint32_t thread = threadIdx.x - kWorkers, lanes = max(1u, kCounters / g_.tile_packets);
        const Place place(g_, task_.span, thread, lanes);
        Counter counter;
        auto rest = counter.empty_rest();
        wait_for_barriers<kThreads>();
        const uint32_t step = lanes * place.pitch / kPacketBytes;
        const uint32_t whole = place.rows(task_.rows_of_stage, lanes);
        StageCursor at{0, 0};
        for (uint32_t block = task_.group; counts() && block < task_.row_blocks; block += g_.groups) {
            tma::wait(full(at.stage), at.parity);
            const uint32_t left = g_.rows - block * task_.rows_of_stage;
            const uint32_t present = left >= task_.rows_of_stage ? whole : place.rows(left, lanes);
            const uint32_t rows = place.columns == 0 ? 0 : present;
            const auto* gs = reinterpret_cast<const Packet<T>*>(this->at(at.stage) + g_offset() + place.offset);
            for (uint32_t first = 0; first < rows; first += Counter::kRows) {
                counter.count(min(Counter::kRows, rows - first), [=](uint32_t r) { return gs[(first + r) * step]; }, rest);
            }
            release(at.stage, false);
            at.advance(stages());
        }
        if constexpr (Counter::kUnits != 1) {
            named_barrier<kAllBarrier, kWorkers + kCounters>();
        }
        counter.template flush<kCountersBarrier, kCounters>(p_, task_, thread, place.active, lanes, scratch(), rest);
    }

    // A thread's packet of the tile, and its first row of a stage, of which `lanes` threads have every lanes-th.
    struct Place {
        uint32_t lane;
        uint32_t in_tile;  // its first column of the tile
        uint32_t columns;  // of its columns, how many are in the matrix
        uint32_t pitch;    // bytes from row to row of a stage
        uint32_t offset;   // of the first row from the matrix's part of a stage
        bool active;       // it has a packet, be it outside the matrix

        __device__ __forceinline__ Place(const Geometry& g, const TileSpan& span, uint32_t thread, uint32_t lanes)
        {
            const uint32_t packet = thread % g.tile_packets;
            lane = thread / g.tile_packets;
            active = lane < lanes;
            in_tile = packet * Packet<T>::kLanes;
            columns = active && in_tile < span.columns ? min(Packet<T>::kLanes, span.columns - in_tile) : 0;
            pitch = g.box_packets * kPacketBytes;
            offset = packet / g.box_packets * g.box_pitch + packet % g.box_packets * kPacketBytes + lane * pitch;
        }

        // Of `rows` rows, how many are this thread's: lane, lane + lanes, …, so that neighbouring threads read neighbouring packets.
        __device__ __forceinline__ uint32_t rows(uint32_t rows, uint32_t lanes) const
        {
            return rows > lane ? ceil_div(rows - lane, lanes) : 0;
        }
    };

    // Boxes of the tile that have columns of the matrix.
    __device__ __forceinline__ uint32_t boxes() const
    {
        return ceil_div(ceil_div(task_.span.columns * uint32_t(sizeof(T)), kPacketBytes), g_.box_packets);
    }

    __device__ __forceinline__ int column(uint32_t box) const
    {
        return int(task_.span.first + box * g_.box_packets * (kPacketBytes / sizeof(T)));
    }

    // This warp is done with a stage.
    __device__ __forceinline__ void release(uint32_t stage, bool stored) const
    {
        __syncwarp();
        if (threadIdx.x % 32 == 0) {
            if (stored) {
                tma::arrive(ready(stage));
            }
            tma::arrive(empty(stage));
        }
    }

    const tma::TensorMap* x_map_;
    const tma::TensorMap* grad_y_map_;
    const tma::TensorMap* grad_x_map_;
    const BackwardParams& p_;
    const Geometry& g_;
    const TileTask task_;
    uint8_t* shared_;
};

template <class T, Telemetry kTelemetry, bool kMap>
__device__ __forceinline__ void backward_bulk(const tma::TensorMap* x_map, const tma::TensorMap* grad_y_map,
                                              const tma::TensorMap* grad_x_map, const BackwardParams& p)
{
    extern __shared__ __align__(1024) uint8_t slots[];
    BackwardBlock<T, kTelemetry, kMap>(x_map, grad_y_map, grad_x_map, p, slots).run();
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

// Takes the rows that lie in a thread's places backward, and stores. `first` is the packet's first column.
template <class T, class Counter, class Worker, class Access>
__device__ __forceinline__ void work_on(const BackwardParams& p, const TileTask& task, uint32_t first, uint32_t rows,
                                        Places<T> places, Counter& counter, typename Counter::Rest& rest, Worker& worker,
                                        const Access& access, uint8_t* to, uint64_t step)
{
    const bool reads_g = task.reads_g;
    const auto get_g = [=](uint32_t r) { return reads_g ? places.g(r) : Packet<T>{}; };
    if (reads_g) {
        counter.count(rows, get_g, rest);
    }
    worker.run(
        p, p.programs + first, rows, [=](uint32_t r) { return places.x(r); }, get_g,
        [=](uint32_t r, const Packet<T>& out) {
            if (reads_g) {
                access.store(to + r * step, out);
            }
        });
}

// Plain loads, a block of rows at once. kAligned: packets of 16 bytes; else element by element, whatever the alignment. `number` is
// the block's.
template <class T, Telemetry kTelemetry, bool kAligned>
__device__ __forceinline__ void backward_direct(const BackwardParams& p, uint32_t number)
{
    // The threads' totals, then the stages.
    extern __shared__ __align__(1024) uint8_t slots[];
    uint8_t* shared = slots + Slots<T>::kBytes;
    const Geometry& g = p.geometry;
    const TileTask task(p, number);

    GradientCounter<T, kTelemetry, false> counter;
    auto rest = counter.empty_rest();
    const uint32_t packet = threadIdx.x % g.tile_packets, lane = threadIdx.x / g.tile_packets;
    const uint32_t in_tile = packet * Packet<T>::kLanes;
    const bool active = threadIdx.x < g.tile_packets * g.row_lanes;
    const bool inside = active && in_tile < task.span.columns;
    const uint32_t columns = inside ? min(Packet<T>::kLanes, task.span.columns - in_tile) : 0;
    const Bounds bounds = load_bounds(p.bounds);
    const auto plan = PacketPlan<Packet<T>::kLanes>::load(p.flags, p.programs, task.span.first + in_tile, columns, g.columns);
    BackwardWorker<T, kTelemetry> worker(bounds, slots, plan, columns, task);
    if (inside) {
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
            work_on(p, task, task.span.first + in_tile, rows, places, counter, rest, worker, access, to, out_step);
        }
        worker.end();
    }
    __syncthreads();
    worker.finish(p, task);
    __syncthreads();
    counter.template flush<kWorkersBarrier, kWorkers>(p, task, threadIdx.x, active, g.row_lanes, reinterpret_cast<GradientStats*>(slots), rest);
}

// 16-byte asynchronous copies into shared memory, each thread for itself: it waits for its own copies only, so there is no
// barrier. Of kAsyncPairs blocks of rows, one is worked on while the others are under way. `number` is the
// block's.
template <class T, Telemetry kTelemetry>
__device__ __forceinline__ void backward_async(const BackwardParams& p, uint32_t number)
{
    // The threads' totals, then the stages.
    extern __shared__ __align__(1024) uint8_t slots[];
    uint8_t* shared = slots + Slots<T>::kBytes;
    const Geometry& g = p.geometry;
    const TileTask task(p, number);

    const uint32_t packet = threadIdx.x % g.tile_packets, lane = threadIdx.x / g.tile_packets;
    const uint32_t in_tile = packet * Packet<T>::kLanes;
    const bool active = threadIdx.x < g.tile_packets * g.row_lanes;
    const bool inside = active && in_tile < task.span.columns;
    const uint32_t columns = inside ? min(Packet<T>::kLanes, task.span.columns - in_tile) : 0;
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
        if (inside && ahead < task.row_blocks) {
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
    // Before everything else that is asked of the memory: what the worker is made of comes meanwhile.
#pragma unroll 1
    for (uint32_t s = 0; s + 1 < kAsyncPairs; ++s) {
        fetch();
    }
    if constexpr (kTelemetry != Telemetry::Off) {
        if (threadIdx.x / 32 == kBlockThreads / 32 - 1) {
            expect_pieces(g, task.span, p.watched, accumulators_of(p, task));
        }
    }
    GradientCounter<T, kTelemetry, false> counter;
    auto rest = counter.empty_rest();
    const Bounds bounds = load_bounds(p.bounds);
    const auto plan = PacketPlan<Packet<T>::kLanes>::load(p.flags, p.programs, task.span.first + in_tile, columns, g.columns);
    BackwardWorker<T, kTelemetry> worker(bounds, slots, plan, columns, task);
    if (inside) {
        uint32_t stage = 0;
        for (uint32_t block = task.group; block < task.row_blocks; block += g.groups) {
            keep_out_of_registers(x_step, g_step, out_step);
            fetch();
            asm volatile("cp.async.wait_group %0;" ::"n"(kAsyncPairs - 1) : "memory");
            const uint64_t first = uint64_t(block) * task.rows_of_stage + lane;
            const uint64_t left = first < g.rows ? (g.rows - first + g.row_lanes - 1) / g.row_lanes : 0;
            const uint32_t rows = left < g.lane_rows ? uint32_t(left) : g.lane_rows;
            auto* to = static_cast<uint8_t*>(p.grad_x) + begin + first * p.grad_x_pitch;
            work_on(p, task, task.span.first + in_tile, rows, Places<T>{ring + stage * pair, g.lane_rows}, counter, rest, worker, access, to, out_step);
            stage = (stage + 1) % kAsyncPairs;
        }
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        worker.end();
    }
    block_barrier();
    worker.finish(p, task);
    block_barrier();
    counter.template flush<kWorkersBarrier, kWorkers>(p, task, threadIdx.x, active, g.row_lanes, reinterpret_cast<GradientStats*>(slots), rest);
}

}  // namespace kasmina::stream
