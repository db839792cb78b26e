// What the filter kernels, forward and backward, have in common: what a launch is told, how the work is cut, and the pipeline
// of tiles through shared memory, which some warps fill and the others compute from.
//
// A tile is rows × packets of one chunk. Packets are 16 bytes of memory at multiples of 16, whatever the row begins at: a
// chunk's first column is `lead` elements into its first packet, and `lead` may differ from row to row. A row lies in shared
// memory as it lies within 16 bytes of global memory, so whole packets are copied at once and the ends word by word.
#pragma once

#include "kasmina_element.cuh"
#include "kasmina_finalize.cuh"
#include "kasmina_stencil.cuh"
#include "seed_job.cuh"

namespace kasmina::stencil {

constexpr uint32_t kConsumers = 256;
constexpr uint32_t kConsumerWarps = kConsumers / 32;
// Two warps start some 12 bytes of copies a cycle, more than a multiprocessor's share of the memory.
constexpr uint32_t kProducers = 64;
constexpr uint32_t kThreads = kConsumers + kProducers;
constexpr uint32_t kMostStages = 3;
constexpr uint32_t kPacketBytes = 16;

struct StencilParams {
    const void* x;
    const void* g;         // dL/dy; null forward, and where only reconstructions are served
    void* out;             // y, which may be x; or dL/dx
    uint64_t x_pitch;      // bytes from row to row
    uint64_t g_pitch;
    uint64_t out_pitch;
    const SeedJob* jobs;
    const uint32_t* list;  // [count], which jobs
    const Bounds* bounds;
    unsigned long long* saturated;
    double* partials;      // [count][parts][kTaps + 1], backward
    uint32_t* arrivals;    // [count], 0 between launches, backward
    uint32_t rows;
    uint32_t count;
    uint32_t parts;         // a job's units are dealt out to so many blocks, or rounds of a block
    uint32_t units;         // of a job; in place a unit is whole rows, so that only its own block overwrites its halos
    uint32_t unit_tiles;    // neighbouring tiles of a row
    uint32_t column_tiles;  // tiles in a row of a chunk
    uint32_t tile_packets;  // at most kConsumers
    uint32_t row_lanes;     // threads that share a packet's column, each with rows of its own
    uint32_t halo;          // packets beyond a tile that the taps reach; 0 where a tile is a whole row
    uint32_t stages;        // tiles in shared memory at once, at most kMostStages
};
static_assert(sizeof(StencilParams) == 136, "as in Rust");

// ------------------------------------------------------------------------------------------------------------- barriers

// mbarriers as cc 8.0 has them.
__device__ __forceinline__ uint32_t shared_address(const void* pointer)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void init(uint64_t* barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void arrive(uint64_t* barrier)
{
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(shared_address(barrier)) : "memory");
}

// An arrival when this thread's asynchronous copies so far are done. Plain stores need an ordinary one beside it.
__device__ __forceinline__ void arrive_copied(uint64_t* barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
}

__device__ __forceinline__ void wait(uint64_t* barrier, uint32_t parity)
{
    uint32_t done;
    do {
#if __CUDA_ARCH__ >= 900
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
#else
        asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
#endif
    } while (done == 0);
}

// All consumers, and nobody else.
__device__ __forceinline__ void sync_consumers() { asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory"); }

// The stage that is next, and the parity of its round.
struct Turn {
    uint32_t stage = 0;
    uint32_t parity = 0;

    __device__ __forceinline__ void next(const StencilParams& p)
    {
        if (++stage == p.stages) stage = 0, parity ^= 1;
    }
};

struct Pipeline {
    uint64_t full[kMostStages];
    uint64_t empty[kMostStages];

    // All threads of the block.
    __device__ __forceinline__ void begin()
    {
        if (threadIdx.x == 0) {
            for (uint32_t s = 0; s < kMostStages; ++s) {
                init(full + s, 2 * kProducers);
                init(empty + s, kConsumerWarps);
            }
        }
        __syncthreads();
    }

    // A producer, when its part of the stage is on its way.
    __device__ __forceinline__ void filled(const Turn& turn)
    {
        arrive_copied(full + turn.stage);
        arrive(full + turn.stage);
    }

    // A consumer warp, when it has read all that it wants of the stage.
    __device__ __forceinline__ void release(const Turn& turn)
    {
        __syncwarp();
        if (threadIdx.x % 32 == 0) arrive(empty + turn.stage);
    }
};

// ----------------------------------------------------------------------------------------------------------- how work is cut

// One tile of a job's chunk, as producers and consumers see it.
template <class T>
struct Tile {
    static constexpr uint32_t kLanes = Packet<T>::kLanes;

    uint32_t first_row;
    uint32_t rows;
    uint32_t first_packet;
    uint32_t first_column;
    uint32_t columns;  // of the chunk
    uint32_t address;  // where x has the tile's first row, the low bits
    uint32_t pitch;    // of x, the low bits

    // Elements by which a row of the chunk begins behind a multiple of 16 bytes.
    __device__ __forceinline__ uint32_t lead(uint32_t row) const
    {
        return (address + row * pitch) % kPacketBytes / sizeof(T);
    }

    // The chunk's column at which a packet begins; negative for a first one that is not whole.
    __device__ __forceinline__ int32_t column(uint32_t row, uint32_t packet) const
    {
        return static_cast<int32_t>(packet * kLanes) - static_cast<int32_t>(lead(row));
    }

    // The first packet of x in shared memory.
    __device__ __forceinline__ uint32_t staged_from(uint32_t halo) const
    {
        return first_packet > halo ? first_packet - halo : 0;
    }
};

// Where a matrix has the chunk's first column in the tile's first row.
template <class T, class Byte>
__device__ __forceinline__ Byte* place(Byte* matrix, uint64_t pitch, const Tile<T>& tile)
{
    return matrix + tile.first_row * pitch + tile.first_column * uint64_t(sizeof(T));
}

// Every tile of this block, in the same order for producers and consumers: `begin(job)`, `each(tile)` …, `end(job, slot, part)`
// for each of its shares of a job. Blocks that share a job take its units in turn, so that at any time they read
// neighbouring rows. kReversed: the tiles of a row from right to left, which in place leaves every left halo as it was.
template <class T, uint32_t kThreadRows, bool kReversed, class Begin, class Each, class End>
__device__ __forceinline__ void for_each_tile(const StencilParams& p, Begin begin, Each each, End end)
{
    const uint32_t tile_rows = p.row_lanes * kThreadRows;
    for (uint32_t item = blockIdx.x; item < p.count * p.parts; item += gridDim.x) {
        const uint32_t slot = item / p.parts, part = item % p.parts;
        const SeedJob& job = p.jobs[p.list[slot]];
        const uint32_t first_column = job.first_column, columns = job.columns;
        begin(job);
        for (uint32_t unit = part; unit < p.units; unit += p.parts) {
#pragma unroll 1
            for (uint32_t i = 0; i < p.unit_tiles; ++i) {
                const uint32_t index = unit * p.unit_tiles + i;
                const uint32_t row_tile = index / p.column_tiles, from_left = index % p.column_tiles;
                Tile<T> tile;
                tile.first_row = row_tile * tile_rows;
                tile.rows = min(tile_rows, p.rows - tile.first_row);
                tile.first_packet = (kReversed ? p.column_tiles - 1 - from_left : from_left) * p.tile_packets;
                tile.first_column = first_column;
                tile.columns = columns;
                tile.pitch = static_cast<uint32_t>(p.x_pitch);
                tile.address = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(p.x)) + tile.first_row * tile.pitch
                    + first_column * uint32_t(sizeof(T));
                each(tile);
            }
        }
        end(job, slot, part);
    }
}

// Numbers that are thread, thread + by, … as (row, packet) of rows of `width` packets, with one division.
struct Places {
    uint32_t row, packet;

