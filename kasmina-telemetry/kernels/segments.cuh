// The segmented kernels of one storage type: sums, extremes and statistics by groups of 1 to 32 lanes, by whole blocks, and of the
// queue. A group's packets and rounds make four loads under way a lane.
#pragma once

#include "reduce_groups.cuh"

#define KASMINA_GROUPS(T, type, what, Lane, kind, offsets, group, packets, rounds)                                          \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                                      \
        kasmina_##kind##_##what##_##type##_##group##x##packets(const __grid_constant__ kasmina::reduce::SegmentParams p)     \
    {                                                                                                                        \
        kasmina::reduce::groups<T, kasmina::reduce::Lane<T>, group, packets, rounds, offsets>(p);                            \
    }

#define KASMINA_SEGMENTS(T, type, what, Lane)                                                                                \
    KASMINA_GROUPS(T, type, what, Lane, equal, false, 1, 1, 4)                                                               \
    KASMINA_GROUPS(T, type, what, Lane, equal, false, 2, 1, 4)                                                               \
    KASMINA_GROUPS(T, type, what, Lane, equal, false, 4, 1, 4)                                                               \
    KASMINA_GROUPS(T, type, what, Lane, equal, false, 4, 2, 2)                                                               \
    KASMINA_GROUPS(T, type, what, Lane, equal, false, 4, 4, 1)                                                               \
    KASMINA_GROUPS(T, type, what, Lane, equal, false, 8, 4, 1)                                                               \
    KASMINA_GROUPS(T, type, what, Lane, equal, false, 16, 4, 1)                                                              \
    KASMINA_GROUPS(T, type, what, Lane, equal, false, 32, 4, 1)                                                              \
    KASMINA_GROUPS(T, type, what, Lane, offsets, true, 1, 1, 4)                                                              \
    KASMINA_GROUPS(T, type, what, Lane, offsets, true, 4, 2, 2)                                                              \
    KASMINA_GROUPS(T, type, what, Lane, offsets, true, 8, 4, 1)                                                              \
    KASMINA_GROUPS(T, type, what, Lane, offsets, true, 32, 4, 1)                                                             \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                                      \
        kasmina_queued_##what##_##type(const __grid_constant__ kasmina::reduce::SegmentParams p)                             \
    {                                                                                                                        \
        kasmina::reduce::queued_pieces<T, kasmina::reduce::Lane<T>, 4>(p);                                                   \
    }                                                                                                                        \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                                      \
        kasmina_pieces_##what##_##type(const __grid_constant__ kasmina::reduce::PieceParams p)                               \
    {                                                                                                                        \
        kasmina::reduce::pieces<T, kasmina::reduce::Lane<T>, 4>(p);                                                          \
    }

#define KASMINA_SEGMENTS_TYPE(T, type)                                                                                       \
    KASMINA_SEGMENTS(T, type, sum, SegmentSumLane)                                                                           \
    KASMINA_SEGMENTS(T, type, extrema, BoundsLane)                                                                           \
    KASMINA_SEGMENTS(T, type, statistics, StatisticsLane)
