// Statistics of dL/dy in a streaming backward pass: what a thread counts, and how it leaves the block.
#pragma once

#if defined(KASMINA_RESIDENT)
#include "resident_merge.cuh"
#endif
#include "kasmina_pairs.cuh"
#include "stream_backward_task.cuh"

namespace kasmina::stream {

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
#if defined(KASMINA_RESIDENT)
            resident::claim_merge();
            scratch = resident::merge_records_place<GradientStats>();
#endif
            if (active) {
                put_records<false>(scratch + thread * kUnits, rest);
            }
#if defined(KASMINA_RESIDENT)
            resident::post_merge({resident::MergeKind::Gradients, kUnitColumns, p.geometry.chunk, p.geometry.tile_columns, task.span, lanes, 0,
                                  p.watched, accumulators_of(p, task)});
#else
            named_barrier<kBarrier, kThreads>();
            accumulate_pieces<kThreads, kUnitColumns>(p.geometry.chunk, p.geometry.tile_columns, task.span, thread, lanes, scratch,
                                                      p.watched, accumulators_of(p, task));
#endif
        }
    }

    // What was counted, to this thread's kUnits records. kInline: for whoever does it often.
    template <bool kInline>
    __device__ __forceinline__ void put_records(GradientStats* own, const Rest& rest) const
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

}  // namespace kasmina::stream
