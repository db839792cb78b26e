// The kernels that read the whole input apart from the pass, one for each storage type. `scalar`: x is not aligned to packets.

#include "kasmina_launch.cuh"
#include "whole_input.cuh"

using namespace kasmina;

// Three blocks on a multiprocessor keep the memory busy in turn, 32 KiB each under way.
#define KASMINA_STRICT(name, T, aligned)                                                                             \
    extern "C" __global__ void __launch_bounds__(stream::kWorkers, 3)                                               \
        name(const __grid_constant__ whole::StrictParams p)                                                         \
    {                                                                                                               \
        follow_previous_launch();                                                                                   \
        whole::strict<T, aligned>(p);                                                                               \
    }

#define KASMINA_HISTOGRAM(name, T)                                                                                   \
    extern "C" __global__ void __launch_bounds__(stream::kWorkers)                                                  \
        name(const __grid_constant__ whole::HistogramParams p)                                                      \
    {                                                                                                               \
        follow_previous_launch();                                                                                   \
        whole::histogram<T>(p);                                                                                     \
    }

KASMINA_STRICT(kasmina_strict_f32, float, true)
KASMINA_STRICT(kasmina_strict_f32_scalar, float, false)
KASMINA_STRICT(kasmina_strict_f16, f16, true)
KASMINA_STRICT(kasmina_strict_f16_scalar, f16, false)
KASMINA_STRICT(kasmina_strict_bf16, bf16, true)
KASMINA_STRICT(kasmina_strict_bf16_scalar, bf16, false)

KASMINA_HISTOGRAM(kasmina_histogram_f32, float)
KASMINA_HISTOGRAM(kasmina_histogram_f16, f16)
KASMINA_HISTOGRAM(kasmina_histogram_bf16, bf16)
