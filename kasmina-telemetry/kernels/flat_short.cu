// Flat reductions of the 16- and 32-bit floats.
#include "flat_kernels.cuh"

KASMINA_FLAT_TYPE(float, f32)
KASMINA_FLAT_TYPE(kasmina::reduce::f16, f16)
KASMINA_FLAT_TYPE(kasmina::reduce::bf16, bf16)
