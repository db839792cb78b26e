// Lanes that sum: flat sums, those of segments and columns, and products of two matrices.
#pragma once

#include "reduce_lane.cuh"

namespace kasmina::reduce {

template <class T>
struct SumLane {
    using Value = typename Element<T>::Value;
    using Record = Sum<T>;
    static constexpr bool kPivot = false;
    // Whether packets may be taken unchecked, for is_damaged() to tell afterwards.
    static constexpr bool kTrial = Element<T>::kFloat;

    // i64 alone can leave 64 bits within a strip.
    using Total = std::conditional_t<Element<T>::kFloat, double, std::conditional_t<sizeof(T) == 8, __int128, long long>>;

    Total sum = 0;
    uint32_t nans = 0;

    __device__ __forceinline__ void begin(Value, const Settings&) {}

    __device__ __forceinline__ void take(const Value (&value)[kLanes<T>], uint32_t)
    {
        if constexpr (Element<T>::kFloat) {
            by_fours<T>(value, [&](const auto& four) {
                const double part = wide_sum(four);
                // Infinities of both signs give a NaN too, and are taken one by one to the same result.
                if (is_nan(part)) {
#pragma unroll
                    for (const Value& one : four) take_one(one, 0);
                } else {
                    sum = add(sum, part);
                }
            });
        } else {
            take_numbers(value);
        }
    }

    // Without a NaN.
    __device__ __forceinline__ void take_numbers(const Value (&value)[kLanes<T>])
    {
        if constexpr (Element<T>::kFloat) {
            by_fours<T>(value, [&](const auto& four) { sum = add(sum, wide_sum(four)); });
        } else {
#pragma unroll
            for (uint32_t i = 0; i < kLanes<T>; ++i) sum += value[i];
        }
    }

    __device__ __forceinline__ void take_unchecked(const Value (&value)[kLanes<T>]) { take_numbers(value); }
    __device__ __forceinline__ bool is_damaged() const { return is_nan(sum); }

    // The elements from `from` to before `end`.
    __device__ __forceinline__ void take_part(const Value (&value)[kLanes<T>], uint32_t from, uint32_t end, uint32_t at)
    {
        Value kept[kLanes<T>];
#pragma unroll
        for (uint32_t i = 0; i < kLanes<T>; ++i) kept[i] = i >= from && i < end ? value[i] : Value{0};
        take(kept, at);
    }

    __device__ __forceinline__ void take_one(Value value, uint32_t)
    {
        if constexpr (Element<T>::kFloat) {
            nans += is_nan(value) ? 1 : 0;
            sum = add(sum, static_cast<double>(is_nan(value) ? Value{0} : value));
        } else {
            sum += value;
        }
    }

    // No NaN.
    static __device__ __forceinline__ bool is_ordinary(Value most) { return !is_nan(most); }

    __device__ __forceinline__ void take_ordinary(Value value)
    {
        if constexpr (Element<T>::kFloat) {
            sum = add(sum, static_cast<double>(value));
        } else {
            sum += value;
        }
    }

    __device__ __forceinline__ void join(Total other_sum, uint32_t other_nans)
    {
        if constexpr (Element<T>::kFloat) {
            sum = add(sum, other_sum);
            nans += other_nans;
        } else {
            sum += other_sum;
        }
    }

    __device__ __forceinline__ void join(const SumLane& other) { join(other.sum, other.nans); }

    __device__ __forceinline__ void join_below(uint32_t distance)
    {
        join(below(sum, distance), Element<T>::kFloat ? below(nans, distance) : 0);
    }

    __device__ __forceinline__ Record record(uint64_t, uint64_t) const
    {
        if constexpr (Element<T>::kFloat) {
            return {sum, nans};
        } else {
            const auto wide = static_cast<__int128>(sum);
            return {static_cast<uint64_t>(wide), static_cast<int64_t>(wide >> 64)};
        }
    }

private:
    template <uint32_t N>
    static __device__ __forceinline__ double wide_sum(const Value (&value)[N])
    {
        double wide[N];
#pragma unroll
        for (uint32_t i = 0; i < N; ++i) wide[i] = static_cast<double>(value[i]);
        return tree(wide, [](double a, double b) { return add(a, b); });
    }
};

// Sums of segments and columns, whose result is one f64.
template <class T>
struct SegmentSumLane : SumLane<T> {
    using Record = SegmentSum;

    __device__ __forceinline__ Record record(uint64_t at, uint64_t count) const { return {SumLane<T>::record(at, count)}; }
};

// Sums of products of two matrices, NaN where either factor is.
template <class T>
struct ProductLane : SegmentSumLane<T> {
    using Value = typename Element<T>::Value;

    __device__ __forceinline__ void take_ordinary_pair(Value x, Value y)
    {
        this->sum = fused(static_cast<double>(x), static_cast<double>(y), this->sum);
    }

    __device__ __forceinline__ void take_pair(Value x, Value y)
    {
        const bool nan = is_nan(x) || is_nan(y);
        this->nans += nan ? 1 : 0;
        this->sum = nan ? this->sum : fused(static_cast<double>(x), static_cast<double>(y), this->sum);
    }
};

}  // namespace kasmina::reduce
