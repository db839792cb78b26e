// One thread of a streaming forward pass: a packet of columns, whose statistics and programs it keeps in registers.
#pragma once

#include "kasmina_pairs.cuh"
#include "stream_access.cuh"
#include "stream_reduce.cuh"
#if defined(KASMINA_RESIDENT)
#include "resident_merge.cuh"
#endif

namespace kasmina::stream {

enum class Mode {
    Copy,     // no column has a program
    Compute,  // some have; whether they are guarded is asked at run time
};

constexpr uint32_t kForwardBulkThreads = kWorkers + 64;

// kMost: rows at a time, at most.
template <class T, Telemetry kTelemetry, Mode kMode, uint32_t kMost>
class ForwardWorker {
public:
    static constexpr uint32_t kLanes = Packet<T>::kLanes;
    static constexpr uint32_t kUnits = kTelemetry == Telemetry::Column ? kLanes : 1;
    static constexpr uint32_t kUnitColumns = kLanes / kUnits;
    static constexpr uint32_t kAll = (1u << kLanes) - 1;

    // Statistics of what has to be counted the slow way. Not a member: its address goes to a function that is not inlined, and
    // would take the worker with it out of registers (measured: 14 µs of 165, through the second-level cache).
    struct Rest {
        ChunkStats of[kUnits];
    };

    static __device__ __forceinline__ Rest empty_rest()
    {
        Rest rest;
#pragma unroll
        for (uint32_t u = 0; u < kUnits; ++u) {
            rest.of[u] = ChunkStats::empty();
        }
        return rest;
    }

    using Plan = PacketPlan<kLanes>;

    // What a worker makes of a plan: the same for all rows and for whoever has the packet.
    struct alignas(16) Prepared {
        ColumnProgram programs[kLanes];
        float allowed;      // the greatest magnitude with which nothing is clamped and nothing overflows
        uint32_t computed;  // bit j: column j has a program
        uint32_t linear;
        uint32_t padding;
    };

    static __device__ __forceinline__ Prepared prepare(const Bounds& bounds, const Plan& plan)
    {
        Prepared made{};
        Reach reach = Reach::none();
        bool linear = true;
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            const bool computed = (plan.flags[j] & kCompute) != 0;
            made.computed |= static_cast<uint32_t>(computed) << j;
            made.programs[j] = computed ? plan.programs[j] : ColumnProgram::identity();
            reach.include(made.programs[j]);
            linear = linear && made.programs[j].is_linear();
        }
        const float greatest = Storage<T>::kGreatest;
        made.allowed = reach.allowed(bounds.guarded != 0 ? minimum(greatest, Reach::limit(bounds)) : greatest);
        made.linear = linear;
        return made;
    }

    // For a packet with this plan, which matters where columns are computed.
    __device__ __forceinline__ ForwardWorker(float dead_epsilon, const Bounds& bounds, const Plan& plan)
        : ForwardWorker(dead_epsilon, bounds, kMode == Mode::Copy ? Prepared{} : prepare(bounds, plan))
    {
    }

    __device__ __forceinline__ ForwardWorker(float dead_epsilon, const Bounds& bounds, const Prepared& prepared)
        : bounds_(bounds), dead_epsilon_(dead_epsilon)
    {
        if constexpr (kMode != Mode::Copy) {
            computed_ = prepared.computed;
            allowed_ = prepared.allowed;
            linear_ = prepared.linear != 0;
#pragma unroll
            for (uint32_t j = 0; j < kLanes; ++j) {
                program_[j] = prepared.programs[j];
            }
        }
#pragma unroll
        for (uint32_t u = 0; u < kUnits; ++u) {
            running_[u] = RunningChunk::empty();
        }
        if constexpr (kPairs) {
            dead_pair_ = pair_at_most<T>(dead_epsilon);
            tiny_pair_ = pair_at_least<T>(bounds_.epsilon);
        }
    }

    // Called once a worker has its place: statistics of eight columns lie in memory there, for with those of as many programs registers
    // would not suffice.
    __device__ __forceinline__ void settle()
    {
        if constexpr (kUnits == 8 && kMode == Mode::Compute) {
            asm volatile("" ::"l"(running_) : "memory");
        }
    }

    // Whether `transform` changes anything.
    __device__ __forceinline__ bool computes() const { return kMode != Mode::Copy && computed_ != 0; }

