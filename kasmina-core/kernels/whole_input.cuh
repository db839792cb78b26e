// The two kernels that read a whole matrix apart from the streaming pass: strict mode's bounds, and histograms.
#pragma once

#include <type_traits>

#include "kasmina_element.cuh"
#include "kasmina_histogram.cuh"
#include "kasmina_moments.cuh"
#include "kasmina_stability.cuh"
#include "stream_reduce.cuh"

namespace kasmina::whole {

using stream::ceil_div;
using stream::kRows;
using stream::kWorkers;

// A matrix cut for one reduction over all of it. Where rows follow each other without a gap the host cuts it anew, in rows of
// kWorkers packets, the last one short; so narrow matrices are read as fast as wide ones.
struct StrictParams {
    const void* x;
    uint64_t pitch;         // bytes from row to row
    Bounds fixed;
    Bounds* bounds;         // where the result goes
    Moments* partials;      // [blocks]
    uint32_t* arrivals;     // 0 between launches
    uint64_t units;         // tiles × blocks of rows: what a block takes at a time
    uint32_t rows;
    uint32_t columns;
    uint32_t last_columns;  // of the last row
    uint32_t tiles;         // across a row
    uint32_t tile_packets;  // in a row of a tile, at most kWorkers
    uint32_t row_lanes;     // threads that share a packet of columns
    float sigmas;
    uint32_t padding;
};
static_assert(sizeof(StrictParams) == 96 && offsetof(StrictParams, units) == 56 && offsetof(StrictParams, sigmas) == 88,
              "as in Rust");

// A packet, of which `columns` elements are in the matrix, by loads that leave it in the second-level cache: the pass that the
// bounds are for reads it next.
template <class T, bool kAligned>
__device__ __forceinline__ Packet<T> load_packet(const uint8_t* from, uint32_t columns)
{
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>;
    Packet<T> packet{};
    if (kAligned && columns == Packet<T>::kLanes) {
        const uint4 words = __ldcg(reinterpret_cast<const uint4*>(from));
        packet.words[0] = words.x;
        packet.words[1] = words.y;
        packet.words[2] = words.z;
        packet.words[3] = words.w;
        return packet;
    }
#pragma unroll
    for (uint32_t j = 0; j < Packet<T>::kLanes; ++j) {
        if (j < columns) {
            const uint32_t bits = __ldg(reinterpret_cast<const Bits*>(from) + j);
            packet.words[j * sizeof(T) / 4] |= bits << (j * sizeof(T) % 4 * 8);
        }
    }
    return packet;
}

// One thread's moments of the packets that it is given, kRows at a time.
template <class T, bool kAligned>
class StrictWorker {
public:
    static constexpr uint32_t kLanes = Packet<T>::kLanes;

    // `rest` is empty, and not a member: its address goes to a function that is not inlined, and would take the moments with it
    // out of registers.
    __device__ __forceinline__ explicit StrictWorker(GradientStats* rest) : running_(RunningGradient::empty()), rest_(rest) {}

    // kRows whole packets, `step` bytes apart.
    __device__ __forceinline__ void take(const uint8_t* from, uint64_t step)
    {
        Packet<T> packets[kRows];
#pragma unroll
        for (uint32_t r = 0; r < kRows; ++r) {
            packets[r] = load_packet<T, kAligned>(from + r * step, kLanes);
        }
        GradientBlock block = GradientBlock::empty();
        float pivot = 0.0f;
#pragma unroll
        for (uint32_t r = 0; r < kRows; ++r) {
            float value[kLanes];
            packets[r].get(value);
            if (r == 0) {
                pivot = running_.moments.pivot(value[0]);
            }
            block.add(value, kLanes, pivot);
        }
        if (running_.accepts(block, pivot, kRows * kLanes)) {
            running_.merge(block, kRows * kLanes);
        } else {
            push_rest(*rest_, from, step, kRows, kLanes, kLanes);
        }
    }

