// Thin wrappers over the PTX of NVIDIA's TMA (compute capability 9.0 and later): mbarriers, bulk and bulk-tensor copies,
// the fences between proxies, and the editing of tensor maps on the device. One header, nothing beside <cstdint>.
//
//     extern __shared__ uint8_t shared[];
//     __shared__ kasmina::tma::Barrier full;
//     if (threadIdx.x == 0) { tma::init(full, 1); tma::fence_barrier_init(); }
//     __syncthreads();
//     if (threadIdx.x == 0) {
//         tma::arrive_expect(full, tile_bytes);                   // the whole box, elements outside the tensor too
//         tma::load_tensor(tile, &map, {column, row}, full);      // map: const __grid_constant__ TensorMap
//     }
//     tma::wait(full, 0);                                         // every thread that reads the tile
//
// What costs people days, in one place:
// - Elements outside the tensor are written as fill *and count in the transaction bytes*: expect the whole box.
// - A barrier has one phase bit. Wait with parity 0 first, then 1, 0, …; waiting with the wrong one returns at once.
// - A map that is a `const __grid_constant__` parameter needs no fence. A map in global memory needs `fence_map_acquire` by
//   the thread that uses it, after it has seen (launch order, barrier, flag) that the map was written.
// - Ordinary stores to shared memory become visible to the copy engine by `fence_async_shared` in each storing thread,
//   *before* the barrier that joins them with the thread that starts the copy.
// - `wait_group_read` only says that the shared buffer may be reused. What was stored is in global memory for others once
//   `wait_group` (without read) returns, in the thread that committed the group.
// - A tile with swizzle s lies at a multiple of 8 × s bytes: 1024 for 128, 512 for 64, 256 for 32. Without, of 128.
// - Coordinates are signed elements, innermost first; they may lie outside the tensor. *The innermost one times the bytes of
//   an element must be a multiple of 16*, outside too: else the copy dies as CUDA_ERROR_ILLEGAL_INSTRUCTION (715). No check
//   here sees it: nothing but the map, which cannot be read, knows how long an element is.
// - A store through a map writes the whole 16 bytes in which a row of the tensor ends, with what the tile has there: seen on an
//   H200, an innermost size of 117 bytes wrote 128. What lies in the padding of rows is not safe from it.
// - A store at a negative coordinate, of any dimension, dies with the same error. Past the end is fine; so is a load before.
//
// Macros, before including:
//   KASMINA_TMA_CHECK=1              checks alignments, byte counts and ranges on the device; prints and traps.
//   KASMINA_TMA_WAIT_LIMIT_NS=n      `wait` traps after n nanoseconds; 0 waits for ever. Unset: 10 s, since a copy that
//                                    takes longer has a wrong byte count, and a kernel that hangs tells nobody.
// And set by this header:
//   KASMINA_TMA_AVAILABLE            1 where the code below exists. Device code for 8.x includes the header and has none.
//   KASMINA_TMA_HAS_REPLACE          1 where maps can be edited on the device: architecture- or family-specific code
//                                    (sm_90a, sm_100a, sm_100f, sm_120a, …), not plain sm_100, sm_120 or compute_90.
//   KASMINA_TMA_HAS_MULTICAST        1 where one copy can feed several blocks of a cluster at full speed: the same without 12.x.
#pragma once

#include <cstdint>

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define KASMINA_TMA_AVAILABLE 1
#else
#define KASMINA_TMA_AVAILABLE 0
#endif

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FAMILY_SPECIFIC__) || defined(__CUDA_ARCH_SPECIFIC__) \
    || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define KASMINA_TMA_HAS_REPLACE KASMINA_TMA_AVAILABLE
#else
#define KASMINA_TMA_HAS_REPLACE 0
#endif

// Elsewhere the assembler warns of much slower copies.
#if KASMINA_TMA_HAS_REPLACE && (!defined(__CUDA_ARCH__) || __CUDA_ARCH__ < 1200)
#define KASMINA_TMA_HAS_MULTICAST 1
#else
#define KASMINA_TMA_HAS_MULTICAST 0
#endif

#ifndef KASMINA_TMA_CHECK
#define KASMINA_TMA_CHECK 0
#endif

#ifndef KASMINA_TMA_WAIT_LIMIT_NS
#define KASMINA_TMA_WAIT_LIMIT_NS 10000000000ull
#endif

