// One thread of a streaming backward pass: a packet of columns, whose programs, sums over some rows and gradient statistics it
// keeps in registers while it walks rows, and whose totals it keeps in shared memory.
#pragma once

#include "kasmina_pairs.cuh"
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
constexpr uint32_t kAnySumG = kSumG | kStraightThrough | kReconstruction;
constexpr uint32_t kAnySumGx = kSumGx | kStraightThrough | kReconstruction;
constexpr uint32_t kAnySums = kAnySumG | kAnySumGx;
constexpr uint32_t kAnyX = kNeedsX | kStraightThrough | kReconstruction;

// Rows that a thread takes at a time, at most.
constexpr uint32_t kBackwardRows = 4;
// Threads of the bulk kernels that count, beside kWorkers that do not.
constexpr uint32_t kCounters = 128;

// Threads of a block of the bulk kernels: workers, counters, and a warp that loads and one that stores.
template <Telemetry kTelemetry>
constexpr uint32_t kBackwardBulkThreads = kWorkers + (kTelemetry == Telemetry::Off ? 0 : kCounters) + 64;
// Rows that are summed in f32 before they are folded into f64.
constexpr uint32_t kFoldRows = 32;

// What a block does with its tile; the same for all of its threads.
struct TileTask {
    uint32_t tile;
    uint32_t group;
    TileSpan span;
    bool reads_x;
    bool reads_g;      // and writes the gradient of x
    bool changed;      // some column's gradient is computed, not copied
    bool has_sums;     // some column's sums are wanted
    uint32_t rows_of_stage;
    uint32_t row_blocks;  // 0 where there is nothing to do

    __device__ __forceinline__ TileTask(const BackwardParams& p, uint32_t block)
    {
        const Geometry& g = p.geometry;
        tile = block % g.tiles;
        group = block / g.tiles;
        span = tile_span(g, tile);
        const uint32_t flags = p.tile_flags[tile];
        reads_g = p.grad_y != nullptr;
        reads_x = (flags & (reads_g ? kAnyX : kReconstruction)) != 0;
        changed = reads_g && (flags & kCompute) != 0;
        has_sums = (flags & (reads_g ? kAnySums : kReconstruction)) != 0;
        rows_of_stage = g.lane_rows * g.row_lanes;
        row_blocks = reads_g || reads_x ? ceil_div(g.rows, rows_of_stage) : 0;
    }
};

// A block's own accumulators, one for each chunk that its tile has a part of.
__device__ __forceinline__ GradientStats* accumulators_of(const BackwardParams& p, const TileTask& task)
{
    return p.accumulators + (uint64_t(task.tile) * p.geometry.groups + task.group) * p.geometry.pieces;
}

// Statistics of what passes through a thread, on the raw output gradient. kApart: the thread does nothing else, and so has
// registers for more.
template <class T, Telemetry kTelemetry, bool kApart>
class GradientCounter {
public:
    // Rows at a time, at most.
    static constexpr uint32_t kRows = kApart ? 8 : kBackwardRows;
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
            // Not in registers: with those of eight columns' programs and sums, or with a block of as many, they would not suffice.
            asm volatile("" ::"l"(running_) : "memory");
        }
    }

    // Counts up to kRows packets: `get(r)` is the r-th, as often as it is asked for.
    template <class Get>
    __device__ __forceinline__ void count(uint32_t rows, Get get, Rest& rest)
    {
        if constexpr (kTelemetry != Telemetry::Off) {
            if constexpr (kUnits == 8) {
                // Blocks of eight columns are more than there are registers: four at a time, a row at a time.
                if (rows > 0) {
                    count_block<false, 0, 4>(rows, get, rest);
                    count_block<false, 4, 4>(rows, get, rest);
                }
            } else if (rows == kRows) {
                count_block<true, 0, kUnits>(rows, get, rest);
            } else if (rows > 0) {
                count_block<false, 0, kUnits>(rows, get, rest);
            }
        }
    }

    // Counts what was seen into the block's accumulators, once. Called by kThreads threads, which have the barrier to themselves;
    // `active` ones have a packet, and there are `lanes` for each. `scratch` has room for [lanes][tile_packets][kUnits] records.
    template <uint32_t kBarrier, uint32_t kThreads>
    __device__ __forceinline__ void flush(const BackwardParams& p, const TileTask& task, uint32_t thread, bool active, uint32_t lanes,
                                          GradientStats* scratch, const Rest& rest) const
    {
        if constexpr (kTelemetry != Telemetry::Off) {
            if (active) {
#pragma unroll
                for (uint32_t u = 0; u < kUnits; ++u) {
                    GradientStats& record = scratch[thread * kUnits + u];
                    if (has_rest_) {
                        finish_into(&record, running_[u], rest.of[u]);
                    } else {
                        finish_into(&record, running_[u]);
                    }
                }
            }
            named_barrier<kBarrier, kThreads>();
            accumulate_pieces<kThreads, kUnitColumns>(p.geometry.chunk, p.geometry.tile_columns, task.span, thread, lanes, scratch,
                                                      p.watched, accumulators_of(p, task));
        }
    }

