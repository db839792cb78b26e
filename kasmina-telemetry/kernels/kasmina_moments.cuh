// A thread's running statistics of one seed's activations, or of its output's gradient: moments, extremes and counts of a stream
// of small blocks. How the moments keep their accuracy is said in kasmina_shifted.cuh. For each block:
//
//     const float pivot = running.moments.pivot(x);     // x: the block's first element
//     ChunkBlock block = ChunkBlock::empty();
//     block.add(…, pivot, dead_epsilon);                // every element, in any order
//     if (running.accepts(block, taken)) {
//         running.merge(block, taken);
//     } else {                                          // every element once more, out of line
//         rest.push(…, dead_epsilon);
//     }
//
// and `running.finish(rest)` is the record of all of it. `rest` lies in local memory, untouched by blocks that are accepted.
#pragma once

#include "kasmina_shifted.cuh"

namespace kasmina {

// Pushes elements one by one, in f64.
KASMINA_COLD void push_each(ChunkStats& stats, const float* x, uint32_t count, float dead_epsilon)
{
    KASMINA_ROLLED
    for (uint32_t i = 0; i < count; ++i) stats.push(x[i], dead_epsilon);
}

KASMINA_COLD void push_each(GradientStats& stats, const float* g, uint32_t count)
{
    KASMINA_ROLLED
    for (uint32_t i = 0; i < count; ++i) stats.push(g[i]);
}

// What a block of activations adds up to. Elements may come in any order and from any columns of one seed.
struct ChunkBlock {
    ShiftedSums sums;
    float low;
    float high;
    // The number of dead elements above 2^23, where f32 counts in ones and its bits count along: on the device a comparison
    // that yields 1.0 and an addition are two instructions, counting in integers is three.
    float dead;

    KASMINA_HD static ChunkBlock empty() { return {ShiftedSums::zero(), kInfinity, -kInfinity, kNoneDead}; }

    KASMINA_HD void add(float x, float pivot, float dead_epsilon)
    {
        sums.add(x, pivot);
        see(x, dead_epsilon);
    }

    // Takes the first `count` > 0 of N elements, such as a packet's.
    template <uint32_t N>
    KASMINA_HD void add(const float (&x)[N], uint32_t count, float pivot, float dead_epsilon)
    {
        sums.join(ShiftedSums::of(x, count, pivot));
        KASMINA_UNROLL
        for (uint32_t i = 0; i < N; ++i) {
            if (i < count) see(x[i], dead_epsilon);
        }
    }

    // What was seen of values whose sums were added directly.
    KASMINA_HD void add_range(float lowest, float highest, float dead_elements)
    {
        low = minimum_number(low, lowest);
        high = maximum_number(high, highest);
        dead += dead_elements;
    }

    KASMINA_HD uint32_t dead_count() const { return bits_of(dead) - bits_of(kNoneDead); }

private:
    friend struct RunningChunk;

    static constexpr float kNoneDead = 0x1p23f;

    // Squares of 0 are right where every element is the pivot, as in a dead chunk.
    KASMINA_HD bool is_ordinary() const
    {
        const bool ordinary = sums.is_ordinary(), zero = sums.is_zero(), alike = low == high;
        return ordinary | (zero & alike);
    }

    KASMINA_HD void see(float x, float dead_epsilon)
    {
        low = minimum_number(low, x);
        high = maximum_number(high, x);
        dead += one_if_at_most(fabsf(x), dead_epsilon);
    }
};

// A thread's statistics of one seed's activations: 32 bytes.
struct RunningChunk {
    RunningMoments moments;
    float low;
    float high;
    uint32_t dead;

    KASMINA_HD static RunningChunk empty() { return {RunningMoments::empty(), kInfinity, -kInfinity, 0}; }

    // Whether a block of `taken` > 0 elements, summed about `moments.pivot`, may be merged.
    KASMINA_HD bool accepts(const ChunkBlock& block, uint32_t taken) const
    {
        const bool ordinary = block.is_ordinary(), kept = moments.accepts(block.sums, taken);
        return ordinary & kept;
    }

    // Merges a block that was accepted.
    KASMINA_HD void merge(const ChunkBlock& block, uint32_t taken)
    {
        moments.merge(block.sums, taken);
        low = minimum_number(low, block.low);
        high = maximum_number(high, block.high);
        dead += block.dead_count();
    }

