// Lanes that look for extremes, with their places and without.
#pragma once

#include "reduce_lane.cuh"

namespace kasmina::reduce {

// Extremes without places.
template <class T>
struct BoundsLane {
    using Value = typename Element<T>::Value;
    using Record = Bounds<Value>;
    static constexpr bool kPivot = false;
    static constexpr bool kTrial = Element<T>::kFloat;

    Value low, high;
    uint32_t nans = 0;

    __device__ __forceinline__ void begin(Value, const Settings&)
    {
        low = Record::neutral().low;
        high = Record::neutral().high;
    }

    __device__ __forceinline__ void take(const Value (&value)[kLanes<T>], uint32_t at)
    {
        const Value most = tree(value, [](Value a, Value b) { return greatest_or_nan(a, b); });
        if (is_nan(most)) {
            take_each<T>(*this, value, at);
            return;
        }
        low = least(low, tree(value, [](Value a, Value b) { return least(a, b); }));
        high = greatest(high, most);
    }

    __device__ __forceinline__ void take_unchecked(const Value (&value)[kLanes<T>])
    {
        low = least(low, tree(value, [](Value a, Value b) { return least(a, b); }));
        high = greatest_or_nan(high, tree(value, [](Value a, Value b) { return greatest_or_nan(a, b); }));
    }

    __device__ __forceinline__ bool is_damaged() const { return is_nan(high); }

    __device__ __forceinline__ void take_part(const Value (&value)[kLanes<T>], uint32_t from, uint32_t end, uint32_t at)
    {
        Value kept[kLanes<T>];
        // In place of the others an element that counts anyway, but for a NaN, which must count once.
        Value known{};
#pragma unroll
        for (uint32_t i = 0; i < kLanes<T>; ++i) known = i == from ? value[i] : known;
#pragma unroll
        for (uint32_t i = 0; i < kLanes<T>; ++i) kept[i] = i >= from && i < end ? value[i] : known;
        const Value most = tree(kept, [](Value a, Value b) { return greatest_or_nan(a, b); });
        if (is_nan(most)) {
#pragma unroll
            for (uint32_t i = 0; i < kLanes<T>; ++i) {
                if (i >= from && i < end) take_one(value[i], at);
            }
            return;
        }
        low = least(low, tree(kept, [](Value a, Value b) { return least(a, b); }));
        high = greatest(high, most);
    }

    __device__ __forceinline__ void take_one(Value value, uint32_t)
    {
        nans += is_nan(value) ? 1 : 0;
        low = least(low, value);
        high = greatest(high, value);
    }

    static __device__ __forceinline__ bool is_ordinary(Value most) { return !is_nan(most); }

    __device__ __forceinline__ void take_ordinary(Value value)
    {
        low = least(low, value);
        high = greatest(high, value);
    }

    __device__ __forceinline__ void join(Value other_low, Value other_high, uint32_t other_nans)
    {
        low = least(low, other_low);
        high = greatest(high, other_high);
        nans += other_nans;
    }

    __device__ __forceinline__ void join(const BoundsLane& other) { join(other.low, other.high, other.nans); }

    __device__ __forceinline__ void join_below(uint32_t distance)
    {
        join(below(low, distance), below(high, distance), Element<T>::kFloat ? below(nans, distance) : 0);
    }

    __device__ __forceinline__ Record record(uint64_t, uint64_t) const { return {nans, low, high}; }
};

template <class T>
struct ExtremaLane {
    using Value = typename Element<T>::Value;
    using Record = Extrema<Value>;
    static constexpr bool kPivot = false;
    static constexpr bool kTrial = false;

    Value low, high;
    uint32_t low_at = kNoPacket, high_at = kNoPacket, nan_at = kNoPacket;
    uint32_t nans = 0;

    __device__ __forceinline__ void begin(Value, const Settings&)
    {
        if constexpr (Element<T>::kFloat) {
            // Every comparison below is also true against a NaN, so the first numbers are taken, infinities among them.
            low = high = static_cast<Value>(__builtin_nan(""));
        } else {
            low = high = Value{0};
        }
    }

    __device__ __forceinline__ void take(const Value (&value)[kLanes<T>], uint32_t at)
    {
        const Value most = tree(value, [](Value a, Value b) { return greatest_or_nan(a, b); });
        if (is_nan(most)) {
            take_each<T>(*this, value, at);
            return;
        }
        take_numbers(value, most, at);
    }

    // Without a NaN, the greatest of which is known.
    __device__ __forceinline__ void take_numbers(const Value (&value)[kLanes<T>], Value most, uint32_t at)
    {
        offer(tree(value, [](Value a, Value b) { return least(a, b); }), most, at);
    }

    __device__ __forceinline__ void take_one(Value value, uint32_t at)
    {
        if (is_nan(value)) {
            nans += 1;
            nan_at = at < nan_at ? at : nan_at;
        } else {
            offer(value, value, at);
        }
    }

    __device__ __forceinline__ void join(const ExtremaLane& other)
    {
        if (other.low_at != kNoPacket
            && (low_at == kNoPacket || other.low < low || (other.low == low && other.low_at < low_at))) {
            low = other.low;
            low_at = other.low_at;
        }
        if (other.high_at != kNoPacket
            && (high_at == kNoPacket || other.high > high || (other.high == high && other.high_at < high_at))) {
            high = other.high;
            high_at = other.high_at;
        }
        nan_at = other.nan_at < nan_at ? other.nan_at : nan_at;
        nans += other.nans;
    }

    __device__ __forceinline__ void join_below(uint32_t distance)
    {
        ExtremaLane other;
        other.low = below(low, distance);
        other.high = below(high, distance);
        other.low_at = below(low_at, distance);
        other.high_at = below(high_at, distance);
        if constexpr (Element<T>::kFloat) {
            other.nan_at = below(nan_at, distance);
            other.nans = below(nans, distance);
        }
        join(other);
    }

    __device__ __forceinline__ Record record(uint64_t first, uint64_t) const
    {
        const auto place = [=](uint32_t at) { return at == kNoPacket ? kNowhere : first + at; };
        return {low, high, place(low_at), place(high_at), place(nan_at), nans};
    }

private:
    __device__ __forceinline__ void offer(Value lowest, Value highest, uint32_t at)
    {
        bool lower, higher;
        if constexpr (Element<T>::kFloat) {
            lower = !(lowest >= low);
            higher = !(highest <= high);
        } else {
            lower = lowest < low || low_at == kNoPacket;
            higher = highest > high || high_at == kNoPacket;
        }
        low = lower ? lowest : low;
        low_at = lower ? at : low_at;
        high = higher ? highest : high;
        high_at = higher ? at : high_at;
    }
};

}  // namespace kasmina::reduce
