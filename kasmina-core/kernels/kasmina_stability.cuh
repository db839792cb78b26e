// The guards of stability modes: what is done to non-finite, tiny and huge values of on-path chunks, and which gradients
// pass. Source: `Bounds` in src/stability.rs; strict mode's bounds are those of src/cpu/strict.rs.
//
// The clamps are the hardware's minimum and maximum, one instruction each. They differ from comparing and choosing, as the
// CPU does, in one thing: the sign of a zero result where a bound is itself a zero.
#pragma once

#include "kasmina_base.cuh"

namespace kasmina {

// The bounds in force in one call; `#[repr(C)]` in Rust.
struct Bounds {
    // 0 in fast mode, where nothing is done.
    uint32_t guarded;
    // |x| below this becomes 0.
    float epsilon;
    float lower;
    float upper;
};
static_assert(sizeof(Bounds) == 16 && offsetof(Bounds, upper) == 12, "the layout that the host writes");

// Bounds whose mode the kernel was compiled for.
template <bool Guarded>
struct Guards {
    float epsilon;
    float lower;
    float upper;

    KASMINA_HD explicit Guards(const Bounds& bounds) : epsilon(bounds.epsilon), lower(bounds.lower), upper(bounds.upper) {}

    // NaN → 0, |x| < ε → 0: a NaN fails the comparison with the tiny ones.
    KASMINA_HD float flush(float x) const { return fabsf(x) >= epsilon ? x : 0.0f; }

    // Input of an on-path branch: flushed, then clamped.
    KASMINA_HD float sanitize(float x) const
    {
        if constexpr (!Guarded) {
            return x;
        } else {
            return minimum_number(maximum_number(flush(x), lower), upper);
        }
    }

    // The clamp alone; NaN stays NaN.
    KASMINA_HD float clamp(float y) const
    {
        if constexpr (!Guarded) {
            return y;
        } else {
            return minimum(maximum(y, lower), upper);
        }
    }

    // Whether a value passes the clamp unchanged, so that its gradient passes too; NaN does not.
    KASMINA_HD bool passes(float v) const
    {
        if constexpr (!Guarded) {
            return true;
        } else {
            return v >= lower && v <= upper;
        }
    }

    // g where v passes the clamp unchanged, 0 elsewhere.
    KASMINA_HD float mask(float v, float g) const { return passes(v) ? g : 0.0f; }
};

// Guards of finite values that, like what becomes of them, are known to stay within the bounds: the flush is all that is left.
struct FlushOnly {
    float epsilon;

    KASMINA_HD explicit FlushOnly(const Bounds& bounds) : epsilon(bounds.epsilon) {}

    KASMINA_HD float sanitize(float x) const { return fabsf(x) >= epsilon ? x : 0.0f; }

    KASMINA_HD float clamp(float y) const { return y; }
};

// Guards of values that have been flushed: the clamps are left.
struct ClampOnly {
    float lower;
    float upper;

    KASMINA_HD explicit ClampOnly(const Bounds& bounds) : lower(bounds.lower), upper(bounds.upper) {}

    KASMINA_HD float sanitize(float x) const { return minimum_number(maximum_number(x, lower), upper); }

    KASMINA_HD float clamp(float y) const { return minimum(maximum(y, lower), upper); }
};

// f32 nearest to a bound, held within the fixed bounds; NaN stays NaN (Rust's f32::clamp).
KASMINA_HD float held_within(double bound, float lower, float upper)
{
    const float nearest = static_cast<float>(bound);
    const float raised = nearest < lower ? lower : nearest;
    return raised > upper ? upper : raised;
}

// Strict mode: mean ± sigmas·σ over the n finite elements of the call's whole input, intersected with the fixed bounds;
// without a finite element the fixed bounds. m2 is Σ (x − mean)².
KASMINA_HD Bounds strict_bounds(const Bounds& fixed, float sigmas, uint64_t n, double mean, double m2)
{
    if (n == 0) return fixed;
    const double width = mul_rn(static_cast<double>(sigmas), sqrt(m2 / static_cast<double>(n)));
    Bounds bounds = fixed;
    bounds.lower = held_within(sub_rn(mean, width), fixed.lower, fixed.upper);
    bounds.upper = held_within(add_rn(mean, width), fixed.lower, fixed.upper);
    return bounds;
}

} // namespace kasmina
