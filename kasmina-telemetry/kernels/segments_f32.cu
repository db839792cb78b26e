// Segmented reductions of f32.
#include "segments.cuh"

KASMINA_SEGMENTS_TYPE(float, f32)