    // At the matrix's edges: `rows` packets, of which `columns` elements are in the matrix, and `last_columns` of the last one.
    __device__ __forceinline__ void take_edge(const uint8_t* from, uint64_t step, uint32_t rows, uint32_t columns,
                                              uint32_t last_columns)
    {
        GradientBlock block = GradientBlock::empty();
        float pivot = 0.0f;
        uint32_t taken = 0;
        // Rolled, for the code's size.
#pragma unroll 1
        for (uint32_t r = 0; r < rows; ++r) {
            const uint32_t count = r + 1 == rows ? last_columns : columns;
            if (count == 0) {
                continue;
            }
            float value[kLanes];
            load_packet<T, kAligned>(from + r * step, count).get(value);
            if (taken == 0) {
                pivot = running_.moments.pivot(value[0]);
            }
            block.add(value, count, pivot);
            taken += count;
        }
        if (taken == 0) {
            return;
        }
        if (running_.accepts(block, pivot, taken)) {
            running_.merge(block, taken);
        } else {
            push_rest(*rest_, from, step, rows, columns, last_columns);
        }
    }

    __device__ __forceinline__ Moments finish() const
    {
        Moments all = running_.moments.finish();
        all.merge(rest_->moments());
        return all;
    }

private:
    // Element by element in f64, from memory once more. Out of line, on a record in local memory, so that the moments of the
    // usual way stay in registers.
    static __device__ __noinline__ void push_rest(GradientStats& rest, const uint8_t* from, uint64_t step, uint32_t rows,
                                                  uint32_t columns, uint32_t last_columns)
    {
#pragma unroll 1
        for (uint32_t r = 0; r < rows; ++r) {
            const auto* row = reinterpret_cast<const T*>(from + r * step);
            const uint32_t count = r + 1 == rows ? last_columns : columns;
#pragma unroll 1
            for (uint32_t j = 0; j < count; ++j) {
                rest.push(widen(row[j]));
            }
        }
    }

    RunningGradient running_;
    GradientStats* rest_;
};

// The moments of a warp's lanes about their common mean, the same bits in each lane.
__device__ __forceinline__ Moments merge_warp(const Moments& own)
{
    const unsigned long long n = stream::sum_lanes(static_cast<unsigned long long>(own.n), 32);
    const double sum = stream::sum_lanes(static_cast<double>(own.n) * own.mean, 32);
    const double mean = n == 0 ? 0.0 : sum / static_cast<double>(n);
    const double away = own.mean - mean;
    return {n, mean, stream::sum_lanes(own.m2 + static_cast<double>(own.n) * (away * away), 32)};
}

// All threads' moments in a fixed tree; thread 0 has the result. `shared` has a place for each warp.
__device__ __forceinline__ Moments merge_block(Moments own, Moments (&shared)[kWorkers / 32])
{
    own = merge_warp(own);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        shared[threadIdx.x / 32] = own;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (uint32_t warp = 1; warp < kWorkers / 32; ++warp) {
            own.merge(shared[warp]);
        }
    }
    return own;
}

