// The self-check: shows that code of this fatbin loads, launches, reads and writes on a device, and which of its
// architectures the driver chose. `kasmina_sys::self_check` launches it and computes the same on the host.

#include <cstdint>

// Odd, so that multiplying by it loses nothing: 2^32 divided by the golden ratio.
constexpr uint32_t kMix = 0x9E3779B1u;

// out[0] = the architecture that the code was compiled for, 900 for 9.0
// out[1] = sum over i of h ^ h >> 15 with h = (words[i] ^ i) * kMix, modulo 2^32; it must be zero before the launch
// Integer addition has no order, so any grid gives the same sum.
extern "C" __global__ void kasmina_probe(const uint32_t* __restrict__ words, uint32_t count, uint32_t* __restrict__ out)
{
    uint32_t sum = 0;
    for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += uint64_t(gridDim.x) * blockDim.x) {
        const auto index = static_cast<uint32_t>(i);
        const uint32_t h = (words[index] ^ index) * kMix;
        sum += h ^ (h >> 15);
    }
    atomicAdd(out + 1, sum);
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        out[0] = __CUDA_ARCH__;
    }
}
