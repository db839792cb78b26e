// One thread of a streaming backward pass: a packet of columns, whose programs, sums over some rows and gradient statistics it
// keeps in registers while it walks rows, and whose totals it keeps in shared memory.
#pragma once

#include "stream_access.cuh"
#include "stream_reduce.cuh"

namespace kasmina::stream {

struct BackwardParams {
    const void* x;
    const void* grad_y;              // null: only reconstruction sums are wanted
    void* grad_x;
    uint64_t x_pitch;                // bytes from row to row
    uint64_t grad_y_pitch;
    uint64_t grad_x_pitch;
    const ColumnProgram* programs;   // [columns]
    const uint8_t* flags;            // [columns]
    const uint8_t* tile_flags;       // [tiles], all flags of the tile's columns
    const Bounds* bounds;            // in device memory: strict mode computes them there
    ColumnTotals* sums;              // [groups][columns]; of tiles whose columns are summed
    GradientStats* accumulators;     // [tiles][groups][pieces], each block's own, kept from launch to launch
    uint32_t* pace;                  // [2], how far all blocks have come; 0 between launches
    const uint8_t* watched;          // [seeds], which seeds are counted; null for all
    unsigned long long* saturated;   // gradients that did not fit their type
    Geometry geometry;
};
static_assert(sizeof(BackwardParams) == 120 + sizeof(Geometry), "as in Rust");

// Flags of columns for which sums are gathered, and of those for which x is read.
constexpr uint32_t kAnySums = kSums | kStraightThrough | kReconstruction;
constexpr uint32_t kAnyX = kNeedsX | kStraightThrough | kReconstruction;

// Rows that a thread takes at a time, at most.
constexpr uint32_t kBackwardRows = 4;
// Rows that are summed in f32 before they are folded into f64.
constexpr uint32_t kFoldRows = 32;

// Statistics of what passes through a thread, on the raw output gradient.
template <class T, Telemetry kTelemetry>
class GradientCounter {
public:
    static constexpr uint32_t kLanes = Packet<T>::kLanes;
    static constexpr uint32_t kUnits = kTelemetry == Telemetry::Column ? kLanes : 1;
    static constexpr uint32_t kUnitColumns = kLanes / kUnits;

    // Statistics of what has to be counted the slow way; apart from the counter for the reason that ForwardWorker::Rest gives.
    struct Rest {
        GradientStats of[kUnits];
    };

    static __device__ __forceinline__ Rest empty_rest()
    {
        Rest rest;
#pragma unroll
        for (uint32_t u = 0; u < kUnits; ++u) {
            rest.of[u] = GradientStats::empty();
        }
        return rest;
    }

    __device__ __forceinline__ GradientCounter()
    {
#pragma unroll
        for (uint32_t u = 0; u < kUnits; ++u) {
            running_[u] = RunningGradient::empty();
        }
        if constexpr (kUnits == 8) {
            // Not in registers: with those of eight columns' programs and sums they would not suffice.
            asm volatile("" ::"l"(running_) : "memory");
        }
    }

    // Counts up to kBackwardRows packets: `get(r)` is the r-th, as often as it is asked for.
    template <class Get>
    __device__ __forceinline__ void count(uint32_t rows, Get get, Rest& rest)
    {
        if constexpr (kTelemetry != Telemetry::Off) {
            // Statistics of eight columns leave no registers for more than a row at a time.
            if (kUnits < 8 && rows == kBackwardRows) {
                count_block<true>(rows, get, rest);
            } else if (rows > 0) {
                count_block<false>(rows, get, rest);
            }
        }
    }

