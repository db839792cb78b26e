// Kernels that do nothing, so that what is measured is the way to them.

#include <cstdint>

extern "C" __global__ void kasmina_bench_nothing() {}

// Eight parameters, as many as a streaming kernel takes.
extern "C" __global__ void kasmina_bench_eight(float* a, float* b, float* c, float* d, uint32_t e, uint32_t f, uint64_t g,
                                               float h)
{
    // Never true; so that the parameters are read.
    if (e == 0xffffffffu && f == 0xffffffffu) a[0] = b[0] + c[0] + d[0] + h + static_cast<float>(g);
}

// Lets the next launch begin at once, and waits for the one before it, in both directions as early as it can.
extern "C" __global__ void kasmina_bench_dependent()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
