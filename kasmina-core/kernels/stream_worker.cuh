// One thread of a streaming forward pass: a packet of columns, whose statistics and programs it keeps in registers.
#pragma once

#include "kasmina_element.cuh"
#include "stream_reduce.cuh"

namespace kasmina::stream {

enum class Telemetry {
    Off,
    Packet,  // all columns of a packet belong to one chunk
    Column,  // any chunk: statistics for each column, and more registers
};

enum class Mode {
    Copy,     // no column has a program
    Compute,  // some have; whether they are guarded is asked at run time
};

template <class T, Telemetry kTelemetry, Mode kMode>
class ForwardWorker {
public:
    static constexpr uint32_t kLanes = Packet<T>::kLanes;
    static constexpr uint32_t kUnits = kTelemetry == Telemetry::Column ? kLanes : 1;
    static constexpr uint32_t kUnitColumns = kLanes / kUnits;
    static constexpr uint32_t kAll = (1u << kLanes) - 1;

    __device__ __forceinline__ explicit ForwardWorker(const ForwardParams& p)
        : bounds_(kMode == Mode::Compute ? *p.bounds : Bounds{}), dead_epsilon_(p.dead_epsilon)
    {
#pragma unroll
        for (uint32_t u = 0; u < kUnits; ++u) {
            running_[u] = RunningChunk::empty();
            rest_[u] = ChunkStats::empty();
        }
    }

    // For the packet that begins at `first`, `columns` of whose columns are in the matrix.
    __device__ __forceinline__ void begin(const ForwardParams& p, uint32_t first, uint32_t columns)
    {
        if constexpr (kMode != Mode::Copy) {
#pragma unroll
            for (uint32_t j = 0; j < kLanes; ++j) {
                const bool computed = j < columns && (p.flags[first + j] & kCompute) != 0;
                computed_ |= static_cast<uint32_t>(computed) << j;
                program_[j] = computed ? p.programs[first + j] : ColumnProgram::identity();
            }
        }
    }

    // Whether `transform` changes anything.
    __device__ __forceinline__ bool computes() const { return kMode != Mode::Copy && computed_ != 0; }

    // Counts up to kRows packets: `get(r)` is the r-th, `again(r)` the same once more for the slow way, from memory, so that
    // what `get` reads can stay in registers.
    template <class Get, class Again>
    __device__ __forceinline__ void count(uint32_t rows, Get get, Again again)
    {
        if constexpr (kTelemetry != Telemetry::Off) {
            if (rows == kRows) {
                count_block<true>(rows, get, again);
            } else if (rows > 0) {
                count_block<false>(rows, get, again);
            }
        }
    }

    // What becomes of a packet. Columns without a program keep their bits, which a conversion to f32 and back would not
    // promise for a NaN.
    __device__ __forceinline__ Packet<T> transform(Packet<T> packet)
    {
        float value[kLanes];
        packet.get(value);
        if (bounds_.guarded != 0) {
            apply_all(Guards<true>(bounds_), value);
        } else {
            apply_all(Guards<false>(bounds_), value);
        }
        Packet<T> out;
        out.put(value, saturated_);
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

    // This thread's statistics, and then all of the block's. All threads of the block; `active` ones have a packet. `shared`
    // has room for [row_lanes][tile_packets][kUnits] records.
    __device__ __forceinline__ void finish(const ForwardParams& p, uint32_t tile, uint32_t group, bool active,
                                           ChunkStats* shared)
    {
        if constexpr (kMode != Mode::Copy && sizeof(T) == 2) {
            // An integer sum does not depend on the order.
            const uint32_t sum = __reduce_add_sync(0xffffffffu, saturated_);
            if (sum != 0 && threadIdx.x % 32 == 0) {
                atomicAdd(p.saturated, static_cast<unsigned long long>(sum));
            }
        }
        if constexpr (kTelemetry != Telemetry::Off) {
            if (active) {
#pragma unroll
                for (uint32_t u = 0; u < kUnits; ++u) {
                    shared[threadIdx.x * kUnits + u] = running_[u].finish(rest_[u]);
                }
            }
            __syncthreads();
            const uint64_t block = static_cast<uint64_t>(tile) * p.geometry.groups + group;
            if (threadIdx.x < kWorkers) {
                reduce_pieces(p.geometry, tile, shared, kUnitColumns, p.partials + block * p.geometry.pieces);
            }
            merge_cluster(p.geometry, tile, p.partials, p.totals, p.watched, p.arrivals);
        }
    }

private:
    template <bool kGuarded>
    __device__ __forceinline__ void apply_all(const Guards<kGuarded>& guards, float (&value)[kLanes]) const
    {
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            if (computed_ & 1u << j) {
                value[j] = apply(program_[j], guards, value[j]);
            }
        }
    }

    // One packet into the blocks of its columns; the first of a block brings the pivots.
    __device__ __forceinline__ void add(ChunkBlock (&block)[kUnits], float (&pivot)[kUnits], bool first, const Packet<T>& packet)
    {
        float value[kLanes];
        packet.get(value);
        if (first) {
#pragma unroll
            for (uint32_t u = 0; u < kUnits; ++u) {
                pivot[u] = running_[u].moments.pivot(value[u]);
                block[u] = ChunkBlock::empty();
            }
        }
        if constexpr (kUnits == 1) {
            block[0].add(value, kLanes, pivot[0], dead_epsilon_);
        } else {
#pragma unroll
            for (uint32_t u = 0; u < kUnits; ++u) {
                block[u].add(value[u], pivot[u], dead_epsilon_);
            }
        }
    }

    template <bool kWhole, class Get, class Again>
    __device__ __forceinline__ void count_block(uint32_t rows, Get get, Again again)
    {
        ChunkBlock block[kUnits];
        float pivot[kUnits];
        if constexpr (kWhole) {
#pragma unroll
            for (uint32_t r = 0; r < kRows; ++r) {
                add(block, pivot, r == 0, get(r));
            }
        } else {
            // The last rows of the matrix: rolled, for the code's size.
#pragma unroll 1
            for (uint32_t r = 0; r < rows; ++r) {
                add(block, pivot, r == 0, get(r));
            }
        }
#pragma unroll
        for (uint32_t u = 0; u < kUnits; ++u) {
            const uint32_t taken = (kWhole ? kRows : rows) * kUnitColumns;
            if (running_[u].accepts(block[u], taken)) {
                running_[u].merge(block[u], taken);
            } else {
                push_rest(rest_[u], kUnits == 1 ? kLanes : u, rows, dead_epsilon_, again);
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

    // A lane whose number is not known when compiling.
    static __device__ __forceinline__ float lane_of(const Packet<T>& packet, uint32_t lane)
    {
        const uint32_t word_of = lane * sizeof(T) / 4;
        const uint32_t word = word_of == 0 ? packet.words[0]
            : word_of == 1                 ? packet.words[1]
            : word_of == 2                 ? packet.words[2]
                                           : packet.words[3];
        if constexpr (sizeof(T) == 4) {
            return float_of(word);
        } else {
            return widen(T{static_cast<uint16_t>(lane % 2 == 0 ? word : word >> 16)});
        }
    }

    RunningChunk running_[kUnits];
    ChunkStats rest_[kUnits];
    ColumnProgram program_[kLanes];
    Bounds bounds_;
    uint32_t computed_ = 0;  // bit j: column j has a program
    uint32_t saturated_ = 0;
    float dead_epsilon_;
};

}  // namespace kasmina::stream
