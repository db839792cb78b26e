// The copy engine in streaming kernels: what a kernel is without it, and what keeps its addresses cheap.
#pragma once

#include <cstdint>

#include "kasmina_tma.cuh"

// Without the copy engine these are in the fatbin by name alone: the host does not choose them for such a device.
#if KASMINA_TMA_AVAILABLE
#define KASMINA_WITH_TMA(...) __VA_ARGS__
#else
#define KASMINA_WITH_TMA(...) __trap()
#endif

namespace kasmina::stream {

// The warp that made the barriers of a bulk kernel goes on to load at once; the others wait for them. By whole warps, whose threads
// may have come apart before: the instructions want them together.
template <uint32_t kThreads>
__device__ __forceinline__ void barriers_made()
{
    __syncwarp();
    asm volatile("bar.arrive 2, %0;" ::"n"(kThreads) : "memory");
}

template <uint32_t kThreads>
__device__ __forceinline__ void wait_for_barriers()
{
    __syncwarp();
    asm volatile("bar.sync 2, %0;" ::"n"(kThreads) : "memory");
}

}  // namespace kasmina::stream
