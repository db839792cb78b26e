// How lanes walk over a range of elements: whole packets several at a time, the two ends element by element, and nothing outside
// of the range is ever read.
//
// A range lies in *virtual* elements, counted from the 16-byte boundary at or before the data's first element, so that packet p
// holds the virtual elements p·L to p·L + L − 1 whatever the data's alignment.
#pragma once

#include "reduce_lanes.cuh"

namespace kasmina::reduce {

constexpr uint32_t kWarp = 32;
constexpr uint32_t kEveryLane = 0xffffffffu;

struct Range {
    uint64_t begin;
    uint64_t end;
};

template <class T>
__device__ __forceinline__ uint64_t first_packet(const Range& range)
{
    return range.begin / kLanes<T>;
}

template <class T>
__device__ __forceinline__ uint64_t end_packet(const Range& range)
{
    return (range.end + kLanes<T> - 1) / kLanes<T>;
}

// Takes the elements of packet `packet` that lie in the range. Rolled, so that the ends cost the middle no registers.
template <class T, class Lane>
__device__ __forceinline__ void take_edge(Lane& lane, const T* x, const Range& range, uint64_t packet, uint32_t at)
{
    uint64_t element = packet * kLanes<T>;
    uint64_t end = element + kLanes<T>;
    element = element < range.begin ? range.begin : element;
    end = end > range.end ? range.end : end;
#pragma unroll 1
    for (; element < end; ++element) lane.take_one(widen(x[element]), at);
}

// The packets [first, end) of a range, every `kStep`th for this lane, beginning with `first + rank`; `origin` is the packet from
// which places are counted. The order in which a lane takes packets depends on `kStep` alone, and not on `kAhead`, the loads that it
// has under way.
template <class T, uint32_t kStep, uint32_t kAhead, class Lane>
__device__ __forceinline__ void walk(Lane& lane, const T* x, const Range& range, uint64_t first, uint64_t end, uint64_t origin,
                                     uint32_t rank)
{
    // Counted from the strip's first packet, of which there are fewer than 2^32.
    const auto length = static_cast<uint32_t>(end - first);
    const bool head = first * kLanes<T> < range.begin;
    const bool tail = end * kLanes<T> > range.end && !(head && length == 1);
    const uint32_t whole_end = tail ? length - 1 : length;
    const auto* from = reinterpret_cast<const Packet*>(x) + first;
    const auto before = static_cast<uint32_t>(first - origin);
    uint32_t at = rank;
    if (head && rank == 0) {
        take_edge(lane, x, range, first, before);
        at = kStep;
    }
    // One loop, the last round included: a second copy of its body would cost registers that loads under way need.
#pragma unroll 1
    for (; at < whole_end; at += kAhead * kStep) {
        Packet packets[kAhead];
#pragma unroll
        for (uint32_t k = 0; k < kAhead; ++k) {
            if (at + k * kStep < whole_end) packets[k] = load_packet(from + at + k * kStep);
        }
        const auto take_all = [&](auto take) {
#pragma unroll
            for (uint32_t k = 0; k < kAhead; ++k) {
                if (at + k * kStep < whole_end) {
                    typename Element<T>::Value value[kLanes<T>];
                    unpack<T>(packets[k], value);
                    take(value, before + at + k * kStep);
                }
            }
        };
        if constexpr (Lane::kTrial) {
            // As if there were no NaN, which shows in the end; then once more, out of the way, from memory.
            Lane trial = lane;
            take_all([&](const auto& value, uint32_t) { trial.take_unchecked(value); });
            if (trial.is_damaged()) {
#pragma unroll 1
                for (uint32_t packet = at; packet < whole_end && packet < at + kAhead * kStep; packet += kStep) {
                    typename Element<T>::Value value[kLanes<T>];
                    unpack<T>(load_packet(from + packet), value);
                    lane.take(value, before + packet);
                }
            } else {
                lane = trial;
            }
        } else {
            take_all([&](const auto& value, uint32_t place) { lane.take(value, place); });
        }
    }
    if (tail && (length - 1) % kStep == rank) take_edge(lane, x, range, end - 1, before + length - 1);
}

// The first value of a strip: what its statistics are summed about.
template <class Lane, class T>
__device__ __forceinline__ typename Element<T>::Value pivot_of(const T* x, const Range& range, uint64_t first)
{
    if constexpr (Lane::kPivot) {
        const uint64_t element = first * kLanes<T> > range.begin ? first * kLanes<T> : range.begin;
        return element < range.end ? widen(x[element]) : typename Element<T>::Value{};
    } else {
        return {};
    }
}

// A value of another lane, word by word.
template <class V>
__device__ __forceinline__ V from_lane_below(const V& value, uint32_t distance)
{
    static_assert(sizeof(V) % 4 == 0 && std::is_trivially_copyable_v<V>, "moved as words");
    V result;
    uint32_t words[sizeof(V) / 4];
    memcpy(words, &value, sizeof(V));
#pragma unroll
    for (uint32_t i = 0; i < sizeof(V) / 4; ++i) words[i] = __shfl_down_sync(kEveryLane, words[i], distance);
    memcpy(&result, words, sizeof(V));
    return result;
}

// Joins `kGroup` neighbouring lanes in a fixed tree; the first of them has the result.
template <uint32_t kGroup, class Lane>
__device__ __forceinline__ void join_lanes(Lane& lane)
{
#pragma unroll
    for (uint32_t distance = kGroup / 2; distance > 0; distance /= 2) lane.join_below(distance);
}

// The same for records.
template <uint32_t kGroup, class Record>
__device__ __forceinline__ void merge_lanes(Record& record)
{
#pragma unroll
    for (uint32_t distance = kGroup / 2; distance > 0; distance /= 2) record.merge(from_lane_below(record, distance));
}

}  // namespace kasmina::reduce