#if KASMINA_TMA_CHECK
#include <cstdio>
#define KASMINA_TMA_ASSERT(holds, what)                                                                            \
    do {                                                                                                           \
        if (!(holds)) {                                                                                            \
            printf("kasmina_tma.cuh:%d: %s (block %u, thread %u)\n", __LINE__, what, blockIdx.x, threadIdx.x);     \
            __trap();                                                                                              \
        }                                                                                                          \
    } while (0)
#else
#define KASMINA_TMA_ASSERT(holds, what) ((void)0)
#endif

namespace kasmina::tma {

// A tensor map: what the driver's CUtensorMap is. The functions below take either by address.
struct alignas(128) TensorMap {
    uint64_t opaque[16];
};
static_assert(sizeof(TensorMap) == 128, "the driver writes 128 bytes");

// An mbarrier in shared memory.
struct alignas(8) Barrier {
    uint64_t state;
};

// The most bytes that one phase of a barrier can expect.
constexpr uint32_t kMaxTransactionBytes = (1u << 20) - 1;
constexpr int kMaxRank = 5;

// Where a tile of this swizzle may lie: span is 0 (none), 32, 64 or 128 bytes.
template <uint32_t Span>
constexpr uint32_t kTileAlignment = Span == 0 ? 128 : 8 * Span;

#if defined(__CUDACC__) && KASMINA_TMA_AVAILABLE

#define KASMINA_TMA_FN __device__ __forceinline__

// ------------------------------------------------------------------------------------------------------------ addresses

KASMINA_TMA_FN uint32_t shared_address(const void* pointer)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

KASMINA_TMA_FN uint64_t global_address(const void* pointer)
{
    return static_cast<uint64_t>(__cvta_generic_to_global(pointer));
}

KASMINA_TMA_FN bool is_aligned(const void* pointer, uint32_t bytes)
{
    return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

// Where byte `offset` of a tile lies under a swizzle of `Span` bytes (32, 64 or 128), with the tile at a multiple of
// kTileAlignment<Span>: the 16-byte piece's number within the span, xor the number of the 128-byte line (modulo the pieces).
// Only for rows as wide as the span.
template <uint32_t Span>
KASMINA_TMA_FN constexpr uint32_t swizzled(uint32_t offset)
{
    static_assert(Span == 32 || Span == 64 || Span == 128, "a swizzle spans 32, 64 or 128 bytes");
    return offset ^ ((offset >> 3) & (Span - 16));
}

// ------------------------------------------------------------------------------------------------------------- barriers

// Makes a barrier whose phases end after `arrivals` arrivals and all expected bytes. One thread, once; then
// fence_barrier_init (for the copy engine) and __syncthreads (for the other threads) before anyone uses it.
KASMINA_TMA_FN void init(Barrier& barrier, uint32_t arrivals)
{
    KASMINA_TMA_ASSERT(arrivals >= 1 && arrivals <= kMaxTransactionBytes, "a barrier counts 1 to 2^20 - 1 arrivals");
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(arrivals) : "memory");
}

// Ends a barrier's life, so that its memory can be used for something else. No thread may be waiting, no copy under way.
KASMINA_TMA_FN void invalidate(Barrier& barrier)
{
    asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(&barrier)) : "memory");
}

// One arrival. Orders this thread's earlier memory accesses before the end of the phase.
KASMINA_TMA_FN void arrive(Barrier& barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}

// One arrival, and `bytes` more to come in this phase: the sum over all copies, elements outside the tensor included.
KASMINA_TMA_FN void arrive_expect(Barrier& barrier, uint32_t bytes)
{
    KASMINA_TMA_ASSERT(bytes <= kMaxTransactionBytes, "one phase can expect 2^20 - 1 bytes");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)), "r"(bytes)
                 : "memory");
}

// The same with the limit checked by the compiler.
template <uint32_t Bytes>
KASMINA_TMA_FN void arrive_expect(Barrier& barrier)
{
    static_assert(Bytes <= kMaxTransactionBytes, "one phase can expect 2^20 - 1 bytes: use two barriers");
    arrive_expect(barrier, Bytes);
}

// `bytes` more to come in this phase, without an arrival.
KASMINA_TMA_FN void expect(Barrier& barrier, uint32_t bytes)
{
    KASMINA_TMA_ASSERT(bytes <= kMaxTransactionBytes, "one phase can expect 2^20 - 1 bytes");
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(bytes)
                 : "memory");
}

// Whether the phase of this parity is over. Does not wait.
KASMINA_TMA_FN bool test_wait(Barrier& barrier, uint32_t parity)
{
    uint32_t over;
    asm volatile("{\n"
                 ".reg .pred over;\n"
                 "mbarrier.test_wait.parity.shared::cta.b64 over, [%1], %2;\n"
                 "selp.b32 %0, 1, 0, over;\n"
                 "}"
                 : "=r"(over)
                 : "r"(shared_address(&barrier)), "r"(parity)
                 : "memory");
    return over != 0;
}

