// AdamW over one seed's parameters. Source: src/optimizer.rs; Loshchilov and Hutter, "Decoupled Weight Decay Regularization",
// ICLR 2019, algorithm 2 with a constant schedule:
//
//     m ← β₁m + (1 − β₁)g          v ← β₂v + (1 − β₂)g²
//     p ← p − η·( (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε) + λp )
//
// In f64, stored as f32, rounded as in Rust: the same bits up to the last of log, expm1 and the gradient norm, which one lane
// sums in the Rust's order and several do not.
#pragma once

#include "kasmina_base.cuh"

namespace kasmina {

struct AdamW {
    double learning_rate;
    double beta1;
    double beta2;
    double epsilon;
    double weight_decay;
    // Gradients of a seed are scaled down to this norm; +Inf for no clipping.
    double clip_norm;
};

// 1 − βᵗ, through expm1: for β near 1 and small t the difference would cancel.
KASMINA_HD double bias_correction(double beta, uint64_t updates)
{
    return beta == 0.0 ? 1.0 : -expm1(mul_rn(log(beta), static_cast<double>(updates)));
}

// What gradients are multiplied with, given their norm.
KASMINA_HD double clip_scale(const AdamW& adamw, double norm)
{
    return norm > adamw.clip_norm ? adamw.clip_norm / norm : 1.0;
}

// What all parameters of a seed share in one update.
struct AdamWStep {
    double scale;
    double correct1;
    double correct2;

    // `updates` counts this one.
    KASMINA_HD static AdamWStep of(const AdamW& adamw, double norm, uint64_t updates)
    {
        return {clip_scale(adamw, norm), bias_correction(adamw.beta1, updates), bias_correction(adamw.beta2, updates)};
    }
};

// A parameter and its two moments.
struct AdamWValue {
    float parameter;
    float first;
    float second;

    // A second moment that overflows would freeze its parameter for good.
    KASMINA_HD bool is_finite() const
    {
        return kasmina::is_finite(parameter) && kasmina::is_finite(first) && kasmina::is_finite(second);
    }
};

KASMINA_HD AdamWValue update(const AdamW& adamw, const AdamWStep& step, const AdamWValue& old, float gradient)
{
    const double p = static_cast<double>(old.parameter);
    const double g = mul_rn(static_cast<double>(gradient), step.scale);
    const double m = add_rn(mul_rn(adamw.beta1, static_cast<double>(old.first)), mul_rn(sub_rn(1.0, adamw.beta1), g));
    const double v = add_rn(mul_rn(adamw.beta2, static_cast<double>(old.second)),
                            mul_rn(mul_rn(sub_rn(1.0, adamw.beta2), g), g));
    const double direction = (m / step.correct1) / add_rn(sqrt(v / step.correct2), adamw.epsilon);
    const double moved = sub_rn(p, mul_rn(adamw.learning_rate, add_rn(direction, mul_rn(adamw.weight_decay, p))));
    return {static_cast<float>(moved), static_cast<float>(m), static_cast<float>(v)};
}

// Why a seed was not updated.
enum class AdamWVerdict : uint32_t {
    Updated = 0,
    // A gradient is NaN or infinite.
    NonFiniteGradient = 1,
    // The update would overflow a parameter or its moments.
    Overflow = 2,
};

// What became of one seed.
struct AdamWReport {
    // L2 norm of the gradients, before clipping; 0 unless it was updated.
    double norm;
    AdamWVerdict verdict;
    // The first parameter that is to blame; 0 if none.
    uint32_t index;
    uint32_t clipped;
};

// Updates one seed's n parameters and moments, or, if any of them would be damaged, none. `updates` counts this one.
template <class Team>
KASMINA_HD AdamWReport update_seed(const Team& team, const AdamW& adamw, uint64_t updates, uint32_t n, float* parameters,
                                   float* first, float* second, const float* gradients)
{
    constexpr uint32_t kNone = 0xffffffffu;
    uint32_t damaged = kNone;
    double squares = 0.0;
    for (uint32_t i = team.rank(); i < n; i += team.size()) {
        if (!is_finite(gradients[i]) && damaged == kNone) damaged = i;
        const double g = static_cast<double>(gradients[i]);
        squares = add_rn(squares, mul_rn(g, g));
    }
    damaged = team.min(damaged);
    if (damaged != kNone) return {0.0, AdamWVerdict::NonFiniteGradient, damaged, 0};
    const double norm = sqrt(team.sum(squares));
    const AdamWStep step = AdamWStep::of(adamw, norm, updates);
    // Computed twice rather than kept: a seed's parameters have no bound.
    for (uint32_t i = team.rank(); i < n; i += team.size()) {
        if (damaged == kNone && !update(adamw, step, {parameters[i], first[i], second[i]}, gradients[i]).is_finite()) damaged = i;
    }
    damaged = team.min(damaged);
    if (damaged != kNone) return {0.0, AdamWVerdict::Overflow, damaged, 0};
    for (uint32_t i = team.rank(); i < n; i += team.size()) {
        const AdamWValue value = update(adamw, step, {parameters[i], first[i], second[i]}, gradients[i]);
        parameters[i] = value.parameter;
        first[i] = value.first;
        second[i] = value.second;
    }
    return {norm, AdamWVerdict::Updated, 0, step.scale < 1.0 ? 1u : 0u};
}

} // namespace kasmina
