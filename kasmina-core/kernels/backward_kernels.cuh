// Macros that make the streaming backward kernels. What each name says: element, load path, telemetry.
#pragma once

#include "kasmina_launch.cuh"
#include "stream_backward.cuh"

using namespace kasmina;
using namespace kasmina::stream;

#define KASMINA_BACKWARD_BULK_TENSOR(name, T, telemetry)                                                            \
    extern "C" __global__ void __launch_bounds__(kBackwardBulkThreads<Telemetry::telemetry>, 1)                    \
        name(const __grid_constant__ tma::TensorMap x_map, const __grid_constant__ tma::TensorMap grad_y_map,      \
             const __grid_constant__ tma::TensorMap grad_x_map, const __grid_constant__ BackwardParams p)          \
    {                                                                                                              \
        follow_previous_launch();                                                                                  \
        KASMINA_WITH_TMA(backward_bulk<T, Telemetry::telemetry, true>(&x_map, &grad_y_map, &grad_x_map, p));       \
    }

#define KASMINA_BACKWARD_BULK(name, T, telemetry)                                                                   \
    extern "C" __global__ void __launch_bounds__(kBackwardBulkThreads<Telemetry::telemetry>, 1)                    \
        name(const __grid_constant__ BackwardParams p)                                                             \
    {                                                                                                              \
        follow_previous_launch();                                                                                  \
        KASMINA_WITH_TMA(backward_bulk<T, Telemetry::telemetry, false>(nullptr, nullptr, nullptr, p));             \
    }

#define KASMINA_BACKWARD_DIRECT(name, T, telemetry, aligned)                                                        \
    extern "C" __global__ void __launch_bounds__(kWorkers, 1) name(const __grid_constant__ BackwardParams p)       \
    {                                                                                                              \
        follow_previous_launch();                                                                                  \
        backward_direct<T, Telemetry::telemetry, aligned>(p, blockIdx.x);                                          \
    }

#define KASMINA_BACKWARD_ASYNC(name, T, telemetry)                                                                  \
    extern "C" __global__ void __launch_bounds__(kWorkers, 1) name(const __grid_constant__ BackwardParams p)       \
    {                                                                                                              \
        follow_previous_launch();                                                                                  \
        backward_async<T, Telemetry::telemetry>(p, blockIdx.x);                                                                \
    }
