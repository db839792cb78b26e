// What one lane keeps of the packets it reads: the inner step of every reduction.
//
// A lane begins with a pivot (a value of the data that all lanes of a strip share, so that their sums add up), takes whole packets
// or parts of one, is joined with the lanes beside it, and becomes a record. A packet is looked at as a whole first: one test of
// its sum or its greatest finds any NaN, and only then are elements looked at one by one, out of the way of the usual.
//
// `at` is the packet's ordinal among those of the piece. record() is told the piece's first packet and how many elements all joined
// lanes have seen, which who calls it knows and no lane need count.
#pragma once

#include "reduce_extremes.cuh"
#include "reduce_sums.cuh"

namespace kasmina::reduce {

// Sum, sum of squares and extremes in one read.
template <class T>
struct SummaryLane {
    using Value = typename Element<T>::Value;
    using Record = Summary<T>;
    static constexpr bool kPivot = false;
    static constexpr bool kTrial = false;

    SumLane<T> sum;
    double squares = 0.0;
    ExtremaLane<T> extrema;

    __device__ __forceinline__ void begin(Value first, const Settings& settings) { extrema.begin(first, settings); }

    __device__ __forceinline__ void take(const Value (&value)[kLanes<T>], uint32_t at)
    {
        const Value most = tree(value, [](Value a, Value b) { return greatest_or_nan(a, b); });
        if (is_nan(most)) {
            take_each<T>(*this, value, at);
            return;
        }
        sum.take_numbers(value);
        extrema.take_numbers(value, most, at);
        by_fours<T>(value, [&](const auto& four) { squares = add(squares, sum_of_squares(four)); });
    }

    __device__ __forceinline__ void take_one(Value value, uint32_t at)
    {
        sum.take_one(value, at);
        extrema.take_one(value, at);
        const double number = is_nan(value) ? 0.0 : static_cast<double>(value);
        squares = fused(number, number, squares);
    }

    __device__ __forceinline__ void join(const SummaryLane& other)
    {
        sum.join(other.sum);
        squares = add(squares, other.squares);
        extrema.join(other.extrema);
    }

    __device__ __forceinline__ void join_below(uint32_t distance)
    {
        // NaNs are counted on both sides.
        sum.join(below(sum.sum, distance), 0);
        squares = add(squares, below(squares, distance));
        extrema.join_below(distance);
    }

    __device__ __forceinline__ Record record(uint64_t first, uint64_t count) const
    {
        SumLane<T> all = sum;
        all.nans = extrema.nans;
        return {all.record(first, count), squares, extrema.record(first, count)};
    }

private:
    template <uint32_t N>
    static __device__ __forceinline__ double sum_of_squares(const Value (&value)[N])
    {
        double part[N / 2];
#pragma unroll
        for (uint32_t i = 0; i < N; i += 2) {
            const auto a = static_cast<double>(value[i]), b = static_cast<double>(value[i + 1]);
            part[i / 2] = fused(b, b, mul(a, a));
        }
        return tree(part, [](double a, double b) { return add(a, b); });
    }
};

template <class T>
struct CountLane {
    using Value = typename Element<T>::Value;
    using Record = Count;
    static constexpr bool kPivot = false;
    static constexpr bool kTrial = false;

    Value low, high;
    bool outside;
    uint32_t matches = 0;

    __device__ __forceinline__ void begin(Value, const Settings& settings)
    {
        if constexpr (Element<T>::kFloat) {
            low = static_cast<Value>(settings.least);
            high = static_cast<Value>(settings.most);
        } else {
            low = static_cast<Value>(settings.least_whole);
            high = static_cast<Value>(settings.most_whole);
        }
        outside = settings.outside != 0;
    }

    __device__ __forceinline__ void take(const Value (&value)[kLanes<T>], uint32_t)
    {
        uint32_t more = 0;
#pragma unroll
        for (uint32_t i = 0; i < kLanes<T>; ++i) more += match(value[i]);
        matches += more;
    }

    __device__ __forceinline__ void take_one(Value value, uint32_t) { matches += match(value); }

    __device__ __forceinline__ void join_below(uint32_t distance) { matches += below(matches, distance); }

    __device__ __forceinline__ Record record(uint64_t, uint64_t count) const { return {outside ? count - matches : matches}; }

private:
    __device__ __forceinline__ uint32_t match(Value value) const { return value >= low && value <= high ? 1 : 0; }
};

// Statistics about a pivot: two f64 sums of differences, which for f16, bf16 and f32 are exact up to 2^29 apart.
template <class T>
struct StatisticsLane {
    using Value = typename Element<T>::Value;
    using Record = Statistics<Value>;
    static constexpr bool kPivot = true;
    static constexpr bool kTrial = false;

