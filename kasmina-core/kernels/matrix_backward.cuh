// Backward passes of bottleneck and dense branches: dL/dx of those on path, and the parameter gradients of those that train.
// Everything is computed anew from x; nothing is kept from the forward pass.
//
// Source: `backward_part` of src/cpu/gathered.rs and `vjp` of src/cpu/transform.rs. With z = V·v + bias, a = act(z),
// T = v + U·a + u: g is dL/dy where the output passed its clamp, gT = alpha·g, gz = (Uᵀ·gT)·act'(z), dL/dv = gT + Vᵀ·gz +
// (1 − alpha)·g, dL/dV = Σ gz·vᵀ, dL/dU = Σ gT·aᵀ. A dense branch has T = act(z), gz = gT·act'(z), dL/dv = Wᵀ·gz + (1 − alpha)·g.
#pragma once

#include "kasmina_finalize.cuh"
#include "matrix_block.cuh"

namespace kasmina::matrix {

// Adds the column sums of a plane to an item's bias gradients, each block's summed in f64.
__device__ __forceinline__ void add_column_sums(const float* plane, uint32_t rows, uint32_t columns, bool first, float* out)
{
    for (uint32_t column = threadIdx.x; column < columns; column += kThreads) {
        double sum = 0.0;
        for (uint32_t row = 0; row < rows; ++row) {
            sum += static_cast<double>(plane[uint64_t(row) * columns + column]);
        }
        out[column] = (first ? 0.0f : out[column]) + static_cast<float>(sum);
    }
}

// One item's blocks of rows on their way back. The planes: v; t, which has T and then its gradient; g; and of a bottleneck z,
// which becomes its gradient, a, and a's gradient.
template <class T, Arithmetic kArithmetic>
class Backward {
public:
    __device__ __forceinline__ Backward(const MatrixParams& p, const Work& work, Shared<kArithmetic>& shared)
        : p_(p), work_(work), shared_(shared), guards_(work.bounds)
    {
    }

    // v, and the products of T on it.
    __device__ __forceinline__ void recompute(uint32_t row, uint32_t rows) const
    {
        {
            float* const v = work_.wide(0);
            const Chunk<T> x(p_.x, p_.x_pitch, work_.job, row);
            for_each(rows, work_.job.columns,
                     [&](uint32_t m, uint32_t n, uint64_t at) { v[at] = guards_.sanitize(x.get(m, n)); });
            __syncthreads();
        }
        branch<kArithmetic>(shared_, work_, rows, work_.wide(0), z(), a(), t());
    }

    // g, and in t what the products take: alpha·g of a bottleneck, alpha·g·act'(z) of a dense branch. Adds to the sums.
    __device__ __forceinline__ void begin(uint32_t row, uint32_t rows, ItemSums& own) const
    {
        ItemSums sums = own;
        const SeedJob& job = work_.job;
        const bool reconstructs = job.role == Role::Reconstruction, dense = work_.is_dense();
        const double factor = reconstruction_factor(p_.rows, job.columns);
        const Activation act = work_.activation();
        const float alpha = job.alpha;
        const float* const v_plane = work_.wide(0);
        float *const t_plane = t(), *const g_plane = g();
        const Chunk<T> grad_y(p_.grad_y, p_.grad_y_pitch, job, row);
        for_each(rows, job.columns, [&](uint32_t m, uint32_t n, uint64_t at) {
            const float v = v_plane[at], product = t_plane[at];
            const float t = dense ? activate(act, product) : v + product;
            // A bottleneck's difference is there without the rounding of T; of an infinite v it is what IEEE 754 says.
            const double difference = !dense && is_finite(v) ? static_cast<double>(product)
                                                             : static_cast<double>(t) - static_cast<double>(v);
            float g;
            if (reconstructs) {
                sums.square += difference * difference;
                g = static_cast<float>(factor * difference);
            } else {
                g = guards_.passes(blend(alpha, t, v)) ? grad_y.get(m, n) : 0.0f;
                sums.alpha += static_cast<double>(g) * difference;
            }
            g_plane[at] = g;
            const float grad_t = alpha * g;
            t_plane[at] = dense ? grad_t * derivative(act, product) : grad_t;
        });
        own = sums;
        __syncthreads();
    }

