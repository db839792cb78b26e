// Reductions over the rows of a row-major matrix: one result a column, or one a chunk of neighbouring columns.
//
// A thread keeps its columns, a 16-byte packet of them where alignment allows and one otherwise, and walks rows, so everything
// stays in registers. The threads of a block that share columns are joined in a fixed tree, and each block writes one record a
// column; a small kernel merges those of all blocks of rows, and of a chunk's columns, in a fixed order. How the matrix is cut
// follows from its shape alone.
#pragma once

#include "reduce_pieces.cuh"

namespace kasmina::reduce {

constexpr uint32_t kColumnThreads = 256;

struct ColumnParams {
    const void* x;
    const void* y;            // the right factor of products
    uint64_t rows;
    uint64_t columns;
    uint64_t x_stride;        // elements from row to row
    uint64_t y_stride;
    void* partials;           // [blocks, columns]
    void* out;                // [ceil(columns / chunk)]
    uint64_t chunk;           // columns of a result
    uint64_t block_rows;      // rows of a block
    uint64_t blocks;          // of rows
    uint64_t tiles;           // of columns
    Settings settings;
    uint32_t across;          // threads side by side, a power of two
    uint32_t padding;
};
static_assert(sizeof(ColumnParams) == 136 && offsetof(ColumnParams, settings) == 96, "as in Rust");

// kWidth columns of one row.
template <class T, uint32_t kWidth>
struct Cells {
    Packet packet;
    T one;

    __device__ __forceinline__ void load(const T* from)
    {
        if constexpr (kWidth == 1) {
            one = *from;
        } else {
            packet = load_packet(from);
        }
    }

    __device__ __forceinline__ void get(typename Element<T>::Value (&value)[kWidth]) const
    {
        if constexpr (kWidth == 1) {
            value[0] = widen(one);
        } else {
            unpack<T>(packet, value);
        }
    }
};

template <class T, class Lane, bool kPair, uint32_t kWidth, uint32_t kAhead>
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
        const auto take = [&](const Cells<T, kWidth>& a, const Cells<T, kWidth>& b) {
            Value left[kWidth], right[kWidth];
            a.get(left);
            if constexpr (kPair) b.get(right);
#pragma unroll
            for (uint32_t w = 0; w < kWidth; ++w) {
                if constexpr (kPair) {
                    lanes[w].take_pair(left[w], right[w]);
                } else {
                    lanes[w].take_one(left[w], 0);
                }
            }
        };
        uint64_t row = first_row + lane;
        for (; row + (kAhead - 1) * down < end_row; row += kAhead * down) {
            Cells<T, kWidth> a[kAhead], b[kAhead];
#pragma unroll
            for (uint32_t k = 0; k < kAhead; ++k) {
                a[k].load(x + (row + k * down) * p.x_stride);
                if constexpr (kPair) b[k].load(y + (row + k * down) * p.y_stride);
            }
#pragma unroll
            for (uint32_t k = 0; k < kAhead; ++k) take(a[k], b[k]);
        }
#pragma unroll 1
        for (; row < end_row; row += down) {
            Cells<T, kWidth> a, b;
            a.load(x + row * p.x_stride);
            if constexpr (kPair) b.load(y + row * p.y_stride);
            take(a, b);
        }
    }
    auto* out = static_cast<typename Lane::Record*>(p.partials) + block * p.columns + column;
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
        if (lane == 0 && column < p.columns) out[w] = lanes[w].record(0);
    }
}

// A warp brings together what the blocks of rows found for a result's columns.
template <class Record>
__device__ __forceinline__ void merge_columns(const ColumnParams& p)
{
    const uint32_t rank = threadIdx.x % kWarp;
    const uint64_t result = (uint64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
    const uint64_t first = result * p.chunk;
    if (first >= p.columns) return;
    const uint64_t width = p.columns - first < p.chunk ? p.columns - first : p.chunk;
    const auto* partials = static_cast<const Record*>(p.partials) + first;
    Record record = Record::neutral();
#pragma unroll 2
    for (uint64_t i = rank; i < width * p.blocks; i += kWarp) {
        record.merge(load_partial(partials + i / width * p.columns + i % width));
    }
    merge_lanes<kWarp>(record);
    if (rank == 0) put(p.out, result, record, p.settings);
}

}  // namespace kasmina::reduce
