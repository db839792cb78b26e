// A change of a tensor map as data, and its application on the device. `device/patch.rs` has the same struct.
#pragma once

#include <cstddef>

#include "kasmina_tma.cuh"

namespace kasmina::tma {

// Which fields of a Patch count.
enum PatchField : uint32_t {
    kPatchAddress = 1u << 0,
    kPatchSizes = 1u << 1,
    kPatchStrides = 1u << 2,
    kPatchBox = 1u << 3,
    kPatchElementStrides = 1u << 4,
    kPatchRank = 1u << 5,
    kPatchDataType = 1u << 6,
    kPatchInterleave = 1u << 7,
    kPatchSwizzle = 1u << 8,
    kPatchFill = 1u << 9,
};

// Arrays count in all entries: past the rank they are 1, strides 0, which is what the driver encodes there.
struct Patch {
    uint64_t address;
    uint64_t strides[4];
    uint32_t sizes[5];
    uint32_t box_sides[5];
    uint32_t element_strides[5];
    uint32_t slot;   // which map of the table
    uint32_t fields; // PatchField bits
    uint32_t rank;
    uint32_t data_type; // ElementCode
    uint32_t interleave;
    uint32_t swizzle;
    uint32_t fill;
};
static_assert(sizeof(Patch) == 128 && offsetof(Patch, sizes) == 40 && offsetof(Patch, slot) == 100, "as in device/patch.rs");

#if defined(__CUDACC__) && KASMINA_TMA_AVAILABLE && KASMINA_TMA_HAS_REPLACE

// The codes are immediates of the instruction: one case each.
template <Space S>
__device__ __forceinline__ void apply_data_type(void* map, uint32_t code)
{
#define KASMINA_TMA_CASE(name)                                                                                     \
    case static_cast<uint32_t>(ElementCode::name): replace_data_type<S, ElementCode::name>(map); break
    switch (code) {
        KASMINA_TMA_CASE(U8);
        KASMINA_TMA_CASE(U16);
        KASMINA_TMA_CASE(U32);
        KASMINA_TMA_CASE(I32);
        KASMINA_TMA_CASE(U64);
        KASMINA_TMA_CASE(I64);
        KASMINA_TMA_CASE(F16);
        KASMINA_TMA_CASE(F32);
        KASMINA_TMA_CASE(F32Ftz);
        KASMINA_TMA_CASE(F64);
        KASMINA_TMA_CASE(Bf16);
        KASMINA_TMA_CASE(Tf32);
        KASMINA_TMA_CASE(Tf32Ftz);
        default: break; // the host writes such maps whole
    }
#undef KASMINA_TMA_CASE
}

template <Space S>
__device__ __forceinline__ void apply_modes(void* map, const Patch& patch)
{
    if (patch.fields & kPatchInterleave) {
        switch (patch.interleave) {
            case 0: replace_interleave<S, 0>(map); break;
            case 1: replace_interleave<S, 1>(map); break;
            default: replace_interleave<S, 2>(map); break;
        }
    }
    if (patch.fields & kPatchSwizzle) {
        switch (patch.swizzle) {
            case 0: replace_swizzle<S, 0>(map); break;
            case 1: replace_swizzle<S, 1>(map); break;
            case 2: replace_swizzle<S, 2>(map); break;
            default: replace_swizzle<S, 3>(map); break;
        }
    }
    if (patch.fields & kPatchFill) {
        if (patch.fill == 0) {
            replace_fill<S, 0>(map);
        } else {
            replace_fill<S, 1>(map);
        }
    }
}

// One thread. Fences are the caller's.
template <Space S>
__device__ __forceinline__ void apply(void* map, const Patch& patch)
{
    if (patch.fields & kPatchAddress) {
        replace_address<S>(map, patch.address);
    }
    if (patch.fields & kPatchRank) {
        replace_rank<S>(map, patch.rank);
    }
    if (patch.fields & kPatchSizes) {
        replace_size<S, 0>(map, patch.sizes[0]);
        replace_size<S, 1>(map, patch.sizes[1]);
        replace_size<S, 2>(map, patch.sizes[2]);
        replace_size<S, 3>(map, patch.sizes[3]);
        replace_size<S, 4>(map, patch.sizes[4]);
    }
    if (patch.fields & kPatchStrides) {
        replace_stride<S, 0>(map, patch.strides[0]);
        replace_stride<S, 1>(map, patch.strides[1]);
        replace_stride<S, 2>(map, patch.strides[2]);
        replace_stride<S, 3>(map, patch.strides[3]);
    }
    if (patch.fields & kPatchBox) {
        replace_box<S, 0>(map, patch.box_sides[0]);
        replace_box<S, 1>(map, patch.box_sides[1]);
        replace_box<S, 2>(map, patch.box_sides[2]);
        replace_box<S, 3>(map, patch.box_sides[3]);
        replace_box<S, 4>(map, patch.box_sides[4]);
    }
    if (patch.fields & kPatchElementStrides) {
        replace_element_stride<S, 0>(map, patch.element_strides[0]);
        replace_element_stride<S, 1>(map, patch.element_strides[1]);
        replace_element_stride<S, 2>(map, patch.element_strides[2]);
        replace_element_stride<S, 3>(map, patch.element_strides[3]);
        replace_element_stride<S, 4>(map, patch.element_strides[4]);
    }
    if (patch.fields & kPatchDataType) {
        apply_data_type<S>(map, patch.data_type);
    }
    apply_modes<S>(map, patch);
}

// Changes a map in global memory by one warp, converged: through a copy in shared memory, so that the engine never meets a map
// that is half changed, and released to the whole device. Whoever uses the map acquires it first (fence_map_acquire): a later
// launch at once; this launch after a barrier or flag that says that it is done.
__device__ __forceinline__ void patch_map(TensorMap* map, TensorMap& scratch, const Patch& patch)
{
    const uint32_t lane = threadIdx.x % 32;
    if (lane < 16) {
        scratch.opaque[lane] = map->opaque[lane];
    }
    __syncwarp();
    if (lane == 0) {
        apply<Space::Shared>(&scratch, patch);
    }
    __syncwarp();
    copy_map_release(map, &scratch);
}

#endif

} // namespace kasmina::tma
