// Kernels of tests on a device: one for each thing that a launch can ask for. Every one ends by itself.

#include <cooperative_groups.h>
#include <cstdint>

namespace {

// The longest that anything here waits, in clock ticks: about a second.
constexpr uint64_t kLongest = 2'000'000'000;

__device__ uint64_t nanoseconds()
{
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)::"memory");
    return now;
}

__device__ void spin(uint64_t ticks)
{
    const uint64_t begin = clock64();
    const uint64_t longest = ticks < kLongest ? ticks : kLongest;
    while (clock64() - begin < longest) {
    }
}

__device__ uint32_t linear_thread()
{
    return (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
}

__device__ uint32_t linear_block()
{
    return (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
}

template <class T>
__device__ uint8_t* put(uint8_t* out, const T& value)
{
    const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
    for (uint32_t i = 0; i < sizeof(T); i++) {
        out[i] = bytes[i];
    }
    return out + sizeof(T);
}

} // namespace

// As `Packet` in tests/gpu/launch.rs.
struct Packet {
    uint32_t tag;
    float point[3];
    uint64_t wide;
};

// The size and alignment of a tensor map.
struct alignas(64) Map {
    uint64_t words[16];
};

// out = the bytes of each argument, one behind the other.
extern "C" __global__ void trial_arguments(
    uint8_t* out, uint8_t a, int8_t b, uint16_t c, int16_t d, uint32_t e, int32_t f, uint64_t g, int64_t h, float i, double j, bool k,
    size_t l, const uint32_t* m, Packet n, const __grid_constant__ Map o)
{
    out = put(put(put(put(out, a), b), c), d);
    out = put(put(put(put(out, e), f), g), h);
    out = put(put(put(put(out, i), j), k), l);
    put(put(put(out, m), n), o);
}

// Does nothing, with nothing: what a launch alone costs.
extern "C" __global__ void trial_nothing() {}

// out[block] = 1 + the number of its threads, to see a grid and a block of three dimensions.
extern "C" __global__ void trial_shape(uint32_t* out)
{
    if (linear_thread() == 0) {
        out[linear_block()] = 1 + blockDim.x * blockDim.y * blockDim.z;
    }
}

extern "C" __global__ void trial_add(uint32_t* data, uint32_t count, uint32_t amount)
{
    for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += uint64_t(gridDim.x) * blockDim.x) {
        data[i] += amount;
    }
}

extern "C" __global__ void trial_multiply(uint32_t* data, uint32_t count, uint32_t factor)
{
    for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += uint64_t(gridDim.x) * blockDim.x) {
        data[i] *= factor;
    }
}

// left[i] += right[i]
extern "C" __global__ void trial_join(uint32_t* left, const uint32_t* right, uint32_t count)
{
    for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += uint64_t(gridDim.x) * blockDim.x) {
        left[i] += right[i];
    }
}

// out[block] = rank in the cluster + 256 * blocks of the cluster; 0 on devices without clusters.
extern "C" __global__ void trial_cluster(uint32_t* out)
{
    uint32_t rank = 0, size = 0;
#if __CUDA_ARCH__ >= 900
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
#endif
    if (linear_thread() == 0) {
        out[linear_block()] = rank + 256 * size;
    }
}

// In each round every block writes its cell, the grid waits for itself, and every block looks at its neighbour's cell.
// wrong += the number of neighbours that had not written yet.
extern "C" __global__ void trial_grid_sync(uint32_t* cells, uint32_t rounds, uint32_t* wrong)
{
    const auto grid = cooperative_groups::this_grid();
    const uint32_t neighbour = (blockIdx.x + 1) % gridDim.x;
    for (uint32_t round = 1; round <= rounds; round++) {
        if (threadIdx.x == 0) {
            __stcg(cells + blockIdx.x, round);
        }
        grid.sync();
        if (threadIdx.x == 0 && __ldcg(cells + neighbour) != round) {
            atomicAdd(wrong, 1);
        }
        grid.sync();
    }
}

// Lets the next kernel begin at once, waits, and writes `value` everywhere. times[0] = when it ended.
extern "C" __global__ void trial_early(uint32_t* data, uint32_t count, uint32_t value, uint64_t ticks, uint64_t* times)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
    spin(ticks);
    for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
        data[i] = value;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        times[0] = nanoseconds();
    }
}

// out = data, after everything that the kernel before has written. times[0] = when it began, before waiting for that.
extern "C" __global__ void trial_late(const uint32_t* data, uint32_t count, uint32_t* out, uint64_t* times)
{
    if (threadIdx.x == 0) {
        times[0] = nanoseconds();
    }
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
    for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
        out[i] = __ldcg(data + i);
    }
}

// out[block] = sum over the `words` words of dynamic shared memory, each written by one thread and read by another.
extern "C" __global__ void trial_shared(uint32_t* out, uint32_t words)
{
    extern __shared__ uint32_t shared[];
    for (uint32_t i = threadIdx.x; i < words; i += blockDim.x) {
        shared[i] = i * 7 + blockIdx.x;
    }
    __syncthreads();
    uint32_t sum = 0;
    for (uint32_t i = threadIdx.x; i < words; i += blockDim.x) {
        sum += shared[words - 1 - i];
    }
    atomicAdd(out + blockIdx.x, sum);
}

// Declares 4 KiB of shared memory and blocks of at most 256 threads: what attributes should say. out[i] = words[255 - i].
extern "C" __global__ void __launch_bounds__(256) trial_declared(const uint32_t* words, uint32_t* out)
{
    __shared__ uint32_t kept[1024];
    kept[threadIdx.x] = words[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = kept[blockDim.x - 1 - threadIdx.x];
}

// Each block waits for `ticks`. times[0] = when the last of them ended; count[0] += blocks.
extern "C" __global__ void trial_spin(uint64_t ticks, unsigned long long* times, uint32_t* count)
{
    spin(ticks);
    __syncthreads();
    if (threadIdx.x == 0) {
        atomicMax(times, nanoseconds());
        atomicAdd(count, 1);
    }
}

__device__ uint32_t trial_words[7] = { 3, 1, 4, 1, 5, 9, 2 };

// out = trial_words
extern "C" __global__ void trial_global(uint32_t* out)
{
    if (threadIdx.x < 7) {
        out[threadIdx.x] = trial_words[threadIdx.x];
    }
}
