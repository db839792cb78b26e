// Flat reductions of the 16- and 32-bit floats.
#include "flat_kernels.cuh"

KASMINA_FLAT_TYPE(float, f32, 4)
KASMINA_FLAT_TYPE(kasmina::reduce::f16, f16, 3)
KASMINA_FLAT_TYPE(kasmina::reduce::bf16, bf16, 4)
