// Column reductions of the floats up to 32 bits. `wide`: four columns a thread; `scalar`: one, for rows that begin anywhere.
#include "reduce_columns.cuh"

using namespace kasmina::reduce;

#define KASMINA_COLUMNS(T, type, what, Lane, pair, wide_ahead, blocks)                                                       \
    extern "C" __global__ void __launch_bounds__(kColumnThreads, KASMINA_RESIDENT(blocks))                                   \
        kasmina_columns_##what##_##type##_wide(const __grid_constant__ ColumnParams p)                                       \
    {                                                                                                                        \
        columns<T, Lane<T>, pair, kWideColumns, wide_ahead>(p);                                                              \
    }                                                                                                                        \
    extern "C" __global__ void __launch_bounds__(kColumnThreads, KASMINA_RESIDENT(blocks))                                   \
        kasmina_columns_##what##_##type##_scalar(const __grid_constant__ ColumnParams p)                                     \
    {                                                                                                                        \
        columns<T, Lane<T>, pair, 1, 8>(p);                                                                                  \
    }

#define KASMINA_ATOMIC_COLUMNS(T, type, what, Lane, pair, wide_ahead)                                                        \
    extern "C" __global__ void __launch_bounds__(kColumnThreads, 2)                                                          \
        kasmina_atomic_columns_##what##_##type##_wide(const __grid_constant__ ColumnParams p)                                \
    {                                                                                                                        \
        columns<T, Lane<T>, pair, kWideColumns, wide_ahead, true>(p);                                                        \
    }                                                                                                                        \
    extern "C" __global__ void __launch_bounds__(kColumnThreads, 2)                                                          \
        kasmina_atomic_columns_##what##_##type##_scalar(const __grid_constant__ ColumnParams p)                              \
    {                                                                                                                        \
        columns<T, Lane<T>, pair, 1, 8, true>(p);                                                                            \
    }

#define KASMINA_COLLECT_COLUMNS(T, type, what, Record)                                                                       \
    extern "C" __global__ void __launch_bounds__(kColumnThreads, 2)                                                          \
        kasmina_collect_columns_##what##_##type(const __grid_constant__ ColumnParams p)                                      \
    {                                                                                                                        \
        collect_columns<T, Record>(p);                                                                                       \
    }

#define KASMINA_COLUMNS_TYPE(T, type, ahead)                                                                                 \
    KASMINA_COLUMNS(T, type, sum, SegmentSumLane, false, ahead, 4)                                                           \
    KASMINA_COLUMNS(T, type, product, ProductLane, true, ahead, 2)                                                           \
    KASMINA_COLUMNS(T, type, extrema, BoundsLane, false, ahead, 4)                                                           \
    KASMINA_COLUMNS(T, type, statistics, StatisticsLane, false, 8, 2)                                                        \
    KASMINA_ATOMIC_COLUMNS(T, type, sum, SegmentSumLane, false, ahead)                                                       \
    KASMINA_ATOMIC_COLUMNS(T, type, product, ProductLane, true, ahead)                                                       \
    KASMINA_ATOMIC_COLUMNS(T, type, extrema, BoundsLane, false, ahead)                                                       \
    KASMINA_ATOMIC_COLUMNS(T, type, statistics, StatisticsLane, false, 8)                                                    \
    KASMINA_COLLECT_COLUMNS(T, type, sum, SegmentSum)                                                                        \
    KASMINA_COLLECT_COLUMNS(T, type, extrema, Bounds<float>)                                                                 \
    KASMINA_COLLECT_COLUMNS(T, type, statistics, Statistics<float>)

KASMINA_COLUMNS_TYPE(float, f32, 4)
KASMINA_COLUMNS_TYPE(f16, f16, 8)
KASMINA_COLUMNS_TYPE(bf16, bf16, 8)

extern "C" __global__ void __launch_bounds__(256, 2) kasmina_merge_columns_sum(const __grid_constant__ ColumnParams p)
{
    merge_columns<SegmentSum>(p);
}

extern "C" __global__ void __launch_bounds__(256, 2) kasmina_merge_columns_extrema(const __grid_constant__ ColumnParams p)
{
    merge_columns<Bounds<float>>(p);
}

extern "C" __global__ void __launch_bounds__(256, 2) kasmina_merge_columns_statistics(const __grid_constant__ ColumnParams p)
{
    merge_columns<Statistics<float>>(p);
}
