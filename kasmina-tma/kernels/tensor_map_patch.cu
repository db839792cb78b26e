// Tables of tensor maps in global memory, changed in stream order. What is launched later and acquires a map
// (kasmina::tma::fence_map_acquire) uses it as changed. `device/table.rs` launches these.
//
// Changing a map needs architecture-specific code (KASMINA_TMA_HAS_REPLACE). Where it is lacking, the two kernels that do it
// are not there either, so that looking one up tells the host; whole maps can be written wherever there is a TMA.

#include "map_patch.cuh"

namespace tma = kasmina::tma;

// As in device/table.rs. Parameters are taken over at the launch, so nothing on the host has to outlive it, and a captured
// launch keeps them.
constexpr uint32_t kBatch = 16;

struct PatchBatch {
    tma::Patch patches[kBatch];
};

// Words and no TensorMap: these are data to this kernel, at the alignment of data.
struct MapBatch {
    uint64_t words[kBatch][16];
    uint32_t slots[kBatch];
};

#if KASMINA_TMA_AVAILABLE

// One block of 32 threads a map.
extern "C" __global__ void __launch_bounds__(32)
    kasmina_tma_write_maps(tma::TensorMap* __restrict__ table, const __grid_constant__ MapBatch batch)
{
    if (threadIdx.x < 16) {
        table[batch.slots[blockIdx.x]].opaque[threadIdx.x] = batch.words[blockIdx.x][threadIdx.x];
        tma::fence_map_release();
    }
}

#if KASMINA_TMA_HAS_REPLACE

// One block of 32 threads a patch.
extern "C" __global__ void __launch_bounds__(32)
    kasmina_tma_patch_maps(tma::TensorMap* __restrict__ table, const __grid_constant__ PatchBatch batch)
{
    __shared__ tma::TensorMap scratch;
    const tma::Patch& patch = batch.patches[blockIdx.x];
    tma::patch_map(table + patch.slot, scratch, patch);
}

// The same for patches in global memory, as another kernel or copy left them: what a graph replays with new values. Slots past
// the table's end, which the host cannot check, are left out.
extern "C" __global__ void __launch_bounds__(32)
    kasmina_tma_patch_maps_from(tma::TensorMap* __restrict__ table, uint32_t maps, const tma::Patch* __restrict__ patches)
{
    __shared__ tma::TensorMap scratch;
    const tma::Patch& patch = patches[blockIdx.x];
    if (patch.slot < maps) {
        tma::patch_map(table + patch.slot, scratch, patch);
    }
}

#endif
#endif
