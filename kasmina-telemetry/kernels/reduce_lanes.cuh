// What one lane keeps of the packets it reads: the inner step of every reduction.
//
// A lane begins with a pivot (a value of the data that all lanes of a strip share, so that their sums add up), takes whole packets
// or parts of one, is joined with the lanes beside it, and becomes a record. A packet is looked at as a whole first: one test of
// its sum or its greatest finds any NaN, and only then are elements looked at one by one, out of the way of the usual.
//
// `at` is the packet's ordinal among those of the piece; `first` of partial() is the piece's first packet.
#pragma once

#include "reduce_records.cuh"

namespace kasmina::reduce {

constexpr uint32_t kNoPacket = ~0u;

// What a kernel is told beside the data.
struct Settings {
    double threshold;    // of a count, where values are floats
    int64_t whole;       // the same where they are integers
    uint32_t relations;  // of a count: the kLess… that match
    float dead_epsilon;  // of statistics
    uint32_t propagate;  // whether a NaN makes a segment's or a column's result NaN; else it is passed over
    uint32_t padding;
};
static_assert(sizeof(Settings) == 32, "as in Rust");

constexpr uint32_t kLess = 1, kEqual = 2, kGreater = 4, kUnordered = 8;

// A packet with something out of the ordinary in it.
template <class T, class Lane>
__device__ __forceinline__ void take_each(Lane& lane, const typename Element<T>::Value (&value)[kLanes<T>], uint32_t at)
{
#pragma unroll
    for (uint32_t i = 0; i < kLanes<T>; ++i) lane.take_one(value[i], at);
}

template <class T>
struct SumLane {
    using Value = typename Element<T>::Value;
    using Record = Sum<T>;
    static constexpr bool kPivot = false;

    // i64 alone can leave 64 bits within a strip.
    using Total = std::conditional_t<Element<T>::kFloat, double, std::conditional_t<sizeof(T) == 8, __int128, int64_t>>;

    Total sum = 0;
    uint32_t taken = 0;
    uint32_t nans = 0;

    __device__ __forceinline__ void begin(Value, const Settings&) {}

    __device__ __forceinline__ void take(const Value (&value)[kLanes<T>], uint32_t)
    {
        if constexpr (Element<T>::kFloat) {
            const double packet = packet_sum(value);
            // Infinities of both signs give one too, and are taken one by one to the same result.
            if (is_nan(packet)) {
                take_each<T>(*this, value, 0);
                return;
            }
            taken += kLanes<T>;
            sum = add(sum, packet);
        } else {
            take_numbers(value);
        }
    }

    // Without a NaN.
    __device__ __forceinline__ void take_numbers(const Value (&value)[kLanes<T>])
    {
        taken += kLanes<T>;
        if constexpr (Element<T>::kFloat) {
            sum = add(sum, packet_sum(value));
        } else {
#pragma unroll
            for (uint32_t i = 0; i < kLanes<T>; ++i) sum += value[i];
        }
    }

    __device__ __forceinline__ void take_one(Value value, uint32_t)
    {
        taken += 1;
        if constexpr (Element<T>::kFloat) {
            nans += is_nan(value) ? 1 : 0;
            sum = add(sum, is_nan(value) ? 0.0 : static_cast<double>(value));
        } else {
            sum += value;
        }
    }

    __device__ __forceinline__ void join(const SumLane& other)
    {
        if constexpr (Element<T>::kFloat) {
            sum = add(sum, other.sum);
        } else {
            sum += other.sum;
        }
        taken += other.taken;
        nans += other.nans;
    }

    __device__ __forceinline__ Record record(uint64_t) const
    {
        if constexpr (Element<T>::kFloat) {
            return {sum, taken - nans, nans};
        } else {
            const auto wide = static_cast<__int128>(sum);
            return {static_cast<uint64_t>(wide), static_cast<int64_t>(wide >> 64), taken};
        }
    }

private:
    static __device__ __forceinline__ double packet_sum(const Value (&value)[kLanes<T>])
    {
        double wide[kLanes<T>];
#pragma unroll
        for (uint32_t i = 0; i < kLanes<T>; ++i) wide[i] = static_cast<double>(value[i]);
        return tree(wide, [](double a, double b) { return add(a, b); });
    }
};

// Sums of segments and columns, whose result is one f64.
template <class T>
struct SegmentSumLane : SumLane<T> {
    using Record = SegmentSum;

