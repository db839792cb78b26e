// An f32 as the sum of two bf16, so that tensor cores, which multiply bf16 exactly and add in f32, can take f32 operands.
//
// hi is x rounded to bf16, lo what is left of it, rounded: hi + lo is x within 2^-17 |x|, and exactly x where x was f16 or bf16
// (11 and 8 bits, where hi keeps 8 and lo 8 more). A product a·b is taken as hi·hi + hi·lo + lo·hi; what is missing, lo·lo, is
// below 2^-16 |a·b|, and with both operands' own 2^-17 a product is good to 2^-15. bf16 has f32's exponents, so nothing overflows that was finite, which halves of f16 could not promise.
// Below 2^-126 what lo can hold runs out, and with it the relative accuracy, as f32's own does a little later.
#pragma once

#include "kasmina_element.cuh"

namespace kasmina {

struct Split {
    bf16 hi;
    bf16 lo;
};

KASMINA_HD Split split(float x)
{
    Split parts;
    uint32_t saturated = 0;
    // A finite x does not round to infinity: the largest bf16 stays, and lo has the rest.
    narrow(x, parts.hi, saturated);
    // Infinity minus itself would make a NaN of an infinity. Where hi is not finite it says all there is to say.
    const float rest = is_finite(x) ? sub_rn(x, widen(parts.hi)) : 0.0f;
    round_to(rest, parts.lo);
    // Within 2^-9 of the largest f32, where hi was held back: rounded up, lo would carry the sum to infinity.
    if (saturated != 0) {
        parts.lo.bits = static_cast<uint16_t>(bits_of(rest) >> 16);
    }
    return parts;
}

// hi + lo, in f32: what an operand is where products are not left to the tensor cores.
KASMINA_HD float joined(bf16 hi, bf16 lo)
{
    return add_rn(widen(hi), widen(lo));
}

// The first in the low half, as fragments of the tensor cores have neighbours.
KASMINA_HD uint32_t pair(bf16 first, bf16 second)
{
    return first.bits | static_cast<uint32_t>(second.bits) << 16;
}

} // namespace kasmina
