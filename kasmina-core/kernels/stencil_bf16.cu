// Filters on bf16.

#include "stencil_kernels.cuh"

KASMINA_STENCILS(bf16, kasmina::bf16)
