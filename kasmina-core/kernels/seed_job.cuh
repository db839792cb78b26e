// One seed's work, as the kernels that go seed by seed are told: lowering, finalizing, filters, matrices, the optimizer.
#pragma once

#include "kasmina_lower.cuh"

namespace kasmina {

// What a branch is for.
enum class Role : uint32_t {
    // It is on the output path: y = clamp(alpha·T(x) + (1 − alpha)·x).
    Path = 0,
    // The training branch of a TRAINING seed at alpha = 1: gradients of the task loss.
    StraightThrough = 1,
    // The same: gradients of the mean of (T(x) − x)².
    Reconstruction = 2,
};

// What a backward pass leaves beside parameter gradients.
struct SeedResult {
    double reconstruction;  // the latest pass's loss
    float alpha;            // dL/dalpha, added up over passes
    uint32_t padding;
};
static_assert(sizeof(SeedResult) == 16, "as in Rust");

struct SeedJob {
    const float* parameters;  // flat, in the blueprint's order
    float* gradients;         // laid out like the parameters, added to; null where none are wanted
    float* taps;              // [kMaxTaps], a filter's lowered taps; null for other kinds
    SeedResult* result;
    uint32_t first_column;
    uint32_t columns;         // c
    Kind kind;
    uint32_t width;           // a filter's taps, a bottleneck's rows of V
    uint32_t activation;      // kasmina::Activation
    Role role;
    float alpha;              // the blend, in (0, 1]; 1 for training branches
    uint32_t seed;
};
static_assert(sizeof(SeedJob) == 64, "as in Rust");

}  // namespace kasmina
