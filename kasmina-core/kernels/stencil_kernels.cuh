// The filter kernels of one storage type: for up to 4, 8 and 16 taps, since registers hold what the taps reach.
#pragma once

#include "kasmina_launch.cuh"
#include "stencil_backward.cuh"
#include "stencil_forward.cuh"

#define KASMINA_STENCIL(direction, type, T, taps, blocks)                                                          \
    extern "C" __global__ void __launch_bounds__(kasmina::stencil::kThreads, blocks)                               \
        kasmina_stencil_##direction##_##type##_##taps(const __grid_constant__ kasmina::stencil::StencilParams p)   \
    {                                                                                                              \
        kasmina::follow_previous_launch();                                                                         \
        kasmina::stencil::direction<T, taps>(p);                                                                   \
    }

// Blocks that run on a multiprocessor at once, which the host's grid is made for. 16 taps backward keep some 150 registers.
// From cc 10.0 on the compiler does not fit 8 taps of a 16-bit type into half of the registers, either: it would spill, and of
// the host's two blocks one waits.
#if __CUDA_ARCH__ >= 1000
#define KASMINA_STENCIL_BLOCKS_8(T) (sizeof(T) == 2 ? 1 : 2)
#else
#define KASMINA_STENCIL_BLOCKS_8(T) 2
#endif

#define KASMINA_STENCILS(type, T)                                                                                  \
    KASMINA_STENCIL(forward, type, T, 4, 2)                                                                        \
    KASMINA_STENCIL(forward, type, T, 8, 2)                                                                        \
    KASMINA_STENCIL(forward, type, T, 16, 2)                                                                       \
    KASMINA_STENCIL(backward, type, T, 4, 2)                                                                       \
    KASMINA_STENCIL(backward, type, T, 8, KASMINA_STENCIL_BLOCKS_8(T))                                             \
    KASMINA_STENCIL(backward, type, T, 16, 1)
