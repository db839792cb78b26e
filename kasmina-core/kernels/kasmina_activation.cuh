// Activations of the matrix kinds and their derivatives, in f32.
//
// Source: `Activation` in src/activation.rs, with three differences for accuracy's sake: σ of a negative argument comes from
// eˣ, so that silu keeps its left tail; 1 − σ(x) is σ(−x); and tanh' is taken from e^(−2|x|), where 1 − tanh² is 0 in f32
// from |x| = 9 on. The tests measure the errors against f64; they are kept in `tests/device_math/activation.rs`.
#pragma once

#include "kasmina_base.cuh"

namespace kasmina {

// The codes of `kasmina_core::Activation`.
enum class Activation : uint32_t {
    Relu = 0,
    Gelu = 1,
    Silu = 2,
    Tanh = 3,
};

// Φ(x), the normal distribution, through erfc: 1 + erf cancels in the left tail.
KASMINA_HD float normal_cdf(float x)
{
    return 0.5f * erfcf(-0.70710678118654752f * x);
}

// φ(x), its density.
KASMINA_HD float normal_pdf(float x)
{
    return 0.39894228040143268f * expf(-0.5f * x * x);
}

// 1 / (1 + e^(−x)); the exponential never overflows.
KASMINA_HD float logistic(float x)
{
    const float e = expf(-fabsf(x));
    return (x >= 0.0f ? 1.0f : e) / (1.0f + e);
}

template <Activation Act>
KASMINA_HD float activate(float x)
{
    if constexpr (Act == Activation::Relu) {
        // NaN passes.
        return x <= 0.0f ? 0.0f : x;
    } else if constexpr (Act == Activation::Gelu) {
        // x·Φ(x) with the exact Φ (Hendrycks and Gimpel 2016), not the tanh form.
        return x * normal_cdf(x);
    } else if constexpr (Act == Activation::Silu) {
        return x * logistic(x);
    } else {
        return tanhf(x);
    }
}

// d act(x) / dx; relu'(0) = 0.
template <Activation Act>
KASMINA_HD float derivative(float x)
{
    if constexpr (Act == Activation::Relu) {
        return x > 0.0f ? 1.0f : 0.0f;
    } else if constexpr (Act == Activation::Gelu) {
        return normal_cdf(x) + x * normal_pdf(x);
    } else if constexpr (Act == Activation::Silu) {
        return logistic(x) * (1.0f + x * logistic(-x));
    } else {
        // 1 / cosh²(x).
        const float e = expf(-2.0f * fabsf(x));
        const float sum = 1.0f + e;
        return 4.0f * e / (sum * sum);
    }
}

KASMINA_HD float activate(Activation act, float x)
{
    switch (act) {
    case Activation::Relu: return activate<Activation::Relu>(x);
    case Activation::Gelu: return activate<Activation::Gelu>(x);
    case Activation::Silu: return activate<Activation::Silu>(x);
    default: return activate<Activation::Tanh>(x);
    }
}

KASMINA_HD float derivative(Activation act, float x)
{
    switch (act) {
    case Activation::Relu: return derivative<Activation::Relu>(x);
    case Activation::Gelu: return derivative<Activation::Gelu>(x);
    case Activation::Silu: return derivative<Activation::Silu>(x);
    default: return derivative<Activation::Tanh>(x);
    }
}

} // namespace kasmina
