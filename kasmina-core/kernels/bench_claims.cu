// The design that the source system's claims were made against, in plain CUDA: a program (a warp here) for each row and seed that loads
// through pointers, stores 24 bytes of raw telemetry and adds parameter gradients by float atomics; a launch for each metric that
// reduces the raw telemetry; and reductions by atomics and by one thread a segment. For benches alone, and kept as fast as that design
// allows: what is gained over a straw man would say nothing.

#include "kasmina_element.cuh"
#include "kasmina_stability.cuh"

using namespace kasmina;

namespace {

constexpr uint32_t kLanes = 32;
// Columns that a lane keeps in registers: chunks of up to 128.
constexpr uint32_t kPerLane = 4;
// Floats that a program stores: n, mean, M2, min, max, dead; backward n, mean, M2, max|g| and two that are not written.
constexpr uint32_t kRaw = 6;
constexpr uint32_t kReduceThreads = 256;
constexpr float kDead = 1e-8f;

// To nearest even.
__device__ __forceinline__ float narrowed(float x, float) { return x; }
__device__ __forceinline__ bf16 narrowed(float x, bf16 to)
{
    round_to(x, to);
    return to;
}

struct ClaimsParams {
    const void* x;
    const void* g;
    void* out;            // y, or dL/dx
    float* raw;           // [rows][seeds][kRaw]
    const float* weight;  // [hidden], of s·relu(x ⊙ w); null: all columns are copied
    const float* scale;   // [seeds]
    const float* alpha;   // [seeds]
    float* grad_weight;
    float* grad_scale;
    float* grad_alpha;
    uint32_t rows;
    uint32_t hidden;
    uint32_t chunk;
    uint32_t seeds;
};
static_assert(sizeof(ClaimsParams) == 96, "as in Rust");

struct Program {
    uint64_t number;
    uint64_t at;  // its first element
    uint32_t seed;
    uint32_t first;
    uint32_t columns;
    uint32_t lane;
    bool real;

    __device__ explicit Program(const ClaimsParams& p)
    {
        number = uint64_t(blockIdx.x) * (blockDim.x / kLanes) + threadIdx.x / kLanes;
        real = number < uint64_t(p.rows) * p.seeds;
        seed = uint32_t(number % p.seeds);
        first = seed * p.chunk;
        columns = min(p.chunk, p.hidden - first);
        at = number / p.seeds * p.hidden + first;
        lane = threadIdx.x % kLanes;
    }
};

__device__ __forceinline__ float warp_sum(float value)
{
#pragma unroll
    for (uint32_t by = kLanes / 2; by > 0; by /= 2) value += __shfl_xor_sync(0xffffffffu, value, by);
    return value;
}

__device__ __forceinline__ float warp_max(float value)
{
#pragma unroll
    for (uint32_t by = kLanes / 2; by > 0; by /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, by));
    return value;
}

// n, mean and M2 of the finite ones of a row's `columns` values, stored by the first lane.
__device__ __forceinline__ void store_moments(const Program& program, const float (&x)[kPerLane], float* raw)
{
    float n = 0.0f, sum = 0.0f, m2 = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < kPerLane; ++i) {
        if (program.lane + i * kLanes < program.columns && is_finite(x[i])) n += 1.0f, sum += x[i];
    }
    n = warp_sum(n);
    const float mean = warp_sum(sum) / fmaxf(n, 1.0f);
#pragma unroll
    for (uint32_t i = 0; i < kPerLane; ++i) {
        if (program.lane + i * kLanes < program.columns && is_finite(x[i])) m2 += (x[i] - mean) * (x[i] - mean);
    }
    m2 = warp_sum(m2);
    if (program.lane == 0) raw[0] = n, raw[1] = mean, raw[2] = m2;
}

template <class T>
__device__ __forceinline__ void forward(const ClaimsParams& p)
{
    const Program program(p);
    if (!program.real) return;
    const T* from = static_cast<const T*>(p.x) + program.at;
    T* to = static_cast<T*>(p.out) + program.at;
    T stored[kPerLane];
    float x[kPerLane];
    float low = kInfinity, high = -kInfinity, dead = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < kPerLane; ++i) {
        const uint32_t column = program.lane + i * kLanes;
        stored[i] = T{};
        if (column < program.columns) stored[i] = from[column];
        x[i] = widen(stored[i]);
        if (column < program.columns && is_finite(x[i])) {
            low = fminf(low, x[i]);
            high = fmaxf(high, x[i]);
            dead += fabsf(x[i]) <= kDead ? 1.0f : 0.0f;
        }
    }
    float* raw = p.raw + program.number * kRaw;
    store_moments(program, x, raw);
    low = -warp_max(-low);
    high = warp_max(high);
    dead = warp_sum(dead);
    if (program.lane == 0) raw[3] = low, raw[4] = high, raw[5] = dead;
    const Guards<true> guards(Bounds{1, 1e-8f, -1e6f, 1e6f});
