// The last step of a backward pass: from the blocks' column sums to the gradients of every pointwise seed's parameters and
// alpha, and the losses of reconstructions. One team of threads a seed; every sum has a fixed place in a tree, so results are the
// same bits in every run.
#pragma once

#include "block_barrier.cuh"
#include "kasmina_finalize.cuh"
#include "seed_job.cuh"

namespace kasmina::finalizing {

// As many as work on an item of a resident grid, whose sums are to have the same bits.
constexpr uint32_t kThreads = 192;
constexpr uint32_t kWarpThreads = 32;
// Loads of one column's partial sums that are under way together; they are added in order.
constexpr uint32_t kAhead = 8;
constexpr uint32_t kParts = sizeof(ColumnTotals) / sizeof(double);

struct FinalizeParams {
    const SeedJob* jobs;
    const ColumnProgram* programs;  // [columns]
    ColumnTotals* sums;       // [groups][columns]; the merged ones take the first group's place
    uint64_t rows;
    uint32_t count;           // jobs
    uint32_t columns;
    uint32_t groups;          // 0 where there were no rows
    uint32_t has_gradients;   // 0: only reconstructions are served
};
static_assert(sizeof(FinalizeParams) == 48, "as in Rust");

// The result of a butterfly is the same in every lane, since additions commute.
template <class T, class Merge>
__device__ __forceinline__ T over_warp(T value, Merge merge)
{
#pragma unroll
    for (uint32_t by = 16; by > 0; by /= 2) {
        value = merge(value, __shfl_xor_sync(0xffffffffu, value, by));
    }
    return value;
}

struct Add {
    __device__ __forceinline__ double operator()(double a, double b) const { return a + b; }
};

struct Greatest {
    __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

struct Warp {
    __device__ __forceinline__ uint32_t rank() const { return threadIdx.x % kWarpThreads; }
    __device__ __forceinline__ uint32_t size() const { return kWarpThreads; }
    __device__ __forceinline__ float max(float value) const { return over_warp(value, Greatest{}); }
    __device__ __forceinline__ double sum(double value) const { return over_warp(value, Add{}); }
    __device__ __forceinline__ void wait() const { __syncwarp(); }
};

struct Block {
    double* shared;  // one for each warp

    __device__ __forceinline__ uint32_t rank() const { return threadIdx.x; }
    __device__ __forceinline__ uint32_t size() const { return kThreads; }
    __device__ __forceinline__ float max(float value) const { return static_cast<float>(over(value, Greatest{})); }
    __device__ __forceinline__ double sum(double value) const { return over(value, Add{}); }
    __device__ __forceinline__ void wait() const { block_barrier(); }

private:
    template <class T, class Merge>
    __device__ __forceinline__ T over(T value, Merge merge) const
    {
        value = over_warp(value, merge);
        // What was there may still be being read.
        block_barrier();
        if (threadIdx.x % kWarpThreads == 0) {
            shared[threadIdx.x / kWarpThreads] = static_cast<double>(value);
        }
        block_barrier();
        T all = static_cast<T>(shared[0]);
        for (uint32_t w = 1; w < kThreads / kWarpThreads; ++w) {
            all = merge(all, static_cast<T>(shared[w]));
        }
        return all;
    }
};

// Adds up what the groups of blocks found about the seed's columns.
template <class Team>
__device__ __forceinline__ void merge_groups(const Team& team, const FinalizeParams& p, const SeedJob& job)
{
    auto* first = reinterpret_cast<double*>(p.sums + job.first_column);
    const uint64_t pitch = static_cast<uint64_t>(p.columns) * kParts;
    for (uint32_t item = team.rank(); item < job.columns * kParts; item += team.size()) {
        double sum = 0.0;
        for (uint32_t group = 0; group < p.groups; group += kAhead) {
            double ahead[kAhead];
#pragma unroll
            for (uint32_t i = 0; i < kAhead; ++i) {
                ahead[i] = group + i < p.groups ? first[(group + i) * pitch + item] : 0.0;
            }
#pragma unroll
            for (uint32_t i = 0; i < kAhead; ++i) {
                sum += ahead[i];
            }
        }
        first[item] = sum;
    }
    team.wait();
}

template <class Team>
__device__ __forceinline__ void finalize(const Team& team, const FinalizeParams& p, const SeedJob& job)
{
    const bool reconstructs = job.role == Role::Reconstruction;
    // The same for all of the team.
    if (job.kind > Kind::MlpExpansion || job.gradients == nullptr || job.result == nullptr
        || (p.has_gradients == 0 && !reconstructs)) {
        return;
    }
    merge_groups(team, p, job);
    const ColumnTotals* sums = p.sums + job.first_column;
    const double factor = reconstructs ? reconstruction_factor(p.rows, job.columns) : 1.0;
    const double alpha = finalize_seed(
        team, job.kind, job.parameters, job.columns, job.alpha, [=](uint32_t i) { return sums[i]; }, factor,
        [&](uint32_t i, float value) { job.gradients[i] += value; });
    if (reconstructs) {
        double squares = 0.0;
        for (uint32_t i = team.rank(); i < job.columns; i += team.size()) {
            squares += reconstruction_squares(p.programs[job.first_column + i], sums[i]);
        }
        squares = team.sum(squares);
        if (team.rank() == 0) {
            job.result->reconstruction = reconstruction_loss(squares, p.rows, job.columns);
        }
    } else if (job.role == Role::Path && team.rank() == 0) {
        job.result->alpha += static_cast<float>(alpha);
    }
}

}  // namespace kasmina::finalizing
