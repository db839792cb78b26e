// y of bottleneck and dense branches on path: y = clamp(alpha·T(v) + (1 − alpha)·v) with v the guarded input.
#pragma once

#include "matrix_block.cuh"

namespace kasmina::matrix {

template <class T, Arithmetic kArithmetic>
__device__ __forceinline__ void forward(const MatrixParams& p)
{
    __shared__ Shared<kArithmetic> shared;
    __shared__ Work work;
    const AnyGuards guards(work.bounds);
    const SeedJob& job = work.job;
    uint32_t saturated = 0;
    for (uint32_t i = blockIdx.x; i < p.count; i += gridDim.x) {
        take(p, i, work);
        for (uint32_t row = work.item.first_row; row < work.item.end_row; row += work.item.block_rows) {
            {
                float* const v = work.wide(0);
                const Chunk<T> x(p.x, p.x_pitch, job, row);
                for_each(work.rows_from(row), job.columns,
                         [&](uint32_t m, uint32_t n, uint64_t at) { v[at] = guards.sanitize(x.get(m, n)); });
                __syncthreads();
            }
            branch<kArithmetic>(shared, work, work.rows_from(row), work.wide(0), work.narrow(kForwardWide, 0),
                                work.narrow(kForwardWide, 0), work.wide(1));
            const float *const v = work.wide(0), *const t = work.wide(1);
            const bool dense = work.is_dense();
            const Activation act = work.activation();
            const float alpha = job.alpha;
            const Chunk<T> y(p.out, p.out_pitch, job, row);
            for_each(work.rows_from(row), job.columns, [&](uint32_t m, uint32_t n, uint64_t at) {
                const float grown = dense ? activate(act, t[at]) : v[at] + t[at];
                y.put(m, n, guards.clamp(blend(alpha, grown, v[at])), saturated);
            });
            __syncthreads();
        }
    }
    count_saturated(saturated, p.saturated);
}

}  // namespace kasmina::matrix

// What each name says: the layer's storage type.
#define KASMINA_MATRIX_FORWARD(name, T, arithmetic)                                                                  \
    extern "C" __global__ void __launch_bounds__(kasmina::matrix::kThreads, 2)                                     \
        name(const __grid_constant__ kasmina::matrix::MatrixParams p)                                              \
    {                                                                                                              \
        kasmina::follow_previous_launch();                                                                         \
        kasmina::matrix::forward<T, kasmina::matrix::Arithmetic::arithmetic>(p);                                   \
    }
