// Extremes and dead elements of 16-bit values, two at a time as they lie in a word: half the instructions that f32 takes, and
// exact, for nothing is rounded.
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

// Of up to 64 words. A NaN is passed over.
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
