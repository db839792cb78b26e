// What the machine has to do, a kernel for each thing.

#include <cooperative_groups.h>
#include <cstdint>

namespace {

__device__ uint32_t address_of(const void* pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

__device__ void init(uint64_t* barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address_of(barrier)), "r"(arrivals) : "memory");
}

__device__ void arrive_expect(uint64_t* barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address_of(barrier)), "r"(bytes) : "memory");
}

__device__ void arrive(uint64_t* barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address_of(barrier)) : "memory");
}

__device__ void wait(uint64_t* barrier, uint32_t parity)
{
    uint32_t over;
    do {
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(over) : "r"(address_of(barrier)), "r"(parity) : "memory");
    } while (over == 0);
}

}  // namespace

// A variable of the device.
__device__ uint32_t counters[3] = {5, 6, 7};

// out[thread] = in[threads - 1 - thread], through declared and dynamic shared memory, block by block.
extern "C" __global__ void __launch_bounds__(256, 2) reverse(const uint32_t* in, uint32_t* out)
{
    __shared__ uint32_t kept[256];
    extern __shared__ __align__(128) uint32_t more[];
    const uint32_t first = blockIdx.x * blockDim.x, at = threadIdx.x;
    kept[at] = in[first + at];
    __syncthreads();
    more[at] = kept[blockDim.x - 1 - at];
    __syncthreads();
    out[first + at] = more[at];
}

// out[0..6] of each warp: sum by xor shuffles, by down shuffles, lane 3's value, ballot of odd values, their maximum, any above 90.
extern "C" __global__ void warps(const uint32_t* in, uint32_t* out)
{
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, own = in[threadIdx.x];
    uint32_t all = own, down = own;
    for (int by = 16; by > 0; by /= 2) {
        all += __shfl_xor_sync(0xffffffffu, all, by);
        down += __shfl_down_sync(0xffffffffu, down, by);
    }
    const uint32_t third = __shfl_sync(0xffffffffu, own, 3), odd = __ballot_sync(0xffffffffu, own % 2);
    const uint32_t most = __reduce_max_sync(0xffffffffu, own);
    const int any = __any_sync(0xffffffffu, own > 90);
    __syncwarp();
    if (lane == 0) {
        uint32_t* to = out + warp * 6;
        to[0] = all, to[1] = down, to[2] = third, to[3] = odd, to[4] = most, to[5] = any;
    }
}

// The first warp hands values to the second through one place, by two named barriers; the others count who is above 3.
extern "C" __global__ void named(uint32_t* out, uint32_t rounds)
{
    __shared__ uint32_t place;
    uint32_t sum = 0;
    if (threadIdx.x < 32) {
        for (uint32_t round = 0; round < rounds; ++round) {
            asm volatile("bar.sync 1, 64;" ::: "memory");
            if (threadIdx.x == 0) place = round * round;
            __syncwarp();
            asm volatile("bar.arrive 2, 64;" ::: "memory");
        }
    } else if (threadIdx.x < 64) {
        for (uint32_t round = 0; round < rounds; ++round) {
            asm volatile("bar.arrive 1, 64;" ::: "memory");
            asm volatile("bar.sync 2, %0;" ::"n"(64) : "memory");
            sum += place;
        }
        if (threadIdx.x == 32) out[0] = sum;
    }
    const int above = __syncthreads_count(threadIdx.x > 3), either = __syncthreads_or(threadIdx.x == 70);
    if (threadIdx.x == 0) out[1] = above, out[2] = either, out[3] = __syncthreads_and(1);
    else __syncthreads_and(threadIdx.x != 5);
}