    __device__ __forceinline__ Places(uint32_t thread, uint32_t by, uint32_t width)
        : row(thread / width), packet(thread % width), rows_(by / width), packets_(by % width), width_(width)
    {
    }

    __device__ __forceinline__ void next()
    {
        row += rows_;
        packet += packets_;
        if (packet >= width_) packet -= width_, row += 1;
    }

private:
    uint32_t rows_, packets_, width_;
};

// ------------------------------------------------------------------------------------------------------------------- copies

// Starts a copy of the bytes [begin, end) of a packet: at once where that is all, else word by word. A half of a word comes by
// an ordinary load and store.
template <class T>
__device__ __forceinline__ void copy_packet(uint8_t* to, const uint8_t* from, uint32_t begin, uint32_t end)
{
    const uint32_t shared = shared_address(to);
    if (begin == 0 && end == kPacketBytes) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(from) : "memory");
        return;
    }
#pragma unroll
    for (uint32_t at = 0; at < kPacketBytes; at += 4) {
        if (begin <= at && at + 4 <= end) {
            asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared + at), "l"(from + at) : "memory");
        } else if constexpr (sizeof(T) == 2) {
#pragma unroll
            for (uint32_t half = at; half < at + 4; half += 2) {
                if (begin <= half && half + 2 <= end) {
                    *reinterpret_cast<uint16_t*>(to + half) = *reinterpret_cast<const uint16_t*>(from + half);
                }
            }
        }
    }
}