private:
    // 16-bit values of one seed have their greatest magnitude found in pairs.
    static constexpr bool kPairs = sizeof(T) == 2 && kUnits == 1;

    // Of kCount units from kFirst on.
    template <uint32_t kFirst, uint32_t kCount>
    struct Block {
        GradientBlock of[kCount];
        float pivot[kCount];
        // Of pairs: the high halves have sums of their own, so that fewer additions wait for one another.
        ShiftedSums high;
        PairMagnitude<std::conditional_t<kPairs, T, f16>> magnitude;
    };

    // One packet into the blocks of its columns; the first of a block brings the pivots.
    template <uint32_t kFirst, uint32_t kCount>
    __device__ __forceinline__ void add(Block<kFirst, kCount>& block, bool first, const Packet<T>& packet)
    {
        float value[kLanes];
        packet.get(value);
        if (first) {
#pragma unroll
            for (uint32_t u = 0; u < kCount; ++u) {
                block.pivot[u] = running_[kFirst + u].moments.pivot(value[kFirst + u]);
                block.of[u] = GradientBlock::empty();
            }
            block.high = ShiftedSums::zero();
            block.magnitude = {};
        }
        if constexpr (kPairs) {
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i) {
                block.magnitude.see(packet.words[i]);
            }
#pragma unroll
            for (uint32_t j = 0; j < kLanes; j += 2) {
                block.of[0].sums.add(value[j], block.pivot[0]);
                block.high.add(value[j + 1], block.pivot[0]);
            }
        } else if constexpr (kUnits == 1) {
            block.of[0].add(value, kLanes, block.pivot[0]);
        } else {
#pragma unroll
            for (uint32_t u = 0; u < kCount; ++u) {
                block.of[u].add(value[kFirst + u], block.pivot[u]);
            }
        }
    }

    template <bool kWhole, uint32_t kFirst, uint32_t kCount, class Get>
    __device__ __forceinline__ void count_block(uint32_t rows, Get get, Rest& rest)
    {
        Block<kFirst, kCount> block;
        add(block, true, get(0));
        if constexpr (kWhole) {
#pragma unroll
            for (uint32_t r = 1; r < kRows; ++r) {
                add(block, false, get(r));
            }
        } else {
            // The last rows of the matrix: rolled, for the code's size.
#pragma unroll 1
            for (uint32_t r = 1; r < rows; ++r) {
                add(block, false, get(r));
            }
        }
        if constexpr (kPairs) {
            block.of[0].sums.join(block.high);
            block.of[0].max_abs = block.magnitude.greatest();
        }
        uint32_t refused = 0;
        const uint32_t taken = (kWhole ? kRows : rows) * kUnitColumns;
#pragma unroll
        for (uint32_t u = 0; u < kCount; ++u) {
            if (running_[kFirst + u].accepts(block.of[u], block.pivot[u], taken)) {
                running_[kFirst + u].merge(block.of[u], taken);
            } else {
                refused |= 1u << (kFirst + u);
            }
        }
        // One call for all columns: each costs the registers that must be kept over it.
        if (refused != 0) {
            push_rest(rest.of, refused, rows, get);
            has_rest_ = true;
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

    // Out of line: these happen once.
    static __device__ __noinline__ void finish_into(GradientStats* to, RunningGradient running) { *to = running.finish(); }

    static __device__ __noinline__ void finish_into(GradientStats* to, RunningGradient running, const GradientStats& rest)
    {
        *to = running.finish(rest);
    }

    RunningGradient running_[kUnits];
    bool has_rest_ = false;
};

// The f64 totals of a block's threads: [3][kLanes][kWorkers], the parts of ColumnTotals apart, so that neighbouring
// threads use neighbouring banks. In registers they would be 48 of 128 for 16-bit types, and spill.
template <class T>
struct Slots {
    static constexpr uint32_t kLanes = Packet<T>::kLanes;
    static constexpr uint32_t kBytes = 3 * kLanes * kWorkers * sizeof(double);

    double* first;

    __device__ __forceinline__ explicit Slots(void* shared) : first(static_cast<double*>(shared)) {}

    __device__ __forceinline__ double& at(uint32_t part, uint32_t lane, uint32_t thread) const
    {
        return first[(part * kLanes + lane) * kWorkers + thread];
    }

    __device__ __forceinline__ ColumnTotals get(uint32_t lane, uint32_t thread) const
    {
        return {at(0, lane, thread), at(1, lane, thread), at(2, lane, thread)};
    }

    __device__ __forceinline__ void set(uint32_t lane, uint32_t thread, const ColumnTotals& totals) const
    {
        at(0, lane, thread) = totals.g;
        at(1, lane, thread) = totals.gx;
        at(2, lane, thread) = totals.gx_on;
    }
};

// How far x and dL/dy of a packet's columns may be from 0 so that clamps and masks change nothing, no product overflows, and every
// gradient is finite.
struct PacketReach {
    float gain;     // the greatest factor
    float allowed;  // the greatest |x|; infinite where nothing is guarded

    PacketReach() = default;

    __device__ __forceinline__ PacketReach(const Reach& reach, const Bounds& bounds)
        : gain(reach.gain), allowed(bounds.guarded != 0 ? reach.allowed(Reach::limit(bounds)) : kInfinity)
    {
    }

    // Whether `rows` packets x(r) and g(r), up to kBackwardRows, are within it.
    template <class T, class X, class G>
    __device__ __forceinline__ bool passes(uint32_t rows, X x, G g) const
    {
        return greatest_of<T>(rows, g) * gain <= Storage<T>::kGreatest && (allowed == kInfinity || greatest_of<T>(rows, x) <= allowed);
    }

private:
    // The greatest magnitude; a NaN stays. Of the even and of the odd words apart, so that fewer comparisons wait for one another.
    template <class T, class Get>
    static __device__ __forceinline__ float greatest_of(uint32_t rows, Get get)
    {
        [[maybe_unused]] PairMagnitude<std::conditional_t<sizeof(T) == 2, T, f16>> pair[2];
        [[maybe_unused]] float all[2] = {0.0f, 0.0f};
#pragma unroll
        for (uint32_t r = 0; r < kBackwardRows; ++r) {
            if (r >= rows) {
                break;
            }
            const Packet<T> packet = get(r);
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i) {
                if constexpr (sizeof(T) == 2) {
                    pair[i % 2].see(packet.words[i]);
                } else {
                    all[i % 2] = maximum(all[i % 2], fabsf(float_of(packet.words[i])));
                }
            }
        }
        if constexpr (sizeof(T) == 2) {
            return maximum(pair[0].greatest(), pair[1].greatest());
        } else {
            return maximum(all[0], all[1]);
        }
    }
};

