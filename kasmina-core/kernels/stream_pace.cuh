// How many loads a block keeps under way, so that all blocks come to their ends together.
//
// More under way does not make an H200's memory faster but slower: of 8192 × 8192 f32, 64 KiB on each multiprocessor were best, and
// 96 cost 1 to 2 %. With so little, latency decides, and multiprocessors do not have the same: of 128 blocks with equal shares the
// first was done after 104 µs and the last after 134. So blocks compare how far they are with the average, and those that are ahead
// keep fewer loads under way than those that are behind (forward: from 0.92 to 0.96 of a device copy). What is computed does not
// depend on it.
#pragma once

#include "stream_geometry.cuh"
#include "stream_tma.cuh"

namespace kasmina::stream {

#if KASMINA_TMA_AVAILABLE

// For the one thread of a block that starts its loads, into stages that go round.
class LoadQueue {
public:
    // `full` are the stages' barriers; `usual` loads are under way when all blocks are equally far. `counters` are two words in
    // global memory, 0 between launches.
    __device__ __forceinline__ LoadQueue(tma::Barrier* full, uint32_t stages, uint32_t usual, uint32_t* counters)
        : full_(full), stages_(stages), usual_(usual), counters_(counters), most_(usual)
    {
    }

    // Waits until the next load may be started. Called once a load.
    __device__ __forceinline__ void next()
    {
        if (started_ % kEvery == kEvery - 1) {
            // The answer to the question before: by now it has come.
            if (started_ > kEvery) {
                const int ahead = int(started_ - kEvery) - int(uint64_t(answer_) * kEvery / gridDim.x);
                most_ = uint32_t(max(1, min(int(usual_) - ahead / kSlack, int(stages_) - 1)));
            }
            answer_ = atomicAdd(counters_, 1u);
        }
        ++started_;
        for (; under_way_ >= most_; --under_way_) {
            tma::wait(full_[oldest_], parity_);
            if (++oldest_ == stages_) oldest_ = 0, parity_ ^= 1;
        }
        ++under_way_;
    }

    // After the last load. The last block of all makes the counters ready for the next launch.
    __device__ __forceinline__ void end()
    {
        __threadfence();
        if (atomicAdd(counters_ + 1, 1u) + 1 == gridDim.x) {
            counters_[0] = 0;
            counters_[1] = 0;
        }
    }

private:
    // Loads from question to question, and loads ahead of the average for which one fewer is kept under way. Of 2, 4 and 8 for
    // the first and 1 to 4 for the second these were best.
    static constexpr uint32_t kEvery = 4;
    static constexpr int kSlack = 2;

    tma::Barrier* full_;
    uint32_t stages_;
    uint32_t usual_;
    uint32_t* counters_;
    uint32_t most_;
    uint32_t started_ = 0;
    uint32_t answer_ = 0;
    // The oldest load that may not be done, and how many there are.
    uint32_t oldest_ = 0;
    uint32_t parity_ = 0;
    uint32_t under_way_ = 0;
};

#endif  // KASMINA_TMA_AVAILABLE

}  // namespace kasmina::stream
