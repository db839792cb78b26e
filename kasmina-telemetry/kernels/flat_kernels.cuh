// The flat kernels of one storage type: each quantity with four and with eight loads under way.
#pragma once

#include "reduce_pieces.cuh"

#define KASMINA_FLAT(T, type, what, Lane, ahead)                                                                             \
    extern "C" __global__ void __launch_bounds__(kasmina::reduce::kMaxThreads)                                                                       \
        kasmina_flat_##what##_##type##_##ahead(const __grid_constant__ kasmina::reduce::PieceParams p)                       \
    {                                                                                                                        \
        kasmina::reduce::pieces<T, kasmina::reduce::Lane<T>, ahead>(p);                                                      \
    }

#define KASMINA_FLAT_TYPE(T, type)                                                                                           \
    KASMINA_FLAT(T, type, sum, SumLane, 4)                                                                                   \
    KASMINA_FLAT(T, type, sum, SumLane, 8)                                                                                   \
    KASMINA_FLAT(T, type, extrema, ExtremaLane, 4)                                                                           \
    KASMINA_FLAT(T, type, extrema, ExtremaLane, 8)                                                                           \
    KASMINA_FLAT(T, type, summary, SummaryLane, 4)                                                                           \
    KASMINA_FLAT(T, type, count, CountLane, 4)                                                                               \
    KASMINA_FLAT(T, type, statistics, StatisticsLane, 4)
