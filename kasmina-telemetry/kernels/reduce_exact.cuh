// Σ of f64 that no order of arrival can change: a fixed-point number with room for every double, which integer atomics add to.
//
// Digit i counts 2^(32·i − 1074) and lies in a word of 64 bits, so that 2^31 doubles, three neighbouring digits each, can be added before
// any carry is resolved. That happens once, at the end, where the exact sum is rounded to the nearest f64. After Kulisch ("Computer
// arithmetic and validity", 2008), in the form for parallel reductions of Collange, Defour, Graillat and Iakymchuk ("Numerical
// reproducibility for the parallel reduction on multi- and many-core architectures", Parallel Computing 49, 2015).
#pragma once

#include "reduce_element.cuh"

namespace kasmina::reduce {

// 2^1024 · 2^31 / 2^-1074 are 2129 bits, and one for the sign.
constexpr uint32_t kDigits = 67;
// The digits, and what was not finite.
constexpr uint32_t kExactWords = kDigits + 1;

enum Special : uint64_t { kPlusInfinity = 1, kMinusInfinity = 2, kNotANumber = 4 };

// What a double adds: digits `first` to `first + 2`, or a flag.
struct ExactTerm {
    uint64_t special;
    uint32_t first;
    int64_t digit[3];
};

KASMINA_HD uint64_t bits_of_double(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

KASMINA_HD ExactTerm exact_term(double x)
{
    const uint64_t bits = bits_of_double(x);
    const auto biased = static_cast<uint32_t>(bits >> 52 & 0x7ff);
    const uint64_t fraction = bits & 0xf'ffff'ffff'ffffu;
    const bool negative = bits >> 63 != 0;
    ExactTerm term{};
    if (biased == 0x7ff) {
        term.special = fraction != 0 ? kNotANumber : negative ? kMinusInfinity : kPlusInfinity;
        return term;
    }
    // x = mantissa · 2^(place − 1074).
    const uint64_t mantissa = biased == 0 ? fraction : fraction | uint64_t{1} << 52;
    const uint32_t place = biased == 0 ? 0 : biased - 1;
    const uint32_t shift = place % 32;
    term.first = place / 32;
    const uint64_t low = mantissa << shift;
    const uint64_t high = shift == 0 ? 0 : mantissa >> (64 - shift);
    term.digit[0] = static_cast<int64_t>(low & 0xffff'ffffu);
    term.digit[1] = static_cast<int64_t>(low >> 32);
    term.digit[2] = static_cast<int64_t>(high);
    if (negative) {
        for (int64_t& digit : term.digit) digit = -digit;
    }
    return term;
}

// Of a number that is not 0.
KASMINA_HD int leading_zeros(uint64_t x)
{
#if defined(__CUDA_ARCH__)
    return __clzll(static_cast<long long>(x));
#else
    return __builtin_clzll(x);
#endif
}

// The nearest f64 to mantissa · 2^exponent, where the mantissa's top bit is set and its lowest stands for all that was cut off. Where
// that is denormal no bit was: the digits begin at the least of them.
KASMINA_HD double scaled(uint64_t mantissa, int exponent)
{
#if defined(__CUDA_ARCH__)
    return ldexp(__ull2double_rn(mantissa), exponent);
#else
    return std::ldexp(static_cast<double>(mantissa), exponent);
#endif
}

// Its loops run once a launch, one iteration after the other but for their loads: unrolled as a whole they would take registers that loads under
// way need.
#if defined(__CUDACC__)
#define KASMINA_BY_FOURS _Pragma("unroll 4")
#else
#define KASMINA_BY_FOURS
#endif

// Resolves the carries in place and rounds; of no terms it is +0.
KASMINA_HD double exact_total(uint64_t* words)
{
    const uint64_t special = words[kDigits];
    if (special != 0) {
        const double infinity = __builtin_huge_val();
        if (special == kPlusInfinity) return infinity;
        if (special == kMinusInfinity) return -infinity;
        return __builtin_nan("");
    }
    // A word and the carry of those below stay within 2^63. What is not zero lies from digit `bottom` to digit `top`.
    int64_t carry = 0;
    int bottom = kDigits, top = -1;
    KASMINA_BY_FOURS
    for (int i = 0; i < static_cast<int>(kDigits); ++i) {
        const int64_t digit = static_cast<int64_t>(words[i]) + carry;
        words[i] = static_cast<uint64_t>(digit) & 0xffff'ffffu;
        carry = digit >> 32;
        if (words[i] != 0) {
            top = i;
            bottom = bottom < i ? bottom : i;
        }
    }
    const bool negative = carry < 0;
    if (negative) {
        // The complement, and one at the lowest digit that is not zero. Those above had ones in front, which become zeros.
        top = bottom;
        words[bottom] = (uint64_t{1} << 32) - words[bottom];
        KASMINA_BY_FOURS
        for (int i = bottom + 1; i < static_cast<int>(kDigits); ++i) {
            words[i] = ~words[i] & 0xffff'ffffu;
            if (words[i] != 0) top = i;
        }
    }
    if (top < 0) return 0.0;
    const auto digit = [&](int i) { return i >= 0 ? words[i] : 0; };
    uint64_t mantissa = digit(top) << 32 | digit(top - 1);
    uint64_t rest = digit(top - 2);
    int exponent = 32 * (top - 1) - 1074;
    // The top digit is not zero, so fewer than 32.
    const int shift = leading_zeros(mantissa);
    mantissa = mantissa << shift | rest << shift >> 32;
    rest = rest << shift & 0xffff'ffffu;
    exponent -= shift;
    const bool more = rest != 0 || bottom < top - 2;
    const double magnitude = scaled(mantissa | (more ? 1 : 0), exponent);
    return negative ? -magnitude : magnitude;
}

#if defined(__CUDACC__)

__device__ __forceinline__ void fold_exact(unsigned long long* words, double x)
{
    const ExactTerm term = exact_term(x);
    if (term.special != 0) {
        atomicOr(words + kDigits, static_cast<unsigned long long>(term.special));
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < 3; ++i) {
        if (term.digit[i] != 0) atomicAdd(words + term.first + i, static_cast<unsigned long long>(term.digit[i]));
    }
}

#endif  // __CUDACC__

}  // namespace kasmina::reduce
