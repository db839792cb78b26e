// Storage types and their conversion to and from f32, on raw bits, and the 16-byte packets in which they travel.
//
// Source: `Element` in src/element.rs and the `half` crate. Rounding is to nearest even; a finite value that overflows
// becomes the largest finite value and is counted; infinities stay. The host gives the Rust's bits for all inputs. The device
// converts by the hardware and differs in NaN alone: any NaN narrows to 0x7fff (Rust keeps sign and upper payload), and a
// signalling bf16 NaN widens as it is. Chunks that are copied must stay packets: their bits are never converted.
#pragma once

#include "kasmina_base.cuh"

namespace kasmina {

struct f16 {
    uint16_t bits;
};

struct bf16 {
    uint16_t bits;
};

// IEEE half to single, exactly.
KASMINA_HD float widen(f16 h)
{
#if defined(__CUDA_ARCH__)
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h.bits));
    return x;
#else
    const uint32_t sign = (h.bits & 0x8000u) << 16;
    const uint32_t magnitude = h.bits & 0x7fffu;
    if (magnitude > 0x7c00u) return float_of(sign | 0x7fc00000u | (magnitude << 13));
    if (magnitude == 0x7c00u) return float_of(sign | 0x7f800000u);
    // A subnormal is a multiple of 2^-24; anything else only changes the bias of its exponent.
    if (magnitude < 0x0400u) return float_of(sign | bits_of(static_cast<float>(magnitude) * 0x1p-24f));
    return float_of(sign | ((magnitude << 13) + ((127u - 15u) << 23)));
#endif
}

KASMINA_HD float widen(bf16 b)
{
    const uint32_t wide = static_cast<uint32_t>(b.bits) << 16;
#if defined(__CUDA_ARCH__)
    return float_of(wide);
#else
    return float_of((wide & 0x7fffffffu) > 0x7f800000u ? wide | 0x00400000u : wide);
#endif
}

KASMINA_HD float widen(float x)
{
    return x;
}

// Rounded to nearest even; overflows to infinity, as IEEE 754 has it.
KASMINA_HD void round_to(float x, f16& h)
{
#if defined(__CUDA_ARCH__)
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(x));
#else
    const uint32_t bits = bits_of(x);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t rounded;
    if (magnitude > 0x7f800000u) {
        rounded = 0x7e00u | ((magnitude >> 13) & 0x03ffu);
    } else if (magnitude >= 0x477ff000u) {
        rounded = 0x7c00u; // 65520 and more
    } else if (magnitude < 0x38800000u) {
        // Below 2^-14: adding 0.5 leaves the multiple of 2^-24, rounded to even, in the low bits of the sum.
        rounded = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
    } else {
        const uint32_t rebiased = magnitude - ((127u - 15u) << 23);
        rounded = (rebiased + 0x0fffu + ((rebiased >> 13) & 1u)) >> 13;
    }
    h.bits = static_cast<uint16_t>(sign | rounded);
#endif
}

KASMINA_HD void round_to(float x, bf16& b)
{
#if defined(__CUDA_ARCH__)
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(b.bits) : "f"(x));
#else
    const uint32_t bits = bits_of(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        b.bits = static_cast<uint16_t>((bits >> 16) | 0x0040u);
    } else {
        b.bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
#endif
}

// What the code below needs to know of a storage type.
template <class T>
struct Storage;

template <>
struct Storage<f16> {
    static constexpr uint32_t kLanes = 8;
    static constexpr uint16_t kInfinityBits = 0x7c00;
    static constexpr float kGreatest = 65504.0f;
};

template <>
struct Storage<bf16> {
    static constexpr uint32_t kLanes = 8;
    static constexpr uint16_t kInfinityBits = 0x7f80;
    static constexpr float kGreatest = 0x1.fep127f;
};

template <>
struct Storage<float> {
    static constexpr uint32_t kLanes = 4;
    static constexpr float kGreatest = 0x1.fffffep127f;
};

// One value; a finite one that overflows becomes the largest finite value and is added to `saturated`.
template <class T>
KASMINA_HD void narrow(float x, T& out, uint32_t& saturated)
{
    round_to(x, out);
    if ((out.bits & 0x7fffu) == Storage<T>::kInfinityBits && is_finite(x)) {
        out.bits -= 1;
        saturated += 1;
    }
}

KASMINA_HD void narrow(float x, float& out, uint32_t&)
{
    out = x;
}