    // Counts what was seen into the block's accumulators, once. Called by all kWorkers threads; `active` ones have a packet.
    // `scratch` has room for [row_lanes][tile_packets][kUnits] records.
    __device__ __forceinline__ void flush(const BackwardParams& p, uint32_t tile, uint32_t group, bool active,
                                          GradientStats* scratch, const Rest& rest) const
    {
        if constexpr (kTelemetry != Telemetry::Off) {
            if (active) {
#pragma unroll
                for (uint32_t u = 0; u < kUnits; ++u) {
                    finish_into(scratch + threadIdx.x * kUnits + u, running_[u], rest.of[u]);
                }
            }
            workers_barrier();
            const uint64_t block = static_cast<uint64_t>(tile) * p.geometry.groups + group;
            accumulate_pieces(p.geometry, tile, scratch, kUnitColumns, p.watched, p.accumulators + block * p.geometry.pieces);
        }
    }

private:
    __device__ __forceinline__ void add(GradientBlock (&block)[kUnits], float (&pivot)[kUnits], bool first,
                                        const Packet<T>& packet)
    {
        float value[kLanes];
        packet.get(value);
        if (first) {
#pragma unroll
            for (uint32_t u = 0; u < kUnits; ++u) {
                pivot[u] = running_[u].moments.pivot(value[u]);
                block[u] = GradientBlock::empty();
            }
        }
        if constexpr (kUnits == 1) {
            block[0].add(value, kLanes, pivot[0]);
        } else {
#pragma unroll
            for (uint32_t u = 0; u < kUnits; ++u) {
                block[u].add(value[u], pivot[u]);
            }
        }
    }

    template <bool kWhole, class Get>
    __device__ __forceinline__ void count_block(uint32_t rows, Get get, Rest& rest)
    {
        GradientBlock block[kUnits];
        float pivot[kUnits];
        add(block, pivot, true, get(0));
        if constexpr (kWhole) {
            constexpr uint32_t kAtOnce = kLanes == 8 ? 1 : kBackwardRows;
#pragma unroll kAtOnce
            for (uint32_t r = 1; r < kBackwardRows; ++r) {
                add(block, pivot, false, get(r));
            }
        } else {
            // The last rows of the matrix: rolled, for the code's size.
#pragma unroll 1
            for (uint32_t r = 1; r < rows; ++r) {
                add(block, pivot, false, get(r));
            }
        }
        uint32_t refused = 0;
        const uint32_t taken = (kWhole ? kBackwardRows : rows) * kUnitColumns;
#pragma unroll
        for (uint32_t u = 0; u < kUnits; ++u) {
            if (running_[u].accepts(block[u], pivot[u], taken)) {
                running_[u].merge(block[u], taken);
            } else {
                refused |= 1u << u;
            }
        }
        // One call for all columns: each costs the registers that must be kept over it.
        if (refused != 0) {
            push_rest(rest.of, refused, rows, get);
        }
    }

    // The slow way, element by element: something is not finite, or its square does not fit. Out of line, on records in local
    // memory, so that the statistics of the usual way stay in registers.
    template <class Get>
    static __device__ __noinline__ void push_rest(GradientStats* rest, uint32_t refused, uint32_t rows, Get get)
    {
#pragma unroll 1
        for (uint32_t r = 0; r < rows; ++r) {
            const Packet<T> packet = get(r);
#pragma unroll 1
            for (uint32_t j = 0; j < kLanes; ++j) {
                if ((refused >> j / kUnitColumns & 1u) != 0) {
                    rest[j / kUnitColumns].push(lane_of(packet, j));
                }
            }
        }
    }

    static __device__ __noinline__ void finish_into(GradientStats* to, RunningGradient running, const GradientStats& rest)
    {
        *to = running.finish(rest);
    }

    RunningGradient running_[kUnits];
};

// The f64 totals of a block's threads: [4][kLanes][kWorkers], the parts of ColumnTotals apart, so that neighbouring threads use
// neighbouring banks. In registers they would be 64 of 168 for 16-bit types, and spill.
template <class T>
struct Slots {
    static constexpr uint32_t kLanes = Packet<T>::kLanes;
    static constexpr uint32_t kBytes = 4 * kLanes * kWorkers * sizeof(double);

    double* first;

    __device__ __forceinline__ explicit Slots(void* shared) : first(static_cast<double*>(shared)) {}

    __device__ __forceinline__ double& at(uint32_t part, uint32_t lane, uint32_t thread) const
    {
        return first[(part * kLanes + lane) * kWorkers + thread];
    }

    __device__ __forceinline__ ColumnTotals get(uint32_t lane, uint32_t thread) const
    {
        return {at(0, lane, thread), at(1, lane, thread), at(2, lane, thread), at(3, lane, thread)};
    }

