// What the two-sided headers stand on: one source that is CUDA device code under nvcc and plain C++17 elsewhere, so that a
// machine without a GPU can test the very formulas that the kernels run.
//
// Rounding. `mul_rn`, `add_rn` and `sub_rn` are one IEEE rounding each and are never fused, on either side: what is built
// from them gives the same bits as Rust, which never fuses. Everything else may be fused on the device. On the host compile
// with -ffp-contract=off. Neither side may flush denormals (nvcc's default; no -ftz=true, no -use_fast_math).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define KASMINA_HD __host__ __device__ __forceinline__
// For code that hot loops reach only with damaged data: out of line, so that it costs them no registers.
#define KASMINA_COLD __host__ __device__ __noinline__ inline
#define KASMINA_UNROLL _Pragma("unroll")
#define KASMINA_ROLLED _Pragma("unroll 1")
#else
#define KASMINA_HD inline
#define KASMINA_COLD [[gnu::noinline, gnu::cold]] inline
#define KASMINA_UNROLL
#define KASMINA_ROLLED
#endif

namespace kasmina {

constexpr float kInfinity = __builtin_huge_valf();

KASMINA_HD uint32_t bits_of(float x)
{
#if defined(__CUDA_ARCH__)
    return __float_as_uint(x);
#else
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
#endif
}

KASMINA_HD float float_of(uint32_t bits)
{
#if defined(__CUDA_ARCH__)
    return __uint_as_float(bits);
#else
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
#endif
}

KASMINA_HD float mul_rn(float a, float b)
{
#if defined(__CUDA_ARCH__)
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

KASMINA_HD float add_rn(float a, float b)
{
#if defined(__CUDA_ARCH__)
    return __fadd_rn(a, b);
#else
    return a + b;
#endif
}

KASMINA_HD float sub_rn(float a, float b)
{
#if defined(__CUDA_ARCH__)
    return __fsub_rn(a, b);
#else
    return a - b;
#endif
}

KASMINA_HD double mul_rn(double a, double b)
{
#if defined(__CUDA_ARCH__)
    return __dmul_rn(a, b);
#else
    return a * b;
#endif
}

KASMINA_HD double add_rn(double a, double b)
{
#if defined(__CUDA_ARCH__)
    return __dadd_rn(a, b);
#else
    return a + b;
#endif
}

KASMINA_HD double sub_rn(double a, double b)
{
#if defined(__CUDA_ARCH__)
    return __dsub_rn(a, b);
#else
    return a - b;
#endif
}

// a / b within 2 ulp, for weights and means of counts; b is a count of at least one.
KASMINA_HD float divide_by_count(float a, float b)
{
#if defined(__CUDA_ARCH__)
    // __fdividef would look for a subnormal b first.
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(b));
    return a * inverse;
#else
    return a / b;
#endif
}

// False for NaN and both infinities.
KASMINA_HD bool is_finite(float x)
{
    return fabsf(x) < kInfinity;
}

KASMINA_HD bool is_finite(double x)
{
    return fabs(x) < static_cast<double>(kInfinity);
}

// 1 where a ≤ b, 0 elsewhere and for NaN.
KASMINA_HD float one_if_at_most(float a, float b)
{
#if defined(__CUDA_ARCH__)
    float result;
    asm("set.le.f32.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
#else
    return a <= b ? 1.0f : 0.0f;
#endif
}

// The greater of two numbers; of a number and a NaN, the number; of two zeros, +0. IEEE 754-2019 maximumNumber, PTX
// max.f32, one instruction. The C library leaves the sign of zero open.
KASMINA_HD float maximum_number(float a, float b)
{
#if defined(__CUDA_ARCH__)
    return fmaxf(a, b);
#else
    if (a == b) return std::signbit(a) ? b : a;
    return a > b || b != b ? a : b;
#endif
}

// The lesser of two numbers; of a number and a NaN, the number; of two zeros, −0. IEEE 754-2019 minimumNumber.
KASMINA_HD float minimum_number(float a, float b)
{
#if defined(__CUDA_ARCH__)
    return fminf(a, b);
#else
    if (a == b) return std::signbit(a) ? a : b;
    return a < b || b != b ? a : b;
#endif
}

// As maximum_number, but NaN if either is NaN. IEEE 754-2019 maximum, PTX max.NaN.f32.
KASMINA_HD float maximum(float a, float b)
{
#if defined(__CUDA_ARCH__)
    float result;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
#else
    return a != a ? a : b != b ? b : maximum_number(a, b);
#endif
}

// As minimum_number, but NaN if either is NaN. IEEE 754-2019 minimum, PTX min.NaN.f32.
KASMINA_HD float minimum(float a, float b)
{
#if defined(__CUDA_ARCH__)
    float result;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
#else
    return a != a ? a : b != b ? b : minimum_number(a, b);
#endif
}

// The lanes that work on one seed together, and how they reduce; a kernel brings a warp or a block of the same shape. Every
// lane gets every result, and the same one. This one is a single thread.
struct Serial {
    KASMINA_HD uint32_t rank() const { return 0; }
    KASMINA_HD uint32_t size() const { return 1; }
    // A NaN is ignored, as fmaxf does.
    KASMINA_HD float max(float value) const { return value; }
    KASMINA_HD double sum(double value) const { return value; }
    KASMINA_HD uint32_t min(uint32_t value) const { return value; }
};

} // namespace kasmina
