// What nvcc gives to every source: the language's words, vector types, built-in variables and functions. Included before everything else.
//
// __global__, __shared__, __grid_constant__, __launch_bounds__, __maxnreg__ and asm are no macros: they stay for the translation.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "ksim_machine.h"

#define __CUDACC__ 1
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))

#define threadIdx (::ksim::self().index)
#define blockIdx (::ksim::self().block->index)
#define blockDim (::ksim::self().block->dim)
#define gridDim (::ksim::self().block->grid)
#define warpSize 32

// ------------------------------------------------------------------------------------------------------------ vector types

#define KSIM_VECTOR(type, name, one, two, four)                                                                       \
    struct alignas(one) name##1 { type x; };                                                                          \
    struct alignas(two) name##2 { type x, y; };                                                                       \
    struct name##3 { type x, y, z; };                                                                                 \
    struct alignas(four) name##4 { type x, y, z, w; };                                                                \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                                  \
    inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                                       \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
KSIM_VECTOR(signed char, char, 1, 2, 4)
KSIM_VECTOR(unsigned char, uchar, 1, 2, 4)
KSIM_VECTOR(short, short, 2, 4, 8)
KSIM_VECTOR(unsigned short, ushort, 2, 4, 8)
KSIM_VECTOR(int, int, 4, 8, 16)
KSIM_VECTOR(unsigned int, uint, 4, 8, 16)
KSIM_VECTOR(long long, longlong, 8, 16, 16)
KSIM_VECTOR(unsigned long long, ulonglong, 8, 16, 16)
KSIM_VECTOR(float, float, 4, 8, 16)
KSIM_VECTOR(double, double, 8, 16, 16)
#undef KSIM_VECTOR

namespace ksim {

template <class T>
using Same = std::type_identity_t<T>;

template <class To, class From>
inline To bits(From from)
{
    static_assert(sizeof(To) == sizeof(From));
    return __builtin_bit_cast(To, from);
}

// ------------------------------------------------------------------------------------------------------- shared memory

template <class S>
inline const Slot kSlot{sizeof(S), alignof(S)};

template <class S>
inline S& slot()
{
    const Block& block = *self().block;
    const uint32_t offset = block.slots[kSlot<S>.index];
    if (offset == 0) {
        calls->undefined("a shared variable that the image's table does not have for this kernel");
    }
    return *reinterpret_cast<S*>(block.shared + offset);
}

template <class T, size_t kAlignment>
inline T* dynamic()
{
    static_assert(kAlignment <= 1024, "dynamic shared memory begins at a multiple of 1024");
    return reinterpret_cast<T*>(self().block->dynamic);
}

// ---------------------------------------------------------------------------------------------------- the table of kernels

struct Registration : Entry {
    explicit Registration(const Entry& entry);
};

template <auto kKernel>
struct Kernel;

template <class... Parameters, void (*kKernel)(Parameters...)>
struct Kernel<kKernel> {
    static constexpr uint32_t kCount = sizeof...(Parameters);
    static constexpr uint32_t kSizes[kCount + 1] = {sizeof(std::remove_reference_t<Parameters>)..., 0};
    static constexpr uint32_t kAlignments[kCount + 1] = {alignof(std::remove_reference_t<Parameters>)..., 0};

    static void call(void* const* parameters) { spread(parameters, std::make_index_sequence<kCount>{}); }