    __device__ __forceinline__ void set(uint32_t lane, uint32_t thread, const ColumnTotals& totals) const
    {
        at(0, lane, thread) = totals.g;
        at(1, lane, thread) = totals.gx;
        at(2, lane, thread) = totals.gx_on;
        at(3, lane, thread) = totals.square;
    }
};

template <class T, Telemetry kTelemetry>
class BackwardWorker {
public:
    static constexpr uint32_t kLanes = Packet<T>::kLanes;
    static constexpr uint32_t kAll = (1u << kLanes) - 1;
    // Rows at a time: eight lanes are work enough for the pipelines by themselves.
    static constexpr uint32_t kUnroll = kLanes == 8 ? 1 : 2;
    // Eight columns' own statistics beside their programs and sums are more than there are registers: the programs are read anew
    // for every row, from the first-level cache, and every element is added to the totals at once.
    static constexpr bool kReloads = kLanes == 8 && kTelemetry == Telemetry::Column;

    // `shared` has room for the block's Slots.
    __device__ __forceinline__ BackwardWorker(const BackwardParams& p, void* shared) : slots_(shared), bounds_(*p.bounds)
    {
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            sums_[j] = ColumnSums::zero();
        }
    }

    // For the packet that begins at `first`, `columns` of whose columns are in the matrix.
    __device__ __forceinline__ void begin(const BackwardParams& p, uint32_t first, uint32_t columns, bool reads_x)
    {
        const bool has_gradients = p.grad_y != nullptr;
        const uint32_t served = has_gradients ? kCompute | kStraightThrough | kReconstruction : kReconstruction;
        bool programmed = false;
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            const uint32_t all = j < columns ? p.flags[first + j] : 0;
            const uint32_t flags = all & served;
            computed_ |= static_cast<uint32_t>((flags & kCompute) != 0) << j;
            reconstructed_ |= static_cast<uint32_t>((flags & kReconstruction) != 0) << j;
            programmed |= flags != 0;
            summed_ |= static_cast<uint32_t>(flags != 0 && (all & kAnySums) != 0) << j;
            if constexpr (!kReloads) {
                program_[j] = flags != 0 ? p.programs[first + j] : ColumnProgram::identity();
            }
        }
        programs_ = p.programs + first;
        columns_ = columns;
        work_ = !programmed       ? Work::None
            : !reads_x            ? Work::WithoutX
            : reconstructed_ == 0 ? Work::Path
                                  : Work::Any;
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            slots_.set(j, threadIdx.x, ColumnTotals::zero());
        }
    }

    // Whether the gradient that goes on is another than the one that came.
    __device__ __forceinline__ bool computes() const { return computed_ != 0; }

    // Takes up to kBackwardRows rows backward: `x(r)` and `g(r)` are the r-th packets, `put(r, packet)` takes the gradient of x where
    // this packet computes one. The first two are asked once a row, and only for what the packet's columns need.
    template <class X, class G, class Put>
    __device__ __forceinline__ void run(uint32_t rows, X x, G g, Put put)
    {
        if (work_ == Work::None) {
            return;
        }
        const bool guarded = bounds_.guarded != 0;
        if (work_ == Work::WithoutX) {
#pragma unroll(2 * kUnroll)
            for (uint32_t r = 0; r < rows; ++r) {
                put(r, without_x(g(r)));
            }
        } else if (!kReloads && work_ == Work::Path && guarded) {
#pragma unroll(kUnroll)
            for (uint32_t r = 0; r < rows; ++r) {
                put(r, path<true>(x(r), g(r)));
            }
        } else if (!kReloads && work_ == Work::Path) {
#pragma unroll(kUnroll)
            for (uint32_t r = 0; r < rows; ++r) {
                put(r, path<false>(x(r), g(r)));
            }
        } else if (guarded) {
            run_any<true>(rows, x, g, put);
        } else {
            run_any<false>(rows, x, g, put);
        }
        pending_ += rows;
        if (pending_ > kFoldRows - kBackwardRows) {
            fold();
        }
    }

    // Adds what is left of a thread that has begun.
    __device__ __forceinline__ void end()
    {
        if (pending_ > 0) {
            fold();
        }
    }

    // The block's column sums, where the tile has any. All kWorkers threads; the slots are free afterwards.
    __device__ __forceinline__ void finish(const BackwardParams& p, uint32_t tile, uint32_t group) const
    {
        if constexpr (sizeof(T) == 2) {
            // An integer sum does not depend on the order.
            const uint32_t sum = __reduce_add_sync(0xffffffffu, saturated_);
            if (sum != 0 && threadIdx.x % 32 == 0) {
                atomicAdd(p.saturated, static_cast<unsigned long long>(sum));
            }
        }
        const uint32_t wanted = p.grad_y != nullptr ? kAnySums : kReconstruction;
        if ((p.tile_flags[tile] & wanted) == 0) {
            return;
        }
        const Geometry& g = p.geometry;
        const TileSpan span = tile_span(g, tile);
        ColumnTotals* out = p.sums + static_cast<uint64_t>(group) * g.columns + span.first;
        workers_barrier();
        for (uint32_t c = threadIdx.x; c < span.columns; c += kWorkers) {
            ColumnTotals sum = slots_.get(c % kLanes, c / kLanes);
            for (uint32_t lane = 1; lane < g.row_lanes; ++lane) {
                sum.merge(slots_.get(c % kLanes, lane * g.tile_packets + c / kLanes));
            }
            out[c] = sum;
        }
        workers_barrier();
    }

