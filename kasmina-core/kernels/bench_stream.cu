// What passes are measured against: two reads and one write of as many bytes, or one read, and next to no work. For benches alone.

#include <cstdint>

// z = x + 0.5·g over packets of 16 bytes.
extern "C" __global__ void __launch_bounds__(512) kasmina_bench_two_reads_one_write(const float4* x, const float4* g, float4* z,
                                                                                    uint64_t packets)
{
    const uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
    for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < packets; i += step) {
        const float4 a = __ldcs(x + i), b = __ldcs(g + i);
        __stcs(z + i, make_float4(fmaf(0.5f, b.x, a.x), fmaf(0.5f, b.y, a.y), fmaf(0.5f, b.z, a.z), fmaf(0.5f, b.w, a.w)));
    }
}

// Reads x by packets of 16 bytes. `sink` is written only where the sum is a number that it is not: the compiler cannot know.
extern "C" __global__ void __launch_bounds__(512) kasmina_bench_read(const float4* x, float4* sink, uint64_t packets)
{
    const uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 4
    for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < packets; i += step) {
        const float4 a = __ldcs(x + i);
        sum = make_float4(sum.x + a.x, sum.y + a.y, sum.z + a.z, sum.w + a.w);
    }
    if (sum.x == 1e30f && sum.y == 1e30f && sum.z == 1e30f && sum.w == 1e30f) {
        *sink = sum;
    }
}
