// Column programs: y = v·(v·p > 0 ? on : off) + bias with v the guarded x, forward and backward.
//
// Source: src/lower.rs and `Step::run` of src/cpu/pointwise.rs. y and grad_x are rounded as there, operation by operation,
// so the CPU and the GPU give the same bits (but for the payload of a NaN, and what kasmina_stability.cuh says of zero
// bounds). The column sums are not: they may be fused and are added in the kernel's own order.
#pragma once

#include "kasmina_stability.cuh"

namespace kasmina {

// Four floats a column, read as one float4.
struct alignas(16) ColumnProgram {
    // Factor where x·polarity > 0.
    float on;
    // Factor elsewhere.
    float off;
    // Added last.
    float bias;
    // Sign of the branch's weight: −1, 0 or 1.
    float polarity;

    KASMINA_HD static ColumnProgram identity() { return {1.0f, 1.0f, 0.0f, 1.0f}; }

    // Whether the input gradient does not depend on x.
    KASMINA_HD bool is_linear() const { return on == off; }

    KASMINA_HD bool is_on(float v) const { return mul_rn(v, polarity) > 0.0f; }

    // The value before the output clamp, for a guarded v.
    KASMINA_HD float value(float v, float factor) const { return add_rn(mul_rn(v, factor), bias); }
};
static_assert(sizeof(ColumnProgram) == 16, "one 16-byte load a column");

// y of one element; Guards is one of kasmina_stability.cuh. Columns that are copied must not come here: an unguarded NaN leaves
// with another payload.
template <class Guards>
KASMINA_HD float apply(const ColumnProgram& program, const Guards& guards, float x)
{
    const float v = guards.sanitize(x);
    const float factor = program.is_on(v) ? program.on : program.off;
    return guards.clamp(program.value(v, factor));
}

// The same for a program that is linear.
template <class Guards>
KASMINA_HD float apply_linear(const ColumnProgram& program, const Guards& guards, float x)
{
    return guards.clamp(program.value(guards.sanitize(x), program.on));
}

// How far some programs can carry a value: |y| ≤ gain·|x| + offset, before rounding.
struct Reach {
    float gain;
    float offset;

    KASMINA_HD static Reach none() { return {0.0f, 0.0f}; }

    KASMINA_HD void include(const ColumnProgram& program)
    {
        // A NaN stays, and no comparison below holds for it.
        gain = maximum(gain, maximum(fabsf(program.on), fabsf(program.off)));
        offset = maximum(offset, fabsf(program.bias));
    }

    // The greatest magnitude up to which neither a value nor what the programs make of it exceeds `limit`, so that where `limit`
    // is that of the bounds, `FlushOnly` gives the bits of `Guards<true>`; negative or a NaN where there is none. Compare by ≤:
    // values are to have a greatest magnitude of NaN or infinity if one of them is not finite.
    KASMINA_HD float allowed(float limit) const
    {
        // (limit − offset) / gain, less what all roundings together can add. A NaN among the programs stays.
        const float most = (limit * 0.999999f - offset) / gain * 0.999999f;
        return !(offset <= limit) ? -1.0f : minimum(gain == 0.0f ? limit : most, minimum(limit, kGreatestFinite));
    }

