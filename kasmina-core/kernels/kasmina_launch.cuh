// Launches that follow each other closely: programmatic dependent launch.
#pragma once

namespace kasmina {

// The first thing that every kernel of a pass does. A kernel that was launched ahead of the end of the one before it waits here
// until that one's results can be seen; behind it the next one may then be set up, which waits in the same way. So each kernel
// that has passed this has all kernels before it behind it. Where nothing was launched ahead it costs two instructions.
__device__ __forceinline__ void follow_previous_launch()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace kasmina
