// Flat reductions of f64 and of integers.
#include "flat_kernels.cuh"

KASMINA_FLAT_TYPE(double, f64, 4)
KASMINA_FLAT_TYPE(int32_t, i32, 4)
KASMINA_FLAT_TYPE(uint32_t, u32, 4)
KASMINA_FLAT_TYPE(int64_t, i64, 4)
