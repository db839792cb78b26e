// Filters on f16.

#include "stencil_kernels.cuh"

KASMINA_STENCILS(f16, kasmina::f16)
