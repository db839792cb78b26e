// The lanes that work on one seed together: a warp, or a block. Same shape as `Serial` of kasmina_base.cuh, the trees fixed, so
// results are the same bits in every run.
#pragma once

#include "kasmina_base.cuh"

namespace kasmina {

// One warp. All its lanes call every function together.
struct WarpTeam {
    __device__ __forceinline__ uint32_t rank() const { return threadIdx.x % 32; }
    __device__ __forceinline__ uint32_t size() const { return 32; }

    __device__ __forceinline__ float max(float value) const
    {
        return butterfly(value, [](float a, float b) { return fmaxf(a, b); });
    }

    __device__ __forceinline__ double sum(double value) const
    {
        return butterfly(value, [](double a, double b) { return add_rn(a, b); });
    }

    __device__ __forceinline__ uint32_t min(uint32_t value) const
    {
        return butterfly(value, [](uint32_t a, uint32_t b) { return a < b ? a : b; });
    }

    // Every operation here commutes bit for bit, so the partners of each exchange, and in the end all lanes, agree.
    template <class V, class Op>
    static __device__ __forceinline__ V butterfly(V value, Op op)
    {
#pragma unroll
        for (uint32_t by = 16; by > 0; by /= 2) {
            value = op(value, __shfl_xor_sync(0xffffffffu, value, by));
        }
        return value;
    }
};

// A block of kThreads. All its threads call every function together; each call is a barrier, too.
template <uint32_t kThreads>
class BlockTeam {
public:
    static constexpr uint32_t kWarps = kThreads / 32;
    static_assert(kThreads % 32 == 0 && kWarps >= 1, "whole warps");

    // In shared memory.
    using Slots = double[kWarps];

    __device__ __forceinline__ explicit BlockTeam(Slots& slots) : slots_(slots) {}

    __device__ __forceinline__ uint32_t rank() const { return threadIdx.x; }
    __device__ __forceinline__ uint32_t size() const { return kThreads; }

    // A float, and a 32-bit number, travel as doubles unchanged.
    __device__ __forceinline__ float max(float value) const
    {
        return static_cast<float>(across(warp_.max(value), [](double a, double b) { return fmax(a, b); }));
    }

    __device__ __forceinline__ double sum(double value) const
    {
        return across(warp_.sum(value), [](double a, double b) { return add_rn(a, b); });
    }

    __device__ __forceinline__ uint32_t min(uint32_t value) const
    {
        return static_cast<uint32_t>(across(warp_.min(value), [](double a, double b) { return a < b ? a : b; }));
    }

private:
    // Warp by warp, in order, by every thread for itself.
    template <class Op>
    __device__ __forceinline__ double across(double of_warp, Op op) const
    {
        // Some threads may still read what the call before left.
        __syncthreads();
        if (threadIdx.x % 32 == 0) {
            slots_[threadIdx.x / 32] = of_warp;
        }
        __syncthreads();
        double all = slots_[0];
#pragma unroll
        for (uint32_t warp = 1; warp < kWarps; ++warp) {
            all = op(all, slots_[warp]);
        }
        return all;
    }

    WarpTeam warp_;
    Slots& slots_;
};

}  // namespace kasmina
