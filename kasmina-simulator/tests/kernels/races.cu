// Kernels with a race, and their twins without one: `right` says which.

#include <cstdint>

namespace {

__device__ uint32_t address_of(const void* pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

__device__ void init(uint64_t* barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address_of(barrier)), "r"(arrivals) : "memory");
}

__device__ void wait(uint64_t* barrier, uint32_t parity)
{
    uint32_t over;
    do {
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(over) : "r"(address_of(barrier)), "r"(parity) : "memory");
    } while (over == 0);
}

__device__ void arrive(uint64_t* barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address_of(barrier)) : "memory");
}

__device__ uint32_t acquire(const uint32_t* at)
{
    uint32_t value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(__cvta_generic_to_global(at)) : "memory");
    return value;
}

__device__ uint32_t relaxed(const unsigned long long* at)
{
    unsigned long long value;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");
    return static_cast<uint32_t>(value);
}

}  // namespace

// A neighbour's word without a barrier between.
extern "C" __global__ void barrier(uint32_t* out, uint32_t right)
{
    __shared__ uint32_t words[64];
    words[threadIdx.x] = threadIdx.x;
    if (right) __syncthreads();
    out[threadIdx.x] = words[63 - threadIdx.x];
}

// The same place in the next round without a second barrier: reads before a write.
extern "C" __global__ void rounds(uint32_t* out, uint32_t right)
{
    __shared__ uint32_t place;
    uint32_t sum = 0;
    for (uint32_t round = 0; round < 4; ++round) {
        if (threadIdx.x == 0) place = round;
        __syncthreads();
        sum += place;
        if (right) __syncthreads();
    }
    out[threadIdx.x] = sum;
}

// Lanes of one warp.
extern "C" __global__ void warp(uint32_t* out, uint32_t right)
{
    __shared__ uint32_t words[32];
    words[threadIdx.x] = threadIdx.x;
    if (right) __syncwarp();
    else __shfl_sync(0xffffffffu, 1, 0);  // orders no memory
    out[threadIdx.x] = words[31 - threadIdx.x];
}

// A lane writes what another has read and handed over; or what it has not.
extern "C" __global__ void handed(uint32_t* out, uint32_t right)
{
    __shared__ uint32_t word;
    if (threadIdx.x == 0) word = 1;
    __syncwarp();
    uint32_t value = right || threadIdx.x == 0 ? word : 0;
    value = __shfl_sync(0xffffffffu, value, 0);
    if (!right && threadIdx.x == 7) value += word;
    if (threadIdx.x == 0) word = value + 1;
    out[threadIdx.x] = value;
}

// Halves of a word by two threads are no race; two at one half are.
extern "C" __global__ void halves(uint32_t* out, uint32_t right)
{
    __shared__ uint16_t words[64];
    words[right ? threadIdx.x : threadIdx.x / 2] = 7;
    __syncthreads();
    out[threadIdx.x] = words[threadIdx.x];
}

// A named barrier of half the block orders nothing for the other half.
extern "C" __global__ void named(uint32_t* out, uint32_t right)
{
    __shared__ uint32_t words[128];
    words[threadIdx.x] = threadIdx.x;
    if (right) {
        __syncthreads();
    } else if (threadIdx.x < 64) {
        asm volatile("bar.sync 1, 64;" ::: "memory");
    } else {
        asm volatile("bar.sync 2, 64;" ::: "memory");
    }
    out[threadIdx.x] = words[127 - threadIdx.x];
}

// bar.arrive hands on what was before it, and not what comes after.
extern "C" __global__ void arrival(uint32_t* out, uint32_t right)
{
    __shared__ uint32_t words[32];
    if (threadIdx.x < 32) {
        if (right) words[threadIdx.x] = 3;
        __syncwarp();
        asm volatile("bar.arrive 1, 64;" ::: "memory");
        if (!right) words[threadIdx.x] = 3;
    } else {
        asm volatile("bar.sync 1, 64;" ::: "memory");
        out[threadIdx.x] = words[threadIdx.x - 32];
    }
}

// One block to another by a flag.
extern "C" __global__ void flag(uint32_t* data, uint32_t* ready, uint32_t* out, uint32_t right)
{
    if (blockIdx.x == 0) {
        data[threadIdx.x] = 5;
        __syncthreads();
        if (threadIdx.x == 0) {
            uint32_t before;
            if (right) {
                asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;" : "=r"(before) : "l"(__cvta_generic_to_global(ready)) : "memory");
            } else {
                atomicAdd(ready, 1u);  // relaxed
            }
        }
    } else {
        if (threadIdx.x == 0) {
            while (acquire(ready) == 0) {
            }
        }
        __syncthreads();
        out[threadIdx.x] = data[threadIdx.x];
    }
}

