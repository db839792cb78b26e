// A seed's distribution: counts by sign and octave of size. Source and layout: `Histogram` of this crate, whose record
// this is, byte for byte; the bin comes from the exponent's bits, so the counts are the Rust's for all inputs.
#pragma once

#include "kasmina_base.cuh"

namespace kasmina {

struct Histogram {
    // Octaves of each sign, from 2^-24 to 2^24; what lies beyond counts in the outermost, what lies nearer to zero between.
    static constexpr uint32_t kOctaves = 48;
    static constexpr uint32_t kBins = 2 * kOctaves + 1;
    static constexpr int kLeastExponent = -24;

    uint64_t counts[kBins];
    // NaN and ±Inf.
    uint64_t nonfinite;
    // +Inf without elements.
    float min;
    // −Inf without elements.
    float max;

    KASMINA_HD static uint32_t bin_of(float x)
    {
        const uint32_t bits = bits_of(x);
        // The biased exponent; 0 for zero and denormals.
        const int exponent = static_cast<int>(bits >> 23 & 0xffu) - 127;
        const int above = exponent - kLeastExponent + 1;
        const uint32_t octave = above < 0 ? 0 : above > static_cast<int>(kOctaves) ? kOctaves : static_cast<uint32_t>(above);
        return bits >> 31 != 0 ? kOctaves - octave : kOctaves + octave;
    }

    KASMINA_HD static Histogram empty()
    {
        Histogram histogram{};
        histogram.min = kInfinity;
        histogram.max = -kInfinity;
        return histogram;
    }
};
static_assert(sizeof(Histogram) == 792 && offsetof(Histogram, nonfinite) == 776 && offsetof(Histogram, min) == 784
                  && offsetof(Histogram, max) == 788,
              "kasmina_telemetry::Histogram");

// Numbers as integers of the same order, so that integer minima and maxima serve; −0 counts as +0. Not for NaN.
KASMINA_HD uint32_t ordered(float x)
{
    const uint32_t bits = bits_of(add_rn(x, 0.0f));
    return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

KASMINA_HD float unordered(uint32_t key)
{
    return float_of(key >> 31 != 0 ? key & 0x7fffffffu : ~key);
}

// A block's part of a histogram: fewer than 2^32 values of one seed.
struct PartialHistogram {
    // The last one counts NaN and ±Inf.
    static constexpr uint32_t kCounts = Histogram::kBins + 1;

    uint32_t counts[kCounts];
    // Of `ordered` values; the first above the second while there is none.
    uint32_t least;
    uint32_t greatest;

    KASMINA_HD static uint32_t slot_of(float x) { return is_finite(x) ? Histogram::bin_of(x) : Histogram::kBins; }

    KASMINA_HD static PartialHistogram empty()
    {
        PartialHistogram partial{};
        partial.least = 0xffffffffu;
        return partial;
    }

    KASMINA_HD void push(float x)
    {
        counts[slot_of(x)] += 1;
        if (!is_finite(x)) return;
        const uint32_t key = ordered(x);
        if (key < least) least = key;
        if (key > greatest) greatest = key;
    }

    // Adds itself to a seed's.
    KASMINA_HD void add_to(Histogram& histogram) const
    {
        for (uint32_t i = 0; i < Histogram::kBins; ++i) histogram.counts[i] += counts[i];
        histogram.nonfinite += counts[Histogram::kBins];
        if (least > greatest) return;
        const float low = unordered(least), high = unordered(greatest);
        if (low < histogram.min) histogram.min = low;
        if (high > histogram.max) histogram.max = high;
    }
};

} // namespace kasmina
