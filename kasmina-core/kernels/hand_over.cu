// A window of telemetry on its way out: what the passes have counted is moved into a buffer from which it is copied to the host,
// behind windows that wait there already, and counting starts anew. One launch does all of it, so that it is done or not.
//
// A buffer is `seeds` records of chunks, as many of gradients, and the number of saturated elements. Earlier windows merge before
// later ones, as `TelemetryReport::merge` does it, so the bits are the same whether windows meet here or on the host.

#include "kasmina_histogram.cuh"
#include "kasmina_stats.cuh"

using namespace kasmina;

namespace {

constexpr uint32_t kThreads = 256;

// Beside the launch: `HandOver` of src/cuda/hand_over.rs.
struct HandOver {
    ChunkStats* chunk;
    GradientStats* gradient;
    uint64_t* saturated;
    // Null where none are counted.
    Histogram* histograms;
    // Null where no window waits. It may be `to`.
    const uint8_t* earlier;
    // Null where no window that waits has any. They may be `to_histograms`.
    const Histogram* earlier_histograms;
    uint8_t* to;
    // Null where neither has histograms.
    Histogram* to_histograms;
    uint64_t seeds;
};
static_assert(sizeof(HandOver) == 72, "nine words, as the host has them");

// Moves `count` records behind those of `earlier`, one thread a record.
template <typename Stats>
__device__ void move_records(Stats* from, const Stats* earlier, Stats* to, uint64_t count)
{
    for (uint64_t i = blockIdx.x * uint64_t(kThreads) + threadIdx.x; i < count; i += uint64_t(gridDim.x) * kThreads) {
        Stats sum = earlier != nullptr ? earlier[i] : Stats::empty();
        sum.merge(from[i]);
        to[i] = sum;
        from[i] = Stats::empty();
    }
}

// One warp a seed.
__device__ void move_histograms(Histogram* from, const Histogram* earlier, Histogram* to, uint64_t count)
{
    const uint32_t lane = threadIdx.x % 32;
    const uint64_t first = (blockIdx.x * uint64_t(kThreads) + threadIdx.x) / 32, step = gridDim.x * uint64_t(kThreads / 32);
    for (uint64_t i = first; i < count; i += step) {
        // A lane has the same bins in all three.
        for (uint32_t k = lane; k < Histogram::kBins; k += 32) {
            uint64_t sum = 0;
            if (earlier != nullptr) sum += earlier[i].counts[k];
            if (from != nullptr) {
                sum += from[i].counts[k];
                from[i].counts[k] = 0;
            }
            to[i].counts[k] = sum;
        }
        if (lane != 0) continue;
        uint64_t nonfinite = 0;
        float low = kInfinity, high = -kInfinity;
        if (earlier != nullptr) {
            nonfinite = earlier[i].nonfinite;
            low = earlier[i].min;
            high = earlier[i].max;
        }
        if (from != nullptr) {
            nonfinite += from[i].nonfinite;
            if (from[i].min < low) low = from[i].min;
            if (from[i].max > high) high = from[i].max;
            from[i].nonfinite = 0;
            from[i].min = kInfinity;
            from[i].max = -kInfinity;
        }
        to[i].nonfinite = nonfinite;
        to[i].min = low;
        to[i].max = high;
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) kasmina_hand_over(const __grid_constant__ HandOver window)
{
    const uint64_t seeds = window.seeds, records = seeds * sizeof(ChunkStats), all = records + seeds * sizeof(GradientStats);
    const uint8_t* const earlier = window.earlier;
    move_records(window.chunk, reinterpret_cast<const ChunkStats*>(earlier), reinterpret_cast<ChunkStats*>(window.to), seeds);
    move_records(window.gradient, reinterpret_cast<const GradientStats*>(earlier != nullptr ? earlier + records : nullptr),
                 reinterpret_cast<GradientStats*>(window.to + records), seeds);
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        const uint64_t before = earlier != nullptr ? *reinterpret_cast<const uint64_t*>(earlier + all) : 0;
        *reinterpret_cast<uint64_t*>(window.to + all) = before + *window.saturated;
        *window.saturated = 0;
    }
    if (window.to_histograms != nullptr) {
        move_histograms(window.histograms, window.earlier_histograms, window.to_histograms, seeds);
    }
}

// Makes every histogram an empty one, one warp each.
extern "C" __global__ void __launch_bounds__(256) kasmina_empty_histograms(Histogram* histograms, uint64_t count)
{
    const uint64_t first = (blockIdx.x * uint64_t(kThreads) + threadIdx.x) / 32, step = gridDim.x * uint64_t(kThreads / 32);
    for (uint64_t i = first; i < count; i += step) {
        for (uint32_t k = threadIdx.x % 32; k < Histogram::kBins; k += 32) histograms[i].counts[k] = 0;
        if (threadIdx.x % 32 == 0) {
            histograms[i].nonfinite = 0;
            histograms[i].min = kInfinity;
            histograms[i].max = -kInfinity;
        }
    }
}