// A ring of two stages: one thread brings chunks of 64 words by bulk copies, the others add 1 and store them.
extern "C" __global__ void bulk(const uint32_t* in, uint32_t* out, uint32_t chunks)
{
    __shared__ __align__(128) uint32_t stage[2][64];
    __shared__ uint64_t full[2], empty[2];
    if (threadIdx.x == 0) {
        for (int s = 0; s < 2; ++s) {
            init(full + s, 1);
            init(empty + s, 64);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x == 64) {
        for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
            const uint32_t s = chunk % 2, round = chunk / 2;
            if (round > 0) wait(empty + s, (round - 1) % 2);
            arrive_expect(full + s, 256);
            asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                             address_of(stage[s])), "l"(__cvta_generic_to_global(in + chunk * 64)), "r"(256), "r"(address_of(full + s))
                         : "memory");
        }
    } else if (threadIdx.x < 64) {
        for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
            const uint32_t s = chunk % 2;
            wait(full + s, chunk / 2 % 2);
            out[chunk * 64 + threadIdx.x] = stage[s][threadIdx.x] + 1;
            arrive(empty + s);
        }
    }
}

// out = in + 1 by bulk stores; groups are waited for by reading alone, and at the end wholly.
extern "C" __global__ void bulk_out(const uint32_t* in, uint32_t* out, uint32_t chunks, uint32_t waits)
{
    __shared__ __align__(128) uint32_t stage[64];
    for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
        stage[threadIdx.x] = in[chunk * 64 + threadIdx.x] + 1;
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        __syncthreads();
        if (threadIdx.x == 0) {
            asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(__cvta_generic_to_global(out + chunk * 64)),
                         "r"(address_of(stage)), "r"(256) : "memory");
            asm volatile("cp.async.bulk.commit_group;" ::: "memory");
            if (waits) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
        }
        __syncthreads();
    }
    if (threadIdx.x == 0 && waits) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

// Each thread brings words by cp.async, three groups ahead, and adds them up; without `waits` it does not wait for them.
extern "C" __global__ void async(const uint4* in, uint32_t* out, uint32_t rounds, uint32_t waits)
{
    __shared__ uint4 ring[4][32];
    const auto fetch = [&](uint32_t round) {
        if (round < rounds) {
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address_of(&ring[round % 4][threadIdx.x])),
                         "l"(in + round * 32 + threadIdx.x) : "memory");
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
    for (uint32_t round = 0; round < 3; ++round) fetch(round);
    uint32_t sum = 0;
    for (uint32_t round = 0; round < rounds; ++round) {
        if (waits) asm volatile("cp.async.wait_group 2;" ::: "memory");
        const uint4 words = ring[round % 4][threadIdx.x];
        sum += words.x + words.y + words.z + words.w;
        fetch(round + 3);
    }
    out[threadIdx.x] = sum;
}

// Copies that arrive on an mbarrier by themselves.
extern "C" __global__ void async_arrival(const uint32_t* in, uint32_t* out)
{
    __shared__ uint32_t place[64];
    __shared__ uint64_t full;
    if (threadIdx.x == 0) init(&full, 64);
    __syncthreads();
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address_of(place + threadIdx.x)), "l"(in + threadIdx.x) : "memory");
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(address_of(&full)) : "memory");
    wait(&full, 0);
    out[threadIdx.x] = place[63 - threadIdx.x];
}

// d[16][8] = c + a[16][16] · b[16][8] of bf16, by one warp.
extern "C" __global__ void product(const uint32_t* a, const uint16_t* b, const float* c, float* d)
{
    const uint32_t lane = threadIdx.x, group = lane / 4, pair = lane % 4;
    uint32_t left[4] = {a[group * 8 + pair], a[(group + 8) * 8 + pair], a[group * 8 + pair + 4], a[(group + 8) * 8 + pair + 4]};
    uint32_t right[2];
    for (uint32_t half = 0; half < 2; ++half) {
        const uint32_t row = pair * 2 + half * 8;
        right[half] = b[row * 8 + group] | static_cast<uint32_t>(b[(row + 1) * 8 + group]) << 16;
    }
    float sum[4];
    for (uint32_t i = 0; i < 4; ++i) sum[i] = c[(group + i / 2 * 8) * 8 + pair * 2 + i % 2];
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
    for (uint32_t i = 0; i < 4; ++i) d[(group + i / 2 * 8) * 8 + pair * 2 + i % 2] = sum[i];
}

