// Segmented reductions of u32.
#include "segments.cuh"

KASMINA_OTHER_SEGMENTS_TYPE(uint32_t, u32, SumLane)