// Starts the copies of a tile's rows of a matrix: those columns of the chunk that the packets [from, to) of x have. `base` is
// the chunk's first column in the tile's first row; a row takes `width` packets of shared memory. One of kProducers threads.
template <class T>
__device__ __forceinline__ void copy_rows(const Tile<T>& tile, uint8_t* stage, uint32_t width, const uint8_t* base,
                                          uint64_t pitch, uint32_t from, uint32_t to, uint32_t producer)
{
    for (Places at(producer, kProducers, width); at.row < tile.rows; at.next()) {
        const int32_t low = max(tile.column(at.row, from), 0);
        const int32_t high = min(tile.column(at.row, to), static_cast<int32_t>(tile.columns));
        const uint8_t* first = base + at.row * pitch + low * int64_t(sizeof(T));
        const int32_t skipped = static_cast<int32_t>(reinterpret_cast<uintptr_t>(first) % kPacketBytes);
        const int32_t offset = static_cast<int32_t>(at.packet * kPacketBytes) - skipped;
        const int32_t left = (high - low) * static_cast<int32_t>(sizeof(T)) - offset;
        if (high > low && left > 0) {
            copy_packet<T>(stage + (at.row * width + at.packet) * kPacketBytes, first + offset, offset < 0 ? -offset : 0,
                           min(left, static_cast<int32_t>(kPacketBytes)));
        }
    }
}

// ------------------------------------------------------------------------------------------------------------- what consumers do

// A job's taps; what is behind them is never used.
template <uint32_t kTaps>
__device__ __forceinline__ void read_taps(const SeedJob& job, float (&taps)[kTaps])
{
#pragma unroll
    for (uint32_t j = 0; j < kTaps; ++j) taps[j] = j < job.width ? job.taps[j] : 0.0f;
}

// The guarded columns from kReach before a packet to its end, from a staged row whose first packet is `from`. Packets that the
// job's taps do not reach, or that the row does not have, are not read.
template <class T, uint32_t kTaps, bool kGuarded>
__device__ __forceinline__ void window_before(const Guards<kGuarded>& guards, const Packet<T>* row, uint32_t from,
                                              uint32_t packet, uint32_t count,
                                              float (&window)[kReach<Packet<T>::kLanes, kTaps> + Packet<T>::kLanes])
{
    constexpr uint32_t kLanes = Packet<T>::kLanes, kBack = kReach<kLanes, kTaps> / kLanes;
#pragma unroll
    for (uint32_t back = 0; back <= kBack; ++back) {
        float value[kLanes] = {};
        if (from + back <= packet && (back == 0 || (back - 1) * kLanes + 1 < count)) row[packet - back - from].get(value);
#pragma unroll
        for (uint32_t e = 0; e < kLanes; ++e) window[(kBack - back) * kLanes + e] = guards.sanitize(value[e]);
    }
}

// Stores those of a run's columns that are in the chunk: `to` is the run's first. Counts what does not fit.
template <class T>
__device__ __forceinline__ void store_run(uint8_t* to, int32_t first, uint32_t columns, const float (&value)[Packet<T>::kLanes],
                                          uint32_t& saturated)
{
    constexpr uint32_t kLanes = Packet<T>::kLanes;
    const bool whole = first >= 0 && first + int32_t(kLanes) <= int32_t(columns);
    if (whole && reinterpret_cast<uintptr_t>(to) % kPacketBytes == 0) {
        Packet<T> packet;
        packet.put(value, saturated);
        __stcs(reinterpret_cast<uint4*>(to),
               make_uint4(packet.words[0], packet.words[1], packet.words[2], packet.words[3]));
        return;
    }
#pragma unroll
    for (uint32_t e = 0; e < kLanes; ++e) {
        if (first + int32_t(e) >= 0 && first + int32_t(e) < int32_t(columns)) {
            narrow(value[e], reinterpret_cast<T*>(to)[e], saturated);
        }
    }
}

// All consumers, at the end: an integer sum does not depend on the order.
template <class T>
__device__ __forceinline__ void count_saturated(const StencilParams& p, uint32_t saturated)
{
    if constexpr (sizeof(T) == 2) {
        const uint32_t sum = __reduce_add_sync(0xffffffffu, saturated);
        if (sum != 0 && threadIdx.x % 32 == 0) atomicAdd(p.saturated, static_cast<unsigned long long>(sum));
    }
}

}  // namespace kasmina::stencil
