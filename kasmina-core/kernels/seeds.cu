// The kernels that go seed by seed: lowering, and the optimizer.

#include "kasmina_launch.cuh"
#include "seed_adamw.cuh"

using namespace kasmina;

namespace {

constexpr uint32_t kLowerThreads = 128;

template <class Team>
__device__ __forceinline__ void lower_job(const Team& team, const SeedJob& job, ColumnProgram* programs)
{
    switch (job.kind) {
    case Kind::Residual:
    case Kind::AttentionHead:
    case Kind::MlpExpansion:
        lower_seed(team, job.kind, job.parameters, job.columns, job.alpha, programs + job.first_column);
        break;
    case Kind::ConvFilter:
        if (job.taps != nullptr && job.width <= kMaxTaps) {
            lower_filter(team, job.parameters, job.width, job.alpha, job.taps);
        }
        break;
    default:
        // Matrices run on the parameters as they are.
        break;
    }
}

}  // namespace

// A job for each warp: for chunks of a few hundred columns, of which a layer has many.
extern "C" __global__ void __launch_bounds__(kLowerThreads, 4)
    kasmina_lower_by_warp(const SeedJob* jobs, uint32_t all, const uint32_t* changed, uint32_t count, ColumnProgram* programs)
{
    follow_previous_launch();
    const uint32_t at = blockIdx.x * (kLowerThreads / 32) + threadIdx.x / 32;
    if (at < count && changed[at] < all) {
        lower_job(WarpTeam{}, jobs[changed[at]], programs);
    }
}

// A job for each block.
extern "C" __global__ void __launch_bounds__(kLowerThreads, 4)
    kasmina_lower_by_block(const SeedJob* jobs, uint32_t all, const uint32_t* changed, uint32_t count, ColumnProgram* programs)
{
    follow_previous_launch();
    using Team = BlockTeam<kLowerThreads>;
    __shared__ Team::Slots slots;
    if (blockIdx.x < count && changed[blockIdx.x] < all) {
        lower_job(Team(slots), jobs[changed[blockIdx.x]], programs);
    }
}

// Every job but the large ones. A block has `per_block` jobs: each warp takes the small ones of its own, then all of them
// together the others, one after the other.
extern "C" __global__ void __launch_bounds__(adamw::kThreads, 2)
    kasmina_adamw(const OptimizerJob* jobs, uint32_t count, uint32_t per_block, const AdamW settings)
{
    follow_previous_launch();
    __shared__ adamw::Team::Slots slots;
    const uint32_t begin = blockIdx.x * per_block;
    const uint32_t end = begin + min(count - begin, per_block);
    for (uint32_t at = begin + threadIdx.x / 32; at < end; at += adamw::kThreads / 32) {
        if (jobs[at].count <= adamw::kWarpMost) {
            const OptimizerJob job = jobs[at];
            adamw::step_seed(WarpTeam{}, settings, job);
        }
    }
    const adamw::Team team(slots);
    for (uint32_t at = begin; at < end; ++at) {
        const OptimizerJob job = jobs[at];
        if (job.count > adamw::kWarpMost && !adamw::is_large(job)) {
            adamw::step_seed(team, settings, job);
        }
    }
}

// The large ones, each by one block. Block b looks at jobs b, b + gridDim.x, …, a window of them at once, as few are large.
extern "C" __global__ void __launch_bounds__(adamw::kThreads, 2)
    kasmina_adamw_alone(const OptimizerJob* jobs, uint32_t count, const AdamW settings)
{
    follow_previous_launch();
    __shared__ adamw::Team::Slots slots;
    __shared__ adamw::LargeSeed found;
    __shared__ uint8_t large[adamw::kThreads];
    const adamw::Team team(slots);
    for (uint64_t window = blockIdx.x; window < count; window += uint64_t{gridDim.x} * adamw::kThreads) {
        const uint64_t own = window + uint64_t{gridDim.x} * threadIdx.x;
        const bool is_large = own < count && adamw::is_large(jobs[own]);
        large[threadIdx.x] = is_large;
        if (!__syncthreads_or(is_large)) {
            continue;
        }
        for (uint32_t i = 0; i < adamw::kThreads; ++i) {
            if (large[i]) {
                const OptimizerJob job = jobs[window + uint64_t{gridDim.x} * i];
                adamw::step_alone(team, settings, job, found);
            }
        }
        __syncthreads();
    }
}

// The three rounds of large seeds by [blocks a seed, jobs] blocks; `found` is [jobs].

extern "C" __global__ void __launch_bounds__(adamw::kThreads, 2)
    kasmina_adamw_measure(const OptimizerJob* jobs, adamw::LargeSeed* found)
{
    follow_previous_launch();
    __shared__ adamw::Team::Slots slots;
    const OptimizerJob job = jobs[blockIdx.y];
    if (!adamw::is_large(job)) return;
    const adamw::Team team(slots);
    for (uint32_t slice = blockIdx.x; slice < adamw::kSlices; slice += gridDim.x) {
        adamw::measure_slice(team, job, found[blockIdx.y], slice);
    }
}

extern "C" __global__ void __launch_bounds__(adamw::kThreads, 2)
    kasmina_adamw_check(const OptimizerJob* jobs, adamw::LargeSeed* found, const AdamW settings)
{
    follow_previous_launch();
    __shared__ adamw::Team::Slots slots;
    // Of these only what the slices share.
    __shared__ adamw::LargeSeed sums;
    const OptimizerJob job = jobs[blockIdx.y];
    if (!adamw::is_large(job)) return;
    adamw::LargeSeed& seed = found[blockIdx.y];
    const adamw::Team team(slots);
    // Each block for itself, to the same bits; the first leaves it for the next round, which changes the record.
    adamw::sum_up(team, settings, job, seed, sums);
    if (blockIdx.x == 0 && team.rank() == 0) {
        seed.step = sums.step;
        seed.norm = sums.norm;
        seed.updates = sums.updates;
        seed.damaged = sums.damaged;
    }
    if (sums.damaged != adamw::kNone) return;
    for (uint32_t slice = blockIdx.x; slice < adamw::kSlices; slice += gridDim.x) {
        adamw::check_slice(team, settings, sums.step, job, seed, slice);
    }
}

extern "C" __global__ void __launch_bounds__(adamw::kThreads, 2)
    kasmina_adamw_apply(const OptimizerJob* jobs, const adamw::LargeSeed* found, const AdamW settings)
{
    follow_previous_launch();
    __shared__ adamw::Team::Slots slots;
    const OptimizerJob job = jobs[blockIdx.y];
    if (!adamw::is_large(job)) return;
    const adamw::LargeSeed& seed = found[blockIdx.y];
    const adamw::Team team(slots);
    const AdamWReport report = adamw::judge(team, seed);
    const AdamWStep step = seed.step;
    for (uint32_t slice = blockIdx.x; slice < adamw::kSlices; slice += gridDim.x) {
        adamw::apply_slice(team, settings, step, job, report.verdict == AdamWVerdict::Updated, slice);
    }
    if (blockIdx.x == 0 && team.rank() == 0) {
        adamw::settle(job, report, seed.updates);
    }
}
