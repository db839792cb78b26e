// Filters on f32.

#include "stencil_kernels.cuh"

KASMINA_STENCILS(f32, float)
