// The segmented kernels of one storage type: sums, extremes and statistics by groups of 1 to 32 lanes, by whole blocks, and of the
// queue; the last two also by the atomic strategy. A group's packets and rounds make four loads under way a lane.
//
// The floats of a layer have a group for every length. Other types have one in three of them: all would make the package twice as large.
#pragma once

#include "reduce_cells.cuh"
#include "reduce_groups.cuh"

#define KASMINA_PLAIN(T, type, what, Lane, group, packets, rounds, blocks)                                                   \
    extern "C" __global__ void __launch_bounds__(256, blocks)                                                                \
        kasmina_plain_##what##_##type##_##group##x##packets(const __grid_constant__ kasmina::reduce::SegmentParams p)        \
    {                                                                                                                        \
        kasmina::reduce::plain_groups<T, kasmina::reduce::Lane<T>, group, packets, rounds>(p);                               \
    }

#define KASMINA_RAGGED(T, type, what, Lane, group, blocks)                                                                   \
    extern "C" __global__ void __launch_bounds__(256, blocks)                                                                \
        kasmina_ragged_##what##_##type##_##group##x4(const __grid_constant__ kasmina::reduce::SegmentParams p)               \
    {                                                                                                                        \
        kasmina::reduce::ragged_groups<T, kasmina::reduce::Lane<T>, group, 4>(p);                                            \
    }

#define KASMINA_BLOCKS(T, type, what, Lane, blocks)                                                                          \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                                     \
        kasmina_queued_##what##_##type(const __grid_constant__ kasmina::reduce::SegmentParams p)                             \
    {                                                                                                                        \
        kasmina::reduce::queued_pieces<T, kasmina::reduce::Lane<T>, 4>(p);                                                   \
    }                                                                                                                        \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                                     \
        kasmina_folded_##what##_##type(const __grid_constant__ kasmina::reduce::SegmentParams p)                             \
    {                                                                                                                        \
        kasmina::reduce::queued_pieces<T, kasmina::reduce::Lane<T>, 4, kasmina::reduce::CellMeeting>(p);                     \
    }                                                                                                                        \
    extern "C" __global__ void __launch_bounds__(256, blocks)                                                                \
        kasmina_pieces_##what##_##type(const __grid_constant__ kasmina::reduce::PieceParams p)                               \
    {                                                                                                                        \
        kasmina::reduce::pieces<T, kasmina::reduce::Lane<T>, 4>(p);                                                          \
    }                                                                                                                        \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                                     \
        kasmina_atomic_pieces_##what##_##type(const __grid_constant__ kasmina::reduce::PieceParams p)                        \
    {                                                                                                                        \
        kasmina::reduce::pieces<T, kasmina::reduce::Lane<T>, 4, kasmina::reduce::CellMeeting>(p);                            \
    }

#define KASMINA_SEGMENTS(T, type, what, Lane, plain, ragged)                                                                 \
    KASMINA_PLAIN(T, type, what, Lane, 1, 1, 4, plain)                                                                       \
    KASMINA_PLAIN(T, type, what, Lane, 2, 1, 4, plain)                                                                       \
    KASMINA_PLAIN(T, type, what, Lane, 4, 1, 4, plain)                                                                       \
    KASMINA_PLAIN(T, type, what, Lane, 4, 2, 2, plain)                                                                       \
    KASMINA_PLAIN(T, type, what, Lane, 4, 4, 1, plain)                                                                       \
    KASMINA_PLAIN(T, type, what, Lane, 8, 4, 1, plain)                                                                       \
    KASMINA_PLAIN(T, type, what, Lane, 16, 4, 1, plain)                                                                      \
    KASMINA_PLAIN(T, type, what, Lane, 32, 4, 1, plain)                                                                      \
    KASMINA_RAGGED(T, type, what, Lane, 1, ragged)                                                                           \
    KASMINA_RAGGED(T, type, what, Lane, 4, ragged)                                                                           \
    KASMINA_RAGGED(T, type, what, Lane, 8, ragged)                                                                           \
    KASMINA_RAGGED(T, type, what, Lane, 16, ragged)                                                                          \
    KASMINA_RAGGED(T, type, what, Lane, 2, ragged)                                                                           \
    KASMINA_RAGGED(T, type, what, Lane, 32, ragged)                                                                          \
    KASMINA_BLOCKS(T, type, what, Lane, 3)

#define KASMINA_FEW_SEGMENTS(T, type, what, Lane, plain, ragged)                                                             \
    KASMINA_PLAIN(T, type, what, Lane, 1, 1, 4, plain)                                                                       \
    KASMINA_PLAIN(T, type, what, Lane, 4, 1, 4, plain)                                                                       \
    KASMINA_PLAIN(T, type, what, Lane, 4, 4, 1, plain)                                                                       \
    KASMINA_PLAIN(T, type, what, Lane, 32, 4, 1, plain)                                                                      \
    KASMINA_RAGGED(T, type, what, Lane, 1, ragged)                                                                           \
    KASMINA_RAGGED(T, type, what, Lane, 4, ragged)                                                                           \
    KASMINA_RAGGED(T, type, what, Lane, 32, ragged)                                                                          \
    KASMINA_BLOCKS(T, type, what, Lane, 2)

#define KASMINA_SEGMENTS_TYPE(T, type)                                                                                       \
    KASMINA_SEGMENTS(T, type, sum, SegmentSumLane, 4, 4)                                                                     \
    KASMINA_SEGMENTS(T, type, extrema, BoundsLane, 4, 4)                                                                     \
    KASMINA_SEGMENTS(T, type, statistics, StatisticsLane, 3, 3)

#define KASMINA_OTHER_SEGMENTS_TYPE(T, type, SumLane)                                                                        \
    KASMINA_FEW_SEGMENTS(T, type, sum, SumLane, KASMINA_RESIDENT(3), KASMINA_RESIDENT(3))                                    \
    KASMINA_FEW_SEGMENTS(T, type, extrema, BoundsLane, KASMINA_RESIDENT(3), KASMINA_RESIDENT(3))                             \
    KASMINA_FEW_SEGMENTS(T, type, statistics, StatisticsLane, 2, 2)
