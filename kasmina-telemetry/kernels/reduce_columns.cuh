// Reductions over the rows of a row-major matrix: one result a column, or one a chunk of neighbouring columns.
//
// A thread keeps its columns, four of them where alignment allows and one otherwise, and walks rows, so everything
// stays in registers. The threads of a block that share columns are joined in a fixed tree, then as many neighbouring columns of
// one chunk as a power of two allows, and each block writes one record for those; a small kernel merges those of all blocks of
// rows, and the rest of a chunk's, in a fixed order. How the matrix is cut follows from its shape alone. By the atomic strategy blocks
// fold their records into a result's cells instead, and a small kernel reads those.
#pragma once

#include "reduce_cells.cuh"

namespace kasmina::reduce {

constexpr uint32_t kColumnThreads = 256;

struct ColumnParams {
    const void* x;
    const void* y;            // the right factor of products
    uint64_t rows;
    uint64_t columns;
    uint64_t x_stride;        // elements from row to row
    uint64_t y_stride;
    void* partials;           // [blocks, runs]; or cells, [ceil(runs / chunk)]
    void* out;                // [ceil(runs / chunk)]
    uint64_t chunk;           // runs of a result
    uint64_t block_rows;      // rows of a block
    uint64_t blocks;          // of rows
    uint64_t tiles;           // of columns
    Settings settings;
    uint32_t across;          // threads side by side, a power of two
    uint32_t run;             // columns that a block makes one record of: 1, or kWidth times a power of two, `across` at most
};
static_assert(sizeof(ColumnParams) == 152 && offsetof(ColumnParams, settings) == 96, "as in Rust");

// Columns of a thread, where rows allow: with eight of the 16-bit floats their statistics would leave the registers.
constexpr uint32_t kWideColumns = 4;

// kWidth columns of one row.
template <class T, uint32_t kWidth>
struct Cells {
    static constexpr uint32_t kBytes = kWidth * sizeof(T);
    std::conditional_t<kBytes == 16, Packet, std::conditional_t<kBytes == 8, uint2, T>> raw;

    __device__ __forceinline__ void load(const T* from)
    {
        if constexpr (kBytes == 16) {
            raw = load_packet(from);
        } else if constexpr (kBytes == 8) {
            asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(raw.x), "=r"(raw.y) : "l"(from));
        } else {
            raw = *from;
        }
    }

    __device__ __forceinline__ void get(typename Element<T>::Value (&value)[kWidth]) const
    {
        if constexpr (kBytes == 16) {
            unpack<T>(raw, value);
        } else if constexpr (kBytes == 8) {
            static_assert(sizeof(T) == 2, "four of them");
            value[0] = widen(T{static_cast<uint16_t>(raw.x)});
            value[1] = widen(T{static_cast<uint16_t>(raw.x >> 16)});
            value[2] = widen(T{static_cast<uint16_t>(raw.y)});
            value[3] = widen(T{static_cast<uint16_t>(raw.y >> 16)});
        } else {
            value[0] = widen(raw);
        }
    }
};

// Where a block's record of a run of columns goes: its own place, or the cells of the run's result.
template <bool kCells, class T, class Record>
__device__ __forceinline__ void leave(const ColumnParams& p, uint64_t block, uint64_t runs, uint64_t run, const Record& record)
{
    if constexpr (kCells) {
        using Of = Fold<Record, T>;
        const uint64_t result = run / p.chunk;
        const CellContext<T> context{static_cast<const T*>(p.x) + result * p.chunk * p.run, {0, p.rows}};
        Of::fold(static_cast<Word*>(p.partials) + result * Of::kWords, record, context);
    } else {
        static_cast<Record*>(p.partials)[block * runs + run] = record;
    }
}

