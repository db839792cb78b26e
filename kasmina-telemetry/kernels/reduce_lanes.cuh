// What one lane keeps of the packets it reads: the inner step of every reduction.
//
// A lane begins with a pivot (a value of the data that all lanes of a strip share, so that their sums add up), takes whole packets
// or parts of one, is joined with the lanes beside it, and becomes a record. A packet is looked at as a whole first: one test of
// its sum or its greatest finds any NaN, and only then are elements looked at one by one, out of the way of the usual.
//
// `at` is the packet's ordinal among those of the piece. record() is told the piece's first packet and how many elements all joined
// lanes have seen, which who calls it knows and no lane need count.
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