// The same, after sleeping for it up to a time that the hardware chooses. May return false at any time: call it in a loop.
KASMINA_TMA_FN bool try_wait(Barrier& barrier, uint32_t parity)
{
    uint32_t over;
    asm volatile("{\n"
                 ".reg .pred over;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
                 "selp.b32 %0, 1, 0, over;\n"
                 "}"
                 : "=r"(over)
                 : "r"(shared_address(&barrier)), "r"(parity)
                 : "memory");
    return over != 0;
}

// The device's wall clock, in steps of up to a microsecond.
KASMINA_TMA_FN uint64_t nanoseconds()
{
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

// Waits until the phase of this parity is over, or `limit` nanoseconds have passed: then false, and the tile may not be read.
KASMINA_TMA_FN bool wait_for(Barrier& barrier, uint32_t parity, uint64_t limit)
{
    if (try_wait(barrier, parity)) {
        return true;
    }
    const uint64_t start = nanoseconds();
    while (!try_wait(barrier, parity)) {
        if (nanoseconds() - start > limit) {
            return false;
        }
    }
    return true;
}

// Waits until the phase of this parity is over; traps after KASMINA_TMA_WAIT_LIMIT_NS. Only threads that waited may read what
// the copy brought.
KASMINA_TMA_FN void wait(Barrier& barrier, uint32_t parity)
{
    if constexpr (KASMINA_TMA_WAIT_LIMIT_NS == 0) {
        while (!try_wait(barrier, parity)) {
        }
    } else if (!wait_for(barrier, parity, KASMINA_TMA_WAIT_LIMIT_NS)) {
        KASMINA_TMA_ASSERT(false, "a barrier's phase did not end: fewer or more bytes came than were expected");
        __trap();
    }
}

// --------------------------------------------------------------------------------------------------------------- fences

enum class Scope { Cta, Cluster, Gpu, System };

// After init, before the barrier is named in a copy or used by another block of the cluster.
KASMINA_TMA_FN void fence_barrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// Between ordinary accesses and copies, of shared memory: in each thread that stored, before the barrier that joins them.
KASMINA_TMA_FN void fence_async_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// The same for global memory: data that this kernel wrote by ordinary stores and then loads by bulk copies.
KASMINA_TMA_FN void fence_async_global() { asm volatile("fence.proxy.async.global;" ::: "memory"); }

// Both.
KASMINA_TMA_FN void fence_async() { asm volatile("fence.proxy.async;" ::: "memory"); }

#define KASMINA_TMA_SCOPED(before, after, ...)                                                                     \
    if constexpr (S == Scope::Cta) {                                                                               \
        asm volatile(before ".cta" after __VA_ARGS__ : "memory");                                                  \
    } else if constexpr (S == Scope::Cluster) {                                                                    \
        asm volatile(before ".cluster" after __VA_ARGS__ : "memory");                                              \
    } else if constexpr (S == Scope::Gpu) {                                                                        \
        asm volatile(before ".gpu" after __VA_ARGS__ : "memory");                                                  \
    } else {                                                                                                       \
        asm volatile(before ".sys" after __VA_ARGS__ : "memory");                                                  \
    }

// After this thread's ordinary stores into a map: whoever then sees a later store of this thread and acquires, has the map.
template <Scope S = Scope::Gpu>
KASMINA_TMA_FN void fence_map_release()
{
    KASMINA_TMA_SCOPED("fence.proxy.tensormap::generic.release", ";", ::)
}

// Before this thread uses a map in global memory that was written since the kernel began, by an earlier launch, or by a copy.
// Orders nothing by itself: that the map was written must be known already.
template <Scope S = Scope::Gpu>
KASMINA_TMA_FN void fence_map_acquire(const void* map)
{
    KASMINA_TMA_ASSERT(is_aligned(map, 64), "a tensor map lies at a multiple of 64 bytes");
    KASMINA_TMA_SCOPED("fence.proxy.tensormap::generic.acquire", " [%0], 128;", ::"l"(map))
}

// Copies a map of this block from shared to global memory and releases it, in one. All 32 lanes of a warp, converged.
template <Scope S = Scope::Gpu>
KASMINA_TMA_FN void copy_map_release(void* global, const void* shared)
{
    KASMINA_TMA_ASSERT(is_aligned(global, 128) && is_aligned(shared, 128), "both maps lie at a multiple of 128 bytes");
    KASMINA_TMA_SCOPED("tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release",
                       ".sync.aligned [%0], [%1], 128;",
                       ::"l"(global_address(global)), "r"(shared_address(shared)))
}

#undef KASMINA_TMA_SCOPED

// -------------------------------------------------------------------------------------------------------------- L2 hints

// How long the second-level cache should keep what a copy touches. Made once, by any thread, and used often.
struct CachePolicy {
    uint64_t bits;
};

// Goes first: data that is read once.
KASMINA_TMA_FN CachePolicy evict_first()
{
    CachePolicy policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy.bits));
    return policy;
}

