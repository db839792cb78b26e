// AdamW on the device: many small seeds, a warp or a block each, and large ones in slices that several blocks share.
//
// A seed is updated as a whole or not at all, so a large one takes three rounds over its slices: the gradients' norm; whether
// anything would overflow; the update. Blocks that share a seed do a round a launch and leave their findings in memory; a block
// that has the seed to itself does all three with the findings in shared memory. Slices depend on the seed's size alone, so
// both ways give the same bits, whatever the number of blocks and of other seeds.
#pragma once

#include "kasmina_adamw.cuh"
#include "seed_job.cuh"
#include "seed_team.cuh"

namespace kasmina {

// What the optimizer has done to one seed since the host took the record, `updates` apart, which is the seed's for good.
struct OptimizerRecord {
    uint64_t updates;
    double norm;       // of the latest update, before clipping
    uint32_t updated;
    uint32_t clipped;
    uint32_t skipped;
    uint32_t verdict;  // AdamWVerdict of the first that was skipped
    uint32_t index;    // the parameter to blame for that
    uint32_t padding;
};
static_assert(sizeof(OptimizerRecord) == 40 && offsetof(OptimizerRecord, norm) == 8 && offsetof(OptimizerRecord, index) == 32,
              "as in Rust");

struct OptimizerJob {
    float* parameters;
    float* first;
    float* second;
    float* gradients;  // consumed: zero afterwards
    SeedResult* result;
    OptimizerRecord* record;
    uint64_t count;
};
static_assert(sizeof(OptimizerJob) == 56 && offsetof(OptimizerJob, count) == 48, "as in Rust");
static_assert(sizeof(AdamW) == 48 && offsetof(AdamW, clip_norm) == 40, "as in Rust");

namespace adamw {

constexpr uint32_t kThreads = 256;
// The most parameters that a warp updates, and that a block does in one piece. A thread's round of one parameter takes about a
// microsecond, most of it waiting; these keep a team's rounds below some dozens.
constexpr uint64_t kWarpMost = 256;
constexpr uint64_t kBlockMost = 8192;
// Slices of a large seed. Each thread of a block has the findings of one.
constexpr uint32_t kSlices = 256;
static_assert(kSlices == kThreads, "summed up by one round of a block");

constexpr uint32_t kNone = 0xffffffffu;

using Team = BlockTeam<kThreads>;

struct Slice {
    double squares;     // Σ g²
    uint32_t damaged;   // the first gradient that is not finite
    uint32_t overflow;  // the first parameter that the update would overflow
};

// The findings of one large seed.
struct LargeSeed {
    Slice slices[kSlices];
    AdamWStep step;
    double norm;
    uint64_t updates;
    uint32_t damaged;
    uint32_t padding;
};
static_assert(sizeof(LargeSeed) == kSlices * 16 + 48, "as the host allocates");

__device__ __forceinline__ bool is_large(const OptimizerJob& job) { return job.count > kBlockMost; }

// This update's number.
__device__ __forceinline__ uint64_t next_update(const OptimizerJob& job)
{
    const uint64_t before = job.record->updates;
    return before == ~uint64_t{0} ? before : before + 1;
}

// An index as a record has it; beyond 2^32 − 2 the parameter is not named exactly.
__device__ __forceinline__ uint32_t index_of(uint64_t i) { return i < kNone ? static_cast<uint32_t>(i) : kNone - 1; }

// Puts a seed's outcome on record; one thread.
__device__ __forceinline__ void settle(const OptimizerJob& job, const AdamWReport& report, uint64_t updates)
{
    OptimizerRecord& record = *job.record;
    if (report.verdict == AdamWVerdict::Updated) {
        record.updates = updates;
        record.norm = report.norm;
        record.updated += 1;
        record.clipped += report.clipped;
    } else {
        if (record.verdict == 0) {
            record.verdict = static_cast<uint32_t>(report.verdict);
            record.index = report.index;
        }
        record.skipped += 1;
    }
    job.result->alpha = 0.0f;
}

// A seed of at most kBlockMost parameters by one team.
template <class AnyTeam>
__device__ __forceinline__ void step_seed(const AnyTeam& team, const AdamW& adamw, const OptimizerJob& job)
{
    const auto count = static_cast<uint32_t>(job.count);
    const uint64_t updates = next_update(job);
    const AdamWReport report = update_seed(team, adamw, updates, count, job.parameters, job.first, job.second, job.gradients);
    // Each lane the ones that it alone has read.
    for (uint32_t i = team.rank(); i < count; i += team.size()) {
        job.gradients[i] = 0.0f;
    }
    // Every lane has read the record: the reductions lie in between.
    if (team.rank() == 0) {
        settle(job, report, updates);
    }
}

struct Range {
    uint64_t begin;
    uint64_t end;
};

__device__ __forceinline__ Range slice_range(uint64_t count, uint32_t slice)
{
    const uint64_t length = (count + kSlices - 1) / kSlices;
    const uint64_t begin = slice * length < count ? slice * length : count;
    return {begin, begin + length < count ? begin + length : count};
}

// The first round: a slice's part of the norm.
__device__ __forceinline__ void measure_slice(const Team& team, const OptimizerJob& job, LargeSeed& found, uint32_t slice)
{
    const Range range = slice_range(job.count, slice);
    uint32_t damaged = kNone;
    double squares = 0.0;
#pragma unroll 4
    for (uint64_t i = range.begin + team.rank(); i < range.end; i += kThreads) {
        const float gradient = job.gradients[i];
        if (!is_finite(gradient) && damaged == kNone) damaged = index_of(i);
        const double g = static_cast<double>(gradient);
        squares = add_rn(squares, mul_rn(g, g));
    }
    damaged = team.min(damaged);
    squares = team.sum(squares);
    if (team.rank() == 0) {
        found.slices[slice].squares = squares;
        found.slices[slice].damaged = damaged;
    }
}

// What all slices share, once all of them are measured. Every thread gets it.
__device__ __forceinline__ void sum_up(const Team& team, const AdamW& adamw, const OptimizerJob& job, const LargeSeed& found,
                                       LargeSeed& shared)
{
    const Slice own = found.slices[team.rank()];
    const uint32_t damaged = team.min(own.damaged);
    const double squares = team.sum(own.squares);
    if (team.rank() == 0) {
        shared.damaged = damaged;
        shared.norm = sqrt(squares);
        shared.updates = next_update(job);
        shared.step = AdamWStep::of(adamw, shared.norm, shared.updates);
    }
    __syncthreads();
}

// The second round: whether the update would overflow anything in a slice.
__device__ __forceinline__ void check_slice(const Team& team, const AdamW& adamw, const AdamWStep& step,
                                            const OptimizerJob& job, LargeSeed& found, uint32_t slice)
{
    const Range range = slice_range(job.count, slice);
    uint32_t overflow = kNone;
#pragma unroll 2
    for (uint64_t i = range.begin + team.rank(); i < range.end; i += kThreads) {
        const AdamWValue old = {job.parameters[i], job.first[i], job.second[i]};
        const bool kept = update(adamw, step, old, job.gradients[i]).is_finite();
        if (!kept && overflow == kNone) overflow = index_of(i);
    }
    overflow = team.min(overflow);
    if (team.rank() == 0) {
        found.slices[slice].overflow = overflow;
    }
}

// What becomes of a seed, once all slices are checked. Every thread gets it.
__device__ __forceinline__ AdamWReport judge(const Team& team, const LargeSeed& found)
{
    if (found.damaged != kNone) {
        return {0.0, AdamWVerdict::NonFiniteGradient, found.damaged, 0};
    }
    const uint32_t overflow = team.min(found.slices[team.rank()].overflow);
    if (overflow != kNone) {
        return {0.0, AdamWVerdict::Overflow, overflow, 0};
    }
    return {found.norm, AdamWVerdict::Updated, 0, found.step.scale < 1.0 ? 1u : 0u};
}

// The third round: the update of a slice, and its gradients' end.
__device__ __forceinline__ void apply_slice(const Team& team, const AdamW& adamw, const AdamWStep& step,
                                            const OptimizerJob& job, bool updated, uint32_t slice)
{
    const Range range = slice_range(job.count, slice);
    for (uint64_t i = range.begin + team.rank(); i < range.end; i += kThreads) {
        if (updated) {
            const AdamWValue old = {job.parameters[i], job.first[i], job.second[i]};
            const AdamWValue value = update(adamw, step, old, job.gradients[i]);
            job.parameters[i] = value.parameter;
            job.first[i] = value.first;
            job.second[i] = value.second;
        }
        job.gradients[i] = 0.0f;
    }
}

// A large seed by one block: all rounds, the findings in shared memory.
__device__ __forceinline__ void step_alone(const Team& team, const AdamW& adamw, const OptimizerJob& job, LargeSeed& found)
{
    for (uint32_t slice = 0; slice < kSlices; ++slice) {
        measure_slice(team, job, found, slice);
    }
    __syncthreads();
    sum_up(team, adamw, job, found, found);
    const AdamWStep step = found.step;
    if (found.damaged == kNone) {
        for (uint32_t slice = 0; slice < kSlices; ++slice) {
            check_slice(team, adamw, step, job, found, slice);
        }
        __syncthreads();
    }
    const AdamWReport report = judge(team, found);
    for (uint32_t slice = 0; slice < kSlices; ++slice) {
        apply_slice(team, adamw, step, job, report.verdict == AdamWVerdict::Updated, slice);
    }
    if (team.rank() == 0) {
        settle(job, report, found.updates);
    }
    // The next seed's findings go to the same place.
    __syncthreads();
}

}  // namespace adamw
}  // namespace kasmina