    // Counts up to kMost packets: `get(r)` is the r-th, `again(r)` the same once more for the slow way, from memory, so that
    // what `get` reads can stay in registers. And sees whether `transform` has to clamp any of them.
    template <class Get, class Again>
    __device__ __forceinline__ void count(uint32_t rows, Get get, Again again, Rest& rest)
    {
        if constexpr (kTelemetry != Telemetry::Off) {
            greatest_ = 0.0f;
            if (rows == kMost) {
                count_block<true>(rows, get, again, rest);
            } else if (rows > 0) {
                count_block<false>(rows, get, again, rest);
            }
        } else if constexpr (kMode == Mode::Compute) {
            greatest_ = kPairs || bounds_.guarded != 0 ? greatest(rows, get) : kInfinity;
        }
        if constexpr (kMode == Mode::Compute) {
            const bool allowed = greatest_ <= allowed_;
            care_ = bounds_.guarded != 0 ? (allowed ? Care::Flush : Care::All)
                : allowed || !kPairs     ? Care::None
                                         : Care::Overflow;
        }
    }

    // What becomes of the packets that were counted last: takes the r-th from `get(r)` and gives it to `put(r, packet)`. Columns
    // without a program keep their bits, which a conversion to f32 and back would not promise for a NaN. kWhole: there are kMost
    // of them, and `get` is cheap.
    template <bool kWhole, class Get, class Put>
    __device__ __forceinline__ void transform(uint32_t rows, Get get, Put put)
    {
        switch (care_) {
        case Care::None: transform_with<kWhole, false, true>(Guards<false>(bounds_), rows, get, put); break;
        case Care::Overflow:
            if constexpr (kPairs) {
                transform_with<kWhole, false, false>(Guards<false>(bounds_), rows, get, put);
            }
            break;
        case Care::Flush:
            if constexpr (kPairs) {
                transform_with<kWhole, true, true>(Guards<false>(bounds_), rows, get, put);
            } else {
                transform_with<kWhole, false, true>(FlushOnly(bounds_), rows, get, put);
            }
            break;
        case Care::All:
            if constexpr (kPairs) {
                transform_with<kWhole, true, false>(ClampOnly(bounds_), rows, get, put);
            } else {
                transform_with<kWhole, false, true>(Guards<true>(bounds_), rows, get, put);
            }
            break;
        }
    }

    // Counts what was seen into the block's accumulators, once. Called by all kWorkers threads; `active` ones have a packet.
    // `scratch` has room for [row_lanes][tile_packets][kUnits] records.
    __device__ __forceinline__ void flush(const ForwardParams& p, uint32_t tile, uint32_t group, bool active, ChunkStats* scratch,
                                          const Rest& rest)
    {
        if constexpr (kTelemetry != Telemetry::Off) {
            const Geometry& g = p.geometry;
#if defined(KASMINA_RESIDENT)
            resident::claim_merge();
            scratch = resident::merge_records_place<ChunkStats>();
#endif
            if (active) {
                put_records<false>(scratch + threadIdx.x * kUnits, rest);
            }
            const uint64_t block = static_cast<uint64_t>(tile) * g.groups + group;
#if defined(KASMINA_RESIDENT)
            resident::post_merge({resident::MergeKind::Chunks, kUnitColumns, g.chunk, g.tile_columns, tile_span(g, tile), g.row_lanes, 0,
                                  p.watched, p.accumulators + block * g.pieces});
#else
            named_barrier<kWorkersBarrier, kWorkers>();
            accumulate_pieces<kWorkers, kUnitColumns>(g.chunk, g.tile_columns, tile_span(g, tile), threadIdx.x, g.row_lanes, scratch,
                                                      p.watched, p.accumulators + block * g.pieces);
#endif
        }
    }

    // What was counted, to this thread's kUnits records. kInline: for whoever does it often.
    template <bool kInline>
    __device__ __forceinline__ void put_records(ChunkStats* own, const Rest& rest) const
    {
#pragma unroll
        for (uint32_t u = 0; u < kUnits; ++u) {
            if (has_rest_) {
                finish_into(own + u, running_[u], rest.of[u]);
            } else if constexpr (kInline) {
                own[u] = running_[u].finish();
            } else {
                finish_into(own + u, running_[u]);
            }
        }
    }

    // Whether something went to the `rest` that `count` was given.
    __device__ __forceinline__ bool has_rest() const { return has_rest_; }

    // Adds the outputs that did not fit. Called by whole warps, once.
    __device__ __forceinline__ void report_saturated(unsigned long long* to) const
    {
        if constexpr (kMode != Mode::Copy && sizeof(T) == 2) {
            // An integer sum does not depend on the order.
            const uint32_t sum = __reduce_add_sync(0xffffffffu, saturated_);
            if (sum != 0 && threadIdx.x % 32 == 0) {
                atomicAdd(to, static_cast<unsigned long long>(sum));
            }
        }
    }

private:
    // kFlushes: packets are flushed in pairs, before `guards`. kFits: no output can overflow.
    template <bool kWhole, bool kFlushes, bool kFits, class Guards, class Get, class Put>
    __device__ __forceinline__ void transform_with(const Guards& guards, uint32_t rows, Get get, Put put)
    {
        if (linear_) {
            transform_rows<kWhole>(rows, get, put, [&](const Packet<T>& in) { return transformed<true, kFlushes, kFits>(guards, in); });
        } else {
            transform_rows<kWhole>(rows, get, put, [&](const Packet<T>& in) { return transformed<false, kFlushes, kFits>(guards, in); });
        }
    }