    static constexpr Entry entry(const char* name, uint32_t max_threads, uint32_t min_blocks, uint32_t registers)
    {
        return {name, &call, kSizes, kAlignments, kCount, max_threads, min_blocks, registers, nullptr};
    }

private:
    template <size_t... kAt>
    static void spread([[maybe_unused]] void* const* parameters, std::index_sequence<kAt...>)
    {
        kKernel(*static_cast<std::remove_reference_t<Parameters>*>(parameters[kAt])...);
    }
};

// ---------------------------------------------------------------------------------------------------------- warp operations

template <class Operand, void (*kTogether)(Operand* const* lanes, uint32_t mask)>
inline void warp(uint32_t mask, Operand& operand)
{
    calls->warp(mask, &operand, [](void* const* operands, uint32_t all) {
        Operand* lanes[32];
        for (uint32_t i = 0; i < 32; ++i) lanes[i] = static_cast<Operand*>(operands[i]);
        kTogether(lanes, all);
    });
}

template <class T>
struct Shuffle {
    T own, result;
    uint32_t source;  // 32 and more: the lane keeps its own
};

template <class T>
void shuffle(Shuffle<T>* const* lanes, uint32_t mask)
{
    for (uint32_t i = 0; i < 32; ++i) {
        if (lanes[i] == nullptr) continue;
        const uint32_t source = lanes[i]->source < 32 ? lanes[i]->source : i;
        if ((mask >> source & 1) == 0 || lanes[source] == nullptr) {
            calls->undefined("a shuffle from a lane that takes no part in it");
            return;
        }
        lanes[i]->result = lanes[source]->own;
    }
}

template <class T>
inline T shuffled(uint32_t mask, T value, uint32_t source)
{
    Shuffle<T> operand{value, value, source};
    warp<Shuffle<T>, &shuffle<T>>(mask, operand);
    return operand.result;
}

// The segment of a lane in a shuffle over `width` lanes.
inline uint32_t first_of(uint32_t lane, int width) { return lane & ~static_cast<uint32_t>(width - 1); }

template <class T>
struct Fold {
    T own, result;
};

template <class T, class F>
struct Folding {
    static void all(Fold<T>* const* lanes, uint32_t)
    {
        bool any = false;
        T total{};
        for (uint32_t i = 0; i < 32; ++i) {
            if (lanes[i] == nullptr) continue;
            total = any ? F{}(total, lanes[i]->own) : lanes[i]->own;
            any = true;
        }
        for (uint32_t i = 0; i < 32; ++i) {
            if (lanes[i] != nullptr) lanes[i]->result = total;
        }
    }
};

template <class F, class T>
inline T folded(uint32_t mask, T value)
{
    Fold<T> operand{value, value};
    warp<Fold<T>, &Folding<T, F>::all>(mask, operand);
    return operand.result;
}

struct AndOf { template <class T> T operator()(T a, T b) const { return a & b; } };
struct OrOf { template <class T> T operator()(T a, T b) const { return a | b; } };
struct XorOf { template <class T> T operator()(T a, T b) const { return a ^ b; } };
struct SumOf { template <class T> T operator()(T a, T b) const { return a + b; } };
struct LeastOf { template <class T> T operator()(T a, T b) const { return b < a ? b : a; } };
struct GreatestOf { template <class T> T operator()(T a, T b) const { return a < b ? b : a; } };

// ------------------------------------------------------------------------------------------------------------------- memory

template <class T>
inline const T* aligned(const T* at)
{
    if (reinterpret_cast<uintptr_t>(at) % sizeof(T) != 0) {
        calls->misaligned(reinterpret_cast<uint64_t>(at), sizeof(T));
    }
    return at;
}

// A read-modify-write of one word; others may go first.
template <class T, class F>
inline T exchange(T* at, F next)
{
    calls->spin(Spin::Atomic);
    aligned(at);
    T before;
    __atomic_load(at, &before, __ATOMIC_RELAXED);
    T after = next(before);
    while (!__atomic_compare_exchange(at, &before, &after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        after = next(before);
    }
    return before;
}

}  // namespace ksim

// ----------------------------------------------------------------------------------------------------- barriers and warps

inline void __syncthreads() { ::ksim::calls->barrier(0, 0); }
inline int __syncthreads_or(int own) { return static_cast<int>(::ksim::calls->barrier_reduce(0, 0, ::ksim::Combine::Or, own != 0)); }
inline int __syncthreads_and(int own) { return static_cast<int>(::ksim::calls->barrier_reduce(0, 0, ::ksim::Combine::And, own != 0)); }
inline int __syncthreads_count(int own) { return static_cast<int>(::ksim::calls->barrier_reduce(0, 0, ::ksim::Combine::Count, own != 0)); }
inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    ::ksim::calls->warp(mask, nullptr, nullptr);
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32)
{
    const uint32_t own = ::ksim::self().lane;
    return ::ksim::shuffled(mask, value, ::ksim::first_of(own, width) + (static_cast<uint32_t>(lane) & (width - 1)));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32)
{
    const uint32_t own = ::ksim::self().lane, source = own ^ static_cast<uint32_t>(lanes);
    return ::ksim::shuffled(mask, value, source < ::ksim::first_of(own, width) + width ? source : 32);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32)
{
    const uint32_t own = ::ksim::self().lane, source = own + lanes;
    return ::ksim::shuffled(mask, value, source < ::ksim::first_of(own, width) + width ? source : 32);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32)
{
    const uint32_t own = ::ksim::self().lane;
    return ::ksim::shuffled(mask, value, own - ::ksim::first_of(own, width) >= lanes ? own - lanes : 32);
}

