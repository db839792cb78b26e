// What the matrix kernels are told, and how their work is cut. The Rust side has the same structs (src/cuda/matrix_work.rs).
//
// A job's rows are cut into items, an item into blocks of rows. A block of threads takes item after item, and of an item block
// after block, with all columns of the chunk: what y is made of has been read before y is written, which may be x. What a block
// of rows needs on the way lies in planes of f32 in the block of threads' own slice of the scratch memory, which stays in the
// second-level cache.
#pragma once

#include "kasmina_stability.cuh"
#include "matrix_gemm.cuh"
#include "seed_job.cuh"

namespace kasmina::matrix {

constexpr uint32_t kNone = 0xffffffffu;
constexpr uint64_t kNoPartial = ~0ull;

struct Item {
    uint64_t partial;     // where its parameter gradients are put together, floats from `partials`; kNoPartial where not wanted
    uint32_t job;
    uint32_t first_row;
    uint32_t end_row;
    uint32_t block_rows;
    uint32_t sums;        // index of its ItemSums; kNone where not wanted
    uint32_t padding;
};
static_assert(sizeof(Item) == 32, "as in Rust");

// What an item's elements add up to.
struct ItemSums {
    double alpha;   // Σ g·(T(x) − x)
    double square;  // Σ (T(x) − x)²
};
static_assert(sizeof(ItemSums) == 16, "as in Rust");

// Addresses of matrices are those of their first element; pitches are bytes from row to row.
struct MatrixParams {
    const void* x;
    const void* grad_y;             // backward alone; null where only reconstruction is served
    void* out;                      // y, or dL/dx; null as grad_y
    uint64_t x_pitch;
    uint64_t grad_y_pitch;
    uint64_t out_pitch;
    const SeedJob* jobs;
    const Item* items;
    const Bounds* bounds;           // in device memory: strict mode computes them there
    float* scratch;                 // [blocks][slice]
    uint64_t slice;                 // floats of a block of threads
    float* partials;
    ItemSums* sums;
    unsigned long long* saturated;  // outputs that did not fit their type
    uint32_t rows;
    uint32_t count;                 // items
};
static_assert(sizeof(MatrixParams) == 14 * 8 + 8, "as in Rust");

// Some parameters of one job, for the kernel that adds up what its items made.
struct MergeItem {
    uint64_t partial;     // the first part's parameter gradients; the next follow at once
    uint64_t first;       // of these, the parameters
    uint64_t total;       // parameters of the job: floats from part to part
    uint32_t job;
    uint32_t count;
    uint32_t parts;
    uint32_t sums;        // index of the first part's ItemSums; kNone where another merge item does them
};
static_assert(sizeof(MergeItem) == 40 && offsetof(MergeItem, sums) == 36, "as in Rust");

struct MergeParams {
    const SeedJob* jobs;
    const MergeItem* items;
    const float* partials;
    const ItemSums* sums;
    uint32_t rows;
    uint32_t padding;
};
static_assert(sizeof(MergeParams) == 40, "as in Rust");

// The planes of a slice: `wide` ones have c columns, `narrow` ones a bottleneck's r. A dense branch has no narrow ones.
constexpr uint32_t kForwardWide = 2, kForwardNarrow = 1;
constexpr uint32_t kBackwardWide = 3, kBackwardNarrow = 3;

}  // namespace kasmina::matrix