    __device__ __forceinline__ void join(const SegmentSumLane& other) { SumLane<T>::join(other); }
    __device__ __forceinline__ Record record(uint64_t at) const { return {SumLane<T>::record(at)}; }
};

// Sums of products of two matrices, NaN where either factor is.
template <class T>
struct ProductLane : SegmentSumLane<T> {
    using Value = typename Element<T>::Value;

    __device__ __forceinline__ void take_pair(Value x, Value y)
    {
        const bool nan = is_nan(x) || is_nan(y);
        this->taken += 1;
        this->nans += nan ? 1 : 0;
        this->sum = nan ? this->sum : fused(static_cast<double>(x), static_cast<double>(y), this->sum);
    }
};

// Extremes without places.
template <class T>
struct BoundsLane {
    using Value = typename Element<T>::Value;
    using Record = Bounds;
    static constexpr bool kPivot = false;
    static_assert(std::is_same_v<Value, float>, "Bounds are f32");

    float low, high;
    uint32_t taken = 0, nans = 0;

    __device__ __forceinline__ void begin(Value, const Settings&)
    {
        low = __int_as_float(0x7f800000);
        high = -low;
    }

    __device__ __forceinline__ void take(const Value (&value)[kLanes<T>], uint32_t at)
    {
        const Value most = tree(value, [](Value a, Value b) { return greatest_or_nan(a, b); });
        if (is_nan(most)) {
            take_each<T>(*this, value, at);
            return;
        }
        taken += kLanes<T>;
        low = least(low, tree(value, [](Value a, Value b) { return least(a, b); }));
        high = greatest(high, most);
    }

    __device__ __forceinline__ void take_one(Value value, uint32_t)
    {
        taken += 1;
        nans += is_nan(value) ? 1 : 0;
        low = least(low, value);
        high = greatest(high, value);
    }

    __device__ __forceinline__ void join(const BoundsLane& other)
    {
        low = least(low, other.low);
        high = greatest(high, other.high);
        taken += other.taken;
        nans += other.nans;
    }

    __device__ __forceinline__ Record record(uint64_t) const { return {taken - nans, nans, low, high}; }
};

template <class T>
struct ExtremaLane {
    using Value = typename Element<T>::Value;
    using Record = Extrema<Value>;
    static constexpr bool kPivot = false;

    Value low, high;
    uint32_t low_at = kNoPacket, high_at = kNoPacket, nan_at = kNoPacket;
    uint32_t nans = 0;
    uint32_t taken = 0;

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
        taken += kLanes<T>;
        offer(tree(value, [](Value a, Value b) { return least(a, b); }), most, at);
    }

    __device__ __forceinline__ void take_one(Value value, uint32_t at)
    {
        taken += 1;
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
        taken += other.taken;
    }