inline unsigned __ballot_sync(unsigned mask, int own)
{
    return ::ksim::folded<::ksim::OrOf>(mask, own != 0 ? 1u << ::ksim::self().lane : 0u);
}
inline int __any_sync(unsigned mask, int own) { return ::ksim::folded<::ksim::OrOf>(mask, own != 0 ? 1u : 0u); }
inline int __all_sync(unsigned mask, int own) { return ::ksim::folded<::ksim::AndOf>(mask, own != 0 ? 1u : 0u); }
inline unsigned __reduce_add_sync(unsigned mask, unsigned own) { return ::ksim::folded<::ksim::SumOf>(mask, own); }
inline int __reduce_add_sync(unsigned mask, int own) { return ::ksim::folded<::ksim::SumOf>(mask, own); }
inline unsigned __reduce_min_sync(unsigned mask, unsigned own) { return ::ksim::folded<::ksim::LeastOf>(mask, own); }
inline int __reduce_min_sync(unsigned mask, int own) { return ::ksim::folded<::ksim::LeastOf>(mask, own); }
inline unsigned __reduce_max_sync(unsigned mask, unsigned own) { return ::ksim::folded<::ksim::GreatestOf>(mask, own); }
inline int __reduce_max_sync(unsigned mask, int own) { return ::ksim::folded<::ksim::GreatestOf>(mask, own); }
inline unsigned __reduce_or_sync(unsigned mask, unsigned own) { return ::ksim::folded<::ksim::OrOf>(mask, own); }
inline unsigned __reduce_and_sync(unsigned mask, unsigned own) { return ::ksim::folded<::ksim::AndOf>(mask, own); }
inline unsigned __reduce_xor_sync(unsigned mask, unsigned own) { return ::ksim::folded<::ksim::XorOf>(mask, own); }

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

inline void __nanosleep(unsigned) { ::ksim::calls->spin(::ksim::Spin::Sleep); }
inline long long clock64()
{
    ::ksim::calls->spin(::ksim::Spin::Clock);
    return static_cast<long long>(::ksim::calls->clock());
}
inline int clock() { return static_cast<int>(clock64()); }
[[noreturn]] inline void __trap()
{
    ::ksim::calls->trap();
    __builtin_unreachable();
}

// ------------------------------------------------------------------------------------------------------------ memory access

template <class T> inline T __ldg(const T* at) { return *::ksim::aligned(at); }
template <class T> inline T __ldca(const T* at) { return *::ksim::aligned(at); }
template <class T> inline T __ldcg(const T* at) { return *::ksim::aligned(at); }
template <class T> inline T __ldcs(const T* at) { return *::ksim::aligned(at); }
template <class T> inline void __stcg(T* at, ::ksim::Same<T> value) { *const_cast<T*>(::ksim::aligned(at)) = value; }
template <class T> inline void __stcs(T* at, ::ksim::Same<T> value) { *const_cast<T*>(::ksim::aligned(at)) = value; }

inline size_t __cvta_generic_to_shared(const void* pointer) { return ::ksim::calls->shared_address(pointer); }
inline size_t __cvta_generic_to_global(const void* pointer) { return reinterpret_cast<size_t>(pointer); }

