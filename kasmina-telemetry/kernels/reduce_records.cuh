// What partial results are: records that merge, the left one being the earlier part of the data. They leave a warp, wait in
// memory for the block that comes last, and the final one is what the host reads; `src/cuda/records.rs` has them byte for byte.
//
// Numbers are the elements that are no NaN; there are as many as elements, less the NaNs. What a NaN does to a result is decided where the record is read, so one kernel serves
// both policies.
#pragma once

#include "kasmina_stats.cuh"
#include "reduce_element.cuh"

namespace kasmina::reduce {

// No such place.
constexpr uint64_t kNowhere = ~uint64_t{0};

// Σ of floats, in f64.
struct FloatSum {
    double sum;
    uint64_t nans;

    KASMINA_HD static FloatSum neutral() { return {0.0, 0}; }

    KASMINA_HD void merge(const FloatSum& right)
    {
        sum = add(sum, right.sum);
        nans += right.nans;
    }
};

// Σ of integers, exactly: 128 bits in two's complement.
struct IntegerSum {
    uint64_t low;
    int64_t high;

    KASMINA_HD static IntegerSum neutral() { return {0, 0}; }

    KASMINA_HD void merge(const IntegerSum& right)
    {
        const uint64_t sum = low + right.low;
        high += right.high + (sum < low ? 1 : 0);
        low = sum;
    }
};

template <class T>
using Sum = std::conditional_t<Element<T>::kFloat, FloatSum, IntegerSum>;

// Extremes and the packets in which they first occur; the index within the packet is looked up once, at the very end. A place
// is `kNowhere`, and its value means nothing, while there are no numbers.
template <class V>
struct Extrema {
    V low;
    V high;
    uint64_t low_at;
    uint64_t high_at;
    uint64_t nan_at;
    uint64_t nans;

    KASMINA_HD static Extrema neutral() { return {V{}, V{}, kNowhere, kNowhere, kNowhere, 0}; }

    // Lanes and strips interleave packets, so ties go by the place and not by the side.
    KASMINA_HD void merge(const Extrema& right)
    {
        const bool any = right.low_at != kNowhere;
        if (any && (low_at == kNowhere || right.low < low || (right.low == low && right.low_at < low_at))) {
            low = right.low;
            low_at = right.low_at;
        }
        if (any && (high_at == kNowhere || right.high > high || (right.high == high && right.high_at < high_at))) {
            high = right.high;
            high_at = right.high_at;
        }
        if (right.nan_at < nan_at) nan_at = right.nan_at;
        nans += right.nans;
    }
};

// A sum that becomes one f64: NaN where a NaN propagates, and `kNone` where there is nothing to sum.
struct SegmentSum {
    FloatSum sum;

    KASMINA_HD static SegmentSum neutral() { return {FloatSum::neutral()}; }
    KASMINA_HD void merge(const SegmentSum& right) { sum.merge(right.sum); }

#if defined(__CUDACC__)
    // A quiet NaN whose payload no arithmetic makes.
    static constexpr int64_t kNone = 0x7ff8'6b61'736d'696e;

    // Of `count` elements.
    __device__ __forceinline__ double outcome(uint64_t count, bool propagate) const
    {
        if (propagate && sum.nans != 0) return __longlong_as_double(0x7ff8'0000'0000'0000);
        return sum.nans == count ? __longlong_as_double(kNone) : sum.sum;
    }
#endif
};

// Extremes without places. Of segments and columns they become two f32: both NaN where a NaN propagates, and +Inf and −Inf where
// there is nothing.
template <class V>
struct Bounds {
    uint64_t nans;
    V low;
    V high;

    // What every value is below and above, or equal to.
    KASMINA_HD static Bounds neutral()
    {
        if constexpr (std::is_floating_point_v<V>) {
            return {0, static_cast<V>(__builtin_huge_val()), static_cast<V>(-__builtin_huge_val())};
        } else if constexpr (std::is_unsigned_v<V>) {
            return {0, static_cast<V>(~V{0}), V{0}};
        } else {
            using U = std::make_unsigned_t<V>;
            const U most = static_cast<U>(~U{0}) >> 1;
            return {0, static_cast<V>(most), static_cast<V>(~most)};
        }
    }

    KASMINA_HD void merge(const Bounds& right)
    {
        low = right.low < low ? right.low : low;
        high = right.high > high ? right.high : high;
        nans += right.nans;
    }

#if defined(__CUDACC__)
    __device__ __forceinline__ float2 outcome(bool propagate) const
    {
        const float nan = __int_as_float(0x7fc00000);
        if (propagate && nans != 0) return {nan, nan};
        // A zero is +0.
        return {static_cast<float>(low) + 0.0f, static_cast<float>(high) + 0.0f};
    }
#endif
};

template <class T>
struct Summary {
    Sum<T> sum;
    double squares;
    Extrema<typename Element<T>::Value> extrema;

    KASMINA_HD static Summary neutral()
    {
        return {Sum<T>::neutral(), 0.0, Extrema<typename Element<T>::Value>::neutral()};
    }

    KASMINA_HD void merge(const Summary& right)
    {
        sum.merge(right.sum);
        squares = add(squares, right.squares);
        extrema.merge(right.extrema);
    }
};

// Elements that fulfil a predicate.
struct Count {
    uint64_t matches;

