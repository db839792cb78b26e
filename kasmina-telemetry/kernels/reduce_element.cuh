// Storage types of the reductions: how a 16-byte packet becomes values, what a NaN is, and the arithmetic whose rounding is part
// of the result.
//
// Every sum of floats runs in f64, where f16, bf16 and f32 are exact. `add` and `fma` are one IEEE rounding each and never fused
// with a neighbour, so that two kernels with the same tree give the same bits whatever the compiler makes of them.
#pragma once

#include <type_traits>

#include "kasmina_base.cuh"

// How many blocks a multiprocessor should have registers for. Code for Blackwell takes a few more of them, and would spill.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
#define KASMINA_RESIDENT(blocks) ((blocks) > 2 ? 2 : (blocks))
#else
#define KASMINA_RESIDENT(blocks) (blocks)
#endif

namespace kasmina::reduce {

constexpr uint32_t kPacketBytes = 16;

struct f16 {
    uint16_t bits;
};

struct bf16 {
    uint16_t bits;
};

KASMINA_HD double add(double a, double b) { return add_rn(a, b); }
KASMINA_HD double mul(double a, double b) { return mul_rn(a, b); }

KASMINA_HD double fused(double a, double b, double c)
{
#if defined(__CUDA_ARCH__)
    return __fma_rn(a, b, c);
#else
    return std::fma(a, b, c);
#endif
}

// T as it is stored; Value as it is computed with.
template <class T>
struct Element {
    using Value = T;
    static constexpr bool kFloat = std::is_floating_point_v<T>;
};
template <>
struct Element<f16> {
    using Value = float;
    static constexpr bool kFloat = true;
};
template <>
struct Element<bf16> {
    using Value = float;
    static constexpr bool kFloat = true;
};

template <class T>
constexpr uint32_t kLanes = kPacketBytes / sizeof(T);

KASMINA_HD float magnitude(float x) { return fabsf(x); }
KASMINA_HD double magnitude(double x) { return fabs(x); }

// False for NaN and ±Inf, and true for every integer.
template <class V>
KASMINA_HD bool finite(V x)
{
    if constexpr (std::is_floating_point_v<V>) {
        return magnitude(x) < static_cast<V>(__builtin_huge_val());
    } else {
        return true;
    }
}

// Without the warning that an integer is always itself.
template <class V>
KASMINA_HD bool is_nan(V x)
{
    if constexpr (std::is_floating_point_v<V>) {
        return x != x;
    } else {
        return false;
    }
}

#if defined(__CUDACC__)

__device__ __forceinline__ float widen(f16 h)
{
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h.bits));
    return x;
}

__device__ __forceinline__ float widen(bf16 b)
{
    return __uint_as_float(static_cast<uint32_t>(b.bits) << 16);
}

template <class T>
__device__ __forceinline__ T widen(T x)
{
    return x;
}

// Sixteen bytes as they lie in memory.
struct alignas(16) Packet {
    uint32_t words[4];
};

template <class T>
__device__ __forceinline__ void unpack(const Packet& packet, typename Element<T>::Value (&value)[kLanes<T>])
{
#pragma unroll
    for (uint32_t i = 0; i < kLanes<T>; ++i) {
        if constexpr (sizeof(T) == 2) {
            value[i] = widen(T{static_cast<uint16_t>(packet.words[i / 2] >> (i % 2 * 16))});
        } else if constexpr (sizeof(T) == 4) {
            if constexpr (Element<T>::kFloat) {
                value[i] = __uint_as_float(packet.words[i]);
            } else {
                value[i] = static_cast<T>(packet.words[i]);
            }
        } else {
            const uint64_t bits = packet.words[2 * i] | static_cast<uint64_t>(packet.words[2 * i + 1]) << 32;
            if constexpr (Element<T>::kFloat) {
                value[i] = __longlong_as_double(static_cast<long long>(bits));
            } else {
                value[i] = static_cast<T>(bits);
            }
        }
    }
}

// Read once: past the first-level cache's reuse, and first to leave the second.
__device__ __forceinline__ Packet load_packet(const void* at)
{
    Packet packet;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(packet.words[0]), "=r"(packet.words[1]), "=r"(packet.words[2]), "=r"(packet.words[3])
                 : "l"(at));
    return packet;
}

// The least of two numbers or, of a number and a NaN, the number.
template <class V>
__device__ __forceinline__ V least(V a, V b)
{
    if constexpr (std::is_same_v<V, float>) {
        return fminf(a, b);
    } else if constexpr (std::is_same_v<V, double>) {
        return fmin(a, b);
    } else {
        return b < a ? b : a;
    }
}

template <class V>
__device__ __forceinline__ V greatest(V a, V b)
{
    if constexpr (std::is_same_v<V, float>) {
        return fmaxf(a, b);
    } else if constexpr (std::is_same_v<V, double>) {
        return fmax(a, b);
    } else {
        return b > a ? b : a;
    }
}

// As greatest, but NaN if either is NaN, so that one test of a packet's greatest finds any NaN in it.
template <class V>
__device__ __forceinline__ V greatest_or_nan(V a, V b)
{
    if constexpr (std::is_same_v<V, float>) {
        float result;
        asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
        return result;
    } else if constexpr (std::is_same_v<V, double>) {
        return is_nan(a) ? a : is_nan(b) ? b : fmax(a, b);
    } else {
        return greatest(a, b);
    }
}

// Neighbours, then neighbours of those: the shape of every tree within a packet.
template <uint32_t N, class V, class F>
__device__ __forceinline__ V tree(const V (&value)[N], F combine)
{
    V part[N];
#pragma unroll
    for (uint32_t i = 0; i < N; ++i) part[i] = value[i];
#pragma unroll
    for (uint32_t step = 1; step < N; step *= 2) {
#pragma unroll
        for (uint32_t i = 0; i + step < N; i += 2 * step) part[i] = combine(part[i], part[i + step]);
    }
    return part[0];
}

#endif  // __CUDACC__

}  // namespace kasmina::reduce
