// Filters on short runs of neighbouring columns: the taps forward, their transpose, and the lagged sums that every gradient of
// a filter follows from. Source: src/cpu/stencil.rs, and `backward_part` of src/cpu/gathered.rs.
//
// A run is kLanes columns of one row of a chunk, which begins at column `first` of the chunk. Around it lies a window of as
// many columns as kTaps taps reach. kEdge: the window may hang out of the chunk, where it holds anything: products with what
// is there are left out, as the CPU leaves them out; a zero would not do, since it turns −0 into 0 and an infinite tap into NaN.
//
// Products and sums of outputs are rounded one by one in the order of rising lags, so they have the CPU's bits. Lagged sums are
// in f32 over some dozens of products; fold them into f64 after that.
#pragma once

#include "kasmina_lower.cuh"
#include "kasmina_stability.cuh"

namespace kasmina {

// Columns that kTaps taps reach beyond a run, rounded up to whole runs.
template <uint32_t kLanes, uint32_t kTaps>
constexpr uint32_t kReach = (kTaps - 1 + kLanes - 1) / kLanes * kLanes;

// Whether a run needs kEdge when it is filtered.
KASMINA_HD bool begins_early(int32_t first, uint32_t count) { return first < static_cast<int32_t>(count) - 1; }

// Whether a run needs kEdge when it is transposed and summed: it begins before the chunk, or its taps reach past the end.
KASMINA_HD bool leaves_chunk(int32_t first, uint32_t lanes, uint32_t count, uint32_t columns)
{
    return first < 0 || first + static_cast<int32_t>(lanes + count) - 1 > static_cast<int32_t>(columns);
}

// out[e] = Σⱼ taps[j]·v[first + e − j] for j < count, zero before the chunk's start. window[i] is v[first − kReach + i].
template <bool kEdge, uint32_t kLanes, uint32_t kTaps>
KASMINA_HD void filter(const float (&taps)[kTaps], uint32_t count, const float (&window)[kReach<kLanes, kTaps> + kLanes],
                       int32_t first, float (&out)[kLanes])
{
    constexpr uint32_t kOwn = kReach<kLanes, kTaps>;
    KASMINA_UNROLL
    for (uint32_t e = 0; e < kLanes; ++e) out[e] = mul_rn(taps[0], window[kOwn + e]);
    KASMINA_UNROLL
    for (uint32_t j = 1; j < kTaps; ++j) {
        if (j >= count) break;
        KASMINA_UNROLL
        for (uint32_t e = 0; e < kLanes; ++e) {
            if (!kEdge || first + static_cast<int32_t>(e) >= static_cast<int32_t>(j)) {
                out[e] = add_rn(out[e], mul_rn(taps[j], window[kOwn + e - j]));
            }
        }
    }
}

// The transpose: out[e] = Σⱼ taps[j]·g[first + e + j], zero past the chunk's end. window[i] is g[first + i]; `left` columns of
// the chunk are at `first` and after it.
template <bool kEdge, uint32_t kLanes, uint32_t kTaps>
KASMINA_HD void correlate(const float (&taps)[kTaps], uint32_t count, const float (&window)[kLanes + kReach<kLanes, kTaps>],
                          int32_t left, float (&out)[kLanes])
{
    KASMINA_UNROLL
    for (uint32_t e = 0; e < kLanes; ++e) out[e] = mul_rn(taps[0], window[e]);
    KASMINA_UNROLL
    for (uint32_t j = 1; j < kTaps; ++j) {
        if (j >= count) break;
        KASMINA_UNROLL
        for (uint32_t e = 0; e < kLanes; ++e) {
            if (!kEdge || static_cast<int32_t>(e + j) < left) {
                out[e] = add_rn(out[e], mul_rn(taps[j], window[e + j]));
            }
        }
    }
}

// Adds Σₑ v[first + e]·g[first + e + j], this run's part of Lⱼ = Σ g[i]·v[i − j], to each lag; the window is the transpose's.
template <bool kEdge, uint32_t kLanes, uint32_t kTaps>
KASMINA_HD void add_lags(float (&lags)[kTaps], uint32_t count, const float (&v)[kLanes],
                         const float (&window)[kLanes + kReach<kLanes, kTaps>], int32_t first, int32_t left)
{
    KASMINA_UNROLL
    for (uint32_t j = 0; j < kTaps; ++j) {
        if (j >= count) break;
        KASMINA_UNROLL
        for (uint32_t e = 0; e < kLanes; ++e) {
            if (!kEdge || (first + static_cast<int32_t>(e) >= 0 && static_cast<int32_t>(e + j) < left)) {
                lags[j] = fmaf(v[e], window[e + j], lags[j]);
            }
        }
    }
}

// T(x) − x as the CPU takes it: in f64.
KASMINA_HD double residual_of(float t, float v) { return sub_rn(static_cast<double>(t), static_cast<double>(v)); }

} // namespace kasmina
