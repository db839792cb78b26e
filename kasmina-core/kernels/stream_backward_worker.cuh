// One thread of a streaming backward pass: a packet of columns, whose programs, sums over some rows and gradient statistics it
// keeps in registers while it walks rows, and whose totals it keeps in shared memory.
#pragma once

#include "kasmina_pairs.cuh"
#include "stream_access.cuh"
#include "stream_backward_counter.cuh"
#include "stream_backward_reach.cuh"

namespace kasmina::stream {

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

    // Adds the gradients that did not fit. Called by whole warps, once.
    __device__ __forceinline__ void report_saturated(unsigned long long* to) const
    {
        if constexpr (sizeof(T) == 2) {
            // An integer sum does not depend on the order.
            const uint32_t sum = __reduce_add_sync(0xffffffffu, saturated_);
            if (sum != 0 && threadIdx.x % 32 == 0) {
                atomicAdd(to, static_cast<unsigned long long>(sum));
            }
        }
    }

    // The block's column sums, where the tile has any. All threads that work; the slots are free when all of them are back.
    __device__ __forceinline__ void finish(const BackwardParams& p, const TileTask& task) const
    {
        report_saturated(p.saturated);
        if (!task.has_sums) {
            return;
        }
        const Geometry& g = p.geometry;
        const TileSpan span = task.span;
        named_barrier<kWorkersBarrier, kBlockThreads>();
        // Neighbouring threads add up neighbouring packets, which lie in neighbouring banks, into the places of the first row lane...
        for (uint32_t i = threadIdx.x; i < g.tile_packets * kLanes; i += kBlockThreads) {
            const uint32_t packet = i % g.tile_packets, j = i / g.tile_packets;
            ColumnTotals sum = slots_.get(j, packet);
            for (uint32_t lane = 1; lane < g.row_lanes; ++lane) {
                sum.merge(slots_.get(j, lane * g.tile_packets + packet));
            }
            slots_.set(j, packet, sum);
        }
        named_barrier<kWorkersBarrier, kBlockThreads>();
        // ...and write neighbouring numbers.
        constexpr uint32_t kParts = sizeof(ColumnTotals) / sizeof(double);
        auto* out = reinterpret_cast<double*>(p.sums + static_cast<uint64_t>(task.group) * g.columns + span.first);
        for (uint32_t i = threadIdx.x; i < span.columns * kParts; i += kBlockThreads) {
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
        asm volatile(KASMINA_LOAD_SETTLED ".v4.f32 {%0, %1, %2, %3}, [%4];"
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
