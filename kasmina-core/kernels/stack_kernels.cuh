// Macros that make the kernels over stacks of layers. What each name says: element, telemetry, packets that a thread holds.
#pragma once

#include "kasmina_launch.cuh"
#include "stack_backward.cuh"

using namespace kasmina;
using namespace kasmina::stack;

#define KASMINA_STACK_FORWARD(name, T, telemetry, held)                                                              \
    extern "C" __global__ void __launch_bounds__(most_threads(Telemetry::telemetry, false), 1)                      \
        name(const __grid_constant__ ForwardStack p)                                                                 \
    {                                                                                                                \
        follow_previous_launch();                                                                                    \
        stack::forward<T, Telemetry::telemetry, held>(p);                                                            \
    }

#define KASMINA_STACK_BACKWARD(name, T, telemetry, held)                                                             \
    extern "C" __global__ void __launch_bounds__(most_threads(Telemetry::telemetry, true), 1)                       \
        name(const __grid_constant__ BackwardStack p)                                                                \
    {                                                                                                                \
        follow_previous_launch();                                                                                    \
        stack::backward<T, Telemetry::telemetry, held>(p);                                                           \
    }
