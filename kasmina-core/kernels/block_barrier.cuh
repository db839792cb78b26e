// The threads of a block that work on an item, and how they meet.
#pragma once

#include <cstdint>

namespace kasmina {

#if defined(KASMINA_RESIDENT)
// In a resident grid two more warps of the block merge statistics meanwhile (resident_merge.cuh).
constexpr uint32_t kBlockThreads = 192;
#else
constexpr uint32_t kBlockThreads = 256;
#endif

// All of them. Barrier 1 is theirs.
__device__ __forceinline__ void block_barrier()
{
#if defined(KASMINA_RESIDENT)
    __syncwarp();
    asm volatile("bar.sync 1, %0;" ::"n"(kBlockThreads) : "memory");
#else
    __syncthreads();
#endif
}

}  // namespace kasmina
