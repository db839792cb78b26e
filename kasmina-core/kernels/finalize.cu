// The kernels that finalize.

#include "kasmina_launch.cuh"
#include "seed_finalize.cuh"

using namespace kasmina;
using namespace kasmina::finalizing;

// A block a seed: for few seeds, or wide ones.
extern "C" __global__ void __launch_bounds__(kThreads) kasmina_finalize_block(const __grid_constant__ FinalizeParams p)
{
    follow_previous_launch();
    __shared__ double shared[kThreads / kWarpThreads];
    for (uint32_t i = blockIdx.x; i < p.count; i += gridDim.x) {
        finalize(Block{shared}, p, p.jobs[i]);
    }
}

// A warp a seed: for many narrow ones.
extern "C" __global__ void __launch_bounds__(kThreads) kasmina_finalize_warp(const __grid_constant__ FinalizeParams p)
{
    follow_previous_launch();
    const uint32_t warps = gridDim.x * (kThreads / kWarpThreads);
    for (uint32_t i = (blockIdx.x * kThreads + threadIdx.x) / kWarpThreads; i < p.count; i += warps) {
        finalize(Warp{}, p, p.jobs[i]);
    }
}