// Two values as they lie in a word of a packet, the first in the low half; overflows to infinity.
template <class T>
KASMINA_HD uint32_t round_pair(float first, float second)
{
#if defined(__CUDA_ARCH__)
    uint32_t word;
    if constexpr (Storage<T>::kInfinityBits == Storage<f16>::kInfinityBits) {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    } else {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    }
    return word;
#else
    T low, high;
    round_to(first, low);
    round_to(second, high);
    return low.bits | static_cast<uint32_t>(high.bits) << 16;
#endif
}

// Whether any half of any word is an infinity (or, on the host alone, a NaN: who asks looks again).
template <class T, uint32_t N>
KASMINA_HD bool any_infinite(const uint32_t (&words)[N])
{
#if defined(__CUDA_ARCH__)
    // Half an instruction a value: the greatest magnitudes of all low and of all high halves.
    uint32_t greatest = words[0] & 0x7fff7fffu;
    KASMINA_UNROLL
    for (uint32_t i = 1; i < N; ++i) {
        if constexpr (Storage<T>::kInfinityBits == Storage<f16>::kInfinityBits) {
            asm("{ .reg .b32 a; abs.f16x2 a, %1; max.f16x2 %0, %0, a; }" : "+r"(greatest) : "r"(words[i]));
        } else {
            asm("{ .reg .b32 a; abs.bf16x2 a, %1; max.bf16x2 %0, %0, a; }" : "+r"(greatest) : "r"(words[i]));
        }
    }
    return (greatest & 0xffffu) == Storage<T>::kInfinityBits || greatest >> 16 == Storage<T>::kInfinityBits;
#else
    bool found = false;
    for (uint32_t i = 0; i < N; ++i) {
        found = found || (words[i] & 0x7fffu) >= Storage<T>::kInfinityBits
            || (words[i] >> 16 & 0x7fffu) >= Storage<T>::kInfinityBits;
    }
    return found;
#endif
}

// 16 bytes of a row: as they are in memory until they are asked for as numbers.
template <class T>
struct alignas(16) Packet {
    static constexpr uint32_t kLanes = Storage<T>::kLanes;

    uint32_t words[4];

    // Every lane as f32, exactly.
    KASMINA_HD void get(float (&x)[kLanes]) const
    {
        KASMINA_UNROLL
        for (uint32_t i = 0; i < 4; ++i) {
            if constexpr (kLanes == 4) {
                x[i] = float_of(words[i]);
            } else {
                x[2 * i] = widen(T{static_cast<uint16_t>(words[i])});
                x[2 * i + 1] = widen(T{static_cast<uint16_t>(words[i] >> 16)});
            }
        }
    }

    // Every lane from f32; what saturates is added to `saturated`.
    KASMINA_HD void put(const float (&x)[kLanes], uint32_t& saturated)
    {
        put_within(x);
        if constexpr (kLanes == 8) {
            if (any_infinite<T>(words)) saturate(x, saturated);
        }
    }

    // Every lane from f32 of at most Storage<T>::kGreatest in magnitude, or NaN.
    KASMINA_HD void put_within(const float (&x)[kLanes])
    {
        KASMINA_UNROLL
        for (uint32_t i = 0; i < 4; ++i) {
            if constexpr (kLanes == 4) {
                words[i] = bits_of(x[i]);
            } else {
                words[i] = round_pair<T>(x[2 * i], x[2 * i + 1]);
            }
        }
    }

    // The bits of one lane; `lane` should be known when compiling.
    KASMINA_HD uint32_t raw(uint32_t lane) const
    {
        if constexpr (kLanes == 4) {
            return words[lane];
        } else {
            return words[lane / 2] >> (lane % 2 * 16) & 0xffffu;
        }
    }

    // Takes one lane of another packet over, bit for bit: dormant columns beside computed ones.
    KASMINA_HD void take(uint32_t lane, const Packet& from)
    {
        if constexpr (kLanes == 4) {
            words[lane] = from.words[lane];
        } else {
            const uint32_t mask = lane % 2 == 0 ? 0x0000ffffu : 0xffff0000u;
            words[lane / 2] = (words[lane / 2] & ~mask) | (from.words[lane / 2] & mask);
        }
    }

private:
    // Overflow is rare: the packet is converted once more, value by value.
    KASMINA_HD void saturate(const float (&x)[kLanes], uint32_t& saturated)
    {
        KASMINA_UNROLL
        for (uint32_t i = 0; i < 4; ++i) {
            T low, high;
            narrow(x[2 * i], low, saturated);
            narrow(x[2 * i + 1], high, saturated);
            words[i] = low.bits | static_cast<uint32_t>(high.bits) << 16;
        }
    }
};
static_assert(sizeof(Packet<float>) == 16 && sizeof(Packet<f16>) == 16 && sizeof(Packet<bf16>) == 16, "one vector access");

} // namespace kasmina
