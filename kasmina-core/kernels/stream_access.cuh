// Packets to and from global memory: whole ones in one access, the last of a ragged row element by element.
#pragma once

#include "kasmina_element.cuh"
#include "stream_geometry.cuh"

namespace kasmina::stream {

// Blocks of rows that the cp.async kernels keep in shared memory.
constexpr uint32_t kAsyncStages = 3;

// A lane whose number is not known when compiling.
template <class T>
__device__ __forceinline__ float lane_of(const Packet<T>& packet, uint32_t lane)
{
    const uint32_t word_of = lane * sizeof(T) / 4;
    const uint32_t word = word_of == 0 ? packet.words[0]
        : word_of == 1                 ? packet.words[1]
        : word_of == 2                 ? packet.words[2]
                                       : packet.words[3];
    if constexpr (sizeof(T) == 4) {
        return float_of(word);
    } else {
        return widen(T{static_cast<uint16_t>(lane % 2 == 0 ? word : word >> 16)});
    }
}

// kAligned: rows begin at multiples of 16 bytes.
template <class T, bool kAligned>
class Access {
public:
    // For a packet of which `columns` are in the matrix: nothing past them is touched.
    __device__ __forceinline__ explicit Access(uint32_t columns) : columns_(columns) {}

    // Data that is read once: it should not push others out of the first-level cache.
    __device__ __forceinline__ Packet<T> load(const uint8_t* from) const
    {
        Packet<T> packet;
        if (kAligned && columns_ == kLanes) {
            const uint4 words = __ldcs(reinterpret_cast<const uint4*>(from));
            packet.words[0] = words.x;
            packet.words[1] = words.y;
            packet.words[2] = words.z;
            packet.words[3] = words.w;
            return packet;
        }
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            packet.words[i] = 0;
        }
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            if (j < columns_) {
                const uint32_t bits = __ldcs(reinterpret_cast<const Bits*>(from) + j);
                packet.words[j * sizeof(T) / 4] |= bits << (j * sizeof(T) % 4 * 8);
            }
        }
        return packet;
    }

    __device__ __forceinline__ void store(uint8_t* to, const Packet<T>& packet) const
    {
        if (kAligned && columns_ == kLanes) {
            __stcs(reinterpret_cast<uint4*>(to),
                   make_uint4(packet.words[0], packet.words[1], packet.words[2], packet.words[3]));
            return;
        }
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            if (j < columns_) {
                __stcs(reinterpret_cast<Bits*>(to) + j, static_cast<Bits>(packet.raw(j)));
            }
        }
    }

    // Starts an asynchronous copy to shared memory; a ragged packet comes at once.
    __device__ __forceinline__ void copy(Packet<T>* to, const uint8_t* from) const
    {
        if (columns_ == kLanes) {
            const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(from) : "memory");
        } else {
            *to = load(from);
        }
    }

private:
    static constexpr uint32_t kLanes = Packet<T>::kLanes;
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>;

    uint32_t columns_;
};

}  // namespace kasmina::stream
