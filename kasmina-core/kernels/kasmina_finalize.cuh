// Finalizing: from merged column sums, or a filter's lagged sums, to the gradients of one seed's parameters and alpha.
//
// Source: `finalize` of src/cpu/sums.rs and src/cpu/stencil.rs: d/dw, d/ds and d/dalpha of y = (1 − alpha)·x + alpha·T(x).
// All in f64, rounded to f32 once; the same bits as there for equal sums and one lane, up to softmax (kasmina_lower.cuh).
//
// `factor` times what was summed is the gradient: 1 for a task gradient, `reconstruction_factor` for T(x) − x.
#pragma once

#include "kasmina_lower.cuh"

namespace kasmina {

// rows·c, at least 1.
KASMINA_HD double elements(uint64_t rows, uint64_t c)
{
    return rows * c == 0 ? 1.0 : static_cast<double>(rows * c);
}

// d/dT of the mean of (T(x) − x)² is 2 / (rows·c) times the difference.
KASMINA_HD double reconstruction_factor(uint64_t rows, uint64_t c)
{
    return 2.0 / elements(rows, c);
}

// The mean of (T(x) − x)² from the sum over all columns.
KASMINA_HD double reconstruction_loss(double squares, uint64_t rows, uint64_t c)
{
    return squares / elements(rows, c);
}

// The gradients of a pointwise seed's c columns, in the parameters' order; answers that of alpha. `sums(i)` gives column i's
// merged ColumnTotals, `gradient(i, value)` takes the gradient of parameter i: once each, from any lane.
template <class Team, class Sums, class Gradient>
KASMINA_HD double finalize_seed(const Team& team, Kind kind, const float* parameters, uint32_t c, float alpha, const Sums& sums,
                                double factor, const Gradient& gradient)
{
    const double blend = mul_rn(factor, static_cast<double>(alpha));
    double total = 0.0;
    double skipped = 0.0;
    if (kind == Kind::AttentionHead) {
        // dL/dwᵢ = alpha·pᵢ·(Σgxᵢ − Σₖ pₖ·Σgxₖ).
        const Softmax softmax = Softmax::of(team, parameters, c);
        for (uint32_t i = team.rank(); i < c; i += team.size()) {
            const double gx = sums(i).gx;
            total = add_rn(total, mul_rn(static_cast<double>(softmax.share(parameters[i])), gx));
            skipped = add_rn(skipped, gx);
        }
        total = team.sum(total);
        skipped = team.sum(skipped);
        for (uint32_t i = team.rank(); i < c; i += team.size()) {
            const double p = static_cast<double>(softmax.share(parameters[i]));
            gradient(i, static_cast<float>(mul_rn(mul_rn(blend, p), sub_rn(sums(i).gx, total))));
        }
        return sub_rn(total, skipped);
    }
    // dL/dwᵢ = alpha·s·Sᵢ and dL/ds = alpha·Σ wᵢ·Sᵢ, with S = Σg for x + s·w, and Σgx over x·w > 0 for s·relu(x·w).
    const bool expansion = kind == Kind::MlpExpansion;
    const double scale = static_cast<double>(parameters[c]);
    for (uint32_t i = team.rank(); i < c; i += team.size()) {
        const ColumnTotals column = sums(i);
        const double sum = expansion ? column.gx_on : column.g;
        total = add_rn(total, mul_rn(static_cast<double>(parameters[i]), sum));
        if (expansion) skipped = add_rn(skipped, column.gx);
        gradient(i, static_cast<float>(mul_rn(mul_rn(blend, scale), sum)));
    }
    total = team.sum(total);
    skipped = team.sum(skipped);
    if (team.rank() == 0) gradient(c, static_cast<float>(mul_rn(blend, total)));
    return sub_rn(mul_rn(scale, total), skipped);
}

// The gradients of a filter's taps and scale from the lagged sums Lⱼ = Σ g[i]·x[i−j], `lags(j)`:
// dL/dwⱼ = alpha·s·Lⱼ, dL/ds = alpha·Σ wⱼ·Lⱼ; answers dL/dalpha = s·Σ wⱼ·Lⱼ − L₀.
template <class Team, class Lags>
KASMINA_HD double finalize_filter(const Team& team, const float* parameters, uint32_t count, float alpha, const Lags& lags,
                                  double factor, float* gradients)
{
    const double blend = mul_rn(factor, static_cast<double>(alpha));
    const double scale = static_cast<double>(parameters[count]);
    double total = 0.0;
    for (uint32_t j = team.rank(); j < count; j += team.size()) {
        const double lag = lags(j);
        total = add_rn(total, mul_rn(static_cast<double>(parameters[j]), lag));
        gradients[j] = static_cast<float>(mul_rn(mul_rn(blend, scale), lag));
    }
    total = team.sum(total);
    if (team.rank() == 0) gradients[count] = static_cast<float>(mul_rn(blend, total));
    return sub_rn(mul_rn(scale, total), lags(0));
}

} // namespace kasmina