// Goes last: data that every block reads.
KASMINA_TMA_FN CachePolicy evict_last()
{
    CachePolicy policy;
    asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy.bits));
    return policy;
}

// ----------------------------------------------------------------------------------------------------- 1-D bulk copies

#define KASMINA_TMA_CHECK_BULK(global, shared, bytes)                                                              \
    KASMINA_TMA_ASSERT(is_aligned(global, 16), "a bulk copy's global address is a multiple of 16");                \
    KASMINA_TMA_ASSERT(is_aligned(shared, 16), "a bulk copy's shared address is a multiple of 16");                \
    KASMINA_TMA_ASSERT((bytes) % 16 == 0, "a bulk copy moves multiples of 16 bytes")

// Starts a copy of `bytes` from global to this block's shared memory; they count on `barrier`. One thread.
KASMINA_TMA_FN void load_bulk(void* shared, const void* global, uint32_t bytes, Barrier& barrier)
{
    KASMINA_TMA_CHECK_BULK(global, shared, bytes);
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(shared)),
                 "l"(global_address(global)), "r"(bytes), "r"(shared_address(&barrier))
                 : "memory");
}

KASMINA_TMA_FN void load_bulk(void* shared, const void* global, uint32_t bytes, Barrier& barrier, CachePolicy policy)
{
    KASMINA_TMA_CHECK_BULK(global, shared, bytes);
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(
                     shared_address(shared)),
                 "l"(global_address(global)), "r"(bytes), "r"(shared_address(&barrier)), "l"(policy.bits)
                 : "memory");
}

#if KASMINA_TMA_HAS_MULTICAST
// The same into the shared memory of every block of the cluster whose bit is set, at the same offset, each counting on its
// own barrier at the same offset.
KASMINA_TMA_FN void load_bulk_multicast(void* shared, const void* global, uint32_t bytes, Barrier& barrier, uint16_t blocks)
{
    KASMINA_TMA_CHECK_BULK(global, shared, bytes);
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(
                     shared_address(shared)),
                 "l"(global_address(global)), "r"(bytes), "r"(shared_address(&barrier)), "h"(blocks)
                 : "memory");
}
#endif

// Starts a copy from shared to global memory. It belongs to the thread's next commit_group.
KASMINA_TMA_FN void store_bulk(void* global, const void* shared, uint32_t bytes)
{
    KASMINA_TMA_CHECK_BULK(global, shared, bytes);
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global_address(global)),
                 "r"(shared_address(shared)), "r"(bytes)
                 : "memory");
}

KASMINA_TMA_FN void store_bulk(void* global, const void* shared, uint32_t bytes, CachePolicy policy)
{
    KASMINA_TMA_CHECK_BULK(global, shared, bytes);
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group.L2::cache_hint [%0], [%1], %2, %3;" ::"l"(
                     global_address(global)),
                 "r"(shared_address(shared)), "r"(bytes), "l"(policy.bits)
                 : "memory");
}

// Adds shared to global memory, element by element, in an order that changes from run to run: floats do not come out the same
// twice. It belongs to the thread's next commit_group.
#define KASMINA_TMA_BULK_ADD(type, suffix)                                                                         \
    KASMINA_TMA_FN void add_bulk(type* global, const type* shared, uint32_t bytes)                                 \
    {                                                                                                              \
        KASMINA_TMA_CHECK_BULK(global, shared, bytes);                                                             \
        asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add." suffix " [%0], [%1], %2;" ::"l"(    \
                         global_address(global)),                                                                  \
                     "r"(shared_address(shared)), "r"(bytes)                                                       \
                     : "memory");                                                                                  \
    }
KASMINA_TMA_BULK_ADD(float, "f32")
KASMINA_TMA_BULK_ADD(double, "f64")
KASMINA_TMA_BULK_ADD(int32_t, "s32")
KASMINA_TMA_BULK_ADD(uint32_t, "u32")
KASMINA_TMA_BULK_ADD(unsigned long long, "u64")
#undef KASMINA_TMA_BULK_ADD

// Brings memory to the second-level cache. Nobody can wait for it.
KASMINA_TMA_FN void prefetch_bulk(const void* global, uint32_t bytes)
{
    KASMINA_TMA_ASSERT(is_aligned(global, 16) && bytes % 16 == 0, "a bulk prefetch keeps to multiples of 16");
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global_address(global)), "r"(bytes) : "memory");
}

