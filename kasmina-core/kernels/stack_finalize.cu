// The finalize step of several layers in one launch.

#include "kasmina_launch.cuh"
#include "seed_finalize.cuh"

using namespace kasmina::finalizing;

namespace {

// `count` layers' finalize steps, of `jobs` jobs each at most.
struct FinalizeStack {
    const FinalizeParams* layers;  // [count]
    uint32_t count;
    uint32_t jobs;
};
static_assert(sizeof(FinalizeStack) == 16, "as in Rust");

}  // namespace

// A block a layer and job.
extern "C" __global__ void __launch_bounds__(kThreads) kasmina_stack_finalize(const __grid_constant__ FinalizeStack p)
{
    kasmina::follow_previous_launch();
    __shared__ double scratch[kThreads / kWarpThreads];
    const FinalizeParams& layer = p.layers[blockIdx.x / p.jobs];
    const uint32_t job = blockIdx.x % p.jobs;
    if (job < layer.count) {
        finalize(Block{scratch}, layer, layer.jobs[job]);
    }
}
