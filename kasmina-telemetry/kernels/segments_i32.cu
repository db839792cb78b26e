// Segmented reductions of i32.
#include "segments.cuh"

KASMINA_OTHER_SEGMENTS_TYPE(int32_t, i32, SumLane)