    __device__ __forceinline__ Record record(uint64_t first) const
    {
        const auto place = [=](uint32_t at) { return at == kNoPacket ? kNowhere : first + at; };
        return {low, high, place(low_at), place(high_at), place(nan_at), taken - nans, nans};
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

// Sum, sum of squares and extremes in one read.
template <class T>
struct SummaryLane {
    using Value = typename Element<T>::Value;
    using Record = Summary<T>;
    static constexpr bool kPivot = false;

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
        squares = add(squares, packet_squares(value));
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

    __device__ __forceinline__ Record record(uint64_t first) const
    {
        return {sum.record(first), squares, extrema.record(first)};
    }

private:
    static __device__ __forceinline__ double packet_squares(const Value (&value)[kLanes<T>])
    {
        double part[(kLanes<T> + 1) / 2];
#pragma unroll
        for (uint32_t i = 0; i + 1 < kLanes<T>; i += 2) {
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

    Value threshold;
    uint32_t relations;
    uint32_t matches = 0;

    __device__ __forceinline__ void begin(Value, const Settings& settings)
    {
        if constexpr (Element<T>::kFloat) {
            threshold = static_cast<Value>(settings.threshold);
        } else {
            threshold = static_cast<Value>(settings.whole);
        }
        relations = settings.relations;
    }

    __device__ __forceinline__ void take(const Value (&value)[kLanes<T>], uint32_t)
    {
        uint32_t more = 0;
#pragma unroll
        for (uint32_t i = 0; i < kLanes<T>; ++i) more += match(value[i]);
        matches += more;
    }

    __device__ __forceinline__ void take_one(Value value, uint32_t) { matches += match(value); }

    __device__ __forceinline__ void join(const CountLane& other) { matches += other.matches; }

    __device__ __forceinline__ Record record(uint64_t) const { return {matches}; }

private:
    __device__ __forceinline__ uint32_t match(Value value) const
    {
        const uint32_t relation = value < threshold    ? kLess
                                  : value == threshold ? kEqual
                                  : value > threshold  ? kGreater
                                                       : kUnordered;
        return (relations & relation) != 0 ? 1 : 0;
    }
};

// Statistics about a pivot: two f64 sums of differences, which for f16, bf16 and f32 are exact up to 2^29 apart.
template <class T>
struct StatisticsLane {
    using Value = typename Element<T>::Value;
    using Record = Statistics<Value>;
    static constexpr bool kPivot = true;

    double pivot;
    Value dead_epsilon;
    double sum = 0.0, squares = 0.0;
    Value low, high;
    uint32_t n = 0;
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
            low = sizeof(Value) == 8 ? static_cast<Value>(INT64_MAX)
                                     : static_cast<Value>(std::is_signed_v<Value> ? 0x7fffffffu : 0xffffffffu);
            high = sizeof(Value) == 8 ? static_cast<Value>(INT64_MIN) : static_cast<Value>(std::is_signed_v<Value> ? 0x80000000u : 0u);
        }
    }

    __device__ __forceinline__ void take(const Value (&value)[kLanes<T>], uint32_t)
    {
        double shifted[kLanes<T>], square[kLanes<T> / 2];
#pragma unroll
        for (uint32_t i = 0; i < kLanes<T>; ++i) shifted[i] = add(static_cast<double>(value[i]), -pivot);
#pragma unroll
        for (uint32_t i = 0; i < kLanes<T> / 2; ++i) {
            square[i] = fused(shifted[2 * i + 1], shifted[2 * i + 1], mul(shifted[2 * i], shifted[2 * i]));
        }
        const auto plus = [](double a, double b) { return add(a, b); };
        const double packet = tree(square, plus);
        // Squares of f32 cannot leave f64, so this is an element that is not finite; with f64 it may also be a great one.
        if (Element<T>::kFloat && !finite(packet)) {
            take_each<T>(*this, value, 0);
            return;
        }
        sum = add(sum, tree(shifted, plus));
        squares = add(squares, packet);
        n += kLanes<T>;
        low = least(low, tree(value, [](Value a, Value b) { return least(a, b); }));
        high = greatest(high, tree(value, [](Value a, Value b) { return greatest(a, b); }));
#pragma unroll
        for (uint32_t i = 0; i < kLanes<T>; ++i) dead += is_dead(value[i]) ? 1 : 0;
    }

    __device__ __forceinline__ void take_one(Value value, uint32_t)
    {
        if (!finite(value)) {
            nonfinite += 1;
            return;
        }
        const double shifted = add(static_cast<double>(value), -pivot);
        sum = add(sum, shifted);
        squares = fused(shifted, shifted, squares);
        n += 1;
        low = least(low, value);
        high = greatest(high, value);
        dead += is_dead(value) ? 1 : 0;
    }

    __device__ __forceinline__ void join(const StatisticsLane& other)
    {
        sum = add(sum, other.sum);
        squares = add(squares, other.squares);
        n += other.n;
        low = least(low, other.low);
        high = greatest(high, other.high);
        dead += other.dead;
        nonfinite += other.nonfinite;
    }

    __device__ __forceinline__ Record record(uint64_t) const
    {
        return Record::about(pivot, sum, squares, n, dead, nonfinite, low, high);
    }

private:
    __device__ __forceinline__ bool is_dead(Value value) const
    {
        if constexpr (std::is_unsigned_v<Value>) {
            return value == 0;
        } else if constexpr (std::is_integral_v<Value>) {
            // Without the overflow of −INT_MIN.
            return value == 0;
        } else {
            return (value < 0 ? -value : value) <= dead_epsilon;
        }
    }
};

}  // namespace kasmina::reduce