private:
    enum class Work : uint32_t {
        None,      // every column is copied and has no sums
        WithoutX,  // programs that are linear, in fast mode
        Path,      // programs on path, or sums of the task gradient
        Any,       // some column's sums are those of a reconstruction
    };

    // The lane's program; of a lane without one, anything.
    __device__ __forceinline__ ColumnProgram program(uint32_t lane) const
    {
        if constexpr (!kReloads) {
            return program_[lane];
        } else {
            // Volatile: else the compiler would read all programs once and have no registers for them.
            ColumnProgram read;
            asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
                         : "=f"(read.on), "=f"(read.off), "=f"(read.bias), "=f"(read.polarity)
                         : "l"(__cvta_generic_to_global(programs_ + (lane < columns_ ? lane : 0))));
            return read;
        }
    }

    // Whether the lane's gradient is computed; lanes that are copied keep their bits.
    __device__ __forceinline__ bool is_computed(uint32_t lane) const { return (computed_ >> lane & 1u) != 0; }

    __device__ __forceinline__ Packet<T> store(float (&out)[kLanes], const float (&g)[kLanes], const Packet<T>& packet)
    {
        if (computed_ == 0) {
            return packet;
        }
        if (computed_ != kAll) {
            // What is not stored must not count as saturated either.
#pragma unroll
            for (uint32_t j = 0; j < kLanes; ++j) {
                out[j] = is_computed(j) ? out[j] : g[j];
            }
        }
        Packet<T> result;
        result.put(out, saturated_);
        if (computed_ != kAll) {
#pragma unroll
            for (uint32_t j = 0; j < kLanes; ++j) {
                if (!is_computed(j)) {
                    result.take(j, packet);
                }
            }
        }
        return result;
    }

    __device__ __forceinline__ Packet<T> without_x(const Packet<T>& packet)
    {
        float g[kLanes], out[kLanes];
        packet.get(g);
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            out[j] = backward_without_x(program(j), g[j]);
            sums_[j].add_gradient(g[j]);
        }
        return store(out, g, packet);
    }

    // The sums of a training branch on the task gradient are those of a branch on path, so both come here.
    template <bool kGuarded>
    __device__ __forceinline__ Packet<T> path(const Packet<T>& x_packet, const Packet<T>& g_packet)
    {
        const Guards<kGuarded> guards(bounds_);
        float x[kLanes], g[kLanes], out[kLanes];
        x_packet.get(x);
        g_packet.get(g);
        bool ordinary = false;
        if constexpr (kGuarded) {
            // Where neither x nor y is near a bound, as is usual, both clamps and both masks change nothing: one comparison for
            // the packet and two operations an element in place of ten. NaN fails it.
            BackwardStep step[kLanes];
            float greatest = 0.0f;
#pragma unroll
            for (uint32_t j = 0; j < kLanes; ++j) {
                const ColumnProgram program = this->program(j);
                step[j].v = guards.flush(x[j]);
                step[j].on = program.is_on(step[j].v);
                const float factor = step[j].on ? program.on : program.off;
                step[j].masked = g[j];
                step[j].grad_x = mul_rn(g[j], factor);
                greatest = maximum(greatest, maximum(fabsf(x[j]), fabsf(program.value(step[j].v, factor))));
            }
            ordinary = greatest <= guards.reach();
            if (ordinary) {
#pragma unroll
                for (uint32_t j = 0; j < kLanes; ++j) {
                    sums_[j].template add<false>(step[j]);
                    out[j] = step[j].grad_x;
                }
            }
        }
        if (!ordinary) {
#pragma unroll
            for (uint32_t j = 0; j < kLanes; ++j) {
                const BackwardStep step = backward<Pass::Path>(program(j), guards, x[j], g[j]);
                sums_[j].template add<false>(step);
                out[j] = step.grad_x;
            }
        }
        return store(out, g, g_packet);
    }

    // Columns of any kind beside one another. The squares are kept apart, so that the other ways have no registers for them.
    template <bool kGuarded, class X, class G, class Put>
    __device__ __forceinline__ void run_any(uint32_t rows, X x_of, G g_of, Put put)
    {
        const Guards<kGuarded> guards(bounds_);
        [[maybe_unused]] float square[kLanes] = {};
#pragma unroll 1
        for (uint32_t r = 0; r < rows; ++r) {
            const Packet<T> packet = g_of(r);
            float x[kLanes], g[kLanes], out[kLanes];
            x_of(r).get(x);
            packet.get(g);
#pragma unroll
            for (uint32_t j = 0; j < kLanes; ++j) {
                const BackwardStep step = (reconstructed_ >> j & 1u) != 0
                    ? backward<Pass::Reconstruction>(program(j), guards, x[j], g[j])
                    : backward<Pass::Path>(program(j), guards, x[j], g[j]);
                if constexpr (!kReloads) {
                    sums_[j].template add<false>(step);
                    square[j] = fmaf(step.masked, step.masked, square[j]);
                } else if ((summed_ >> j & 1u) != 0) {
                    ColumnSums sums = ColumnSums::zero();
                    sums.template add<true>(step);
                    ColumnTotals totals = slots_.get(j, threadIdx.x);
                    totals.fold(sums);
                    slots_.set(j, threadIdx.x, totals);
                }
                out[j] = step.grad_x;
            }
            put(r, store(out, g, packet));
        }
        if constexpr (!kReloads) {
#pragma unroll
            for (uint32_t j = 0; j < kLanes; ++j) {
                slots_.at(3, j, threadIdx.x) += static_cast<double>(square[j]);
            }
        }
    }

    __device__ __forceinline__ void fold()
    {
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            slots_.at(0, j, threadIdx.x) += static_cast<double>(sums_[j].g);
            slots_.at(1, j, threadIdx.x) += static_cast<double>(sums_[j].gx);
            slots_.at(2, j, threadIdx.x) += static_cast<double>(sums_[j].gx_on);
            sums_[j] = ColumnSums::zero();
        }
        pending_ = 0;
    }

    Slots<T> slots_;
    ColumnProgram program_[kReloads ? 1 : kLanes];
    const ColumnProgram* programs_ = nullptr;
    uint32_t columns_ = 0;
    ColumnSums sums_[kLanes];
    Bounds bounds_;
    Work work_ = Work::None;
    uint32_t computed_ = 0;       // bit j: the gradient of column j is computed
    uint32_t summed_ = 0;         // bit j: sums of column j are wanted
    uint32_t reconstructed_ = 0;  // bit j: the sums of column j are those of a reconstruction
    uint32_t pending_ = 0;        // rows in the f32 sums
    uint32_t saturated_ = 0;
};

}  // namespace kasmina::stream