    // How far from 0 nothing is clamped. Nowhere with a bound of 0, where the clamp also takes the sign off a zero, or one so
    // small that roundings are not small beside it.
    KASMINA_HD static float limit(const Bounds& bounds)
    {
        const float symmetric = minimum_number(bounds.upper, -bounds.lower);
        return symmetric >= 1e-30f ? symmetric : -1.0f;
    }

private:
    static constexpr float kGreatestFinite = 0x1.fffffep127f;
};

// What backward does with a program.
enum class Pass : uint32_t {
    // Gradients of x and of parameters of a branch that is on path.
    Path = 0,
    // Parameter gradients of a training branch (a program at alpha = 1) from the task gradient, which passes the output
    // clamp first.
    StraightThrough = 1,
    // Parameter gradients of the mean of (T(x) − x)²: T(x) − x takes the place of g, and the factor 2 / (rows · c) is
    // applied when the sums are finalized.
    Reconstruction = 2,
};

// One element taken backward.
struct BackwardStep {
    // The gradient behind the output clamp; T(x) − x in a reconstruction.
    float masked;
    // The gradient of x, 0 where x was clamped or was not a number.
    float grad_x;
    // The guarded x.
    float v;
    // Whether v·p > 0.
    bool on;
};

template <Pass Kind, bool Guarded>
KASMINA_HD BackwardStep backward(const ColumnProgram& program, const Guards<Guarded>& guards, float x, float g)
{
    BackwardStep step;
    step.v = guards.sanitize(x);
    step.on = program.is_on(step.v);
    const float factor = step.on ? program.on : program.off;
    const float t = program.value(step.v, factor);
    step.masked = Kind == Pass::Reconstruction ? sub_rn(t, step.v) : guards.mask(t, g);
    step.grad_x = guards.mask(x, mul_rn(step.masked, factor));
    return step;
}

// A thread's sums of one column over a few rows. In f32: fold them into totals after some dozens of rows.
struct ColumnSums {
    float g;
    float gx;
    float gx_on;

    KASMINA_HD static ColumnSums zero() { return {0.0f, 0.0f, 0.0f}; }

    // The masked gradient (or T(x) − x), the guarded x, and whether it is on.
    KASMINA_HD void add(float masked, float v, bool on)
    {
        g += masked;
        gx = fmaf(masked, v, gx);
        if (on) gx_on = fmaf(masked, v, gx_on);
    }

    KASMINA_HD void add_gradient(float masked) { g += masked; }

    // The other two of a finite gradient and an x with the sign of the polarity: where that is not positive, the product with 0 is
    // added, which takes no condition.
    KASMINA_HD void add_products(float masked, float u)
    {
        gx = fmaf(masked, u, gx);
        gx_on = fmaf(masked, maximum_number(u, 0.0f), gx_on);
    }
};

// The sums of one column in the form in which they leave a block. Neutral element: zero(). Merge in a fixed order.
struct ColumnTotals {
    double g;
    double gx;
    double gx_on;

    KASMINA_HD static ColumnTotals zero() { return {0.0, 0.0, 0.0}; }

    // Takes the sums of some rows and starts them anew.
    KASMINA_HD void fold(ColumnSums& sums)
    {
        g += static_cast<double>(sums.g);
        gx += static_cast<double>(sums.gx);
        gx_on += static_cast<double>(sums.gx_on);
        sums = ColumnSums::zero();
    }

    KASMINA_HD void merge(const ColumnTotals& other)
    {
        g += other.g;
        gx += other.gx;
        gx_on += other.gx_on;
    }
};

// Σ (T(x) − x)² of a column whose totals are those of a reconstruction: with m = T(v) − v = v·(factor − 1) + bias it is
// Σ m·v·(factor − 1) + bias·Σ m, so it needs no sum of its own. Lowered training branches have either no bias or a factor of 1, so
// these two do not cancel; what is off is a difference, and loses beside an on-part of far larger squares.
KASMINA_HD double reconstruction_squares(const ColumnProgram& program, const ColumnTotals& totals)
{
    const double on = static_cast<double>(program.on) - 1.0, off = static_cast<double>(program.off) - 1.0;
    const double off_sum = totals.gx - totals.gx_on;
    // A factor that no value had must not make a NaN.
    const double of_on = totals.gx_on == 0.0 ? 0.0 : on * totals.gx_on, of_off = off_sum == 0.0 ? 0.0 : off * off_sum;
    const double squares = of_on + of_off + static_cast<double>(program.bias) * totals.g;
    // Rounding may leave a tiny negative number where T(x) is x; a NaN stays.
    return squares < 0.0 ? 0.0 : squares;
}

} // namespace kasmina
