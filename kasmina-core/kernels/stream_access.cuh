// Packets to and from global memory: whole ones in one access, the last of a ragged row element by element.
#pragma once

#include "kasmina_element.cuh"
#include "stream_geometry.cuh"
#include "stream_reduce.cuh"

namespace kasmina::stream {

// Blocks of rows that the cp.async kernels keep in shared memory.
constexpr uint32_t kAsyncStages = 3;

// Loads of what no kernel writes while one reads it. A resident grid outlives the kernels that write: there it is an ordinary load, which
// sees what was written before the step that reads it.
#if defined(KASMINA_RESIDENT)
#define KASMINA_LOAD_SETTLED "ld.global"
#else
#define KASMINA_LOAD_SETTLED "ld.global.nc"
#endif

template <class Number>
__device__ __forceinline__ Number load_settled(const Number* from)
{
#if defined(KASMINA_RESIDENT)
    return *from;
#else
    return __ldg(from);
#endif
}

// The flags and the programs of a packet's columns, of which `columns` are in the matrix: the others have no flags and any program.
template <uint32_t kLanes>
struct PacketPlan {
    static constexpr uint32_t kBytesOfColumn = 22;

    uint32_t flags[kLanes];
    ColumnProgram programs[kLanes];

    static __device__ __forceinline__ PacketPlan nothing()
    {
        PacketPlan plan;
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            plan.flags[j] = 0;
            plan.programs[j] = ColumnProgram::identity();
        }
        return plan;
    }

    // From global memory, of a matrix of `all` columns. Without a branch, so that all loads are under way together.
    static __device__ __forceinline__ PacketPlan load(const uint8_t* flags, const ColumnProgram* programs, uint32_t first,
                                                      uint32_t columns, uint32_t all)
    {
        PacketPlan plan;
        float4 words[kLanes];
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            const uint32_t column = min(first + j, all - 1);
            plan.flags[j] = load_settled(flags + column);
            words[j] = load_settled(reinterpret_cast<const float4*>(programs + column));
        }
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            plan.flags[j] = j < columns ? plan.flags[j] : 0;
            plan.programs[j] = program_of(words[j]);
        }
        return plan;
    }

    // The same through shared memory: neighbouring threads load neighbouring columns of the tile, which for eight columns a thread
    // is a quarter of the accesses. Called by the first kWorkers threads; `shared` has room for kBytesOfColumn of each column of a
    // whole tile and is free again afterwards.
    static __device__ __forceinline__ PacketPlan load_together(const uint8_t* flags, const ColumnProgram* programs, const TileSpan& span,
                                                               uint32_t in_tile, uint32_t columns, void* shared)
    {
        // A place more after each packet: else all threads would read the same banks.
        auto* places = static_cast<float4*>(shared);
        auto* bytes = reinterpret_cast<uint8_t*>(places + span.columns + span.columns / kLanes + 1);
        for (uint32_t i = threadIdx.x; i < span.columns; i += kWorkers) {
            places[i + i / kLanes] = load_settled(reinterpret_cast<const float4*>(programs + span.first + i));
            bytes[i] = load_settled(flags + span.first + i);
        }
        named_barrier<kWorkersBarrier, kWorkers>();
        PacketPlan plan;
#pragma unroll
        for (uint32_t j = 0; j < kLanes; ++j) {
            const uint32_t column = min(in_tile + j, span.columns - 1);
            plan.flags[j] = j < columns ? bytes[column] : 0;
            plan.programs[j] = program_of(places[column + column / kLanes]);
        }
        named_barrier<kWorkersBarrier, kWorkers>();
        return plan;
    }

private:
    static __device__ __forceinline__ ColumnProgram program_of(const float4& words) { return {words.x, words.y, words.z, words.w}; }
};

__device__ __forceinline__ Bounds load_bounds(const Bounds* from)
{
    const uint4 words = load_settled(reinterpret_cast<const uint4*>(from));
    return {words.x, __uint_as_float(words.y), __uint_as_float(words.z), __uint_as_float(words.w)};
}

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
