// What an image and the machine agree on. src/machine/abi.rs has the same structs; kVersion is raised with every change.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ksim {

constexpr uint32_t kVersion = 1;

struct Index {
    uint32_t x, y, z;
};

// A block as its threads see it.
struct Block {
    Index index;
    Index dim;
    Index grid;
    uint32_t cluster_rank;
    uint32_t cluster_size;
    uint32_t dynamic_bytes;
    uint8_t* shared;        // where the shared window of this block begins; a shared address is an offset into it
    uint8_t* dynamic;       // where its dynamic part begins
    const uint32_t* slots;  // the offset of each of the image's shared variables, 0 where the kernel has no such
};

// A thread as it sees itself; what the machine knows of it follows.
struct Thread {
    Index index;
    uint32_t lane;
    Block* block;
};

// Stacks lie at multiples of their size, and a word below the end of each says whose it is: of every stack at another distance, since
// they would all want the same lines of the cache.
constexpr uint32_t kStackBits = 17;

inline Thread& self()
{
    uintptr_t at;
    __asm__("mov %%rsp, %0" : "=r"(at));
    const uintptr_t number = (at >> kStackBits) + 1;
    return **reinterpret_cast<Thread**>((number << kStackBits) - 64 - (number & 255) * 64);
}

// All lanes of a warp operation have come: works on their operands together.
using Complete = void (*)(void* const* operands, uint32_t mask);

enum class Spin : uint32_t { Load, System, Sleep, Clock, Atomic };
enum class Combine : uint32_t { And, Or, Count };
enum class Reduction : int32_t { None = -1, Add, Min, Max, Inc, Dec, And, Or, Xor };
enum class Number : uint32_t { U32, S32, U64, F32, F64 };
enum class Fence : uint32_t { Async, AsyncShared, AsyncGlobal, MapRelease, MapAcquire, BarrierInit };
enum class Field : uint32_t { Address, Rank, Size, Stride, Box, Step, Type, Interleave, Swizzle, Fill };

// What the machine does for a thread.
struct Calls {
    void (*barrier)(uint32_t id, uint32_t threads);
    void (*barrier_arrive)(uint32_t id, uint32_t threads);
    uint32_t (*barrier_reduce)(uint32_t id, uint32_t threads, Combine how, uint32_t own);
    void (*warp)(uint32_t mask, void* operand, Complete complete);
    void (*grid_sync)();
    void (*spin)(Spin why);
    uint64_t (*clock)();
    void (*trap)();
    void (*undefined)(const char* what);
    void (*misaligned)(uint64_t address, uint64_t alignment);
    uint32_t (*shared_address)(const void* pointer);

    void (*mbarrier_init)(uint32_t barrier, uint32_t arrivals);
    void (*mbarrier_invalidate)(uint32_t barrier);
    void (*mbarrier_arrive)(uint32_t barrier, uint32_t bytes);
    void (*mbarrier_expect)(uint32_t barrier, uint32_t bytes);
    uint32_t (*mbarrier_test)(uint32_t barrier, uint32_t parity);

    void (*copy)(uint32_t to, uint64_t from, uint32_t bytes, uint32_t filled);
    void (*copy_commit)();
    void (*copy_wait)(uint32_t pending);
    void (*copy_wait_all)();
    void (*copy_arrive)(uint32_t barrier, uint32_t counted);

    void (*bulk_load)(uint32_t to, uint64_t from, uint32_t bytes, uint32_t barrier, uint32_t blocks);
    void (*bulk_store)(uint64_t to, uint32_t from, uint32_t bytes, Reduction how, Number number);
    void (*bulk_prefetch)(uint64_t from, uint32_t bytes);
    void (*bulk_commit)();
    void (*bulk_wait)(uint32_t pending, uint32_t read);
    void (*tensor_load)(
        uint32_t to, uint64_t map, const int32_t* at, uint32_t rank, const uint16_t* pixel, uint32_t barrier, uint32_t blocks);
    void (*tensor_store)(uint64_t map, const int32_t* at, uint32_t rank, uint32_t from, Reduction how);
    void (*tensor_prefetch)(uint64_t map, const int32_t* at, uint32_t rank);
    void (*map_replace)(uint64_t map, Field field, uint32_t index, uint64_t value);
    void (*map_copy)(uint64_t to, uint32_t from);
    void (*fence)(Fence fence, uint64_t address);

    // Of images that report their accesses.
    void (*access)(uint64_t address, uint32_t bytes, uint32_t kind, uint64_t from);
    void (*atomic)(uint64_t address, uint32_t bytes, uint32_t kind, uint32_t order, uint64_t from);
    void (*thread_fence)(uint32_t order);
};

// A kernel of the image.
struct Entry {
    const char* name;
    void (*call)(void* const* parameters);
    const uint32_t* sizes;
    const uint32_t* alignments;
    uint32_t parameters;
    uint32_t max_threads;
    uint32_t min_blocks;
    uint32_t registers;
    const Entry* next;
};

// A shared variable of the source, or several that a function declares together. Every kernel has a place of its own for it.
struct Slot {
    uint32_t index;
    uint32_t bytes;
    uint32_t alignment;
    uint32_t reserved;
    Slot(uint32_t bytes, uint32_t alignment);
};

struct Image {
    uint32_t version;
    uint32_t slots;
    const Entry* entries;
    uint32_t reports;  // whether its kernels report every access
};

extern const Calls* calls __attribute__((visibility("hidden")));

}  // namespace ksim