    // A bottleneck's gz, to z.
    __device__ __forceinline__ void pull_through(uint32_t rows) const
    {
        const uint32_t c = work_.job.columns, r = work_.job.width;
        multiply<kArithmetic, Contiguous::Inner, Contiguous::Outer>(shared_, {t(), c}, {weights().up, r}, rows, r, c,
                                                                     {grad_a(), nullptr, nullptr, 0.0f});
        const Activation act = work_.activation();
        float* const z_plane = z();
        const float* const grad_plane = grad_a();
        for_each(rows, work_.job.width, [&](uint32_t, uint32_t, uint64_t at) {
            z_plane[at] = grad_plane[at] * derivative(act, z_plane[at]);
        });
        __syncthreads();
    }

    // Adds a block's parameter gradients to the item's, or begins them.
    __device__ __forceinline__ void add_gradients(uint32_t rows, bool first) const
    {
        const SeedJob& job = work_.job;
        const float keep = first ? 0.0f : 1.0f;
        multiply<kArithmetic, Contiguous::Outer, Contiguous::Outer>(shared_, {grad_z(), width()}, {work_.wide(0), job.columns},
                                                                     width(), job.columns, rows,
                                                                     {partials().down, nullptr, nullptr, keep});
        add_column_sums(grad_z(), rows, width(), first, partials().down_bias);
        if (!work_.is_dense()) {
            multiply<kArithmetic, Contiguous::Outer, Contiguous::Outer>(shared_, {t(), job.columns}, {a(), job.width}, job.columns,
                                                                         job.width, rows, {partials().up, nullptr, nullptr, keep});
            add_column_sums(t(), rows, job.columns, first, partials().up_bias);
        }
    }

    // dL/dx, masked by the raw input.
    __device__ __forceinline__ void write(uint32_t row, uint32_t rows, uint32_t& own) const
    {
        const SeedJob& job = work_.job;
        const float* const skip = work_.is_dense() ? nullptr : t();
        multiply<kArithmetic, Contiguous::Inner, Contiguous::Outer>(shared_, {grad_z(), width()}, {weights().down, job.columns},
                                                                     rows, job.columns, width(), {g(), nullptr, skip, 1.0f - job.alpha});
        const float* const grad = g();
        const Chunk<T> x(p_.x, p_.x_pitch, job, row), out(p_.out, p_.out_pitch, job, row);
        uint32_t saturated = 0;
        for_each(rows, job.columns, [&](uint32_t m, uint32_t n, uint64_t at) {
            out.put(m, n, guards_.passes(x.get(m, n)) ? grad[at] : 0.0f, saturated);
        });
        own += saturated;
    }

private:
    __device__ __forceinline__ float* t() const { return work_.wide(1); }
    __device__ __forceinline__ float* g() const { return work_.wide(2); }
    __device__ __forceinline__ float* z() const { return work_.narrow(kBackwardWide, 0); }
    __device__ __forceinline__ float* a() const { return work_.narrow(kBackwardWide, 1); }
    __device__ __forceinline__ float* grad_a() const { return work_.narrow(kBackwardWide, 2); }
    // The gradient of the pre-activations, and how many there are in a row.
    __device__ __forceinline__ float* grad_z() const { return work_.is_dense() ? t() : z(); }
    __device__ __forceinline__ uint32_t width() const { return work_.is_dense() ? work_.job.columns : work_.job.width; }
    __device__ __forceinline__ Weights<const float> weights() const
    {
        return Weights<const float>::of(work_.job, work_.job.parameters);
    }
    __device__ __forceinline__ Weights<float> partials() const
    {
        return Weights<float>::of(work_.job, p_.partials + work_.item.partial);
    }