// The last block to come adds up what the others have left.
extern "C" __global__ void last_block(const uint32_t* in, uint32_t* parts, uint32_t* arrived, uint32_t* out)
{
    __shared__ bool last;
    const uint32_t sum = __reduce_add_sync(0xffffffffu, in[blockIdx.x * 32 + threadIdx.x]);
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = sum;
        __threadfence();
        last = atomicAdd(arrived, 1u) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        uint32_t total = 0;
        for (uint32_t i = 0; i < gridDim.x; ++i) total += __ldcg(parts + i);
        *out = total;
    }
}

// All blocks meet, some rounds, with neighbours that look at each other.
extern "C" __global__ void meeting(uint32_t* cells, uint32_t rounds, uint32_t* wrong)
{
    const auto grid = cooperative_groups::this_grid();
    for (uint32_t round = 1; round <= rounds; ++round) {
        if (threadIdx.x == 0) __stcg(cells + blockIdx.x, round);
        grid.sync();
        if (threadIdx.x == 0 && __ldcg(cells + (blockIdx.x + 1) % gridDim.x) != round) atomicAdd(wrong, 1);
        grid.sync();
    }
}

// One copy for all blocks of a cluster.
extern "C" __global__ void multicast(const uint32_t* in, uint32_t* out, uint32_t* ready)
{
    __shared__ __align__(128) uint32_t tile[32];
    __shared__ uint64_t full;
    uint32_t rank, size;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    if (threadIdx.x == 0) {
        init(&full, 1);
        arrive_expect(&full, 128);
        uint32_t before, seen;
        uint32_t* own = ready + blockIdx.x / size;
        asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;" : "=r"(before) : "l"(__cvta_generic_to_global(own)) : "memory");
        do {
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(__cvta_generic_to_global(own)) : "memory");
        } while (seen < size);
        if (rank == 0) {
            asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(
                             address_of(tile)), "l"(__cvta_generic_to_global(in + blockIdx.x / size * 32)), "r"(128),
                         "r"(address_of(&full)), "h"(static_cast<uint16_t>((1u << size) - 1))
                         : "memory");
        }
    }
    __syncthreads();
    wait(&full, 0);
    out[blockIdx.x * 32 + threadIdx.x] = tile[threadIdx.x] + rank;
}

// -------------------------------------------------------------------------------------------------------------------- faults

extern "C" __global__ void traps(uint32_t thread)
{
    if (threadIdx.x == thread && blockIdx.x == 1) __trap();
    __syncthreads();
}

extern "C" __global__ void waits_for_nobody()
{
    __shared__ uint64_t never;
    if (threadIdx.x == 0) init(&never, 2);
    __syncthreads();
    if (threadIdx.x < 3) wait(&never, 0);
    else if (threadIdx.x < 32) asm volatile("bar.sync 3, 64;" ::: "memory");
}

extern "C" __global__ void writes_to(uint32_t* at) { at[threadIdx.x] = 1; }

extern "C" __global__ void divides(uint32_t* at) { at[0] = at[1] / at[2]; }

extern "C" __global__ void descends(uint32_t* out, uint32_t depth)
{
    struct Deep {
        static __device__ __noinline__ uint32_t down(volatile uint32_t* out, uint32_t depth)
        {
            volatile uint32_t here[256];
            here[depth % 256] = depth;
            return depth == 0 ? out[0] : down(out, depth - 1) + here[depth % 256];
        }
    };
    out[1] = Deep::down(out, depth);
}

// Threads that make nothing but barriers.
extern "C" __global__ void rounds(uint32_t count)
{
    for (uint32_t i = 0; i < count; ++i) __syncthreads();
}
