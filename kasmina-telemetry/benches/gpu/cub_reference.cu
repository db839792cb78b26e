// CUB's reductions, timed as benches/gpu/timer.rs times ours: one call between two events, on the next part of an arena of 8 GiB,
// behind a sum over 256 MiB of other data that clears the second-level cache and keeps the device busy until all is queued.
//
//     nvcc -O3 -std=c++17 -arch=sm_90 -o cub_reference cub_reference.cu && ./cub_reference
//
// Not part of any build.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include <cub/cub.cuh>
#include <cuda_bf16.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>

#define CHECK(call)                                                                                                   \
    do {                                                                                                              \
        const cudaError_t code = (call);                                                                              \
        if (code != cudaSuccess) {                                                                                    \
            std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(code));             \
            std::exit(1);                                                                                             \
        }                                                                                                             \
    } while (false)

constexpr size_t kArena = size_t{8} << 30, kBefore = size_t{256} << 20, kStep = 4096;
constexpr int kWarmUp = 3, kRepeats = 31;

static uint8_t* arena;
static size_t cursor;
static cudaStream_t stream;
static void *scratch, *scratch_before;
static size_t scratch_bytes = size_t{1} << 30, scratch_before_bytes = size_t{64} << 20;
static void* out;

static size_t part(size_t bytes)
{
    if (cursor + bytes > kArena) cursor = 0;
    const size_t at = cursor;
    cursor += (bytes + kStep - 1) / kStep * kStep;
    return at;
}

static void time_call(const std::string& name, size_t bytes, const std::function<void(const uint8_t*)>& call)
{
    cudaEvent_t start, end;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&end));
    std::vector<float> values;
    for (int i = 0; i < kWarmUp + kRepeats; ++i) {
        const auto* before = reinterpret_cast<const float*>(arena + part(kBefore));
        CHECK(cub::DeviceReduce::Sum(scratch_before, scratch_before_bytes, before, static_cast<float*>(out) + (1 << 26),
                                     static_cast<int64_t>(kBefore / 4), stream));
        const size_t at = part(bytes);
        CHECK(cudaEventRecord(start, stream));
        call(arena + at);
        CHECK(cudaEventRecord(end, stream));
        CHECK(cudaEventSynchronize(end));
        float ms;
        CHECK(cudaEventElapsedTime(&ms, start, end));
        if (i >= kWarmUp) values.push_back(ms * 1e3f);
    }
    std::sort(values.begin(), values.end());
    const float median = values[values.size() / 2];
    std::printf("cub %s: %.2f us (median of %d, least %.2f)\n    %.3f TB/s\n", name.c_str(), median, kRepeats, values[0],
                bytes / median / 1e6);
    std::fflush(stdout);
}

struct Times {
    int64_t factor;
    __host__ __device__ int64_t operator()(int64_t i) const { return i * factor; }
};

int main()
{
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaMalloc(&arena, kArena));
    CHECK(cudaMalloc(&scratch, scratch_bytes));
    CHECK(cudaMalloc(&scratch_before, scratch_before_bytes));
    CHECK(cudaMalloc(&out, size_t{512} << 20));
    std::vector<uint32_t> pattern(8 << 20);
    uint32_t state = 1;
    for (auto& word : pattern) {
        state = state * 1664525u + 1013904223u;
        word = 0x3f803f80u | (state >> 9 & 0x007f007fu);
    }
    const size_t piece = pattern.size() * 4;
    CHECK(cudaMemcpy(arena, pattern.data(), piece, cudaMemcpyHostToDevice));
    for (size_t at = piece; at < kArena; at += piece) CHECK(cudaMemcpy(arena + at, arena, piece, cudaMemcpyDeviceToDevice));

    for (const size_t bytes : {size_t{256} << 20, size_t{1} << 30}) {
        time_call("copy moving " + std::to_string(bytes) + " B", bytes, [=](const uint8_t* x) {
            CHECK(cudaMemcpyAsync(const_cast<uint8_t*>(x) + bytes / 2, x, bytes / 2, cudaMemcpyDeviceToDevice, stream));
        });
    }
    for (int log = 12; log <= 30; log += 2) {
        const int64_t n = int64_t{1} << log;
        time_call("sum f32 2^" + std::to_string(log), n * 4, [=](const uint8_t* x) {
            size_t bytes = scratch_bytes;
            CHECK(cub::DeviceReduce::Sum(scratch, bytes, reinterpret_cast<const float*>(x), static_cast<float*>(out), n, stream));
        });
        time_call("max f32 2^" + std::to_string(log), n * 4, [=](const uint8_t* x) {
            size_t bytes = scratch_bytes;
            CHECK(cub::DeviceReduce::Max(scratch, bytes, reinterpret_cast<const float*>(x), static_cast<float*>(out), n, stream));
        });
    }
    const int64_t n = int64_t{1} << 26;
    for (const int64_t segment : {16, 63, 64, 256, 4096, 1 << 20}) {
        const auto begins = thrust::make_transform_iterator(thrust::make_counting_iterator<int64_t>(0), Times{segment});
        const int64_t segments = n / segment;
        time_call("sums of segments of " + std::to_string(segment), segments * segment * 4, [=](const uint8_t* x) {
            size_t bytes = scratch_bytes;
            CHECK(cub::DeviceSegmentedReduce::Sum(scratch, bytes, reinterpret_cast<const float*>(x), static_cast<float*>(out),
                                                  segments, begins, begins + 1, stream));
        });
        time_call("maxima of segments of " + std::to_string(segment), segments * segment * 4, [=](const uint8_t* x) {
            size_t bytes = scratch_bytes;
            CHECK(cub::DeviceSegmentedReduce::Max(scratch, bytes, reinterpret_cast<const float*>(x), static_cast<float*>(out),
                                                  segments, begins, begins + 1, stream));
        });
#if defined(CUB_FIXED_SIZE_SEGMENTS)
        time_call("sums of segments of fixed size " + std::to_string(segment), segments * segment * 4, [=](const uint8_t* x) {
            size_t bytes = scratch_bytes;
            CHECK(cub::DeviceSegmentedReduce::Sum(scratch, bytes, reinterpret_cast<const float*>(x), static_cast<float*>(out),
                                                  segments, static_cast<int>(segment), stream));
        });
#endif
    }
    return 0;
}
