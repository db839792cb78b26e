// A thread's running moments of a stream of small blocks, in f32 and a few operations an element, to the accuracy of f64: the
// variance within 1e-5 at |mean| = 10⁴ σ over 10⁵ elements (measured by the tests: 3e-6 at most in blocks of 8 to 64, whatever
// the order of the values).
//
// Every block is summed about a pivot p, the running mean rounded to f32: r = Σ(x − p), q = Σ(x − p)². Near the mean the
// differences are exact, so nothing cancels. A block is then merged after Chan, Golub and LeVeque (1979, equation 2.1), with
// mean = p + l and c elements joining n:
//
//     d = r/c        δ = d − l        M2 += (q − r·d) + δ²·n·c/(n + c)        l += δ·c/(n + c)
//
// r·d cancels most of q only where the block lies far from the mean, and then δ² is as large as what is lost; but not at the
// start, where n is less than c and p is a single value: `accepts` refuses such a block. p and l, and the two halves of M2, are
// kept normalised by Dekker's fast two-sum ("A floating-point technique for extending the available precision", Numerische
// Mathematik 18, 1971): a single f32 M2 would drift by 1e-4 over 6,000 equal blocks.
//
// A block with NaN or Inf, or whose squares leave f32 in either direction, shows it in q and is refused too. The elements of a
// refused block are pushed one by one, in f64 and out of line, to a record that the caller keeps beside (`rest`, in local
// memory, untouched otherwise).
#pragma once

#include "kasmina_stats.cuh"

namespace kasmina {

// The most elements that a block should have: the rounding of its sums grows with it.
constexpr uint32_t kMaxBlock = 64;

// Σ(x − p) and Σ(x − p)² of a block.
struct ShiftedSums {
    float sum;
    float squares;

    KASMINA_HD static ShiftedSums zero() { return {0.0f, 0.0f}; }

    KASMINA_HD static ShiftedSums of(float x, float pivot)
    {
        const float shifted = x - pivot;
        return {shifted, shifted * shifted};
    }

    KASMINA_HD void add(float x, float pivot)
    {
        const float shifted = x - pivot;
        sum += shifted;
        squares = fmaf(shifted, shifted, squares);
    }

    // Of the first `count` > 0 of N elements. Every eight are summed among themselves first: for a quarter of an operation
    // an element, blocks of 64 then err by 2e-6 instead of 8e-6.
    template <uint32_t N>
    KASMINA_HD static ShiftedSums of(const float (&x)[N], uint32_t count, float pivot)
    {
        ShiftedSums all = of(x[0], pivot);
        KASMINA_UNROLL
        for (uint32_t i = 1; i < N && i < 8; ++i) {
            if (i < count) all.add(x[i], pivot);
        }
        KASMINA_UNROLL
        for (uint32_t first = 8; first < N; first += 8) {
            if (first < count) {
                ShiftedSums run = of(x[first], pivot);
                KASMINA_UNROLL
                for (uint32_t i = first + 1; i < N && i < first + 8; ++i) {
                    if (i < count) run.add(x[i], pivot);
                }
                all.join(run);
            }
        }
        return all;
    }

    KASMINA_HD void join(const ShiftedSums& other)
    {
        sum += other.sum;
        squares += other.squares;
    }

    // Whether every element was finite and no square mattered that f32 cannot hold. Beyond 1e30 the sum of all blocks could
    // overflow; below 1e-36 the squares that underflow could matter. False for NaN.
    KASMINA_HD bool is_ordinary() const
    {
        const bool large = squares >= 1e-36f, small = squares <= 1e30f;
        return large & small;
    }

    // Whether every difference was 0, if nothing underflowed.
    KASMINA_HD bool is_zero() const
    {
        const bool no_sum = sum == 0.0f, no_squares = squares == 0.0f;
        return no_sum & no_squares;
    }
};

// Moments of what a thread has seen. 20 bytes; n stays below 2^32.
struct RunningMoments {
    uint32_t n;
    // The mean is mean + mean_low, and mean is its nearest f32: the pivot of the next block.
    float mean;
    float mean_low;
    float m2;
    float m2_low;

    KASMINA_HD static RunningMoments empty() { return {0, 0.0f, 0.0f, 0.0f, 0.0f}; }

    // The pivot for a block that begins with `first`: at the start a value of the data, later the mean. Σ(x − p)² is at most
    // (1 + c)·M2 about a value of its own block (`Moments::from_shifted` of kasmina-telemetry). A `first` that is not finite
    // makes its block refused, and the next block begins anew.
    KASMINA_HD float pivot(float first)
    {
        if (n == 0) mean = first;
        return mean;
    }

    // Whether a block of `taken` > 0 elements loses nothing by cancelling. Without this, blocks of 64 equal values behind an
    // outlier give variances that are wrong by 1.6e-4. About 1 in 200 first blocks of normal data is refused.
    KASMINA_HD bool accepts(const ShiftedSums& block, uint32_t taken) const
    {
        const float shift = divide_by_count(block.sum, static_cast<float>(taken));
        const bool late = n >= taken;
        const bool near = 9.0f * fmaf(-block.sum, shift, block.squares) >= block.squares;
        return late | near;
    }

    // Merges the sums of `taken` > 0 elements about the present pivot.
    KASMINA_HD void merge(const ShiftedSums& block, uint32_t taken)
    {
        const float before = static_cast<float>(n);
        const float count = static_cast<float>(taken);
        const float share = divide_by_count(count, before + count);
        const float shift = divide_by_count(block.sum, count);
        const float delta = shift - mean_low;
        const float within = fmaf(-block.sum, shift, block.squares);
        const float added = fmaf(delta * delta, before * share, within);
        n += taken;
        const float m2_sum = m2 + added;
        m2_low += added - (m2_sum - m2);
        m2 = m2_sum;
        const float low = fmaf(delta, share, mean_low);
        const float mean_sum = mean + low;
        mean_low = low - (mean_sum - mean);
        mean = mean_sum;
    }

    KASMINA_HD Moments finish() const
    {
        // Rounding may leave a tiny negative number where all values are equal.
        const double sum = static_cast<double>(m2) + static_cast<double>(m2_low);
        return {n, n == 0 ? 0.0 : static_cast<double>(mean) + static_cast<double>(mean_low), sum > 0.0 ? sum : 0.0};
    }
};

} // namespace kasmina
