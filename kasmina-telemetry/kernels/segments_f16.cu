// Segmented reductions of f16.
#include "segments.cuh"

KASMINA_SEGMENTS_TYPE(kasmina::reduce::f16, f16)
