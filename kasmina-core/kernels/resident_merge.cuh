// Statistics of a resident grid's items are merged by two warps of their own, while the others go on with the next item: the merge is
// longer than a small layer's pass, and nobody waits for it but the end of the step.
//
// The workers put records and a job into shared memory and go on; two barriers pass the place to and fro: at `free` the mergers are done with
// the last job, at `full` the next one is there. Idle mergers wait at `free`, so the workers wait at neither unless a merge is still going on.
#pragma once

#include "block_barrier.cuh"
#include "stream_reduce.cuh"

namespace kasmina::resident {

constexpr uint32_t kMergers = 64;
constexpr uint32_t kFullBarrier = 6;
constexpr uint32_t kFreeBarrier = 7;

enum class MergeKind : uint32_t { Nothing, Quit, Chunks, Gradients };

struct MergeJob {
    MergeKind kind;
    uint32_t unit_columns;
    uint32_t chunk;
    uint32_t tile_columns;
    stream::TileSpan span;
    uint32_t row_lanes;
    uint32_t padding;
    const uint8_t* watched;
    void* accumulators;
};
static_assert(sizeof(MergeJob) == 48, "before the records, which want 16 bytes");

// Bytes of a block's dynamic shared memory for items; the job and the records follow. The Rust side has the same.
constexpr uint32_t kItemBytes = 96 << 10;
constexpr uint32_t kRecordBytes = 36 << 10;

__device__ __forceinline__ MergeJob& merge_job()
{
    extern __shared__ __align__(1024) uint8_t shared[];
    return *reinterpret_cast<MergeJob*>(shared + kItemBytes);
}

template <class Stats>
__device__ __forceinline__ Stats* merge_records_place()
{
    return reinterpret_cast<Stats*>(&merge_job() + 1);
}

template <uint32_t kBarrier>
__device__ __forceinline__ void meet_at()
{
    __syncwarp();
    asm volatile("bar.sync %0, %1;" ::"n"(kBarrier), "n"(kBlockThreads + kMergers) : "memory");
}

// Workers: waits until the place for a job is free.
__device__ __forceinline__ void claim_merge() { meet_at<kFreeBarrier>(); }

// Workers: hands over the job, which thread 0 has, and the records that are there.
__device__ __forceinline__ void post_merge(const MergeJob& job)
{
    if (threadIdx.x == 0) {
        merge_job() = job;
    }
    meet_at<kFullBarrier>();
}

// Workers: waits until everything that was posted is merged.
__device__ __forceinline__ void drain_merges()
{
    claim_merge();
    post_merge({MergeKind::Nothing});
}

template <uint32_t kUnitColumns, class Stats>
__device__ __forceinline__ void merge_as(const MergeJob& job, uint32_t thread)
{
    stream::accumulate_pieces<256, kUnitColumns, Stats, kMergers>(job.chunk, job.tile_columns, job.span, thread, job.row_lanes,
                                                                  merge_records_place<Stats>(), job.watched,
                                                                  static_cast<Stats*>(job.accumulators));
}

template <class Stats>
__device__ __forceinline__ void merge_units(const MergeJob& job, uint32_t thread)
{
    switch (job.unit_columns) {
    case 1: merge_as<1, Stats>(job, thread); break;
    case 4: merge_as<4, Stats>(job, thread); break;
    case 8: merge_as<8, Stats>(job, thread); break;
    default: break;
    }
}

// The mergers, for as long as the grid is there.
__device__ __forceinline__ void serve_merges()
{
    const uint32_t thread = threadIdx.x - kBlockThreads;
    while (true) {
        meet_at<kFreeBarrier>();
        meet_at<kFullBarrier>();
        const MergeJob job = merge_job();
        switch (job.kind) {
        case MergeKind::Nothing: break;
        case MergeKind::Quit: return;
        case MergeKind::Chunks: merge_units<ChunkStats>(job, thread); break;
        case MergeKind::Gradients: merge_units<GradientStats>(job, thread); break;
        }
    }
}

}  // namespace kasmina::resident