    const MatrixParams& p_;
    const Work& work_;
    Shared<kArithmetic>& shared_;
    AnyGuards guards_;
};

template <class T, Arithmetic kArithmetic>
__device__ __forceinline__ void backward(const MatrixParams& p)
{
    __shared__ Shared<kArithmetic> shared;
    __shared__ Work work;
    __shared__ double warp_sums[kThreads / 32];
    // Each thread's own, here for the same reason as the work.
    __shared__ ItemSums sums[kThreads];
    __shared__ uint32_t saturated[kThreads];
    saturated[threadIdx.x] = 0;
    const Backward<T, kArithmetic> pass(p, work, shared);
    for (uint32_t i = blockIdx.x; i < p.count; i += gridDim.x) {
        take(p, i, work);
        sums[threadIdx.x] = {0.0, 0.0};
        for (uint32_t row = work.item.first_row; row < work.item.end_row; row += work.item.block_rows) {
            pass.recompute(row, work.rows_from(row));
            pass.begin(row, work.rows_from(row), sums[threadIdx.x]);
            const bool trains = work.item.partial != kNoPartial;
            const bool writes = work.job.role == Role::Path && p.out != nullptr;
            if ((trains || writes) && !work.is_dense()) {
                pass.pull_through(work.rows_from(row));
            }
            if (trains) {
                pass.add_gradients(work.rows_from(row), row == work.item.first_row);
            }
            if (writes) {
                pass.write(row, work.rows_from(row), saturated[threadIdx.x]);
            }
            // The next block overwrites what some may still read.
            __syncthreads();
        }
        if (work.item.sums != kNone) {
            const double alpha = block_sum(sums[threadIdx.x].alpha, warp_sums);
            const double square = block_sum(sums[threadIdx.x].square, warp_sums);
            if (threadIdx.x == 0) {
                p.sums[work.item.sums] = {alpha, square};
            }
        }
    }
    count_saturated(saturated[threadIdx.x], p.saturated);
}

// Adds a job's parts, in their order and in f64, to its gradients; the first of its merge items also leaves its result.
__device__ __forceinline__ void merge(const MergeParams& p)
{
    const MergeItem item = p.items[blockIdx.x];
    const SeedJob& job = p.jobs[item.job];
    for (uint64_t i = item.first + threadIdx.x; i < item.first + item.count; i += kThreads) {
        double sum = 0.0;
        for (uint32_t part = 0; part < item.parts; ++part) {
            sum += static_cast<double>(p.partials[item.partial + part * item.total + i]);
        }
        job.gradients[i] += static_cast<float>(sum);
    }
    if (item.sums == kNone || threadIdx.x != 0 || job.result == nullptr) {
        return;
    }
    ItemSums sums{0.0, 0.0};
    for (uint32_t part = 0; part < item.parts; ++part) {
        sums.alpha += p.sums[item.sums + part].alpha;
        sums.square += p.sums[item.sums + part].square;
    }
    if (job.role == Role::Reconstruction) {
        job.result->reconstruction = reconstruction_loss(sums.square, p.rows, job.columns);
    } else if (job.role == Role::Path) {
        job.result->alpha += static_cast<float>(sums.alpha);
    }
}

}  // namespace kasmina::matrix

#define KASMINA_MATRIX_BACKWARD(name, T, arithmetic)                                                                 \
    extern "C" __global__ void __launch_bounds__(kasmina::matrix::kThreads, 2)                                     \
        name(const __grid_constant__ kasmina::matrix::MatrixParams p)                                              \
    {                                                                                                              \
        kasmina::follow_previous_launch();                                                                         \
        kasmina::matrix::backward<T, kasmina::matrix::Arithmetic::arithmetic>(p);                                  \
    }