// ------------------------------------------------------------------------------------------------------ groups of stores

// Closes this thread's group of stores. Stores that were never committed cannot be waited for.
KASMINA_TMA_FN void commit_group() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Waits until at most `Pending` of this thread's newest groups are not complete: what the others stored is in global memory.
template <int Pending = 0>
KASMINA_TMA_FN void wait_group()
{
    static_assert(Pending >= 0, "a number of groups");
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(Pending) : "memory");
}

// Waits until at most `Pending` of this thread's newest groups still read their shared memory. Says nothing of global memory.
template <int Pending = 0>
KASMINA_TMA_FN void wait_group_read()
{
    static_assert(Pending >= 0, "a number of groups");
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Pending) : "memory");
}

// -------------------------------------------------------------------------------------------------- bulk tensor copies
//
// `map` is the address of a TensorMap or CUtensorMap: a `const __grid_constant__` parameter, or global memory after
// fence_map_acquire. One thread starts a copy. The rank is the number of coordinates and must be the map's. Wherever there is
// an `at`, at[0] times the bytes of an element must be a multiple of 16, or the instruction is an illegal one.

// Brings a map to where the copy engine reads it; early, by one thread.
KASMINA_TMA_FN void prefetch_map(const void* map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

template <int Rank>
KASMINA_TMA_FN int32_t coordinate(const int32_t (&at)[Rank], int dimension)
{
    return dimension < Rank ? at[dimension < Rank ? dimension : 0] : 0;
}

// One statement for each rank. Operands 0 to 4 are the coordinates, of which an instruction names as many as it has; the
// others follow from 5 on.
#define KASMINA_TMA_COORDINATES                                                                                    \
    "r"(coordinate(at, 0)), "r"(coordinate(at, 1)), "r"(coordinate(at, 2)), "r"(coordinate(at, 3)), "r"(coordinate(at, 4))
#define KASMINA_TMA_RANKED(before, middle, after, ...)                                                             \
    static_assert(Rank >= 1 && Rank <= kMaxRank, "a tensor map has 1 to 5 dimensions");                            \
    KASMINA_TMA_ASSERT(is_aligned(map, 64), "a tensor map lies at a multiple of 64 bytes");                        \
    if constexpr (Rank == 1) {                                                                                     \
        asm volatile(before ".1d" middle "{%0}" after ::KASMINA_TMA_COORDINATES, __VA_ARGS__ : "memory");          \
    } else if constexpr (Rank == 2) {                                                                              \
        asm volatile(before ".2d" middle "{%0, %1}" after ::KASMINA_TMA_COORDINATES, __VA_ARGS__ : "memory");      \
    } else if constexpr (Rank == 3) {                                                                              \
        asm volatile(before ".3d" middle "{%0, %1, %2}" after ::KASMINA_TMA_COORDINATES, __VA_ARGS__ : "memory");  \
    } else if constexpr (Rank == 4) {                                                                              \
        asm volatile(before ".4d" middle "{%0, %1, %2, %3}" after ::KASMINA_TMA_COORDINATES, __VA_ARGS__           \
                     : "memory");                                                                                  \
    } else {                                                                                                       \
        asm volatile(before ".5d" middle "{%0, %1, %2, %3, %4}" after ::KASMINA_TMA_COORDINATES, __VA_ARGS__       \
                     : "memory");                                                                                  \
    }

#define KASMINA_TMA_CHECK_TILE(shared)                                                                             \
    KASMINA_TMA_ASSERT(is_aligned(shared, 128), "a tile lies at a multiple of 128 bytes, of 8 spans with swizzle")

// For what is stored; loads may begin before the tensor.
#define KASMINA_TMA_CHECK_PLACE(at)                                                                                \
    for (const int32_t place : at) {                                                                               \
        KASMINA_TMA_ASSERT(place >= 0, "a store does not begin before the tensor");                                \
    }

// Starts a copy of the map's box at coordinates `at` into this block's shared memory, rows close together (and swizzled as the
// map says). The box's bytes count on `barrier`, those outside the tensor too, which are filled. at[0] is whole 16 bytes.
template <int Rank>
KASMINA_TMA_FN void load_tensor(void* shared, const void* map, const int32_t (&at)[Rank], Barrier& barrier)
{
    KASMINA_TMA_CHECK_TILE(shared);
    KASMINA_TMA_RANKED("cp.async.bulk.tensor", ".shared::cluster.global.tile.mbarrier::complete_tx::bytes [%5], [%6, ",
                       "], [%7];", "r"(shared_address(shared)), "l"(map), "r"(shared_address(&barrier)))
}

template <int Rank>
KASMINA_TMA_FN void load_tensor(void* shared, const void* map, const int32_t (&at)[Rank], Barrier& barrier,
                                CachePolicy policy)
{
    KASMINA_TMA_CHECK_TILE(shared);
    KASMINA_TMA_RANKED("cp.async.bulk.tensor",
                       ".shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%5], [%6, ",
                       "], [%7], %8;", "r"(shared_address(shared)), "l"(map), "r"(shared_address(&barrier)),
                       "l"(policy.bits))
}

#if KASMINA_TMA_HAS_MULTICAST
// The same into every block of the cluster whose bit is set, at the same offset, each counting on its own barrier.
template <int Rank>
KASMINA_TMA_FN void load_tensor_multicast(void* shared, const void* map, const int32_t (&at)[Rank], Barrier& barrier,
                                          uint16_t blocks)
{
    KASMINA_TMA_CHECK_TILE(shared);
    KASMINA_TMA_RANKED("cp.async.bulk.tensor",
                       ".shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%5], [%6, ",
                       "], [%7], %8;", "r"(shared_address(shared)), "l"(map), "r"(shared_address(&barrier)), "h"(blocks))
}
#endif

// Starts a copy of a tile from shared memory to the map's box at `at`; elements past the tensor are left out, but
// for those in the 16 bytes of a row's last one (see above). No coordinate is negative. It belongs to the thread's next commit_group. Ordinary stores into
// the tile need fence_async_shared first. at[0] is whole 16 bytes.
template <int Rank>
KASMINA_TMA_FN void store_tensor(const void* map, const int32_t (&at)[Rank], const void* shared)
{
    KASMINA_TMA_CHECK_TILE(shared);
    KASMINA_TMA_CHECK_PLACE(at);
    KASMINA_TMA_RANKED("cp.async.bulk.tensor", ".global.shared::cta.tile.bulk_group [%5, ", "], [%6];", "l"(map),
                       "r"(shared_address(shared)))
}

template <int Rank>
KASMINA_TMA_FN void store_tensor(const void* map, const int32_t (&at)[Rank], const void* shared, CachePolicy policy)
{
    KASMINA_TMA_CHECK_TILE(shared);
    KASMINA_TMA_CHECK_PLACE(at);
    KASMINA_TMA_RANKED("cp.async.bulk.tensor", ".global.shared::cta.tile.bulk_group.L2::cache_hint [%5, ", "], [%6], %7;",
                       "l"(map), "r"(shared_address(shared)), "l"(policy.bits))
}

enum class Reduce { Add, Min, Max, Inc, Dec, And, Or, Xor };

// As store_tensor, but combines with what is there, each element at once. The map's data type says how; floats come out in an
// order that changes from run to run. Inc and Dec wrap at the operand, for U32. at[0] is whole 16 bytes.
template <Reduce Operation, int Rank>
KASMINA_TMA_FN void reduce_tensor(const void* map, const int32_t (&at)[Rank], const void* shared)
{
    KASMINA_TMA_CHECK_TILE(shared);
    KASMINA_TMA_CHECK_PLACE(at);
#define KASMINA_TMA_REDUCE(operation, name)                                                                        \
    if constexpr (Operation == Reduce::operation) {                                                                \
        KASMINA_TMA_RANKED("cp.reduce.async.bulk.tensor", ".global.shared::cta." name ".tile.bulk_group [%5, ",    \
                           "], [%6];", "l"(map), "r"(shared_address(shared)))                                      \
    }
    KASMINA_TMA_REDUCE(Add, "add")
    KASMINA_TMA_REDUCE(Min, "min")
    KASMINA_TMA_REDUCE(Max, "max")
    KASMINA_TMA_REDUCE(Inc, "inc")
    KASMINA_TMA_REDUCE(Dec, "dec")
    KASMINA_TMA_REDUCE(And, "and")
    KASMINA_TMA_REDUCE(Or, "or")
    KASMINA_TMA_REDUCE(Xor, "xor")
#undef KASMINA_TMA_REDUCE
}

// Brings the box to the second-level cache. Nobody can wait for it. at[0] is whole 16 bytes.
template <int Rank>
KASMINA_TMA_FN void prefetch_tensor(const void* map, const int32_t (&at)[Rank])
{
    KASMINA_TMA_RANKED("cp.async.bulk.prefetch.tensor", ".L2.global.tile [%5, ", "];", "l"(map))
}

// Starts a copy through an im2col map of rank 3 to 5 (channels, W, H, D, N): `pixelsPerColumn` pixels of `channelsPerPixel`
// channels, the first at coordinates `at`, then along W, H, D and N within the map's pixel box; each is read at its
// coordinates plus `offsets` (W, H, D). Pixels outside the tensor are filled and count in the bytes. The first channel,
// at[0], is whole 16 bytes.
template <int Rank>
KASMINA_TMA_FN void load_im2col(void* shared, const void* map, const int32_t (&at)[Rank],
                                const uint16_t (&offsets)[Rank - 2], Barrier& barrier)
{
    static_assert(Rank >= 3 && Rank <= kMaxRank, "an im2col map has 3 to 5 dimensions");
    KASMINA_TMA_CHECK_TILE(shared);
    KASMINA_TMA_ASSERT(is_aligned(map, 64), "a tensor map lies at a multiple of 64 bytes");
#define KASMINA_TMA_IM2COL(rank, coordinates, pixel)                                                               \
    asm volatile("cp.async.bulk.tensor." rank                                                                      \
                 ".shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%5], [%6, " coordinates             \
                 "], [%7], " pixel ";" ::KASMINA_TMA_COORDINATES,                                                  \
                 "r"(shared_address(shared)), "l"(map), "r"(shared_address(&barrier)), "h"(offsets[0]),            \
                 "h"(offsets[Rank > 3 ? 1 : 0]), "h"(offsets[Rank > 4 ? 2 : 0])                                    \
                 : "memory")
    if constexpr (Rank == 3) {
        KASMINA_TMA_IM2COL("3d", "{%0, %1, %2}", "{%8}");
    } else if constexpr (Rank == 4) {
        KASMINA_TMA_IM2COL("4d", "{%0, %1, %2, %3}", "{%8, %9}");
    } else {
        KASMINA_TMA_IM2COL("5d", "{%0, %1, %2, %3, %4}", "{%8, %9, %10}");
    }
#undef KASMINA_TMA_IM2COL
}

#undef KASMINA_TMA_RANKED
#undef KASMINA_TMA_COORDINATES
#undef KASMINA_TMA_CHECK_TILE
#undef KASMINA_TMA_CHECK_PLACE
#undef KASMINA_TMA_CHECK_BULK

// ------------------------------------------------------------------------------------------------- editing maps in place

#if KASMINA_TMA_HAS_REPLACE

// Where the map that is edited lies. In shared memory: edit, __syncwarp, then copy_map_release by the whole warp. In global
// memory: edit, then fence_map_release. Either way users acquire with fence_map_acquire. Edits are ordinary accesses of one
// thread: nobody else may edit or use the map meanwhile. A map must have been encoded by the driver before: only fields change.
enum class Space { Global, Shared };

#define KASMINA_TMA_REPLACE(field, type, index, ...)                                                               \
    KASMINA_TMA_ASSERT(is_aligned(map, 64), "a tensor map lies at a multiple of 64 bytes");                        \
    if constexpr (S == Space::Global) {                                                                            \
        asm volatile("tensormap.replace.tile." field ".global.b1024." type " [%0], " index ::"l"(                  \
                         global_address(map)),                                                                     \
                     __VA_ARGS__                                                                                   \
                     : "memory");                                                                                  \
    } else {                                                                                                       \
        asm volatile("tensormap.replace.tile." field ".shared::cta.b1024." type " [%0], " index ::"r"(             \
                         shared_address(map)),                                                                     \
                     __VA_ARGS__                                                                                   \
                     : "memory");                                                                                  \
    }

// Address of the first element; a multiple of 16 (32 with 32-byte interleave).
template <Space S>
KASMINA_TMA_FN void replace_address(void* map, uint64_t address)
{
    KASMINA_TMA_ASSERT(address % 16 == 0, "a tensor's address is a multiple of 16");
    KASMINA_TMA_REPLACE("global_address", "b64", "%1;", "l"(address))
}

// Number of dimensions, 1 to 5; the instruction itself counts from 0.
template <Space S>
KASMINA_TMA_FN void replace_rank(void* map, uint32_t rank)
{
    KASMINA_TMA_ASSERT(rank >= 1 && rank <= kMaxRank, "a tensor map has 1 to 5 dimensions");
    KASMINA_TMA_REPLACE("rank", "b32", "%1;", "r"(rank - 1))
}

// Elements along a dimension, 1 to 2^32 - 1; the one more that the driver takes has no form here.
template <Space S, int Dimension>
KASMINA_TMA_FN void replace_size(void* map, uint32_t elements)
{
    static_assert(Dimension >= 0 && Dimension < kMaxRank, "dimensions are 0 to 4");
    KASMINA_TMA_ASSERT(elements >= 1, "a dimension has at least one element");
    KASMINA_TMA_REPLACE("global_dim", "b32", "%1, %2;", "n"(Dimension), "r"(elements))
}

// Bytes from one element to the next along dimension `Dimension` + 1; a multiple of 16 below 2^40.
template <Space S, int Dimension>
KASMINA_TMA_FN void replace_stride(void* map, uint64_t bytes)
{
    static_assert(Dimension >= 0 && Dimension < kMaxRank - 1, "strides are those of dimensions 1 to 4");
    KASMINA_TMA_ASSERT(bytes % 16 == 0 && bytes < (1ull << 40), "a stride is a multiple of 16 below 2^40 bytes");
    KASMINA_TMA_REPLACE("global_stride", "b64", "%1, %2;", "n"(Dimension), "l"(bytes))
}

// Elements of the box along a dimension, 1 to 256.
template <Space S, int Dimension>
KASMINA_TMA_FN void replace_box(void* map, uint32_t elements)
{
    static_assert(Dimension >= 0 && Dimension < kMaxRank, "dimensions are 0 to 4");
    KASMINA_TMA_ASSERT(elements >= 1 && elements <= 256, "a box has 1 to 256 elements a side");
    KASMINA_TMA_REPLACE("box_dim", "b32", "%1, %2;", "n"(Dimension), "r"(elements))
}

// Steps between loaded elements along a dimension, 1 to 8.
template <Space S, int Dimension>
KASMINA_TMA_FN void replace_element_stride(void* map, uint32_t steps)
{
    static_assert(Dimension >= 0 && Dimension < kMaxRank, "dimensions are 0 to 4");
    KASMINA_TMA_ASSERT(steps >= 1 && steps <= 8, "an element stride is 1 to 8");
    KASMINA_TMA_REPLACE("element_stride", "b32", "%1, %2;", "n"(Dimension), "r"(steps))
}

// The codes of tensormap.replace, which for the floats are not the driver's: F32_FTZ is 8 here and 10 there.
enum class ElementCode : uint32_t {
    U8 = 0, U16 = 1, U32 = 2, I32 = 3, U64 = 4, I64 = 5, F16 = 6, F32 = 7, F32Ftz = 8, F64 = 9, Bf16 = 10, Tf32 = 11,
    Tf32Ftz = 12, U4x16Align8 = 13, U4x16Align16 = 14, U6x16Align16 = 15
};

template <Space S, ElementCode Code>
KASMINA_TMA_FN void replace_data_type(void* map)
{
    KASMINA_TMA_REPLACE("elemtype", "b32", "%1;", "n"(static_cast<uint32_t>(Code)))
}

// 0 for none, 1 for 16 bytes, 2 for 32.
template <Space S, uint32_t Code>
KASMINA_TMA_FN void replace_interleave(void* map)
{
    static_assert(Code <= 2, "interleave codes are 0 to 2");
    KASMINA_TMA_REPLACE("interleave_layout", "b32", "%1;", "n"(Code))
}

// 0 for none, 1 to 3 for spans of 32, 64 and 128 bytes.
template <Space S, uint32_t Code>
KASMINA_TMA_FN void replace_swizzle(void* map)
{
    static_assert(Code <= 3, "swizzle codes are 0 to 3; the larger atoms are a field of their own");
    KASMINA_TMA_REPLACE("swizzle_mode", "b32", "%1;", "n"(Code))
}

// 0 for zeros, 1 for NaN.
template <Space S, uint32_t Code>
KASMINA_TMA_FN void replace_fill(void* map)
{
    static_assert(Code <= 1, "fill codes are 0 and 1");
    KASMINA_TMA_REPLACE("fill_mode", "b32", "%1;", "n"(Code))
}

#undef KASMINA_TMA_REPLACE

#endif // KASMINA_TMA_HAS_REPLACE

#undef KASMINA_TMA_FN

#endif // __CUDACC__ && KASMINA_TMA_AVAILABLE

} // namespace kasmina::tma
