// Macros that make the streaming forward kernels. What each name says: element, load path, telemetry, mode.
#pragma once

#include "kasmina_launch.cuh"
#include "stream_forward.cuh"

using namespace kasmina;
using namespace kasmina::stream;

#define KASMINA_FORWARD_BULK_TENSOR(name, T, telemetry, mode)                                                       \
    extern "C" __global__ void __launch_bounds__(kForwardBulkThreads, 1)                                           \
        name(const __grid_constant__ tma::TensorMap x_map, const __grid_constant__ tma::TensorMap y_map,           \
             const __grid_constant__ ForwardParams p)                                                              \
    {                                                                                                              \
        follow_previous_launch();                                                                                  \
        KASMINA_WITH_TMA(forward_bulk<T, Telemetry::telemetry, Mode::mode, true>(&x_map, &y_map, p));              \
    }

#define KASMINA_FORWARD_BULK(name, T, telemetry, mode)                                                              \
    extern "C" __global__ void __launch_bounds__(kForwardBulkThreads, 1)                                           \
        name(const __grid_constant__ ForwardParams p)                                                              \
    {                                                                                                              \
        follow_previous_launch();                                                                                  \
        KASMINA_WITH_TMA(forward_bulk<T, Telemetry::telemetry, Mode::mode, false>(nullptr, nullptr, p));           \
    }

// `blocks` of these run on a multiprocessor at once, as `ForwardVariant::blocks` says.
#define KASMINA_FORWARD_DIRECT(name, T, telemetry, mode, aligned, blocks)                                           \
    extern "C" __global__ void __launch_bounds__(kWorkers, blocks) name(const __grid_constant__ ForwardParams p)   \
    {                                                                                                              \
        follow_previous_launch();                                                                                  \
        forward_direct<T, Telemetry::telemetry, Mode::mode, aligned>(p, blockIdx.x);                               \
    }

#define KASMINA_FORWARD_ASYNC(name, T, telemetry, mode, blocks)                                                     \
    extern "C" __global__ void __launch_bounds__(kWorkers, blocks) name(const __grid_constant__ ForwardParams p)   \
    {                                                                                                              \
        follow_previous_launch();                                                                                  \
        forward_async<T, Telemetry::telemetry, Mode::mode>(p, blockIdx.x);                                                     \
    }