    // All of the above for the first `count` of N elements.
    template <uint32_t N>
    KASMINA_HD void push(const float (&x)[N], uint32_t count, float dead_epsilon, ChunkStats& rest)
    {
        static_assert(N <= kMaxBlock, "a larger block loses accuracy");
        if (count == 0) return;
        const float pivot = moments.pivot(x[0]);
        ChunkBlock block = ChunkBlock::empty();
        block.add(x, count, pivot, dead_epsilon);
        if (accepts(block, count)) {
            merge(block, count);
        } else {
            // The address of x itself would keep it out of registers on the hot path too.
            float copy[N];
            KASMINA_UNROLL
            for (uint32_t i = 0; i < N; ++i) copy[i] = x[i];
            push_each(rest, copy, count, dead_epsilon);
        }
    }

    // All that was merged, as a record. A zero extremum is +0.
    KASMINA_HD ChunkStats finish() const
    {
        ChunkStats stats = ChunkStats::empty();
        stats.set_moments(moments.finish());
        stats.dead = dead;
        stats.min = add_rn(low, 0.0f);
        stats.max = add_rn(high, 0.0f);
        return stats;
    }

    // The same with what was refused.
    KASMINA_HD ChunkStats finish(const ChunkStats& rest) const
    {
        ChunkStats stats = finish();
        stats.merge(rest);
        return stats;
    }
};

// What a block of gradients adds up to.
struct GradientBlock {
    ShiftedSums sums;
    float max_abs;

    KASMINA_HD static GradientBlock empty() { return {ShiftedSums::zero(), 0.0f}; }

    KASMINA_HD void add(float g, float pivot)
    {
        sums.add(g, pivot);
        max_abs = maximum_number(max_abs, fabsf(g));
    }

    // Takes the first `count` > 0 of N elements, such as a packet's.
    template <uint32_t N>
    KASMINA_HD void add(const float (&g)[N], uint32_t count, float pivot)
    {
        sums.join(ShiftedSums::of(g, count, pivot));
        KASMINA_UNROLL
        for (uint32_t i = 0; i < N; ++i) {
            if (i < count) max_abs = maximum_number(max_abs, fabsf(g[i]));
        }
    }

private:
    friend struct RunningGradient;

    // As for activations. With no |g| above |p| the differences have one sign, so a sum of 0 says that all of them are 0.
    KASMINA_HD bool is_ordinary(float pivot) const
    {
        const bool ordinary = sums.is_ordinary(), zero = sums.is_zero(), below = max_abs <= fabsf(pivot);
        return ordinary | (zero & below);
    }
};

// A thread's statistics of one seed's output gradient: 24 bytes.
struct RunningGradient {
    RunningMoments moments;
    float max_abs;

    KASMINA_HD static RunningGradient empty() { return {RunningMoments::empty(), 0.0f}; }

    // Whether a block of `taken` > 0 elements, summed about `pivot`, may be merged.
    KASMINA_HD bool accepts(const GradientBlock& block, float pivot, uint32_t taken) const
    {
        const bool ordinary = block.is_ordinary(pivot), kept = moments.accepts(block.sums, taken);
        return ordinary & kept;
    }

    // Merges a block that was accepted.
    KASMINA_HD void merge(const GradientBlock& block, uint32_t taken)
    {
        moments.merge(block.sums, taken);
        max_abs = maximum_number(max_abs, block.max_abs);
    }

    template <uint32_t N>
    KASMINA_HD void push(const float (&g)[N], uint32_t count, GradientStats& rest)
    {
        static_assert(N <= kMaxBlock, "a larger block loses accuracy");
        if (count == 0) return;
        const float pivot = moments.pivot(g[0]);
        GradientBlock block = GradientBlock::empty();
        block.add(g, count, pivot);
        if (accepts(block, pivot, count)) {
            merge(block, count);
        } else {
            float copy[N];
            KASMINA_UNROLL
            for (uint32_t i = 0; i < N; ++i) copy[i] = g[i];
            push_each(rest, copy, count);
        }
    }

    KASMINA_HD GradientStats finish() const
    {
        GradientStats stats = GradientStats::empty();
        const Moments all = moments.finish();
        stats.set_moments(all);
        stats.max_abs = max_abs;
        stats.sum_squares = all.sum_squares();
        return stats;
    }

    KASMINA_HD GradientStats finish(const GradientStats& rest) const
    {
        GradientStats stats = finish();
        stats.merge(rest);
        return stats;
    }
};

} // namespace kasmina
