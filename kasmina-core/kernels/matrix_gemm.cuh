// Products of f32 matrices in global memory by one block of threads: tiles of 64 × 64, the inner dimension in slices through
// shared memory. On f32 layers by fused multiply-adds, with the accuracy of any f32 product; on 16-bit layers by tensor cores,
// with operands split in two bf16 (kasmina_split.cuh): good to about 2^-16 of the terms, which one rounding of the result hides.
//
// Operands are written by the same block and read after a barrier: they are not __restrict__, and are not to be read through the
// non-coherent cache.
#pragma once

#include "kasmina_split.cuh"

namespace kasmina::matrix {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kTile = 64;

enum class Arithmetic {
    Fma,
    TensorCores,
};

// Which of an operand's dimensions lies contiguously in memory.
enum class Contiguous {
    Inner,  // the one that is summed over
    Outer,  // the one that the result keeps
};

struct Operand {
    const float* data;
    uint32_t stride;  // from row to row as it lies in memory
};

// The result, value[m][n] = Σ + bias[n] + beside[m][n] + keep·value[m][n].
struct Output {
    float* data;           // dense rows of the result's n columns
    const float* bias;     // null where there is none
    const float* beside;   // laid out like data; null where there is none
    float keep;            // 0: what lies there is not read
};

// What `multiply` is to compute.
struct Product {
    Operand a;
    Operand b;
    uint32_t m;
    uint32_t n;
    uint32_t k;
    Output out;
};

// Element (outer, inner) of an operand.
template <Contiguous kContiguous>
__device__ __forceinline__ float at(const Operand& operand, uint32_t outer, uint32_t inner)
{
    const uint64_t row = kContiguous == Contiguous::Inner ? outer : inner;
    const uint32_t column = kContiguous == Contiguous::Inner ? inner : outer;
    return operand.data[row * operand.stride + column];
}

__device__ __forceinline__ void store(const Output& out, uint32_t n_size, uint32_t m, uint32_t n, float value)
{
    const uint64_t i = uint64_t(m) * n_size + n;
    if (out.bias != nullptr) {
        value += out.bias[n];
    }
    if (out.beside != nullptr) {
        value += out.beside[i];
    }
    if (out.keep != 0.0f) {
        value += out.keep * out.data[i];
    }
    out.data[i] = value;
}

// The slices of one tile's operands in shared memory, and the products over them, by fused multiply-adds: a thread has 4 × 4
// elements of the tile.
class FmaTile {
public:
    static constexpr uint32_t kSlice = 16;
    // Words from one inner index to the next: rows of 16-byte packets, 4 banks apart.
    static constexpr uint32_t kPitch = kTile + 4;
    // Elements of an operand's slice that a thread brings.
    static constexpr uint32_t kPerThread = kTile * kSlice / kThreads;

    struct Shared {
        float a[kSlice][kPitch];
        float b[kSlice][kPitch];
    };

    // One operand's slice on its way to shared memory. Neighbouring threads read neighbouring elements.
    template <Contiguous kContiguous>
    struct Fetched {
        float x[kPerThread];

        __device__ __forceinline__ void load(const Operand& from, uint32_t outer0, uint32_t outers, uint32_t inner0, uint32_t inners)
        {
#pragma unroll
            for (uint32_t i = 0; i < kPerThread; ++i) {
                const uint32_t outer = outer0 + outer_of<kContiguous>(i), inner = inner0 + inner_of<kContiguous>(i);
                x[i] = outer < outers && inner < inners ? at<kContiguous>(from, outer, inner) : 0.0f;
            }
        }

        __device__ __forceinline__ void put(float (&to)[kSlice][kPitch]) const
        {
#pragma unroll
            for (uint32_t i = 0; i < kPerThread; ++i) {
                to[inner_of<kContiguous>(i)][outer_of<kContiguous>(i)] = x[i];
            }
        }
    };