    template <bool kWhole, class Get, class Put, class Change>
    __device__ __forceinline__ void transform_rows(uint32_t rows, Get get, Put put, Change change)
    {
        if constexpr (kWhole) {
#pragma unroll
            for (uint32_t r = 0; r < kMost; ++r) {
                put(r, change(get(r)));
            }
        } else {
            // Two at a time: one after the other would wait for each packet from shared memory.
#pragma unroll 2
            for (uint32_t r = 0; r < rows; ++r) {
                put(r, change(get(r)));
            }
        }
    }

    template <bool kLinear, bool kFlushes, bool kFits, class Guards>
    __device__ __forceinline__ Packet<T> transformed(const Guards& guards, const Packet<T>& packet)
    {
        Packet<T> in = packet;
        if constexpr (kFlushes) {
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i) {
                in.words[i] = flush_pair<T>(in.words[i], tiny_pair_);
            }
        }
        float value[kLanes];
        in.get(value);
        // Every lane, also one that keeps its bits: a branch for each would cost more.
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            value[j] = kLinear ? apply_linear(program_[j], guards, value[j]) : apply(program_[j], guards, value[j]);
        }
        Packet<T> out;
        if constexpr (kFits) {
            out.put_within(value);
        } else {
            if (sizeof(T) == 2 && computed_ != kAll) {
                // What is not stored must not count as saturated either: guards make an infinity the bound, which may not fit.
#pragma unroll
                for (uint32_t j = 0; j < kLanes; ++j) {
                    value[j] = computed_ & 1u << j ? value[j] : 0.0f;
                }
            }
            out.put(value, saturated_);
        }
        if (computed_ != kAll) {
#pragma unroll
            for (uint32_t j = 0; j < kLanes; ++j) {
                if (!(computed_ & 1u << j)) {
                    out.take(j, packet);
                }
            }
        }
        return out;
    }

    // The greatest magnitude of what is not counted; a NaN stays.
    template <class Get>
    __device__ __forceinline__ float greatest(uint32_t rows, Get get) const
    {
        if constexpr (kPairs) {
            PairMagnitude<T> magnitude;
#pragma unroll 2
            for (uint32_t r = 0; r < rows; ++r) {
                const Packet<T> packet = get(r);
#pragma unroll
                for (uint32_t i = 0; i < 4; ++i) {
                    magnitude.see(packet.words[i]);
                }
            }
            return magnitude.greatest();
        } else {
            float all = 0.0f;
            for (uint32_t r = 0; r < rows; ++r) {
                float value[kLanes];
                get(r).get(value);
#pragma unroll
                for (uint32_t j = 0; j < kLanes; ++j) {
                    all = maximum(all, fabsf(value[j]));
                }
            }
            return all;
        }
    }

    // 16-bit values have their extremes and dead elements counted in pairs.
    static constexpr bool kPairs = sizeof(T) == 2;
    static constexpr uint32_t kRanges = !kPairs ? 0 : kUnits == 1 ? 1 : kUnits / 2;

    struct F32Range {};
    using Range = std::conditional_t<kPairs, PairRange<std::conditional_t<kPairs, T, f16>>, F32Range>;

    struct Block {
        ChunkBlock of[kUnits];
        float pivot[kUnits];
        Range range[kPairs ? kRanges : 1];
        // Of one seed's pairs: the high halves have sums of their own, so that fewer additions wait for one another.
        ShiftedSums high;
    };


    // One packet into the blocks of its columns; the first of a block brings the pivots.
    __device__ __forceinline__ void add(Block& block, bool first, const Packet<T>& packet)
    {
        float value[kLanes];
        packet.get(value);
        if (first) {
#pragma unroll
            for (uint32_t u = 0; u < kUnits; ++u) {
                block.pivot[u] = running_[u].moments.pivot(value[u]);
                block.of[u] = ChunkBlock::empty();
            }
        }
        if constexpr (kPairs) {
#pragma unroll
            for (uint32_t i = 0; i < kRanges; ++i) {
                if (first) {
                    block.range[i] = Range::empty();
                }
            }
            if (first) {
                block.high = ShiftedSums::zero();
            }
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i) {
                block.range[i % kRanges].see(packet.words[i], dead_pair_);
            }
#pragma unroll
            for (uint32_t j = 0; j < kLanes; ++j) {
                ShiftedSums& sums = kUnits == 1 && j % 2 == 1 ? block.high : block.of[j % kUnits].sums;
                sums.add(value[j], block.pivot[j % kUnits]);
            }
        } else if constexpr (kUnits == 1) {
            block.of[0].add(value, kLanes, block.pivot[0], dead_epsilon_);
        } else {
#pragma unroll
            for (uint32_t u = 0; u < kUnits; ++u) {
                block.of[u].add(value[u], block.pivot[u], dead_epsilon_);
            }
        }
    }

    // What the pairs saw, to the units that it belongs to.
    __device__ __forceinline__ void join_pairs(Block& block) const
    {
        if constexpr (kPairs) {
            if constexpr (kUnits == 1) {
                block.of[0].sums.join(block.high);
            }
#pragma unroll
            for (uint32_t i = 0; i < kRanges; ++i) {
#pragma unroll
                for (uint32_t half = 0; half < 2; ++half) {
                    const Range& range = block.range[i];
                    block.of[(2 * i + half) % kUnits].add_range(range.lowest(half), range.highest(half), range.dead_count(half));
                }
            }
        }
    }

    template <bool kWhole, class Get, class Again>
    __device__ __forceinline__ void count_block(uint32_t rows, Get get, Again again, Rest& rest)
    {
        Block block;
        add(block, true, get(0));
        if constexpr (kWhole) {
            // All at once, unless there are so many statistics that the packets do not fit into registers beside them.
            constexpr uint32_t kAtOnce = kUnits == 8 ? 1 : kMost;
#pragma unroll kAtOnce
            for (uint32_t r = 1; r < kMost; ++r) {
                add(block, false, get(r));
            }
        } else {
            // The last rows of the matrix: rolled, for the code's size.
#pragma unroll 1
            for (uint32_t r = 1; r < rows; ++r) {
                add(block, false, get(r));
            }
        }
        join_pairs(block);
#pragma unroll
        for (uint32_t u = 0; u < kUnits; ++u) {
            const uint32_t taken = (kWhole ? kMost : rows) * kUnitColumns;
            if (running_[u].accepts(block.of[u], taken)) {
                running_[u].merge(block.of[u], taken);
                greatest_ = fmaxf(greatest_, fmaxf(-block.of[u].low, block.of[u].high));
            } else {
                greatest_ = kInfinity;
                has_rest_ = true;
                push_rest(rest.of[u], kUnits == 1 ? kLanes : u, rows, dead_epsilon_, again);
            }
        }
    }

    // The slow way, element by element: something is not finite, or its square does not fit. Out of line, on a record in local
    // memory, so that the statistics of the usual way stay in registers.
    template <class Again>
    static __device__ __noinline__ void push_rest(ChunkStats& rest, uint32_t lane, uint32_t rows, float dead_epsilon,
                                                  Again again)
    {
#pragma unroll 1
        for (uint32_t r = 0; r < rows; ++r) {
            const Packet<T> packet = again(r);
#pragma unroll 1
            for (uint32_t j = lane == kLanes ? 0 : lane; j < (lane == kLanes ? kLanes : lane + 1); ++j) {
                rest.push(lane_of(packet, j), dead_epsilon);
            }
        }
    }

    // Out of line: these happen once.
    static __device__ __noinline__ void finish_into(ChunkStats* to, RunningChunk running) { *to = running.finish(); }

    static __device__ __noinline__ void finish_into(ChunkStats* to, RunningChunk running, const ChunkStats& rest)
    {
        *to = running.finish(rest);
    }

    RunningChunk running_[kUnits];
    ColumnProgram program_[kLanes];
    Bounds bounds_{};
    uint32_t computed_ = 0;  // bit j: column j has a program
    uint32_t saturated_ = 0;
    float dead_epsilon_;
    uint32_t dead_pair_ = 0;  // the same as `PairRange` takes it
    uint32_t tiny_pair_ = 0;  // ε as `flush_pair` takes it
    // What is left to care for in the block that was counted last: fast mode's outputs may still overflow their type; of guarded
    // ones the flush, or all.
    enum class Care : uint32_t { None, Overflow, Flush, All } care_ = Care::All;
    // The greatest magnitude in it; infinite where something is not finite.
    float greatest_ = 0.0f;
    // The greatest magnitude with which nothing is clamped and nothing overflows.
    float allowed_ = -1.0f;
    bool linear_ = true;
    bool has_rest_ = false;
};

}  // namespace kasmina::stream
