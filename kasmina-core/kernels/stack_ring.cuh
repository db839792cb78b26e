// Slots in shared memory that go round between warps of a block: a layer's records from the threads that count to the warp that merges
// them, or its programs from the warp that prepares them to those that work. Some warps fill a slot together, and some give it back.
//
// A barrier knows the parity of its round alone. So whoever waits for a slot must not be two rounds ahead of it: where several warps take
// slots in turn, each of them every n-th, there are n slots at least.
#pragma once

#include "mbarrier.cuh"

namespace kasmina::stack {

// Where one warp is in a ring. Every thread that takes part has a cursor of its own.
class RingCursor {
public:
    // `barriers`: [2][slots].
    __device__ __forceinline__ RingCursor(uint64_t* barriers, uint32_t slots) : full_(barriers), slots_(slots) {}

    // One thread, before the block's barrier.
    __device__ __forceinline__ void init(uint32_t filling_warps, uint32_t emptying_warps) const
    {
        for (uint32_t s = 0; s < slots_; ++s) {
            mbarrier_init(full_ + s, filling_warps);
            mbarrier_init(full_ + slots_ + s, emptying_warps);
        }
    }

    __device__ __forceinline__ uint32_t slot() const { return slot_; }

    // Until whoever had the slot last is done with it.
    __device__ __forceinline__ void claim() const
    {
        if (round_ > 0) {
            mbarrier_wait(full_ + slots_ + slot_, (round_ - 1) & 1);
        }
    }

    // By a whole warp: what it has to put into the slot is there.
    __device__ __forceinline__ void fill() const { arrive(full_ + slot_); }

    // Until the slot is full.
    __device__ __forceinline__ void wait() const { mbarrier_wait(full_ + slot_, round_ & 1); }

    // By a whole warp: it is done with the slot.
    __device__ __forceinline__ void give_back() const { arrive(full_ + slots_ + slot_); }

    __device__ __forceinline__ void advance()
    {
        if (++slot_ == slots_) slot_ = 0, ++round_;
    }

private:
    static __device__ __forceinline__ void arrive(uint64_t* barrier)
    {
        __syncwarp();
        if (threadIdx.x % 32 == 0) {
            mbarrier_arrive(barrier);
        }
    }

    uint64_t* full_;
    uint32_t slots_;
    uint32_t slot_ = 0;
    uint32_t round_ = 0;
};

}  // namespace kasmina::stack
