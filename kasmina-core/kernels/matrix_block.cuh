// What the forward and the backward pass share: walks over a block's elements, its input and the branch's parameters.
#pragma once

#include "kasmina_activation.cuh"
#include "kasmina_launch.cuh"
#include "matrix_params.cuh"

namespace kasmina::matrix {

// The guards as the host chose them. The passes are bound by their products: a branch an element costs nothing.
class AnyGuards {
public:
    __device__ __forceinline__ explicit AnyGuards(const Bounds& bounds) : bounds_(bounds) {}

    __device__ __forceinline__ float sanitize(float x) const { return on() ? guards().sanitize(x) : x; }
    __device__ __forceinline__ float clamp(float y) const { return on() ? guards().clamp(y) : y; }
    __device__ __forceinline__ bool passes(float v) const { return !on() || guards().passes(v); }

private:
    __device__ __forceinline__ bool on() const { return bounds_.guarded != 0; }
    __device__ __forceinline__ Guards<true> guards() const { return Guards<true>(bounds_); }

    const Bounds& bounds_;
};

// alpha·T(x) + (1 − alpha)·x. At alpha = 1 the second term is absent: an infinite x does not become a NaN by it.
__device__ __forceinline__ float blend(float alpha, float t, float v)
{
    return alpha == 1.0f ? t : alpha * t + (1.0f - alpha) * v;
}

// What a block of threads works on, in shared memory: in registers it would be live through the products, which need them.
struct Work {
    Item item;
    SeedJob job;
    Bounds bounds;
    float* slice;

    __device__ __forceinline__ bool is_dense() const { return job.kind == Kind::Dense; }
    __device__ __forceinline__ Activation activation() const { return static_cast<Activation>(job.activation); }
    // Plane i of those with the chunk's columns, numbered from 0.
    __device__ __forceinline__ float* wide(uint32_t i) const { return slice + uint64_t(i) * item.block_rows * job.columns; }
    // Plane i of those with a bottleneck's r columns, which follow.
    __device__ __forceinline__ float* narrow(uint32_t wides, uint32_t i) const
    {
        return wide(wides) + uint64_t(i) * item.block_rows * job.width;
    }
    __device__ __forceinline__ uint32_t rows_from(uint32_t row) const { return min(item.block_rows, item.end_row - row); }
};

// The block's next work. Barriers before, so that nobody reads the last one any more, and after.
__device__ __forceinline__ void take(const MatrixParams& p, uint32_t index, Work& work)
{
    __syncthreads();
    if (threadIdx.x == 0) {
        work.item = p.items[index];
        work.job = p.jobs[work.item.job];
        work.bounds = *p.bounds;
        work.slice = p.scratch + blockIdx.x * p.slice;
    }
    __syncthreads();
}

// V [r, c], v [r], U [c, r], u [c] of a bottleneck; W [c, c] and b [c] of a dense branch stand in `down` and `down_bias`.
template <class Float>
struct Weights {
    Float* down;
    Float* down_bias;
    Float* up;
    Float* up_bias;

    __device__ __forceinline__ static Weights of(const SeedJob& job, Float* flat)
    {
        const uint64_t c = job.columns;
        if (job.kind == Kind::Dense) {
            return {flat, flat + c * c, nullptr, nullptr};
        }
        const uint64_t r = job.width;
        return {flat, flat + r * c, flat + r * c + r, flat + 2 * r * c + r};
    }
};

// One block of rows of a job in a matrix of T.
template <class T>
class Chunk {
public:
    __device__ __forceinline__ Chunk(const void* data, uint64_t pitch, const SeedJob& job, uint32_t first_row)
        : data_(static_cast<const uint8_t*>(data) + first_row * pitch + uint64_t(job.first_column) * sizeof(T)), pitch_(pitch)
    {
    }

    __device__ __forceinline__ float get(uint32_t row, uint32_t column) const
    {
        return widen(reinterpret_cast<const T*>(data_ + row * pitch_)[column]);
    }

    __device__ __forceinline__ void put(uint32_t row, uint32_t column, float value, uint32_t& saturated) const
    {
        T narrowed;
        narrow(value, narrowed, saturated);
        reinterpret_cast<T*>(const_cast<uint8_t*>(data_) + row * pitch_)[column] = narrowed;
    }

private:
    const uint8_t* data_;
    uint64_t pitch_;
};

// visit(row, column, index in a dense plane) for all elements of [rows, columns]. Which thread has which depends on the shape
// alone; neighbouring threads have neighbouring columns.
template <class Visit>
__device__ __forceinline__ void for_each(uint32_t rows, uint32_t columns, Visit visit)
{
    // As many lanes to a row as it has columns, in powers of two, so that narrow chunks keep the warps busy.
    const uint32_t lanes = columns >= 128 ? 128 : columns <= 1 ? 1 : 1u << (32 - __clz(columns - 1));
    for (uint32_t row = threadIdx.x / lanes; row < rows; row += kThreads / lanes) {
        for (uint32_t column = threadIdx.x % lanes; column < columns; column += lanes) {
            visit(row, column, uint64_t(row) * columns + column);
        }
    }
}

// Σ of every thread's value, at thread 0, in a fixed tree. `shared` has a place for each warp; barriers before and after.
__device__ __forceinline__ double block_sum(double value, double* shared)
{
    for (uint32_t by = 16; by > 0; by /= 2) {
        value += __shfl_down_sync(0xffffffffu, value, by);
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        shared[threadIdx.x / 32] = value;
    }
    __syncthreads();
    double sum = 0.0;
    if (threadIdx.x == 0) {
        for (uint32_t warp = 0; warp < kThreads / 32; ++warp) {
            sum += shared[warp];
        }
    }
    return sum;
}

// Outputs that saturated, counted once a block of threads' life and warp: integers, so the order is of no account.
__device__ __forceinline__ void count_saturated(uint32_t saturated, unsigned long long* counter)
{
    const uint32_t sum = __reduce_add_sync(0xffffffffu, saturated);
    if (threadIdx.x % 32 == 0 && sum != 0) {
        atomicAdd(counter, static_cast<unsigned long long>(sum));
    }
}

// The products of T on a block: of a bottleneck z = V·v + v_bias to `z`, act(z) to `a`, which may be `z`, and U·a + u, which is
// T(v) − v, to `t`; of a dense branch W·v + b to `t`.
template <Arithmetic kArithmetic>
__device__ __forceinline__ void branch(Shared<kArithmetic>& shared, const Work& work, uint32_t rows, const float* v,
                                       float* z, float* a, float* t)
{
    const uint32_t c = work.job.columns;
    const auto weights = Weights<const float>::of(work.job, work.job.parameters);
    const bool dense = work.is_dense();
    multiply<kArithmetic, Contiguous::Inner, Contiguous::Inner>(shared, {v, c}, {weights.down, c}, rows, dense ? c : work.job.width,
                                                                 c, {dense ? t : z, weights.down_bias, nullptr, 0.0f});
    if (dense) {
        return;
    }
    const uint32_t r = work.job.width;
    const Activation act = work.activation();
    for_each(rows, r, [&](uint32_t, uint32_t, uint64_t at) { a[at] = activate(act, z[at]); });
    __syncthreads();
    multiply<kArithmetic, Contiguous::Inner, Contiguous::Inner>(shared, {a, r}, {weights.up, r}, rows, c, r,
                                                                 {t, weights.up_bias, nullptr, 0.0f});
}

}  // namespace kasmina::matrix