// The same by fences around relaxed accesses; the reader's may be missing.
extern "C" __global__ void fences(uint32_t* data, unsigned long long* ready, uint32_t* out, uint32_t right)
{
    if (blockIdx.x == 0) {
        data[0] = 5;
        __threadfence();
        atomicAdd(ready, 1ull);
    } else {
        while (relaxed(ready) == 0) {
        }
        if (right) __threadfence();
        out[0] = data[0];
    }
}

// Plain additions of many blocks.
extern "C" __global__ void additions(uint32_t* sum, uint32_t right)
{
    if (right) atomicAdd(sum, 1u);
    else *sum += 1;
}

// A bulk copy that nobody waits for; and one into a place that others still read.
extern "C" __global__ void bulk(const uint32_t* in, uint32_t* out, uint32_t right)
{
    __shared__ __align__(128) uint32_t tile[32];
    __shared__ uint64_t full;
    if (threadIdx.x == 0) init(&full, 1);
    __syncthreads();
    for (uint32_t round = 0; round < 2; ++round) {
        if (threadIdx.x == 0) {
            asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address_of(&full)), "r"(128) : "memory");
            asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                             address_of(tile)), "l"(__cvta_generic_to_global(in)), "r"(128), "r"(address_of(&full))
                         : "memory");
        }
        if (right != 1) wait(&full, round);
        else if (threadIdx.x == 0) wait(&full, round);
        out[threadIdx.x] = tile[threadIdx.x];
        if (right != 2) __syncthreads();
    }
}

// An mbarrier on which only some of the writers arrive.
extern "C" __global__ void arrivals(uint32_t* out, uint32_t right)
{
    __shared__ uint32_t words[64];
    __shared__ uint64_t full;
    if (threadIdx.x == 0) init(&full, right ? 64 : 32);
    __syncthreads();
    if (threadIdx.x < 64) {
        words[threadIdx.x] = threadIdx.x;
        if (right || threadIdx.x < 32) arrive(&full);
    } else {
        wait(&full, 0);
        out[threadIdx.x] = words[threadIdx.x - 64];
    }
}

// An mbarrier that others use before they can know that it was made.
extern "C" __global__ void made(uint32_t* out, uint32_t right)
{
    __shared__ uint64_t full;
    if (threadIdx.x == 0) init(&full, 64);
    if (right) __syncthreads();
    else while (relaxed(reinterpret_cast<unsigned long long*>(out)) == 0 && threadIdx.x > 0) atomicAdd(reinterpret_cast<unsigned long long*>(out), 1ull);
    arrive(&full);
    wait(&full, 0);
}

// cp.async: a read before the wait, and another thread's words after the own wait alone.
extern "C" __global__ void async(const uint32_t* in, uint32_t* out, uint32_t right)
{
    __shared__ uint32_t words[32];
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address_of(words + threadIdx.x)), "l"(in + threadIdx.x) : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
    if (right != 1) asm volatile("cp.async.wait_group 0;" ::: "memory");
    if (right != 2) __syncthreads();
    out[threadIdx.x] = words[right == 1 ? threadIdx.x : 31 - threadIdx.x];
}

// The source of a bulk store that is written again before it was read.
extern "C" __global__ void stored(uint32_t* out, uint32_t right)
{
    __shared__ __align__(128) uint32_t tile[32];
    for (uint32_t round = 0; round < 2; ++round) {
        tile[threadIdx.x] = round;
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        __syncthreads();
        if (threadIdx.x == 0) {
            asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(__cvta_generic_to_global(out)),
                         "r"(address_of(tile)), "r"(128) : "memory");
            asm volatile("cp.async.bulk.commit_group;" ::: "memory");
            if (right || round == 1) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
        }
        __syncthreads();
    }
}

// ------------------------------------------------------------------------------------------------------ addresses

// The word behind an array, in global or shared memory.
extern "C" __global__ void behind(uint32_t* words, uint32_t count, uint32_t right)
{
    extern __shared__ uint32_t own[];
    own[threadIdx.x] = 1;
    const uint32_t at = right == 0 ? threadIdx.x : threadIdx.x + 1;
    if (right != 2) words[at] = own[threadIdx.x];
    else if (threadIdx.x == 31) own[at] = 2;
}

// Eight bytes at a multiple of four.
extern "C" __global__ void crooked(uint32_t* words, uint32_t right)
{
    *reinterpret_cast<uint64_t*>(words + (right ? 2 : 1)) = 7;
}