#pragma unroll
    for (uint32_t i = 0; i < kPerLane; ++i) {
        const uint32_t column = program.lane + i * kLanes;
        if (column >= program.columns) continue;
        if (p.weight != nullptr) {
            const float alpha = p.alpha[program.seed], v = guards.sanitize(x[i]);
            const float t = p.scale[program.seed] * fmaxf(v * p.weight[program.first + column], 0.0f);
            stored[i] = narrowed(guards.clamp(alpha * t + (1.0f - alpha) * v), T{});
        }
        to[column] = stored[i];
    }
}

template <class T>
__device__ __forceinline__ void backward(const ClaimsParams& p)
{
    const Program program(p);
    if (!program.real) return;
    const T* x_from = static_cast<const T*>(p.x) + program.at;
    const T* g_from = static_cast<const T*>(p.g) + program.at;
    T* to = static_cast<T*>(p.out) + program.at;
    float x[kPerLane], g[kPerLane];
    float greatest = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < kPerLane; ++i) {
        const uint32_t column = program.lane + i * kLanes;
        x[i] = g[i] = 0.0f;
        if (column < program.columns) x[i] = widen(x_from[column]), g[i] = widen(g_from[column]);
        if (is_finite(g[i])) greatest = fmaxf(greatest, fabsf(g[i]));
    }
    float* raw = p.raw + program.number * kRaw;
    store_moments(program, g, raw);
    greatest = warp_max(greatest);
    if (program.lane == 0) raw[3] = greatest;
    const Guards<true> guards(Bounds{1, 1e-8f, -1e6f, 1e6f});
    const float scale = p.scale[program.seed], alpha = p.alpha[program.seed];
    float by_scale = 0.0f, by_alpha = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < kPerLane; ++i) {
        const uint32_t column = program.lane + i * kLanes;
        if (column >= program.columns) continue;
        const float v = guards.sanitize(x[i]), w = p.weight[program.first + column];
        const float product = v * w, t = scale * fmaxf(product, 0.0f);
        const float through = guards.mask(alpha * t + (1.0f - alpha) * v, g[i]);
        const float branch = product > 0.0f ? alpha * through : 0.0f;
        to[column] = narrowed(guards.mask(x[i], branch * scale * w + (1.0f - alpha) * through), T{});
        atomicAdd(p.grad_weight + program.first + column, scale * branch * v);
        by_scale += branch * product;
        by_alpha += through * (t - v);
    }
    by_scale = warp_sum(by_scale);
    by_alpha = warp_sum(by_alpha);
    if (program.lane == 0) {
        atomicAdd(p.grad_scale + program.seed, by_scale);
        atomicAdd(p.grad_alpha + program.seed, by_alpha);
    }
}

// Floats as unsigned numbers in the same order; every float is above 0.
__device__ __forceinline__ uint32_t ordered(float x)
{
    const uint32_t bits = bits_of(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// What a launch of kasmina_claims_reduce makes of a slot of the raw telemetry.
enum class Metric : uint32_t { Sum, Mean, M2, Min, Max };

}  // namespace

extern "C" __global__ void kasmina_claims_forward_f32(const __grid_constant__ ClaimsParams p) { forward<float>(p); }
extern "C" __global__ void kasmina_claims_forward_bf16(const __grid_constant__ ClaimsParams p) { forward<bf16>(p); }
extern "C" __global__ void kasmina_claims_backward_f32(const __grid_constant__ ClaimsParams p) { backward<float>(p); }
extern "C" __global__ void kasmina_claims_backward_bf16(const __grid_constant__ ClaimsParams p) { backward<bf16>(p); }

// One metric of all seeds, out[slot][seed], from the raw telemetry of every row: a block a seed. M2 needs the mean, which is launched
// before.
extern "C" __global__ void __launch_bounds__(kReduceThreads)
    kasmina_claims_reduce(const float* raw, float* out, uint32_t rows, uint32_t seeds, uint32_t what, uint32_t slot)
{
    __shared__ float parts[2][kReduceThreads / kLanes];
    const Metric metric = static_cast<Metric>(what);
    const uint32_t seed = blockIdx.x, lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
    const bool extreme = metric == Metric::Min || metric == Metric::Max;
    const float sign = metric == Metric::Min ? -1.0f : 1.0f;
    const float mean = metric == Metric::M2 ? out[seeds + seed] : 0.0f;
    float value = extreme ? -kInfinity : 0.0f, n = 0.0f;
    for (uint32_t row = threadIdx.x; row < rows; row += kReduceThreads) {
        const float* at = raw + (uint64_t(row) * seeds + seed) * kRaw;
        if (extreme) {
            value = fmaxf(value, sign * at[slot]);
        } else if (metric == Metric::Sum) {
            value += at[slot];
        } else if (metric == Metric::Mean) {
            value += at[0] * at[1];
            n += at[0];
        } else {
            value += at[2] + at[0] * (at[1] - mean) * (at[1] - mean);
        }
    }
    value = extreme ? warp_max(value) : warp_sum(value);
    n = warp_sum(n);
    if (lane == 0) parts[0][warp] = value, parts[1][warp] = n;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (uint32_t i = 1; i < kReduceThreads / kLanes; ++i) {
        value = extreme ? fmaxf(value, parts[0][i]) : value + parts[0][i];
        n += parts[1][i];
    }
    if (metric == Metric::Mean) value /= fmaxf(n, 1.0f);
    out[uint64_t(slot) * seeds + seed] = extreme ? sign * value : value;
}

// Adds every element to out[0], or what each warp's 32 come to.
extern "C" __global__ void kasmina_claims_sum_elements(const float* x, uint64_t count, float* out)
{
    const uint64_t step = uint64_t(gridDim.x) * blockDim.x;
    for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) atomicAdd(out, x[i]);
}

