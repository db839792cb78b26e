// What the lanes of all reductions share: settings, the words of a neighbour, and packets taken element by element.
#pragma once

#include "reduce_records.cuh"

namespace kasmina::reduce {

constexpr uint32_t kNoPacket = ~0u;

// What a kernel is told beside the data.
struct Settings {
    double least;        // a count's interval, where values are floats; empty where this is not at most the next
    double most;
    int64_t least_whole; // the same where they are integers
    int64_t most_whole;
    uint32_t outside;    // whether what lies outside of the interval is counted
    float dead_epsilon;  // of statistics
    uint32_t propagate;  // whether a NaN makes a segment's or a column's result NaN; else it is passed over
    uint32_t compact;    // whether extremes leave as two f32, those of segments and columns
};
static_assert(sizeof(Settings) == 48, "as in Rust");

// A word or two of the lane `distance` further on.
template <class V>
__device__ __forceinline__ V below(V value, uint32_t distance)
{
    return __shfl_down_sync(0xffffffffu, value, distance);
}

__device__ __forceinline__ __int128 below(__int128 value, uint32_t distance)
{
    const auto low = below(static_cast<unsigned long long>(value), distance);
    const auto high = below(static_cast<long long>(value >> 64), distance);
    return static_cast<__int128>(high) << 64 | low;
}

// A packet with something out of the ordinary in it.
template <class T, class Lane>
__device__ __forceinline__ void take_each(Lane& lane, const typename Element<T>::Value (&value)[kLanes<T>], uint32_t at)
{
#pragma unroll
    for (uint32_t i = 0; i < kLanes<T>; ++i) lane.take_one(value[i], at);
}

// Hands a packet on in parts of at most four values: eight f64 at once would take the registers of loads under way.
template <class T, class F>
__device__ __forceinline__ void by_fours(const typename Element<T>::Value (&value)[kLanes<T>], F take)
{
    constexpr uint32_t kPart = kLanes<T> < 4 ? kLanes<T> : 4;
#pragma unroll
    for (uint32_t i = 0; i < kLanes<T>; i += kPart) {
        typename Element<T>::Value part[kPart];
#pragma unroll
        for (uint32_t j = 0; j < kPart; ++j) part[j] = value[i + j];
        take(part);
    }
}

}  // namespace kasmina::reduce