// Blocks take units in turn, so that at any time they together read one region of memory. What each reads, and every merge,
// depends on the cut alone: the same bits in every run.
template <class T, bool kAligned>
__device__ __forceinline__ void strict(const StrictParams& p)
{
    constexpr uint32_t kLanes = Packet<T>::kLanes;
    __shared__ Moments shared[kWorkers / 32];
    __shared__ bool last;
    const uint32_t packet = threadIdx.x % p.tile_packets, lane = threadIdx.x / p.tile_packets;
    const uint64_t step = p.row_lanes * p.pitch;
    const uint32_t whole_rows = p.last_columns == p.columns ? p.rows : p.rows - 1;
    GradientStats rest = GradientStats::empty();
    StrictWorker<T, kAligned> worker(&rest);
    if (lane < p.row_lanes) {
        for (uint64_t unit = blockIdx.x; unit < p.units; unit += gridDim.x) {
            const auto tile = static_cast<uint32_t>(unit % p.tiles);
            const uint64_t row = unit / p.tiles * (kRows * p.row_lanes) + lane;
            const uint64_t column = (uint64_t{tile} * p.tile_packets + packet) * kLanes;
            if (row >= p.rows || column >= p.columns) {
                continue;
            }
            const auto* from = static_cast<const uint8_t*>(p.x) + row * p.pitch + column * sizeof(T);
            const uint64_t bottom = row + (kRows - 1) * p.row_lanes;
            if (bottom < whole_rows && column + kLanes <= p.columns) {
                worker.take(from, step);
                continue;
            }
            const uint32_t left = p.rows - static_cast<uint32_t>(row);
            const uint32_t rows = min(kRows, ceil_div(left, p.row_lanes));
            const auto inside = [=](uint32_t columns) {
                return column < columns ? min(kLanes, columns - static_cast<uint32_t>(column)) : 0;
            };
            const bool at_end = row + uint64_t{rows - 1} * p.row_lanes == p.rows - 1;
            worker.take_edge(from, step, rows, inside(p.columns), inside(at_end ? p.last_columns : p.columns));
        }
    }
    const Moments own = merge_block(worker.finish(), shared);
    if (threadIdx.x == 0) {
        p.partials[blockIdx.x] = own;
        __threadfence();
        last = atomicAdd(p.arrivals, 1u) + 1 == gridDim.x;
        if (last) {
            *p.arrivals = 0;
            __threadfence();
        }
    }
    __syncthreads();
    if (!last) {
        return;
    }
    Moments some = Moments::empty();
    for (uint32_t block = threadIdx.x; block < gridDim.x; block += kWorkers) {
        // Past the first-level cache, for another block wrote it.
        const auto* from = reinterpret_cast<const uint64_t*>(p.partials + block);
        const uint64_t n = __ldcg(reinterpret_cast<const unsigned long long*>(from));
        some.merge({n, __longlong_as_double(__ldcg(reinterpret_cast<const long long*>(from) + 1)),
                    __longlong_as_double(__ldcg(reinterpret_cast<const long long*>(from) + 2))});
    }
    const Moments all = merge_block(some, shared);
    if (threadIdx.x == 0) {
        *p.bounds = strict_bounds(p.fixed, p.sigmas, all.n, all.mean, all.m2);
    }
}

struct HistogramParams {
    const void* x;
    uint64_t pitch;           // bytes from row to row
    Histogram* histograms;    // [seeds], added to
    const uint8_t* watched;   // [seeds]; null for all
    uint32_t rows;
    uint32_t columns;
    uint32_t chunk;           // columns of a seed; the last may have fewer
    uint32_t groups;          // blocks that share a tile, each with rows of its own
    uint32_t seeds_per_tile;  // whole seeds in a tile; 1 where a seed has several tiles
    uint32_t tiles_per_seed;  // 1 where a tile has several seeds
    uint32_t tile_columns;    // of a whole tile
    uint32_t padding;
};
static_assert(sizeof(HistogramParams) == 64 && offsetof(HistogramParams, tile_columns) == 56, "as in Rust");

// Values that a thread asks for at once.
constexpr uint32_t kAhead = 8;

// The least and greatest of floats that are not NaN and not −0, in memory as they are: positive ones rise with their bits as
// signed integers, negative ones fall with them as unsigned ones, and these two atomics never undo each other.
__device__ __forceinline__ void atomic_least(float* at, float value)
{
    const uint32_t bits = bits_of(value);
    if (bits >> 31 == 0) {
        atomicMin(reinterpret_cast<int*>(at), static_cast<int>(bits));
    } else {
        atomicMax(reinterpret_cast<unsigned*>(at), bits);
    }
}

__device__ __forceinline__ void atomic_greatest(float* at, float value)
{
    const uint32_t bits = bits_of(value);
    if (bits >> 31 == 0) {
        atomicMax(reinterpret_cast<int*>(at), static_cast<int>(bits));
    } else {
        atomicMin(reinterpret_cast<unsigned*>(at), bits);
    }
}