extern "C" __global__ void kasmina_claims_sum_warps(const float* x, uint64_t count, float* out)
{
    const uint64_t step = uint64_t(gridDim.x) * blockDim.x;
    const uint32_t lane = threadIdx.x % kLanes;
    for (uint64_t base = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x - lane; base < count; base += step) {
        const float sum = warp_sum(base + lane < count ? x[base + lane] : 0.0f);
        if (lane == 0) atomicAdd(out, sum);
    }
}

// Sums of `segment` neighbouring elements, one thread for each.
extern "C" __global__ void kasmina_claims_sum_segments(const float* x, uint64_t count, uint64_t segment, double* out)
{
    const uint64_t number = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const uint64_t begin = number * segment, end = min(begin + segment, count);
    if (begin >= count) return;
    float sum = 0.0f;
    for (uint64_t i = begin; i < end; ++i) sum += x[i];
    out[number] = sum;
}

// Statistics of chunks, out[6][seeds]: n, Σx, Σx², the greatest −x and x as `ordered`, dead. A warp for each row and seed adds its own by
// atomics; `out` begins at zero.
extern "C" __global__ void kasmina_claims_chunks_atomic(const __grid_constant__ ClaimsParams p)
{
    const Program program(p);
    if (!program.real) return;
    const float* from = static_cast<const float*>(p.x) + program.at;
    float n = 0.0f, sum = 0.0f, squares = 0.0f, dead = 0.0f, low = kInfinity, high = -kInfinity;
    for (uint32_t column = program.lane; column < program.columns; column += kLanes) {
        const float x = from[column];
        if (!is_finite(x)) continue;
        n += 1.0f;
        sum += x;
        squares += x * x;
        dead += fabsf(x) <= kDead ? 1.0f : 0.0f;
        low = fminf(low, x);
        high = fmaxf(high, x);
    }
    n = warp_sum(n), sum = warp_sum(sum), squares = warp_sum(squares), dead = warp_sum(dead);
    low = -warp_max(-low), high = warp_max(high);
    if (program.lane != 0 || n == 0.0f) return;
    float* out = p.raw + program.seed;
    atomicAdd(out, n);
    atomicAdd(out + p.seeds, sum);
    atomicAdd(out + 2 * p.seeds, squares);
    atomicMax(reinterpret_cast<uint32_t*>(out) + 3 * p.seeds, ordered(-low));
    atomicMax(reinterpret_cast<uint32_t*>(out) + 4 * p.seeds, ordered(high));
    atomicAdd(out + 5 * p.seeds, dead);
}

// The same by one thread a seed, which needs no atomics.
extern "C" __global__ void kasmina_claims_chunks_thread(const __grid_constant__ ClaimsParams p)
{
    const uint32_t seed = blockIdx.x * blockDim.x + threadIdx.x;
    if (seed >= p.seeds) return;
    const uint32_t first = seed * p.chunk, columns = min(p.chunk, p.hidden - first);
    // f32 would lose digits over so many; there are so few threads that f64 costs nothing.
    double sum = 0.0, squares = 0.0;
    float n = 0.0f, dead = 0.0f, low = kInfinity, high = -kInfinity;
    for (uint32_t row = 0; row < p.rows; ++row) {
        const float* from = static_cast<const float*>(p.x) + uint64_t(row) * p.hidden + first;
#pragma unroll 8
        for (uint32_t column = 0; column < columns; ++column) {
            const float x = from[column];
            if (!is_finite(x)) continue;
            n += 1.0f;
            sum += x;
            squares += double(x) * x;
            dead += fabsf(x) <= kDead ? 1.0f : 0.0f;
            low = fminf(low, x);
            high = fmaxf(high, x);
        }
    }
    float* out = p.raw + seed;
    out[0] = n, out[p.seeds] = float(sum), out[2 * p.seeds] = float(squares), out[5 * p.seeds] = dead;
    reinterpret_cast<uint32_t*>(out)[3 * p.seeds] = ordered(-low);
    reinterpret_cast<uint32_t*>(out)[4 * p.seeds] = ordered(high);
}
