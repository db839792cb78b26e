// 16-bit values two at a time, as they lie in a word: flushed, and seen for their extremes and dead elements. Half the
// instructions that f32 takes, and exact, for nothing is rounded.
#pragma once

#include "kasmina_element.cuh"

namespace kasmina {

// The greatest 16-bit value that is at most x ≥ 0, in both halves of a word.
template <class T>
KASMINA_HD uint32_t pair_at_most(float x)
{
    T nearest;
    round_to(x, nearest);
    const uint32_t bits = widen(nearest) > x ? nearest.bits - 1u : nearest.bits;
    return bits | bits << 16;
}

// The least 16-bit value that is at least x ≥ 0, in both halves of a word.
template <class T>
KASMINA_HD uint32_t pair_at_least(float x)
{
    T nearest;
    round_to(x, nearest);
    const uint32_t bits = widen(nearest) < x ? nearest.bits + 1u : nearest.bits;
    return bits | bits << 16;
}

// `Guards::flush` of both halves: NaN → 0, |x| < ε → 0; `threshold` is `pair_at_least` ε.
template <class T>
KASMINA_HD uint32_t flush_pair(uint32_t word, uint32_t threshold)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    uint32_t kept;
    if constexpr (Storage<T>::kInfinityBits == Storage<f16>::kInfinityBits) {
        asm("{ .reg .b32 a; abs.f16x2 a, %1; set.ge.u32.f16x2 %0, a, %2; }" : "=r"(kept) : "r"(word), "r"(threshold));
    } else {
        asm("{ .reg .b32 a; abs.bf16x2 a, %1; set.ge.u32.bf16x2 %0, a, %2; }" : "=r"(kept) : "r"(word), "r"(threshold));
    }
    return word & kept;
#else
    // Magnitudes of one sign order as their bits do; those of NaN lie above the infinity's.
    uint32_t kept = 0;
    KASMINA_UNROLL
    for (uint32_t half = 0; half < 32; half += 16) {
        const uint32_t magnitude = word >> half & 0x7fffu;
        if (magnitude >= (threshold & 0xffffu) && magnitude <= Storage<T>::kInfinityBits) kept |= 0xffffu << half;
    }
    return word & kept;
#endif
}

// The greatest magnitude of some pairs; a NaN stays. By both extremes: a minimum and a maximum take two words each, an absolute
// value one.
template <class T>
struct PairMagnitude {
    uint32_t low = 0;
    uint32_t high = 0;

    KASMINA_HD void see(uint32_t word)
    {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
        if constexpr (Storage<T>::kInfinityBits == Storage<f16>::kInfinityBits) {
            asm("min.NaN.f16x2 %0, %0, %2; max.NaN.f16x2 %1, %1, %2;" : "+r"(low), "+r"(high) : "r"(word));
        } else {
            asm("min.NaN.bf16x2 %0, %0, %2; max.NaN.bf16x2 %1, %1, %2;" : "+r"(low), "+r"(high) : "r"(word));
        }
#else
        // Magnitudes order as their bits do, NaN last.
        uint32_t all = 0;
        KASMINA_UNROLL
        for (uint32_t half = 0; half < 32; half += 16) {
            const uint32_t magnitude = word >> half & 0x7fffu, before = high >> half & 0x7fffu;
            all |= (magnitude > before ? magnitude : before) << half;
        }
        high = all;
#endif
    }

    KASMINA_HD float greatest() const
    {
        return maximum(maximum(-half(low, 0), half(high, 0)), maximum(-half(low, 16), half(high, 16)));
    }

private:
    KASMINA_HD static float half(uint32_t word, uint32_t shift) { return widen(T{static_cast<uint16_t>(word >> shift)}); }
};

// Extremes and dead elements of up to 64 words. A NaN is passed over.
template <class T>
struct PairRange {
    uint32_t low;
    uint32_t high;
    // Numbers of dead elements, as values of T: exact up to 256.
    uint32_t dead;

    KASMINA_HD static PairRange empty()
    {
        const uint32_t infinity = Storage<T>::kInfinityBits;
        return {infinity | infinity << 16, (infinity | infinity << 16) | 0x80008000u, 0};
    }

    // `threshold` is `pair_at_most` the dead threshold.
    KASMINA_HD void see(uint32_t word, uint32_t threshold)
    {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
        if constexpr (Storage<T>::kInfinityBits == Storage<f16>::kInfinityBits) {
            asm("{ .reg .b32 a, d; min.f16x2 %0, %0, %3; max.f16x2 %1, %1, %3; abs.f16x2 a, %3; set.le.f16x2.f16x2 d, a, %4;"
                " add.f16x2 %2, %2, d; }"
                : "+r"(low), "+r"(high), "+r"(dead)
                : "r"(word), "r"(threshold));
        } else {
            asm("{ .reg .b32 a, d; min.bf16x2 %0, %0, %3; max.bf16x2 %1, %1, %3; abs.bf16x2 a, %3;"
                " set.le.bf16x2.bf16x2 d, a, %4; add.bf16x2 %2, %2, d; }"
                : "+r"(low), "+r"(high), "+r"(dead)
                : "r"(word), "r"(threshold));
        }
#else
        uint32_t out_low = 0, out_high = 0, out_dead = 0;
        KASMINA_UNROLL
        for (uint32_t half = 0; half < 32; half += 16) {
            const float x = at(word, half), count = at(dead, half) + one_if_at_most(fabsf(x), at(threshold, half));
            out_low |= bits_of_half(minimum_number(at(low, half), x)) << half;
            out_high |= bits_of_half(maximum_number(at(high, half), x)) << half;
            out_dead |= bits_of_half(count) << half;
        }
        low = out_low;
        high = out_high;
        dead = out_dead;
#endif
    }

    // Of the low and of the high halves.
    KASMINA_HD float lowest(uint32_t half) const { return at(low, 16 * half); }
    KASMINA_HD float highest(uint32_t half) const { return at(high, 16 * half); }
    KASMINA_HD float dead_count(uint32_t half) const { return at(dead, 16 * half); }

private:
    KASMINA_HD static float at(uint32_t word, uint32_t shift) { return widen(T{static_cast<uint16_t>(word >> shift)}); }

    KASMINA_HD static uint32_t bits_of_half(float x)
    {
        T half;
        round_to(x, half);
        return half.bits;
    }
};

} // namespace kasmina