// A block counts its tile's seeds in shared memory and adds them to the seeds' own. All of it is integers, so the order of the
// atomics shows nowhere. A thread walks down one column at a time; neighbours read neighbouring columns.
template <class T>
__device__ __forceinline__ void histogram(const HistogramParams& p)
{
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>;
    extern __shared__ PartialHistogram parts[];  // [seeds_per_tile]
    const uint32_t tile = blockIdx.x / p.groups, group = blockIdx.x % p.groups;
    const uint32_t first_seed = p.tiles_per_seed > 1 ? tile / p.tiles_per_seed : tile * p.seeds_per_tile;
    const uint32_t seed_end = min(p.columns, (first_seed + p.seeds_per_tile) * p.chunk);
    const uint32_t first = first_seed * p.chunk + tile % p.tiles_per_seed * p.tile_columns;
    const uint32_t columns = first < seed_end ? min(p.tile_columns, seed_end - first) : 0;

    auto* words = reinterpret_cast<uint32_t*>(parts);
    constexpr uint32_t kWords = sizeof(PartialHistogram) / 4;
    for (uint32_t i = threadIdx.x; i < p.seeds_per_tile * kWords; i += kWorkers) {
        words[i] = i % kWords == offsetof(PartialHistogram, least) / 4 ? 0xffffffffu : 0;
    }
    __syncthreads();

    if (columns > 0) {
        const uint32_t side = min(columns, kWorkers);
        const uint32_t lanes = kWorkers / side;
        const uint32_t lane = threadIdx.x / side;
        const uint64_t step = uint64_t{p.groups} * lanes;
        for (uint32_t c = lane < lanes ? threadIdx.x % side : columns; c < columns; c += side) {
            const uint32_t seed = (first + c) / p.chunk;
            if (p.watched != nullptr && p.watched[seed] == 0) {
                continue;
            }
            PartialHistogram& part = parts[seed - first_seed];
            uint32_t least = 0xffffffffu, greatest = 0;
            const auto* column = static_cast<const uint8_t*>(p.x) + uint64_t{first + c} * sizeof(T);
            for (uint64_t row = uint64_t{group} * lanes + lane; row < p.rows; row += kAhead * step) {
                uint32_t raw[kAhead];
#pragma unroll
                for (uint32_t k = 0; k < kAhead; ++k) {
                    const uint64_t at = row + k * step;
                    raw[k] = at < p.rows ? uint32_t{__ldg(reinterpret_cast<const Bits*>(column + at * p.pitch))} : 0;
                }
#pragma unroll
                for (uint32_t k = 0; k < kAhead; ++k) {
                    if (row + k * step >= p.rows) break;
                    float x;
                    if constexpr (sizeof(T) == 4) {
                        x = float_of(raw[k]);
                    } else {
                        x = widen(T{static_cast<uint16_t>(raw[k])});
                    }
                    atomicAdd(part.counts + PartialHistogram::slot_of(x), 1u);
                    if (is_finite(x)) {
                        least = min(least, ordered(x));
                        greatest = max(greatest, ordered(x));
                    }
                }
            }
            if (least <= greatest) {
                atomicMin(&part.least, least);
                atomicMax(&part.greatest, greatest);
            }
        }
    }
    __syncthreads();

    // Counts and nonfinite lie behind each other, in both.
    constexpr uint32_t kCounts = PartialHistogram::kCounts;
    for (uint32_t i = threadIdx.x; i < p.seeds_per_tile * kCounts; i += kWorkers) {
        const uint32_t count = parts[i / kCounts].counts[i % kCounts];
        if (count != 0) {
            auto* counts = reinterpret_cast<unsigned long long*>(p.histograms[first_seed + i / kCounts].counts);
            atomicAdd(counts + i % kCounts, static_cast<unsigned long long>(count));
        }
    }
    for (uint32_t i = threadIdx.x; i < p.seeds_per_tile; i += kWorkers) {
        if (parts[i].least <= parts[i].greatest) {
            Histogram& histogram = p.histograms[first_seed + i];
            atomic_least(&histogram.min, unordered(parts[i].least));
            atomic_greatest(&histogram.max, unordered(parts[i].greatest));
        }
    }
}

}  // namespace kasmina::whole
