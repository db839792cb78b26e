// The flat kernels of one storage type: each quantity with four, some also with eight loads under way, and with registers for so
// many blocks on a multiprocessor as do not spill; and each by the atomic strategy.
#pragma once

#include "reduce_cells.cuh"

#define KASMINA_FLAT(T, type, what, Lane, ahead, blocks)                                                                     \
    extern "C" __global__ void __launch_bounds__(kasmina::reduce::kMaxThreads, KASMINA_RESIDENT(blocks))                     \
        kasmina_flat_##what##_##type##_##ahead(const __grid_constant__ kasmina::reduce::PieceParams p)                       \
    {                                                                                                                        \
        kasmina::reduce::pieces<T, kasmina::reduce::Lane<T>, ahead>(p);                                                      \
    }

#define KASMINA_ATOMIC(T, type, what, Lane, blocks)                                                                          \
    extern "C" __global__ void __launch_bounds__(kasmina::reduce::kMaxThreads, KASMINA_RESIDENT(blocks))                     \
        kasmina_atomic_flat_##what##_##type(const __grid_constant__ kasmina::reduce::PieceParams p)                          \
    {                                                                                                                        \
        kasmina::reduce::pieces<T, kasmina::reduce::Lane<T>, 4, kasmina::reduce::CellMeeting>(p);                            \
    }

#define KASMINA_FLAT_TYPE(T, type, sum_blocks)                                                                               \
    KASMINA_FLAT(T, type, sum, SumLane, 4, sum_blocks)                                                                       \
    KASMINA_FLAT(T, type, sum, SumLane, 8, 2)                                                                                \
    KASMINA_FLAT(T, type, extrema, ExtremaLane, 4, 4)                                                                        \
    KASMINA_FLAT(T, type, extrema, ExtremaLane, 8, 3)                                                                        \
    KASMINA_FLAT(T, type, bounds, BoundsLane, 4, 4)                                                                          \
    KASMINA_FLAT(T, type, bounds, BoundsLane, 8, 3)                                                                          \
    KASMINA_FLAT(T, type, summary, SummaryLane, 4, 3)                                                                        \
    KASMINA_FLAT(T, type, count, CountLane, 4, 4)                                                                            \
    KASMINA_FLAT(T, type, statistics, StatisticsLane, 4, 2)                                                                  \
    KASMINA_ATOMIC(T, type, sum, SumLane, sum_blocks)                                                                        \
    KASMINA_ATOMIC(T, type, extrema, ExtremaLane, 4)                                                                         \
    KASMINA_ATOMIC(T, type, bounds, BoundsLane, 4)                                                                           \
    KASMINA_ATOMIC(T, type, summary, SummaryLane, 3)                                                                         \
    KASMINA_ATOMIC(T, type, count, CountLane, 4)                                                                             \
    KASMINA_ATOMIC(T, type, statistics, StatisticsLane, 2)
