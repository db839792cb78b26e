// Lowering: from one seed's parameters and its alpha to column programs or filter taps. Source: src/lower.rs.
//
// y = (1 − alpha)·x + alpha·T(x), folded into the four floats of a column. Rounded as in Rust, so the programs of Residual,
// MlpExpansion and ConvFilter have the CPU's bits. Softmax's exp and its sum are f64 and rounded to f32 once: they may differ
// from the CPU's in the last bit of f32, where f64 rounding and the order of the sum decide.
//
// Parameters are one seed's, flat, as the host keeps them: `weight [c]` and `scale`; `weight [c]`; `weight [c]` and `scale`;
// `weight [taps]` and `scale`. alpha is in (0, 1]: at 0 a seed is not lowered but copied.
#pragma once

#include "kasmina_program.cuh"

namespace kasmina {

// The built-in kinds, in the order of `kasmina_core::Blueprint`. The last two keep their matrices and are not lowered.
enum class Kind : uint32_t {
    Residual = 0,
    AttentionHead = 1,
    MlpExpansion = 2,
    ConvFilter = 3,
    Bottleneck = 4,
    Dense = 5,
};

constexpr uint32_t kMaxTaps = 16;

// softmax(w), shifted by the maximum so that nothing overflows, summed in f64.
struct Softmax {
    float max;
    double sum;

    template <class Team>
    KASMINA_HD static Softmax of(const Team& team, const float* weight, uint32_t c)
    {
        Softmax softmax{-kInfinity, 0.0};
        for (uint32_t i = team.rank(); i < c; i += team.size()) softmax.max = fmaxf(softmax.max, weight[i]);
        softmax.max = team.max(softmax.max);
        for (uint32_t i = team.rank(); i < c; i += team.size()) softmax.sum += softmax.term(weight[i]);
        softmax.sum = team.sum(softmax.sum);
        return softmax;
    }

    KASMINA_HD double term(float w) const { return exp(static_cast<double>(sub_rn(w, max))); }

    KASMINA_HD float share(float w) const { return static_cast<float>(term(w) / sum); }
};

// x + s·w.
KASMINA_HD ColumnProgram lower_residual(float weight, float scale, float alpha)
{
    return {1.0f, 1.0f, mul_rn(alpha, mul_rn(scale, weight)), 1.0f};
}

// x·p, with p the weight's share in the softmax.
KASMINA_HD ColumnProgram lower_attention(float share, float alpha)
{
    const float factor = add_rn(sub_rn(1.0f, alpha), mul_rn(alpha, share));
    return {factor, factor, 0.0f, 1.0f};
}

// s·relu(x·w). Only the sign of w decides where relu is on, and a product with ±1 cannot underflow.
KASMINA_HD ColumnProgram lower_expansion(float weight, float scale, float alpha)
{
    const float keep = sub_rn(1.0f, alpha);
    const float on = add_rn(keep, mul_rn(alpha, mul_rn(scale, weight)));
    // A NaN weight has a NaN for its sign, and is never on.
    const float polarity = weight > 0.0f ? 1.0f : weight < 0.0f ? -1.0f : weight == 0.0f ? 0.0f : weight;
    return {on, keep, 0.0f, polarity};
}

// Tap j of a filter: the blended-in input is part of tap 0.
KASMINA_HD float lower_tap(uint32_t j, float weight, float scale, float alpha)
{
    const float tap = mul_rn(alpha, mul_rn(scale, weight));
    return j == 0 ? add_rn(tap, sub_rn(1.0f, alpha)) : tap;
}

// The programs of a pointwise seed's c columns. Lanes write different columns.
template <class Team>
KASMINA_HD void lower_seed(const Team& team, Kind kind, const float* parameters, uint32_t c, float alpha, ColumnProgram* programs)
{
    if (kind == Kind::AttentionHead) {
        const Softmax softmax = Softmax::of(team, parameters, c);
        for (uint32_t i = team.rank(); i < c; i += team.size()) {
            programs[i] = lower_attention(softmax.share(parameters[i]), alpha);
        }
        return;
    }
    const float scale = parameters[c];
    for (uint32_t i = team.rank(); i < c; i += team.size()) {
        programs[i] = kind == Kind::Residual ? lower_residual(parameters[i], scale, alpha)
                                             : lower_expansion(parameters[i], scale, alpha);
    }
}

// The taps of a filter: y[i] = Σⱼ taps[j]·x[i−j], zero before the chunk's start.
template <class Team>
KASMINA_HD void lower_filter(const Team& team, const float* parameters, uint32_t count, float alpha, float* taps)
{
    const float scale = parameters[count];
    for (uint32_t j = team.rank(); j < count; j += team.size()) taps[j] = lower_tap(j, parameters[j], scale, alpha);
}

} // namespace kasmina