// The sums are kept in terms of u, which is x with the sign of the column's polarity: it is on where u > 0, and Σg·x is Σg·u with
// that sign, which they get when they are folded. So polarities need no registers but for their signs.
template <class T, Telemetry kTelemetry>
class BackwardWorker {
public:
    static constexpr uint32_t kLanes = Packet<T>::kLanes;
    static constexpr uint32_t kAll = (1u << kLanes) - 1;
    static constexpr bool kPairs = sizeof(T) == 2;
    // Rows at a time: eight lanes are work enough for the pipelines by themselves.
    static constexpr uint32_t kUnroll = kPairs ? 1 : 2;
    // Eight columns' own statistics beside their programs and sums are more than there are registers: the programs are read anew
    // for every row, from the first-level cache, and every element is added to the totals at once.
    static constexpr bool kReloads = kLanes == 8 && kTelemetry == Telemetry::Column;

    // For a packet of which `columns` columns are in the matrix. `shared` has room for the block's Slots.
    __device__ __forceinline__ BackwardWorker(const Bounds& bounds, void* shared, const PacketPlan<kLanes>& plan, uint32_t columns,
                                              const TileTask& task)
        : slots_(shared)
    {
        const uint32_t served = task.reads_g ? kCompute | kStraightThrough | kReconstruction : kReconstruction;
        bool programmed = false;
        Reach reach = Reach::none();
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            const uint32_t all = plan.flags[j];
            const uint32_t flags = all & served;
            const ColumnProgram program = flags != 0 ? plan.programs[j] : ColumnProgram::identity();
            programmed |= flags != 0;
            reach.include(program);
            set((flags & kCompute) != 0, kComputed + j);
            set((flags & kReconstruction) != 0, kReconstructed + j);
            set(flags != 0 && (all & kAnySumG) != 0, kWantsG);
            set(flags != 0 && (all & kAnySumGx) != 0, kWantsGx);
            // Without a polarity, or with a NaN for one, nothing is on.
            const bool never = !(fabsf(program.polarity) > 0.0f);
            set(never, kNeverOn + j);
            if constexpr (!kReloads) {
                on_[j] = never ? program.off : program.on;
                off_[j] = program.off;
                signs_[j * sizeof(T) / 4] |= program.polarity < 0.0f ? 0x8000u << (sizeof(T) == 4 || j % 2 == 1 ? 16 : 0) : 0;
            }
        }
        set(bounds.guarded != 0, kIsGuarded);
        const bool reconstructs = (traits_ >> kReconstructed & kAll) != 0;
        work_ = !programmed ? Work::None : !task.reads_x ? Work::WithoutX : reconstructs ? Work::Any : Work::Path;
        reach_ = PacketReach(reach, bounds);
        if constexpr (kPairs) {
            tiny_ = pair_at_least<T>(bounds.epsilon);
        } else {
            tiny_ = bits_of(bounds.epsilon);
        }
        columns_ = columns;
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            sums_[j] = ColumnSums::zero();
            slots_.set(j, threadIdx.x, ColumnTotals::zero());
        }
    }

    // Takes up to kBackwardRows rows backward: `x(r)` and `g(r)` are the r-th packets, `put(r, packet)` takes the gradient of x. The
    // first two are asked for what the packet's columns need, before `put` of that row. `programs` are those of the packet.
    template <class X, class G, class Put>
    __device__ __forceinline__ void run(const BackwardParams& p, const ColumnProgram* programs, uint32_t rows, X x, G g, Put put)
    {
        if (work_ == Work::None) {
#pragma unroll 2
            for (uint32_t r = 0; r < rows; ++r) {
                put(r, g(r));
            }
            return;
        } else if (work_ == Work::WithoutX) {
#pragma unroll(2 * kUnroll)
            for (uint32_t r = 0; r < rows; ++r) {
                put(r, without_x(programs, g(r)));
            }
        } else if (kReloads || work_ == Work::Any) {
            is(kIsGuarded) ? run_any<true>(p, programs, rows, x, g, put) : run_any<false>(p, programs, rows, x, g, put);
        } else if (!run_usual(rows, x, g, put)) {
            is(kIsGuarded) ? run_path<true>(p, programs, rows, x, g, put) : run_path<false>(p, programs, rows, x, g, put);
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

    // The block's column sums, where the tile has any. All kWorkers threads; the slots are free when all of them are back.
    __device__ __forceinline__ void finish(const BackwardParams& p, const TileTask& task) const
    {
        if constexpr (sizeof(T) == 2) {
            // An integer sum does not depend on the order.
            const uint32_t sum = __reduce_add_sync(0xffffffffu, saturated_);
            if (sum != 0 && threadIdx.x % 32 == 0) {
                atomicAdd(p.saturated, static_cast<unsigned long long>(sum));
            }
        }
        if (!task.has_sums) {
            return;
        }
        const Geometry& g = p.geometry;
        const TileSpan span = task.span;
        named_barrier<kWorkersBarrier, kWorkers>();
        // Neighbouring threads add up neighbouring packets, which lie in neighbouring banks, into the places of the first row lane...
        for (uint32_t i = threadIdx.x; i < g.tile_packets * kLanes; i += kWorkers) {
            const uint32_t packet = i % g.tile_packets, j = i / g.tile_packets;
            ColumnTotals sum = slots_.get(j, packet);
            for (uint32_t lane = 1; lane < g.row_lanes; ++lane) {
                sum.merge(slots_.get(j, lane * g.tile_packets + packet));
            }
            slots_.set(j, packet, sum);
        }
        named_barrier<kWorkersBarrier, kWorkers>();
        // ...and write neighbouring numbers.
        constexpr uint32_t kParts = sizeof(ColumnTotals) / sizeof(double);
        auto* out = reinterpret_cast<double*>(p.sums + static_cast<uint64_t>(task.group) * g.columns + span.first);
        for (uint32_t i = threadIdx.x; i < span.columns * kParts; i += kWorkers) {
            const uint32_t column = i / kParts;
            out[i] = slots_.at(i % kParts, column % kLanes, column / kLanes);
        }
    }

private:
    enum class Work : uint32_t {
        None,      // every column is copied and has no sums
        WithoutX,  // programs that are linear, in fast mode
        Path,      // programs on path, or sums of the task gradient
        Any,       // some column's sums are those of a reconstruction
    };

    // Bits of `traits_`: of each column whether its gradient is computed, whether its sums are those of a reconstruction, and whether
    // it has no polarity; whether any column wants Σg, or the other two sums; whether values are guarded.
    enum Trait : uint32_t { kComputed = 0, kReconstructed = 8, kNeverOn = 16, kWantsG = 24, kWantsGx = 25, kIsGuarded = 26 };

    __device__ __forceinline__ void set(bool value, uint32_t trait) { traits_ |= static_cast<uint32_t>(value) << trait; }

    __device__ __forceinline__ uint32_t traits() const
    {
        uint32_t all = traits_;
        if constexpr (kPairs) {
            // Else the compiler takes the bits apart once and keeps each, for which there are no registers.
            asm volatile("" : "+r"(all));
        }
        return all;
    }

    __device__ __forceinline__ bool is(uint32_t trait) const { return (traits() >> trait & 1u) != 0; }

    __device__ __forceinline__ uint32_t computed() const { return traits() >> kComputed & kAll; }

    // The lane's program, from the first-level cache; of a lane without one, anything.
    __device__ __forceinline__ ColumnProgram program(const ColumnProgram* programs, uint32_t lane) const
    {
        // Volatile: else the compiler would read all programs once and have no registers for them.
        ColumnProgram read;
#if defined(KASMINA_RESIDENT)
#define KASMINA_LOAD_SETTLED "ld.global.v4.f32 {%0, %1, %2, %3}, [%4];"
#else
#define KASMINA_LOAD_SETTLED "ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
#endif
        asm volatile(KASMINA_LOAD_SETTLED
                     : "=f"(read.on), "=f"(read.off), "=f"(read.bias), "=f"(read.polarity)
                     : "l"(__cvta_generic_to_global(programs + (lane < columns_ ? lane : 0))));
        return read;
    }

    // x with the sign of the lane's polarity.
    __device__ __forceinline__ float with_sign(float x, uint32_t lane) const
    {
        uint32_t word = signs_[lane * sizeof(T) / 4];
        if constexpr (kPairs) {
            // Else the compiler keeps the signs of all columns, for which there are no registers.
            asm volatile("" : "+r"(word));
        }
        return float_of(bits_of(x) ^ ((sizeof(T) == 4 || lane % 2 == 1 ? word : word << 16) & 0x80000000u));
    }

    // What becomes of a packet: `out` in columns that are computed.
    __device__ __forceinline__ Packet<T> result_of(float (&out)[kLanes], const Packet<T>& packet)
    {
        if (computed() == 0) {
            return packet;
        }
        if (computed() != kAll) {
            // What is not stored must not count as saturated either.
#pragma unroll
            for (uint32_t j = 0; j < kLanes; ++j) {
                out[j] = is(kComputed + j) ? out[j] : 0.0f;
            }
        }
        Packet<T> result;
        result.put(out, saturated_);
        if (computed() != kAll) {
            take_copied(result, packet);
        }
        return result;
    }

    __device__ __forceinline__ void take_copied(Packet<T>& result, const Packet<T>& packet) const
    {
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            if (!is(kComputed + j)) {
                result.take(j, packet);
            }
        }
    }

    __device__ __forceinline__ Packet<T> without_x(const ColumnProgram* programs, const Packet<T>& packet)
    {
        float g[kLanes], out[kLanes];
        packet.get(g);
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            out[j] = mul_rn(g[j], kReloads ? program(programs, j).on : off_[j]);
            sums_[j].add_gradient(g[j]);
        }
        return result_of(out, packet);
    }

    // A branch on path element by element, with all guards and whatever the gradients are. The sums of a training branch on the
    // task gradient are those of a branch on path, so both come here.
    template <bool kGuarded, class X, class G, class Put>
    __device__ __forceinline__ void run_path(const BackwardParams& p, const ColumnProgram* programs, uint32_t rows, X x_of, G g_of,
                                             Put put)
    {
        const Guards<kGuarded> guards(load_bounds(p.bounds));
#pragma unroll 1
        for (uint32_t r = 0; r < rows; ++r) {
            const Packet<T> packet = g_of(r);
            float x[kLanes], g[kLanes], out[kLanes];
            x_of(r).get(x);
            packet.get(g);
#pragma unroll
            for (uint32_t j = 0; j < kLanes; ++j) {
                const BackwardStep step = backward<Pass::Path>(program(programs, j), guards, x[j], g[j]);
                add_step(j, step);
                out[j] = step.grad_x;
            }
            put(r, result_of(out, packet));
        }
    }

    // The usual case of the same: gradients fit and neither x nor y is near a bound, so that clamps and masks change nothing. Answers
    // whether it was that; if not, nothing was done.
    template <class X, class G, class Put>
    __device__ __forceinline__ bool run_usual(uint32_t rows, X x_of, G g_of, Put put)
    {
        if (!reach_.template passes<T>(rows, x_of, g_of)) {
            return false;
        }
        if (!is(kIsGuarded)) {
            run_rows<false, true, true, true>(rows, x_of, g_of, put);
            return true;
        }
        if (computed() != kAll) {
            run_rows<true, true, true, true>(rows, x_of, g_of, put);
        } else if (is(kWantsG)) {
            is(kWantsGx) ? run_rows<true, false, true, true>(rows, x_of, g_of, put) : run_rows<true, false, true, false>(rows, x_of, g_of, put);
        } else {
            is(kWantsGx) ? run_rows<true, false, false, true>(rows, x_of, g_of, put) : run_rows<true, false, false, false>(rows, x_of, g_of, put);
        }
        return true;
    }

    // kMixed: some columns may be computed and some copied. Sums that are not gathered are not wanted.
    template <bool kGuarded, bool kMixed, bool kG, bool kGx, class X, class G, class Put>
    __device__ __forceinline__ void run_rows(uint32_t rows, X x_of, G g_of, Put put)
    {
#pragma unroll(kUnroll)
        for (uint32_t r = 0; r < rows; ++r) {
            const Packet<T> packet = g_of(r);
            float u[kLanes], g[kLanes], out[kLanes];
            signed_input<kGuarded>(x_of(r)).get(u);
            packet.get(g);
#pragma unroll
            for (uint32_t j = 0; j < kLanes; ++j) {
                out[j] = mul_rn(g[j], u[j] > 0.0f ? on_[j] : off_[j]);
                if constexpr (kG) {
                    sums_[j].add_gradient(g[j]);
                }
                if constexpr (kGx) {
                    sums_[j].add_products(g[j], u[j]);
                }
            }
            Packet<T> result;
            result.put_within(out);
            if constexpr (kMixed) {
                if (computed() != kAll) {
                    take_copied(result, packet);
                }
            }
            put(r, result);
        }
    }

    // x, flushed where it is guarded, with the signs of the polarities.
    template <bool kGuarded>
    __device__ __forceinline__ Packet<T> signed_input(const Packet<T>& x) const
    {
        Packet<T> u;
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            uint32_t word = x.words[i];
            if constexpr (kGuarded && kPairs) {
                word = flush_pair<T>(word, tiny_);
            } else if constexpr (kGuarded) {
                word = fabsf(float_of(word)) >= float_of(tiny_) ? word : 0;
            }
            u.words[i] = word ^ signs_[i];
        }
        return u;
    }

    __device__ __forceinline__ void add_step(uint32_t lane, const BackwardStep& step)
    {
        sums_[lane].add(step.masked, with_sign(step.v, lane), step.on);
    }

    // Columns of any kind beside one another.
    template <bool kGuarded, class X, class G, class Put>
    __device__ __forceinline__ void run_any(const BackwardParams& p, const ColumnProgram* programs, uint32_t rows, X x_of, G g_of,
                                            Put put)
    {
        const Guards<kGuarded> guards(load_bounds(p.bounds));
#pragma unroll 1
        for (uint32_t r = 0; r < rows; ++r) {
            const Packet<T> packet = g_of(r);
            float x[kLanes], g[kLanes], out[kLanes];
            x_of(r).get(x);
            packet.get(g);
#pragma unroll
            for (uint32_t j = 0; j < kLanes; ++j) {
                const BackwardStep step = is(kReconstructed + j)
                    ? backward<Pass::Reconstruction>(program(programs, j), guards, x[j], g[j])
                    : backward<Pass::Path>(program(programs, j), guards, x[j], g[j]);
                if constexpr (!kReloads) {
                    add_step(j, step);
                } else if (is(kWantsG) || is(kWantsGx)) {
                    ColumnSums sums = ColumnSums::zero();
                    sums.add(step.masked, step.v, step.on);
                    ColumnTotals totals = slots_.get(j, threadIdx.x);
                    totals.fold(sums);
                    slots_.set(j, threadIdx.x, totals);
                }
                out[j] = step.grad_x;
            }
            put(r, result_of(out, packet));
        }
    }

    __device__ __forceinline__ void fold()
    {
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            const ColumnSums& sums = sums_[j];
            const float on = is(kNeverOn + j) ? 0.0f : sums.gx_on;
            slots_.at(0, j, threadIdx.x) += static_cast<double>(sums.g);
            slots_.at(1, j, threadIdx.x) += static_cast<double>(with_sign(sums.gx, j));
            slots_.at(2, j, threadIdx.x) += static_cast<double>(with_sign(on, j));
            sums_[j] = ColumnSums::zero();
        }
        pending_ = 0;
    }

    Slots<T> slots_;
    // Of the programs what every row needs.
    float on_[kLanes];
    float off_[kLanes];
    uint32_t signs_[4] = {};  // as they lie in a packet
    ColumnSums sums_[kLanes];
    PacketReach reach_;
    uint32_t tiny_;          // ε; of 16-bit types as `flush_pair` takes it
    Work work_;
    uint32_t columns_;
    uint32_t traits_ = 0;
    uint32_t pending_ = 0;   // rows in the f32 sums
    uint32_t saturated_ = 0;
};

}  // namespace kasmina::stream