    // Plain arithmetic needs not be told what is wild.
    template <Contiguous kA, Contiguous kB>
    __device__ __forceinline__ static bool put(Shared& shared, const Fetched<kA>& a, const Fetched<kB>& b)
    {
        a.put(shared.a);
        b.put(shared.b);
        __syncthreads();
        return false;
    }

    __device__ __forceinline__ void clear()
    {
#pragma unroll
        for (uint32_t i = 0; i < 16; ++i) {
            sums_[i / 4][i % 4] = 0.0f;
        }
    }

    __device__ __forceinline__ void multiply(const Shared& shared, bool)
    {
        const uint32_t m = threadIdx.x / 16 * 4, n = threadIdx.x % 16 * 4;
#pragma unroll
        for (uint32_t k = 0; k < kSlice; ++k) {
            const float4 a = *reinterpret_cast<const float4*>(&shared.a[k][m]);
            const float4 b = *reinterpret_cast<const float4*>(&shared.b[k][n]);
            const float left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
            for (uint32_t i = 0; i < 16; ++i) {
                sums_[i / 4][i % 4] = fmaf(left[i / 4], right[i % 4], sums_[i / 4][i % 4]);
            }
        }
    }

    __device__ __forceinline__ void finish(const Output& out, uint32_t m0, uint32_t n0, uint32_t m_size, uint32_t n_size) const
    {
        const uint32_t m = m0 + threadIdx.x / 16 * 4, n = n0 + threadIdx.x % 16 * 4;
#pragma unroll
        for (uint32_t i = 0; i < 16; ++i) {
            if (m + i / 4 < m_size && n + i % 4 < n_size) {
                store(out, n_size, m + i / 4, n + i % 4, sums_[i / 4][i % 4]);
            }
        }
    }

private:
    template <Contiguous kContiguous>
    __device__ __forceinline__ static uint32_t outer_of(uint32_t i)
    {
        return kContiguous == Contiguous::Inner ? threadIdx.x / kSlice + i * (kThreads / kSlice) : threadIdx.x % kTile;
    }

    template <Contiguous kContiguous>
    __device__ __forceinline__ static uint32_t inner_of(uint32_t i)
    {
        return kContiguous == Contiguous::Inner ? threadIdx.x % kSlice : threadIdx.x / kTile + i * (kThreads / kTile);
    }

    float sums_[4][4];
};

// The same by tensor cores: 8 warps of 16 × 32 elements, each four fragments of 16 × 8.
class TensorTile {
public:
    static constexpr uint32_t kSlice = 32;
    static constexpr uint32_t kPairs = kSlice / 2;
    // Words from one outer index to the next: 8 of them are in 8 different groups of 4 banks, so that no two lanes of a warp
    // that loads a fragment meet in a bank.
    static constexpr uint32_t kPitch = kPairs + 4;
    // Pairs of an operand's slice that a thread brings.
    static constexpr uint32_t kPerThread = kTile * kPairs / kThreads;

    // Pairs of inner neighbours, as fragments have them.
    struct Half {
        uint32_t hi[kTile][kPitch];
        uint32_t lo[kTile][kPitch];
    };

    struct Shared {
        Half a;
        Half b;
    };

    template <Contiguous kContiguous>
    struct Fetched {
        float x[kPerThread][2];

        __device__ __forceinline__ void load(const Operand& from, uint32_t outer0, uint32_t outers, uint32_t inner0, uint32_t inners)
        {
#pragma unroll
            for (uint32_t i = 0; i < kPerThread; ++i) {
                const uint32_t outer = outer0 + outer_of<kContiguous>(i);
#pragma unroll
                for (uint32_t j = 0; j < 2; ++j) {
                    const uint32_t inner = inner0 + 2 * pair_of<kContiguous>(i) + j;
                    x[i][j] = outer < outers && inner < inners ? at<kContiguous>(from, outer, inner) : 0.0f;
                }
            }
        }