template <class T, class Lane, bool kPair, uint32_t kWidth, uint32_t kAhead, bool kCells = false>
__device__ __forceinline__ void columns(const ColumnParams& p)
{
    using Value = typename Element<T>::Value;
    // Not as lanes, whose members have initialisers.
    __shared__ alignas(alignof(Lane)) unsigned char storage[kColumnThreads * sizeof(Lane)];
    auto* shared = reinterpret_cast<Lane*>(storage);
    const uint32_t across = p.across, down = kColumnThreads / across;
    const uint32_t place = threadIdx.x % across, lane = threadIdx.x / across;
    const uint64_t block = blockIdx.x / p.tiles, tile = blockIdx.x % p.tiles;
    const uint64_t column = (tile * across + place) * kWidth;
    const uint64_t first_row = block * p.block_rows;
    const uint64_t end_row = first_row + p.block_rows < p.rows ? first_row + p.block_rows : p.rows;

    Lane lanes[kWidth];
    if (column < p.columns) {
        const T* x = static_cast<const T*>(p.x) + column;
        const T* y = static_cast<const T*>(p.y) + column;
        Value value[kWidth] = {};
        if (Lane::kPivot) {
            Cells<T, kWidth> cells;
            cells.load(x + first_row * p.x_stride);
            cells.get(value);
        }
#pragma unroll
        for (uint32_t w = 0; w < kWidth; ++w) lanes[w].begin(value[w], p.settings);
        // A whole batch of rows is looked at first: with nothing out of the ordinary in it, no element needs a look of its own.
        const auto take = [&](const auto& a, const auto& b) {
            constexpr uint32_t kRows = sizeof(a) / sizeof(a[0]);
            Value most{};
#pragma unroll
            for (uint32_t k = 0; k < kRows; ++k) {
                Value left[kWidth];
                [[maybe_unused]] Value right[kWidth];
                a[k].get(left);
                if constexpr (kPair) b[k].get(right);
#pragma unroll
                for (uint32_t w = 0; w < kWidth; ++w) {
                    most = greatest_or_nan(most, magnitude(left[w]));
                    if constexpr (kPair) most = greatest_or_nan(most, magnitude(right[w]));
                }
            }
            const bool ordinary = Lane::is_ordinary(most);
#pragma unroll
            for (uint32_t k = 0; k < kRows; ++k) {
                Value left[kWidth];
                [[maybe_unused]] Value right[kWidth];
                a[k].get(left);
                if constexpr (kPair) b[k].get(right);
#pragma unroll
                for (uint32_t w = 0; w < kWidth; ++w) {
                    if constexpr (kPair) {
                        ordinary ? lanes[w].take_ordinary_pair(left[w], right[w]) : lanes[w].take_pair(left[w], right[w]);
                    } else {
                        ordinary ? lanes[w].take_ordinary(left[w]) : lanes[w].take_one(left[w], 0);
                    }
                }
            }
        };
        uint64_t row = first_row + lane;
#pragma unroll 1
        for (; row + (kAhead - 1) * down < end_row; row += kAhead * down) {
            Cells<T, kWidth> a[kAhead], b[kAhead];
#pragma unroll
            for (uint32_t k = 0; k < kAhead; ++k) {
                a[k].load(x + (row + k * down) * p.x_stride);
                if constexpr (kPair) b[k].load(y + (row + k * down) * p.y_stride);
            }
            take(a, b);
        }
#pragma unroll 1
        for (; row < end_row; row += down) {
            Cells<T, kWidth> a[1], b[1];
            a[0].load(x + row * p.x_stride);
            if constexpr (kPair) b[0].load(y + row * p.y_stride);
            take(a, b);
        }
    }
    using Record = typename Lane::Record;
    const uint64_t runs = (p.columns + p.run - 1) / p.run;
    Record all = Record::neutral();
#pragma unroll
    for (uint32_t w = 0; w < kWidth; ++w) {
        shared[threadIdx.x] = lanes[w];
        __syncthreads();
        for (uint32_t half = down / 2; half > 0; half /= 2) {
            if (lane < half && column < p.columns) {
                lanes[w].join(shared[threadIdx.x + half * across]);
                shared[threadIdx.x] = lanes[w];
            }
            __syncthreads();
        }
        if (lane == 0 && column < p.columns) {
            const Record record = lanes[w].record(0, end_row - first_row);
            if (p.run == 1) {
                leave<kCells, T>(p, block, runs, column + w, record);
            } else {
                all.merge(record);
            }
        }
    }
    // The threads with the columns' totals are those of the first warp, or some of them.
    if (p.run == 1 || threadIdx.x >= kWarp) return;
    for (uint32_t distance = p.run / kWidth / 2; distance > 0; distance /= 2) all.merge(from_lane_below(all, distance));
    if (lane == 0 && column < p.columns && place % (p.run / kWidth) == 0) {
        leave<kCells, T>(p, block, runs, column / p.run, all);
    }
}

// A warp brings together what the blocks of rows found for a result's columns.
template <class Record>
__device__ __forceinline__ void merge_columns(const ColumnParams& p)
{
    const uint32_t rank = threadIdx.x % kWarp;
    const uint64_t result = (uint64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
    const uint64_t runs = (p.columns + p.run - 1) / p.run;
    const uint64_t first = result * p.chunk;
    if (first >= runs) return;
    const uint64_t width = runs - first < p.chunk ? runs - first : p.chunk;
    const auto* partials = static_cast<const Record*>(p.partials) + first;
    Record record = Record::neutral();
#pragma unroll 2
    for (uint64_t i = rank; i < width * p.blocks; i += kWarp) {
        record.merge(load_partial(partials + i / width * runs + i % width));
    }
    merge_lanes<kWarp>(record);
    if (rank == 0) put(p.out, result, record, p.rows, p.settings);
}

// A warp reads a result's cells, and sets them back to zero.
template <class T, class Record>
__device__ __forceinline__ void collect_columns(const ColumnParams& p)
{
    using Of = Fold<Record, T>;
    __shared__ Word all[kColumnThreads / kWarp][Of::kWords];
    const uint32_t rank = threadIdx.x % kWarp;
    const uint64_t result = (uint64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
    const uint64_t runs = (p.columns + p.run - 1) / p.run;
    if (result * p.chunk >= runs) return;
    Word* words = all[threadIdx.x / kWarp];
    Word* cells = static_cast<Word*>(p.partials) + result * Of::kWords;
    for (uint32_t i = rank; i < Of::kWords; i += kWarp) {
        words[i] = __ldcg(cells + i);
        cells[i] = 0;
    }
    __syncwarp();
    const CellContext<T> context{static_cast<const T*>(p.x) + result * p.chunk * p.run, {0, p.rows}};
    if (rank == 0) put(p.out, result, Of::read(words, context), p.rows, p.settings);
}

}  // namespace kasmina::reduce