template <class T>
inline T atomicAdd(T* at, ::ksim::Same<T> by) { return ::ksim::exchange(at, [by](T before) { return static_cast<T>(before + by); }); }
template <class T>
inline T atomicSub(T* at, ::ksim::Same<T> by) { return ::ksim::exchange(at, [by](T before) { return static_cast<T>(before - by); }); }
template <class T>
inline T atomicMax(T* at, ::ksim::Same<T> to) { return ::ksim::exchange(at, [to](T before) { return before < to ? to : before; }); }
template <class T>
inline T atomicMin(T* at, ::ksim::Same<T> to) { return ::ksim::exchange(at, [to](T before) { return to < before ? to : before; }); }
template <class T>
inline T atomicOr(T* at, ::ksim::Same<T> with) { return ::ksim::exchange(at, [with](T before) { return before | with; }); }
template <class T>
inline T atomicAnd(T* at, ::ksim::Same<T> with) { return ::ksim::exchange(at, [with](T before) { return before & with; }); }
template <class T>
inline T atomicXor(T* at, ::ksim::Same<T> with) { return ::ksim::exchange(at, [with](T before) { return before ^ with; }); }
template <class T>
inline T atomicExch(T* at, ::ksim::Same<T> to) { return ::ksim::exchange(at, [to](T) { return to; }); }
template <class T>
inline T atomicCAS(T* at, ::ksim::Same<T> wanted, ::ksim::Same<T> to)
{
    return ::ksim::exchange(at, [wanted, to](T before) { return before == wanted ? to : before; });
}

// -------------------------------------------------------------------------------------------------------------- arithmetic

inline unsigned __float_as_uint(float x) { return ::ksim::bits<unsigned>(x); }
inline int __float_as_int(float x) { return ::ksim::bits<int>(x); }
inline float __uint_as_float(unsigned x) { return ::ksim::bits<float>(x); }
inline float __int_as_float(int x) { return ::ksim::bits<float>(x); }
inline long long __double_as_longlong(double x) { return ::ksim::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return ::ksim::bits<double>(x); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fdividef(float a, float b)
{
    return __builtin_fabsf(b) > 0x1p126f && __builtin_fabsf(b) <= 3.4028234e38f ? a * 0.0f : a / b;
}
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline double __ull2double_rn(unsigned long long x) { return static_cast<double>(x); }

inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32); }

#define KSIM_EXTREMES(type)                                                                                           \
    inline type min(type a, type b) { return b < a ? b : a; }                                                         \
    inline type max(type a, type b) { return a < b ? b : a; }
KSIM_EXTREMES(int)
KSIM_EXTREMES(unsigned)
KSIM_EXTREMES(long)
KSIM_EXTREMES(unsigned long)
KSIM_EXTREMES(long long)
KSIM_EXTREMES(unsigned long long)
#undef KSIM_EXTREMES
inline unsigned min(int a, unsigned b) { return min(static_cast<unsigned>(a), b); }
inline unsigned min(unsigned a, int b) { return min(a, static_cast<unsigned>(b)); }
inline unsigned max(int a, unsigned b) { return max(static_cast<unsigned>(a), b); }
inline unsigned max(unsigned a, int b) { return max(a, static_cast<unsigned>(b)); }

namespace ksim {

// Of a number and a NaN the number, of two NaN the canonical one; of two zeros the greater or lesser, as PTX has it.
template <class T>
inline T greatest(T a, T b)
{
    if (a != a && b != b) return std::numeric_limits<T>::quiet_NaN();
    if (a == b) return std::signbit(a) ? b : a;
    return a > b || b != b ? a : b;
}
template <class T>
inline T least(T a, T b)
{
    if (a != a && b != b) return std::numeric_limits<T>::quiet_NaN();
    if (a == b) return std::signbit(a) ? a : b;
    return a < b || b != b ? a : b;
}
inline float device_fmax(float a, float b) { return greatest(a, b); }
inline float device_fmin(float a, float b) { return least(a, b); }
inline double device_fmax(double a, double b) { return greatest(a, b); }
inline double device_fmin(double a, double b) { return least(a, b); }

}  // namespace ksim

inline float min(float a, float b) { return ::ksim::least(a, b); }
inline float max(float a, float b) { return ::ksim::greatest(a, b); }
inline double min(double a, double b) { return ::ksim::least(a, b); }
inline double max(double a, double b) { return ::ksim::greatest(a, b); }

#define fmaxf(a, b) ::ksim::greatest<float>(a, b)
#define fminf(a, b) ::ksim::least<float>(a, b)
#define fmax(a, b) ::ksim::device_fmax(a, b)
#define fmin(a, b) ::ksim::device_fmin(a, b)

#include "ksim_ptx.h"