    KASMINA_HD static Count neutral() { return {0}; }
    KASMINA_HD void merge(const Count& right) { matches += right.matches; }
};

// Welford's state with extremes, over finite elements; for V = float, the record that is `ChunkStats` on the host and in
// kasmina_stats.cuh, whose merge of moments this is. neutral() is neutral on both sides. A zero extreme is +0.
template <class V>
struct Statistics {
    uint64_t n;
    uint64_t dead;
    uint64_t nonfinite;
    double mean;
    double m2;
    // Mean nothing while n is 0, but for floats: +Inf and −Inf, as in ChunkStats::EMPTY.
    V low;
    V high;

    KASMINA_HD static Statistics neutral()
    {
        if constexpr (std::is_floating_point_v<V>) {
            const V infinity = static_cast<V>(__builtin_huge_val());
            return {0, 0, 0, 0.0, 0.0, infinity, -infinity};
        } else {
            return {0, 0, 0, 0.0, 0.0, V{}, V{}};
        }
    }

    // From sums about a pivot. Σ(x − p)² ≤ (1 + n)·m2 where the pivot is one of the values, so no more is cancelled than that.
    KASMINA_HD static Statistics about(double pivot, double sum, double squares, uint64_t n, uint64_t dead,
                                              uint64_t nonfinite, V low, V high)
    {
        Statistics all = neutral();
        all.nonfinite = nonfinite;
        if (n == 0) return all;
        const double shift = sum / static_cast<double>(n);
        const double within = fused(-sum, shift, squares);
        all.n = n;
        all.dead = dead;
        all.mean = add(pivot, shift);
        // Rounding may leave a tiny negative number where all values are equal.
        all.m2 = within < 0.0 ? 0.0 : within;
        all.low = low;
        all.high = high;
        if constexpr (std::is_floating_point_v<V>) {
            // −0 + +0 is +0.
            all.low += V{0};
            all.high += V{0};
        }
        return all;
    }

    KASMINA_HD void merge(const Statistics& right)
    {
        dead += right.dead;
        nonfinite += right.nonfinite;
        if (right.n == 0) return;
        if (n == 0) {
            low = right.low;
            high = right.high;
        }
        Moments all{n, mean, m2};
        all.merge({right.n, right.mean, right.m2});
        n = all.n;
        mean = all.mean;
        m2 = all.m2;
        if (right.low < low) low = right.low;
        if (right.high > high) high = right.high;
    }
};
static_assert(sizeof(Statistics<float>) == sizeof(ChunkStats) && offsetof(Statistics<float>, mean) == offsetof(ChunkStats, mean)
                  && offsetof(Statistics<float>, low) == offsetof(ChunkStats, min),
              "one record");

// Results of flat reductions as the host has them: with the number of numbers, which partial results need not carry.
struct FloatSumOut {
    double sum;
    uint64_t numbers;
    uint64_t nans;
};

struct IntegerSumOut {
    uint64_t low;
    int64_t high;
    uint64_t numbers;
};

template <class V>
struct BoundsOut {
    uint64_t numbers;
    uint64_t nans;
    V low;
    V high;
};

template <class V>
struct ExtremaOut {
    V low;
    V high;
    uint64_t low_at;
    uint64_t high_at;
    uint64_t nan_at;
    uint64_t numbers;
    uint64_t nans;
};

template <class S, class V>
struct SummaryOut {
    S sum;
    double squares;
    ExtremaOut<V> extrema;
};

KASMINA_HD FloatSumOut out_of(const FloatSum& sum, uint64_t count) { return {sum.sum, count - sum.nans, sum.nans}; }
KASMINA_HD IntegerSumOut out_of(const IntegerSum& sum, uint64_t count) { return {sum.low, sum.high, count}; }

template <class V>
KASMINA_HD BoundsOut<V> out_of(const Bounds<V>& bounds, uint64_t count)
{
    return {count - bounds.nans, bounds.nans, bounds.low, bounds.high};
}

template <class V>
KASMINA_HD ExtremaOut<V> out_of(const Extrema<V>& all, uint64_t count)
{
    return {all.low, all.high, all.low_at, all.high_at, all.nan_at, count - all.nans, all.nans};
}

template <class T>
KASMINA_HD auto out_of(const Summary<T>& all, uint64_t count)
    -> SummaryOut<decltype(out_of(all.sum, count)), typename Element<T>::Value>
{
    return {out_of(all.sum, count), all.squares, out_of(all.extrema, count)};
}

KASMINA_HD Count out_of(const Count& count, uint64_t) { return count; }

template <class V>
KASMINA_HD Statistics<V> out_of(const Statistics<V>& all, uint64_t)
{
    return all;
}

static_assert(sizeof(FloatSumOut) == 24 && sizeof(IntegerSumOut) == 24 && sizeof(ExtremaOut<float>) == 48
                  && sizeof(ExtremaOut<double>) == 56 && sizeof(SummaryOut<FloatSumOut, float>) == 80
                  && sizeof(SummaryOut<FloatSumOut, double>) == 88 && sizeof(Statistics<double>) == 56 && sizeof(Count) == 8
                  && sizeof(BoundsOut<float>) == 24 && sizeof(BoundsOut<double>) == 32,
              "src/cuda/records.rs");
static_assert(sizeof(FloatSum) == 16 && sizeof(Bounds<float>) == 16 && sizeof(Bounds<double>) == 24
                  && sizeof(Summary<float>) == 64 && sizeof(Summary<double>) == 72,
              "src/cuda/flat.rs reserves no less for a partial result");

}  // namespace kasmina::reduce