        // Whether all is finite.
        __device__ __forceinline__ bool put(Half& to) const
        {
            bool finite = true;
#pragma unroll
            for (uint32_t i = 0; i < kPerThread; ++i) {
                const Split first = split(x[i][0]), second = split(x[i][1]);
                to.hi[outer_of<kContiguous>(i)][pair_of<kContiguous>(i)] = pair(first.hi, second.hi);
                to.lo[outer_of<kContiguous>(i)][pair_of<kContiguous>(i)] = pair(first.lo, second.lo);
                finite = finite && is_finite(x[i][0]) && is_finite(x[i][1]);
            }
            return finite;
        }
    };

    // Whether any element of either slice, of any thread, is an infinity or a NaN.
    template <Contiguous kA, Contiguous kB>
    __device__ __forceinline__ static bool put(Shared& shared, const Fetched<kA>& a, const Fetched<kB>& b)
    {
        const bool a_finite = a.put(shared.a);
        const bool b_finite = b.put(shared.b);
        return __syncthreads_or(!a_finite || !b_finite) != 0;
    }

    __device__ __forceinline__ void clear()
    {
#pragma unroll
        for (uint32_t i = 0; i < 16; ++i) {
            sums_[i / 4][i % 4] = 0.0f;
        }
    }

    __device__ __forceinline__ void multiply(const Shared& shared, bool wild)
    {
        // An infinity times the other's lo, which may be 0 or of the other sign, would make a NaN of what is none.
        if (wild) {
            multiply_singly(shared);
            return;
        }
        const uint32_t lane = threadIdx.x % 32, row = warp_m() + lane / 4;
#pragma unroll
        for (uint32_t k = 0; k < kPairs; k += 8) {
            const uint32_t word = k + lane % 4;
            uint32_t hi[4], lo[4];
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i) {
                hi[i] = shared.a.hi[row + i % 2 * 8][word + i / 2 * 4];
                lo[i] = shared.a.lo[row + i % 2 * 8][word + i / 2 * 4];
            }
#pragma unroll
            for (uint32_t f = 0; f < 4; ++f) {
                const uint32_t column = warp_n() + f * 8 + lane / 4;
                const uint32_t b_hi[2] = {shared.b.hi[column][word], shared.b.hi[column][word + 4]};
                const uint32_t b_lo[2] = {shared.b.lo[column][word], shared.b.lo[column][word + 4]};
                // The small ones first.
                mma(sums_[f], lo, b_hi);
                mma(sums_[f], hi, b_lo);
                mma(sums_[f], hi, b_hi);
            }
        }
    }

    __device__ __forceinline__ void finish(const Output& out, uint32_t m0, uint32_t n0, uint32_t m_size, uint32_t n_size) const
    {
#pragma unroll
        for (uint32_t i = 0; i < 16; ++i) {
            const uint32_t m = m0 + m_of(i % 4), n = n0 + n_of(i / 4, i % 4);
            if (m < m_size && n < n_size) {
                store(out, n_size, m, n, sums_[i / 4][i % 4]);
            }
        }
    }

private:
    __device__ __forceinline__ static uint32_t warp_m() { return threadIdx.x / 32 % 4 * 16; }
    __device__ __forceinline__ static uint32_t warp_n() { return threadIdx.x / 128 * 32; }

    // Element i of a fragment of the result, PTX ISA, "Matrix fragments for mma.m16n8k16".
    __device__ __forceinline__ static uint32_t m_of(uint32_t i) { return warp_m() + threadIdx.x % 32 / 4 + i / 2 * 8; }
    __device__ __forceinline__ static uint32_t n_of(uint32_t f, uint32_t i)
    {
        return warp_n() + f * 8 + threadIdx.x % 4 * 2 + i % 2;
    }

