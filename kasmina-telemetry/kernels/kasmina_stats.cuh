// Mergeable statistics of a chunk's activations and gradients: the form in which partials leave a block, are kept from
// step to step, and are read by the host. The one source of this arithmetic on the device: this crate's reductions merge by it, and
// kasmina-core's passes, whose kernels include it from here.
//
// Source and layout: `ChunkStats`, `GradientStats` and `Moments` of this crate, whose records these are, byte for
// byte. push is Welford's ("Note on a method for calculating corrected sums of squares and products", Technometrics 4(3),
// 1962), merge is Chan, Golub and LeVeque's ("Updating formulae and a pairwise algorithm for computing sample variances",
// Stanford STAN-CS-79-773, 1979, equation 2.1). Both round as the Rust does, so equal records merge to equal bits.
//
// merge is not commutative in its last bits: a tree must give each pair the same left side in every run, such as the lower
// lane. empty() is neutral on both sides.
#pragma once

#include "kasmina_base.cuh"

namespace kasmina {

// Count, mean and sum of squared deviations.
struct Moments {
    uint64_t n;
    double mean;
    double m2;

    KASMINA_HD static Moments empty() { return {0, 0.0, 0.0}; }

    KASMINA_HD void push(double x)
    {
        n += 1;
        const double delta = sub_rn(x, mean);
        mean = add_rn(mean, delta / static_cast<double>(n));
        m2 = add_rn(m2, mul_rn(delta, sub_rn(x, mean)));
    }

    KASMINA_HD void merge(const Moments& other)
    {
        if (other.n == 0) return;
        if (n == 0) {
            *this = other;
            return;
        }
        const uint64_t total = n + other.n;
        const double delta = sub_rn(other.mean, mean);
        const double share = static_cast<double>(other.n) / static_cast<double>(total);
        const double between = mul_rn(mul_rn(delta, delta), mul_rn(static_cast<double>(n), share));
        m2 = add_rn(m2, add_rn(other.m2, between));
        mean = add_rn(mean, mul_rn(delta, share));
        n = total;
    }

    // Σ x², from two positive terms, so that nothing cancels.
    KASMINA_HD double sum_squares() const
    {
        return add_rn(m2, mul_rn(static_cast<double>(n), mul_rn(mean, mean)));
    }
};

// Statistics of one seed's chunk, finite elements only but for `nonfinite`. A zero extremum is +0.
struct ChunkStats {
    uint64_t n;
    // Finite elements with |x| ≤ the dead threshold.
    uint64_t dead;
    // NaN and ±Inf.
    uint64_t nonfinite;
    double mean;
    // Σ (x − mean)².
    double m2;
    // +Inf without elements.
    float min;
    // −Inf without elements.
    float max;

    KASMINA_HD static ChunkStats empty() { return {0, 0, 0, 0.0, 0.0, kInfinity, -kInfinity}; }

    KASMINA_HD Moments moments() const { return {n, mean, m2}; }

    KASMINA_HD void set_moments(const Moments& moments)
    {
        n = moments.n;
        mean = moments.mean;
        m2 = moments.m2;
    }

    KASMINA_HD void push(float x, float dead_epsilon)
    {
        if (!is_finite(x)) {
            nonfinite += 1;
            return;
        }
        Moments all = moments();
        all.push(static_cast<double>(x));
        set_moments(all);
        dead += fabsf(x) <= dead_epsilon ? 1 : 0;
        // −0 + +0 is +0.
        min = add_rn(x < min ? x : min, 0.0f);
        max = add_rn(x > max ? x : max, 0.0f);
    }

    KASMINA_HD void merge(const ChunkStats& other)
    {
        Moments all = moments();
        all.merge(other.moments());
        set_moments(all);
        merge_others(other);
    }

    // Everything but the moments.
    KASMINA_HD void merge_others(const ChunkStats& other)
    {
        dead += other.dead;
        nonfinite += other.nonfinite;
        if (other.min < min) min = other.min;
        if (other.max > max) max = other.max;
    }
};
static_assert(sizeof(ChunkStats) == 48 && offsetof(ChunkStats, mean) == 24 && offsetof(ChunkStats, min) == 40
                  && offsetof(ChunkStats, max) == 44,
              "kasmina_telemetry::ChunkStats");

// Statistics of the gradient of one seed's output.
struct GradientStats {
    uint64_t n;
    uint64_t nonfinite;
    double mean;
    double m2;
    // 0 without elements.
    float max_abs;
    // Σ g².
    double sum_squares;

    KASMINA_HD static GradientStats empty() { return {0, 0, 0.0, 0.0, 0.0f, 0.0}; }

    KASMINA_HD Moments moments() const { return {n, mean, m2}; }

    KASMINA_HD void set_moments(const Moments& moments)
    {
        n = moments.n;
        mean = moments.mean;
        m2 = moments.m2;
    }

    KASMINA_HD void push(float g)
    {
        if (!is_finite(g)) {
            nonfinite += 1;
            return;
        }
        Moments all = moments();
        all.push(static_cast<double>(g));
        set_moments(all);
        if (fabsf(g) > max_abs) max_abs = fabsf(g);
        sum_squares = add_rn(sum_squares, mul_rn(static_cast<double>(g), static_cast<double>(g)));
    }

    KASMINA_HD void merge(const GradientStats& other)
    {
        Moments all = moments();
        all.merge(other.moments());
        set_moments(all);
        merge_others(other);
    }

    // Everything but the moments.
    KASMINA_HD void merge_others(const GradientStats& other)
    {
        nonfinite += other.nonfinite;
        if (other.max_abs > max_abs) max_abs = other.max_abs;
        sum_squares = add_rn(sum_squares, other.sum_squares);
    }
};
static_assert(sizeof(GradientStats) == 48 && offsetof(GradientStats, mean) == 16 && offsetof(GradientStats, max_abs) == 32
                  && offsetof(GradientStats, sum_squares) == 40,
              "kasmina_telemetry::GradientStats");

} // namespace kasmina