    double pivot;
    Value dead_epsilon;
    double sum = 0.0, squares = 0.0;
    Value low, high;
    uint32_t dead = 0, nonfinite = 0;

    // `first` is a value of the data, the same for all lanes that are joined. One that is not finite gives way to 0, which
    // costs |mean|²/σ² of accuracy instead of n.
    __device__ __forceinline__ void begin(Value first, const Settings& settings)
    {
        pivot = finite(first) ? static_cast<double>(first) : 0.0;
        if constexpr (Element<T>::kFloat) {
            dead_epsilon = settings.dead_epsilon;
            low = static_cast<Value>(__builtin_huge_val());
            high = -low;
        } else {
            dead_epsilon = 0;
            low = Bounds<Value>::neutral().low;
            high = Bounds<Value>::neutral().high;
        }
    }

    __device__ __forceinline__ void take(const Value (&value)[kLanes<T>], uint32_t)
    {
        by_fours<T>(value, [&](const auto& four) { take_four(four); });
    }

    __device__ __forceinline__ void take_one(Value value, uint32_t)
    {
        if (!finite(value)) {
            nonfinite += 1;
            return;
        }
        take_ordinary(value);
    }

    __device__ __forceinline__ void take_part(const Value (&value)[kLanes<T>], uint32_t from, uint32_t end, uint32_t at)
    {
#pragma unroll
        for (uint32_t i = 0; i < kLanes<T>; ++i) {
            if (i >= from && i < end) take_one(value[i], at);
        }
    }

    static __device__ __forceinline__ bool is_ordinary(Value most) { return finite(most); }

    __device__ __forceinline__ void take_ordinary(Value value)
    {
        const double shifted = add(static_cast<double>(value), -pivot);
        sum = add(sum, shifted);
        squares = fused(shifted, shifted, squares);
        low = least(low, value);
        high = greatest(high, value);
        dead += is_dead(value) ? 1 : 0;
    }

    __device__ __forceinline__ void join(const StatisticsLane& other)
    {
        sum = add(sum, other.sum);
        squares = add(squares, other.squares);
        low = least(low, other.low);
        high = greatest(high, other.high);
        dead += other.dead;
        nonfinite += other.nonfinite;
    }

    __device__ __forceinline__ void join_below(uint32_t distance)
    {
        sum = add(sum, below(sum, distance));
        squares = add(squares, below(squares, distance));
        low = least(low, below(low, distance));
        high = greatest(high, below(high, distance));
        dead += below(dead, distance);
        if constexpr (Element<T>::kFloat) nonfinite += below(nonfinite, distance);
    }

    __device__ __forceinline__ Record record(uint64_t, uint64_t count) const
    {
        return Record::about(pivot, sum, squares, count - nonfinite, dead, nonfinite, low, high);
    }

private:
    template <uint32_t N>
    __device__ __forceinline__ void take_four(const Value (&value)[N])
    {
        double shifted[N], square[N / 2];
#pragma unroll
        for (uint32_t i = 0; i < N; ++i) shifted[i] = add(static_cast<double>(value[i]), -pivot);
#pragma unroll
        for (uint32_t i = 0; i < N; i += 2) square[i / 2] = fused(shifted[i + 1], shifted[i + 1], mul(shifted[i], shifted[i]));
        const auto plus = [](double a, double b) { return add(a, b); };
        const double part = tree(square, plus);
        // Squares of f32 cannot leave f64, so this is an element that is not finite; with f64 it may also be a great one.
        if (Element<T>::kFloat && !finite(part)) {
#pragma unroll
            for (uint32_t i = 0; i < N; ++i) take_one(value[i], 0);
            return;
        }
        sum = add(sum, tree(shifted, plus));
        squares = add(squares, part);
        low = least(low, tree(value, [](Value a, Value b) { return least(a, b); }));
        high = greatest(high, tree(value, [](Value a, Value b) { return greatest(a, b); }));
#pragma unroll
        for (uint32_t i = 0; i < N; ++i) dead += is_dead(value[i]) ? 1 : 0;
    }

    __device__ __forceinline__ bool is_dead(Value value) const
    {
        if constexpr (std::is_unsigned_v<Value>) {
            return value == 0;
        } else if constexpr (std::is_integral_v<Value>) {
            // Without the overflow of −INT_MIN.
            return value == 0;
        } else {
            return magnitude(value) <= dead_epsilon;
        }
    }
};

}  // namespace kasmina::reduce