    template <Contiguous kContiguous>
    __device__ __forceinline__ static uint32_t outer_of(uint32_t i)
    {
        return kContiguous == Contiguous::Inner ? threadIdx.x / kPairs + i * (kThreads / kPairs) : threadIdx.x % kTile;
    }

    template <Contiguous kContiguous>
    __device__ __forceinline__ static uint32_t pair_of(uint32_t i)
    {
        return kContiguous == Contiguous::Inner ? threadIdx.x % kPairs : threadIdx.x / kTile + i * (kThreads / kTile);
    }

    __device__ __forceinline__ static void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
    {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }

    __device__ __forceinline__ static float element(const Half& half, uint32_t outer, uint32_t inner)
    {
        const uint32_t shift = inner % 2 * 16;
        const uint32_t hi = half.hi[outer][inner / 2] >> shift, lo = half.lo[outer][inner / 2] >> shift;
        return joined(bf16{static_cast<uint16_t>(hi)}, bf16{static_cast<uint16_t>(lo)});
    }

    // Element by element, as IEEE 754 has it. Rare: some activation or gradient of the slice is not finite, and nothing guards.
    __device__ __forceinline__ void multiply_singly(const Shared& shared)
    {
#pragma unroll 1
        for (uint32_t k = 0; k < kSlice; ++k) {
            const float a[2] = {element(shared.a, m_of(0), k), element(shared.a, m_of(2), k)};
#pragma unroll
            for (uint32_t f = 0; f < 4; ++f) {
#pragma unroll
                for (uint32_t j = 0; j < 2; ++j) {
                    const float b = element(shared.b, n_of(f, j), k);
                    sums_[f][j] = fmaf(a[0], b, sums_[f][j]);
                    sums_[f][2 + j] = fmaf(a[1], b, sums_[f][2 + j]);
                }
            }
        }
    }

    float sums_[4][4];
};

template <Arithmetic kArithmetic>
using Tile = std::conditional_t<kArithmetic == Arithmetic::Fma, FmaTile, TensorTile>;

// What a product needs of shared memory.
template <Arithmetic kArithmetic>
struct Shared {
    typename Tile<kArithmetic>::Shared slices;
    // In registers it would be live through the loops, which need them.
    Product product;
};

// out[m][n] = Σ over k of a(m, k)·b(n, k). All threads of the block. Begins and ends with a barrier: what the block wrote before
// may be an operand, and the result may be read after.
template <Arithmetic kArithmetic, Contiguous kA, Contiguous kB>
__device__ __noinline__ void multiply(Shared<kArithmetic>& shared, const Operand a, const Operand b, uint32_t m, uint32_t n,
                                      uint32_t k, const Output out)
{
    using T = Tile<kArithmetic>;
    if (threadIdx.x == 0) {
        shared.product = {a, b, m, n, k, out};
    }
    __syncthreads();
    const Product& p = shared.product;
    T tile;
    for (uint32_t m0 = 0; m0 < p.m; m0 += kTile) {
        for (uint32_t n0 = 0; n0 < p.n; n0 += kTile) {
            tile.clear();
            typename T::template Fetched<kA> next_a;
            typename T::template Fetched<kB> next_b;
            next_a.load(p.a, m0, p.m, 0, p.k);
            next_b.load(p.b, n0, p.n, 0, p.k);
            for (uint32_t k0 = 0; k0 < p.k; k0 += T::kSlice) {
                // Nobody reads the last slice any more, once all have come here.
                __syncthreads();
                const bool wild = T::put(shared.slices, next_a, next_b);
                // The next slice comes while this one is multiplied.
                if (k0 + T::kSlice < p.k) {
                    next_a.load(p.a, m0, p.m, k0 + T::kSlice, p.k);
                    next_b.load(p.b, n0, p.n, k0 + T::kSlice, p.k);
                }
                tile.multiply(shared.slices, wild);
            }
            tile.finish(p.out, m0, n0, p.m, p.n);
        }
    }
    __syncthreads();
}

}  // namespace kasmina::matrix
